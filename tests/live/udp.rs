//! UDP: every send and receive of every system call and family, with exact bytes and the right process on both ends,
//! and exactly the stated gaps.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;

use ktrace_bundle::event::Event;
use ktrace_bundle::why::Reason;
use ktrace_traffic::Dir;

use crate::capture::Capture;
use crate::dns::{Dnsmasq, NAMES, ask};
use crate::net::{Lab, SERVER4, SERVER6};
use crate::program::Program;
use crate::strace::Traced;
use crate::truth::{assert_same_operations, datagrams, owner, udp_events, with_peers};
use crate::workdir::Workdir;
use crate::{Test, tests};

pub fn tests() -> Vec<Test> {
    tests![
        every_v4_datagram_is_there_with_its_bytes_and_process_on_both_ends,
        every_v6_datagram_is_there_with_its_bytes_and_process_on_both_ends,
        an_unconnected_recv_says_that_it_has_no_remote,
        a_v4_mapped_remote_is_shown_as_v4,
        a_failed_send_carries_its_errno,
        a_peek_or_an_empty_read_is_no_event,
        io_uring_datagrams_are_there_on_both_ends,
        an_owner_is_described_in_full,
    ]
}

fn every_v4_datagram_is_there_with_its_bytes_and_process_on_both_ends() {
    both_ends(SERVER4);
}

fn every_v6_datagram_is_there_with_its_bytes_and_process_on_both_ends() {
    both_ends(SERVER6);
}

fn both_ends(server: IpAddr) {
    let (lab, dir) = (Lab::new(), Workdir::new());
    let dnsmasq = Dnsmasq::traced(&lab.server, &dir);
    let capture = Capture::start();
    let mut told = ["sendto", "sendmsg", "connected", "write"].map(|m| ask(&lab.client, m, server, NAMES)).concat();
    told.extend(datagrams(Program::run(lab.client.traffic(&format!("udp-batch --to {}", socket(server)))).truths()));
    let dig = Traced::new(&lab.client, dir.join("dig.strace"), "dig");
    let dug = dig.args([&format!("@{server}"), "+tries=1", "ok.test", "AAAA"]).run();
    assert_eq!(dug.len(), 2, "dig sends once and receives once: {dug:?}");
    told.extend(dug);
    let answers = told.iter().filter(|d| d.dir == Dir::Recv).count();
    let served = dnsmasq.told(answers);
    let bundle = capture.stop();

    assert_same_operations(&bundle.events, lab.client.inode(), &told);
    assert_same_operations(&bundle.events, lab.server.inode(), &served);
    let comms = [("python3", 4), ("traffic", 1), ("dig", 1)];
    assert_eq!(processes(&bundle.events, lab.client.inode()), comms.map(|(c, n)| (c.to_owned(), n)).into());
    assert_eq!(processes(&bundle.events, lab.server.inode()), [("dnsmasq".to_owned(), 1)].into());
    let parents = udp_events(&bundle.events, lab.server.inode()).into_iter().map(|e| owner(e).ppid);
    assert!(parents.into_iter().all(|ppid| ppid == Some(dnsmasq.parent())));
}

fn socket(server: IpAddr) -> std::net::SocketAddr {
    (server, crate::dns::PORT).into()
}

/// Number of processes by name; versioned interpreters by their plain name.
fn processes(events: &[Event], netns: u32) -> BTreeMap<String, usize> {
    let mut by_pid = BTreeMap::new();
    for owner in udp_events(events, netns).into_iter().map(owner) {
        let comm = if owner.comm.starts_with("python3") { "python3" } else { &owner.comm };
        assert_eq!(by_pid.insert(owner.pid, comm).unwrap_or(comm), comm);
    }
    let mut counts = BTreeMap::new();
    for comm in by_pid.into_values() {
        *counts.entry(comm.to_owned()).or_default() += 1;
    }
    counts
}

fn an_unconnected_recv_says_that_it_has_no_remote() {
    let lab = Lab::new();
    let _dnsmasq = Dnsmasq::start(&lab.server);
    let capture = Capture::start();
    let told: Vec<_> =
        [SERVER4, SERVER6].iter().flat_map(|s| ask(&lab.client, "unconnected-recv", *s, NAMES)).collect();
    let bundle = capture.stop();

    // the truth has no remote for these receives either: `recv(2)` does not tell
    let known = bundle.knows_udp_peers();
    let told = if known { with_peers(told) } else { told };
    assert_same_operations(&bundle.events, lab.client.inode(), &told);
    for event in udp_events(&bundle.events, lab.client.inode()) {
        let gap = event.id.remote.addr.is_none();
        assert_eq!(gap, !known && event.payload.kind().as_str() == "udp_recv");
        assert_eq!(event.id.why.get("raddr"), gap.then_some(&Reason::HookMissing), "{event:?}");
        assert_eq!(event.id.why.get("laddr"), Some(&Reason::WildcardBind), "{event:?}");
    }
}

fn a_v4_mapped_remote_is_shown_as_v4() {
    let lab = Lab::new();
    let server = lab.server.start(&format!("udp-echo --listen [::]:{ECHO}"));
    server.ready();
    let capture = Capture::start();
    let client = lab.client.traffic(&format!("udp-paced --to {SERVER4}:{ECHO} --count 3"));
    let sent = datagrams(Program::run(client).truths());
    server.truths(2 * sent.len());
    let bundle = capture.stop();

    let at_the_server = udp_events(&bundle.events, lab.server.inode());
    assert_eq!(at_the_server.len(), 2 * sent.len(), "each is received and sent back");
    let remote = format!("10.77.1.2:{}", sent[0].local.port());
    assert!(at_the_server.iter().all(|e| e.id.remote.to_string() == remote), "{at_the_server:?}");
}

const ECHO: u16 = 7007;

fn a_failed_send_carries_its_errno() {
    let lab = Lab::new();
    let capture = Capture::start();
    let told: Vec<_> = [SERVER4, SERVER6].iter().flat_map(|s| ask(&lab.client, "failing", *s, &[])).collect();
    let bundle = capture.stop();

    let failed = told.iter().filter(|d| d.errno.is_some()).count();
    assert_eq!((told.len(), failed), (6, 4), "of three sends on each socket two fail: {told:?}");
    assert_same_operations(&bundle.events, lab.client.inode(), &told);
}

fn a_peek_or_an_empty_read_is_no_event() {
    let lab = Lab::new();
    let _dnsmasq = Dnsmasq::start(&lab.server);
    let capture = Capture::start();
    let told: Vec<_> = [SERVER4, SERVER6].iter().flat_map(|s| ask(&lab.client, "peek", *s, NAMES)).collect();
    let bundle = capture.stop();
    assert_eq!(told.len(), 4, "one send and one receive on each socket: {told:?}");
    assert_same_operations(&bundle.events, lab.client.inode(), &told);
}

fn io_uring_datagrams_are_there_on_both_ends() {
    let lab = Lab::new();
    let server = lab.server.start(&format!("udp-echo --listen {SERVER4}:0"));
    let to = server.ready().local;
    let capture = Capture::start();
    let client = datagrams(Program::run(lab.client.traffic(&format!("udp-uring --to {to} --count 5"))).truths());
    let served = datagrams(server.truths(10));
    let bundle = capture.stop();
    assert_eq!(client.len(), 10);
    assert_same_operations(&bundle.events, lab.server.inode(), &served);
    // an io_uring receive may run on a worker thread of the same process: the thread is not compared
    let mut events = bundle.events;
    for event in &mut events {
        if let ktrace_bundle::attribution::Attribution::Resolved(owner) = &mut event.id.owner {
            owner.tid = Some(owner.pid);
        }
    }
    assert_same_operations(&events, lab.client.inode(), &client);
}

fn an_owner_is_described_in_full() {
    let lab = Lab::new();
    let mut command = lab.server.command("setpriv");
    command.args(["--reuid", "1234", "--regid", "2345", "--clear-groups", "--inh-caps", "-all"]);
    // the binary may stand where only root can look: this process reads it for the other user
    let dir = crate::limits::public_copy(&crate::requirements::built("traffic"));
    command.arg(dir.path().join("traffic")).args(["udp-echo", "--listen", &format!("{SERVER4}:0")]);
    let server = Program::start(command);
    let to = server.ready().local;
    let capture = Capture::start();
    assert!(Program::run(lab.client.traffic(&format!("udp-paced --to {to} --count 1"))).status.success());
    server.truths(2);
    let start_ticks = start_ticks(server.pid());
    let bundle = capture.stop();

    let events = udp_events(&bundle.events, lab.server.inode());
    assert_eq!(events.len(), 2);
    for owner in events.into_iter().map(owner) {
        assert_eq!((owner.pid, owner.tid), (server.pid(), Some(server.pid())));
        assert_eq!((owner.ppid, owner.uid, owner.gid), (Some(std::process::id()), Some(1234), Some(2345)));
        assert_eq!((owner.comm.as_str(), &owner.thread), ("traffic", &None));
        assert_eq!(owner.proc_start_ns.map(|ns| ns / 10_000_000), Some(start_ticks));
        let own = ["mnt", "pid", "user"].map(|ns| Some(inode(&format!("/proc/self/ns/{ns}"))));
        assert_eq!([owner.mnt_ns, owner.pid_ns, owner.user_ns], own);
        let sec = owner.sec.unwrap();
        assert_eq!((sec.seccomp_mode, sec.caps_eff), (0, 0));
    }
}

fn inode(path: &str) -> u32 {
    std::fs::metadata(path).unwrap().ino().try_into().unwrap()
}

/// Field 22 of `/proc/PID/stat`: start of the process in hundredths of a second since boot.
fn start_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, after_comm) = stat.rsplit_once(')').unwrap();
    after_comm.split_whitespace().nth(19).unwrap().parse().unwrap()
}
