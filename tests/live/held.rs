//! Whose a connection is shows after its first events. Those of connections that stay open are settled in user space,
//! by who accepted them; what comes when they are closed at last, by the kernel: both must give the same answer, so
//! that every connection is there from its first state to its last, or not at all.

use std::collections::{BTreeMap, BTreeSet};

use crate::capture::Capture;
use crate::filters::{Cgroups, stop};
use crate::net::Lab;
use crate::program::Program;
use crate::truth::lives;
use crate::wait::{boot_ns, until_boot_ns};
use crate::workdir::Workdir;
use crate::{Test, tests};

pub fn tests() -> Vec<Test> {
    tests![a_connection_is_kept_whole_or_not_at_all_whoever_settles_it]
}

/// Longer than an event is held, twice.
const HELD_NS: u64 = 1_200_000_000;

/// Two workers, of which the second has another name and another cgroup, accept three connections each, tell which,
/// and close them when the file is there. Each line is one write, so that none falls into the other worker's.
const SERVER: &str = "import os, socket, sys, time\n\
    listener = socket.create_server(('127.0.0.1', 8080), backlog=16)\n\
    def work(name, cgroup):\n\
    \x20   open('/proc/self/comm', 'w').write(name)\n\
    \x20   if cgroup: open(cgroup + '/cgroup.procs', 'w').write(str(os.getpid()))\n\
    \x20   os.write(1, b'worker %d\\n' % os.getpid())\n\
    \x20   while not os.path.exists(sys.argv[1]): time.sleep(0.01)\n\
    \x20   mine = [listener.accept() for _ in range(3)]\n\
    \x20   for _, peer in mine: os.write(1, b'%d %d\\n' % (os.getpid(), peer[1]))\n\
    \x20   while not os.path.exists(sys.argv[2]): time.sleep(0.01)\n\
    \x20   for conn, _ in mine: conn.recv(1); conn.close()\n\
    pids = []\n\
    for name, cgroup in (('kt-one', ''), ('kt-two', sys.argv[3])):\n\
    \x20   pid = os.fork()\n\
    \x20   if not pid: work(name, cgroup); os._exit(0)\n\
    \x20   pids.append(pid)\n\
    for pid in pids: os.waitpid(pid, 0)";

const CLIENT: &str = "import os, socket, sys, time\n\
    conns = [socket.create_connection(('127.0.0.1', 8080)) for _ in range(6)]\n\
    print('open', flush=True)\n\
    while not os.path.exists(sys.argv[1]): time.sleep(0.01)\n\
    for conn in conns: conn.close()";

fn a_connection_is_kept_whole_or_not_at_all_whoever_settles_it() {
    let (lab, dir, cgroups) = (Lab::new(), Workdir::new(), Cgroups::new());
    let (accept, end) = (dir.join("accept"), dir.join("end"));
    let python = |script: &str| {
        let mut command = lab.server.command("python3");
        command.args(["-c", script]);
        command
    };
    let mut server = python(SERVER);
    server.arg(&accept).arg(&end).arg(&cgroups.0);
    let server = Program::start(server);
    let workers: Vec<u32> = server.wait_for_lines(2).iter().map(|l| l["worker ".len()..].parse().unwrap()).collect();
    let one = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap() == "kt-one\n";
    let first = *workers.iter().find(|pid| one(**pid)).unwrap();
    let cgroup = cgroups.0.display();
    let filters = [
        (format!("--pid={first}"), true),
        (format!("--pid=!{first}"), false),
        ("--comm=kt-one".to_owned(), true),
        ("--comm=!kt-one,!python3".to_owned(), false),
        (format!("--cgroup={cgroup}"), false),
        (format!("--cgroup=!{cgroup}"), true),
    ];
    let captures = filters.map(|(flag, keeps_first)| {
        let capture = Capture::with(&["--duration", "120s", "--ring-bytes", "256KiB", "--ports", "8080", &flag]);
        (flag, keeps_first, capture)
    });
    let mut client = python(CLIENT);
    let client = Program::start({
        client.arg(&end);
        client
    });
    client.wait_for_lines(1);
    std::fs::write(&accept, "").unwrap();
    let accepted = server.wait_for_lines(8).split_off(2);
    until_boot_ns(boot_ns() + HELD_NS);
    std::fs::write(&end, "").unwrap();
    assert!(client.wait().status.success() && server.wait().status.success());
    lab.server.wait_until_quiet();

    let accepted: BTreeMap<u16, u32> = accepted
        .iter()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(pid, port)| (port.parse().unwrap(), pid.parse().unwrap()))
        .collect();
    assert_eq!(accepted.len(), 6);
    for (flag, keeps_first, capture) in captures {
        let bundle = stop(capture);
        let lives = lives(&bundle.events, lab.server.inode());
        let of_server = lives.values().filter(|life| life.ends.0.is_some_and(|end| end.port() == 8080));
        let recorded: BTreeMap<u16, String> =
            of_server.map(|life| (life.ends.1.unwrap().port(), format!("{:?}", life.states))).collect();
        let expected: BTreeSet<u16> =
            accepted.iter().filter(|(_, pid)| (**pid == first) == keeps_first).map(|(port, _)| *port).collect();
        assert_eq!(recorded.keys().copied().collect::<BTreeSet<_>>(), expected, "{flag}");
        for states in recorded.values() {
            assert_eq!(states, "[Listen, SynRecv, Established, CloseWait, LastAck, Close]", "{flag}");
        }
    }
}
