//! Every variant of a hook yields the same lines for the same traffic: one deterministic workload, captured once with
//! each variant forced, and compared line by line with what its programs did. What the capture says that it does not
//! see, and only that, is taken from the expectation first, as `src/hooks/limits.rs` tells; a limit that takes nothing
//! fails, too. A variant that this kernel does not offer is reported as ignored, with the reason.

mod expected;
mod line;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;

use ktrace_bundle::event::{Event, Payload};
use ktrace_bundle::line::{write_event, write_socket};
use ktrace_bundle::tcp::TcpState;

use crate::Test;
use crate::capture::{Bundle, Capture, forcing};
use crate::hook_limits::{ALL, Limit};
use crate::net::{Lab, SERVER4, SERVER6};
use crate::observer::{Observed, Observer, Transition};
use crate::program::Program;
use crate::truth::is_of_a_program;
use crate::variants::{self, obstacle};
use crate::wait::{DEADLINE, until};
use crate::workdir::Workdir;
use expected::{Expected, server};
use line::{Line, Names, apply, difference};

const CLIENT: &str = include_str!("equivalence/client.py");

/// One SYN, one request and one answer are lost; on 8008 the first SYN arrives and its answer does not, and the second one is
/// reset on the way; 9004 is silent.
const LOSSES: [&str; 6] = [
    "tcp dport 8005 tcp flags & (syn | ack) == syn numgen inc mod 1000 == 0 counter drop",
    "tcp dport 8006 meta length > 140 numgen inc mod 1000 == 0 counter drop",
    "tcp sport 8007 meta length > 140 numgen inc mod 1000 == 0 counter drop",
    "tcp dport 8008 tcp flags & (syn | ack) == syn numgen inc mod 1000 > 0 counter reject with tcp reset",
    "tcp sport 8008 counter drop",
    "tcp dport 9004 counter drop",
];

/// Ports that a step of the workload has for itself.
const FIXED_PORTS: RangeInclusive<u16> = 8001..=9004;

/// In how many of them the machine may stand in the way.
const MOST_LEFT_OUT: usize = 3;

/// One for each variant of each hook.
pub fn tests() -> Vec<Test> {
    let test = |(hook, variant): (&str, &str)| {
        let forced: &'static [&'static str] = Box::leak(Box::new([&*format!("{hook}={variant}").leak()]));
        let name = format!("equivalence::{hook}_by_{variant}_yields_what_the_programs_did");
        Test::new(name, move || forcing(forced, yields_what_the_programs_did)).unless(move || obstacle(forced))
    };
    variants::all().map(test).collect()
}

/// The workload's programs. Each server has one connection to serve, so that it waits for it.
struct Scene {
    lab: Lab,
    dir: Workdir,
    servers: Vec<(String, Program)>,
    client: Program,
}

impl Scene {
    fn new() -> Self {
        let (lab, dir) = (Lab::new(), Workdir::new());
        LOSSES.iter().for_each(|rule| lab.fault(rule));
        // no probe before the timeout, so that what is sent again is data
        lab.client_sysctl("net.ipv4.tcp_early_retrans", "0");
        lab.server.run("sysctl -qw net.ipv4.tcp_synack_retries=1");
        // a slow machine sends nothing again that was not lost
        for (netns, number) in [(&lab.client, 1), (&lab.server, 2)] {
            netns.run(&format!("ip -4 route replace default via 10.77.{number}.1 rto_min 1s"));
            netns.run(&format!("ip -6 route replace default via fd77:{number}::1 rto_min 1s"));
        }
        let mut servers = Vec::new();
        let mut start = |proto: &'static str, addr: IpAddr, port: u16, command: &str| {
            let program =
                lab.server.start(&command.replace("ADDR", &std::net::SocketAddr::new(addr, port).to_string()));
            program.ready();
            servers.push((server(proto, addr, port), program));
        };
        for addr in [SERVER4, SERVER6] {
            for (port, then) in [(8001, "echo"), (8002, "close"), (8003, "echo"), (8004, "echo")] {
                start("tcp", addr, port, &format!("tcp-server --listen ADDR --model single --then {then}"));
            }
            start("udp", addr, 7001, "udp-echo --listen ADDR");
            start("udp", addr, 53, "udp-echo --listen ADDR");
        }
        for port in [8005, 8006, 8007, 8008, 8009, 8011] {
            start("tcp", SERVER4, port, "tcp-server --listen ADDR --model single --then echo");
        }
        start("udp", IpAddr::V6(Ipv6Addr::UNSPECIFIED), 7002, "udp-echo --listen ADDR");
        let mut command = lab.client.command("python3");
        command.args(["-I", "-S", "-c", CLIENT, &SERVER4.to_string(), &SERVER6.to_string()]).arg(dir.join(""));
        let client = Program::start(command);
        Self { lab, dir, servers, client }
    }

    /// Lets the client go on when it has said its next word.
    fn go(&self, said: usize, word: &str) {
        assert_eq!(self.client.wait_for_lines(said).last().unwrap(), word);
        std::fs::write(self.dir.join(word), "").unwrap();
    }

    /// What the kernel knows of each process, as keys of a line.
    fn owners(&self) -> BTreeMap<String, Line> {
        let servers = self.servers.iter().map(|(name, program)| (name.clone(), owner(name, program.pid())));
        servers.chain([("client".to_owned(), owner("client", self.client.pid()))]).collect()
    }

    fn names(&self) -> Names {
        let mut names = Names::default();
        names.pids.insert(std::process::id().into(), "test".into());
        names.pids.insert(self.client.pid().into(), "client".into());
        names.pids.extend(self.servers.iter().map(|(name, program)| (program.pid().into(), name.clone())));
        names.netns.insert(self.lab.client.inode().into(), "client");
        names.netns.insert(self.lab.server.inode().into(), "server");
        names
    }
}

fn owner(name: &str, pid: u32) -> Line {
    let proc = format!("/proc/{pid}");
    let status = std::fs::read_to_string(format!("{proc}/status")).unwrap();
    let of = |key: &str| status.lines().find_map(|l| l.strip_prefix(key)).unwrap().split_whitespace().next().unwrap();
    let ns = |name: &str| std::fs::metadata(format!("{proc}/ns/{name}")).unwrap().ino().to_string();
    let caps = of("CapEff:");
    let keys = [
        ("comm", of("Name:").to_owned()),
        ("pid", name.to_owned()),
        ("tid", name.to_owned()),
        ("ppid", "test".to_owned()),
        ("uid", of("Uid:").to_owned()),
        ("gid", of("Gid:").to_owned()),
        ("proc_start_ns", "some".to_owned()),
        ("cgroup_id", "some".to_owned()),
        ("unit", unit(&std::fs::read_to_string(format!("{proc}/cgroup")).unwrap())),
        ("ns.mnt", ns("mnt")),
        ("ns.pid", ns("pid")),
        ("ns.user", ns("user")),
        ("sec.seccomp_mode", of("Seccomp:").to_owned()),
        ("sec.caps_eff", format!("0x{}_{}", &caps[..8], &caps[8..])),
    ];
    keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Of a process of the host, by its `/proc/PID/cgroup`: version 2 tells, unless it is the root there and version 1 is not.
fn unit(cgroups: &str) -> String {
    let path = |start: &str| cgroups.lines().find_map(|line| line.split_once(start)?.1.into());
    let (v2, memory): (Option<&str>, Option<&str>) = (path("0::"), path(":memory:"));
    let path = v2.filter(|path| *path != "/").or(memory).unwrap_or("/");
    path.split('/').find(|part| part.ends_with(".service") || part.ends_with(".scope")).unwrap_or(path).to_owned()
}

fn yields_what_the_programs_did() {
    let scene = Scene::new();
    assert_eq!(scene.client.wait_for_lines(1), ["old"]);
    let observer = Observer::of_ports(FIXED_PORTS);
    let capture = Capture::start();
    let expected = expected(&scene);
    scene.go(1, "old");
    assert_eq!(scene.client.wait_for_lines(2)[1], "all");
    until("the SYN-ACK that is sent again", DEADLINE, || {
        let counters = scene.lab.server.run("nstat -asz TcpExtTCPSynRetrans");
        let count = counters.lines().find_map(|line| line.strip_prefix("TcpExtTCPSynRetrans"))?;
        (count.split_whitespace().next() == Some("1")).then_some(())
    });
    scene.lab.client.wait_until_quiet();
    scene.lab.server.wait_until_quiet();
    let bundle = capture.stop_unaudited();
    assert!(scene.lab.faulted_packets() >= 6, "the losses did not happen");
    let observed = observer.finish();
    assert_just_what_was_on_top_of_process_1_is_missing(&bundle.events, &observed);
    let unseen = observed.ports_over_init();
    let stalled = sent_again_without_a_loss(&observed, &expected);
    if !(unseen.is_empty() && stalled.is_empty()) {
        eprintln!("left out: ports {unseen:?}, where no program sees what happens on top of process 1");
        eprintln!("left out: ports {stalled:?}, where the machine stood still until the kernel sent again");
    }
    let left_out: BTreeSet<u16> = unseen.union(&stalled).copied().collect();
    let steps = left_out.iter().filter(|port| FIXED_PORTS.contains(port)).count();
    assert!(steps <= MOST_LEFT_OUT, "{steps} steps cannot be checked on this machine");
    let checked = |line: &Line| ports(line).all(|port| !left_out.contains(&port));
    let mut recorded = recorded(&bundle, &scene.names());
    let mut expected = less_what_is_not_seen(&bundle, expected);
    recorded.retain(checked);
    expected.retain(checked);
    let difference = difference(&recorded, &expected);
    assert!(difference.is_empty(), "not what the programs did:\n{difference}");
    bundle.assert_audited_but(|entry| observed.counted_over_init(&entry.counter));
    scene.go(2, "all");
    assert!(scene.client.wait().status.success());
}

fn ports(line: &Line) -> impl Iterator<Item = u16> {
    ["lport", "rport"].into_iter().filter_map(|key| line.get(key)?.parse().ok())
}

/// Ports of the steps in which the witness saw more segments sent again than the workload loses: an emulated machine can
/// stand still for longer than a second. That each of these is recorded is for the audit to say.
fn sent_again_without_a_loss(observed: &Observed, expected: &[Line]) -> BTreeSet<u16> {
    let fixed = |port: &u16| FIXED_PORTS.contains(port);
    let mut more: BTreeMap<u16, i64> = BTreeMap::new();
    for resent in &observed.resent {
        *more.entry([resent.lport, resent.rport].into_iter().find(fixed).unwrap()).or_default() += 1;
    }
    for line in expected.iter().filter(|line| line.get("type").is_some_and(|it| it == "tcp_retransmit")) {
        *more.entry(ports(line).find(fixed).unwrap()).or_default() -= 1;
    }
    more.into_iter().filter(|(_, n)| *n > 0).map(|(port, _)| port).collect()
}

/// Proof that this kernel runs no program on top of process 1, wherever something is put down to that: what the witness
/// saw there is missing in the bundle, and all else of the same kind is there. A child's first change is told late, and a
/// socket that connects has no port yet when it enters `SYN_SENT`.
fn assert_just_what_was_on_top_of_process_1_is_missing(events: &[Event], observed: &Observed) {
    let told = |t: &&Transition| t.lport != 0 && t.new != TcpState::SynRecv;
    let changes = observed.changes.iter().filter(told);
    let changes = changes.map(|t| ((t.lport, t.rport, Some((t.old, t.new))), t.over_init));
    let resent = observed.resent.iter().map(|r| ((r.lport, r.rport, None), r.over_init));
    let (hidden, visible): (Vec<_>, Vec<_>) = changes.chain(resent).partition(|(_, over_init)| *over_init);
    let recorded = events.iter().filter_map(|e| {
        let what = match &e.payload {
            Payload::TcpState(change) => Some((change.old, change.new)),
            Payload::TcpRetransmit(_) => None,
            _ => return None,
        };
        Some((e.id.local.port.unwrap_or(0), e.id.remote.port.unwrap_or(0), what))
    });
    let recorded: Vec<_> = recorded.collect();
    for (key, _) in &hidden {
        let (seen, written) = (visible.iter().filter(|(k, _)| k == key), recorded.iter().filter(|k| *k == key));
        eprintln!("on top of process 1: {key:?}");
        assert_eq!(written.count(), seen.count(), "recorded, and to be seen by a program: {key:?}");
    }
}

/// Lines of both files. Twins are left out: when two segments complete one handshake on two CPUs, the kernel makes two
/// children and closes one of them, which is the only way from `SYN_RECV` to `CLOSE` here.
fn recorded(bundle: &Bundle, names: &Names) -> Vec<Line> {
    let is_twin = |e: &&Event| match &e.payload {
        Payload::TcpState(change) => (change.old, change.new) == (TcpState::SynRecv, TcpState::Close),
        _ => false,
    };
    let twins: BTreeSet<_> = bundle.events.iter().filter(is_twin).map(|e| e.id.socket).collect();
    // each variant of what tells why is held to what programs did in `evidence.rs`
    let events = bundle.events.iter().filter(|e| is_of_a_program(e));
    let events = events.filter(|e| e.id.socket.is_none() || !twins.contains(&e.id.socket));
    let events = events.map(|event| written(|text| write_event(text, event)));
    let sockets = bundle.sockets.iter().map(|socket| written(|text| write_socket(text, socket)));
    events.chain(sockets).filter_map(|text| names.line(&text)).collect()
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut text = Vec::new();
    write(&mut text);
    text
}

fn expected(scene: &Scene) -> Vec<Line> {
    let mut expected = Expected { owners: scene.owners(), lines: Vec::new() };
    expected.old();
    expected.listener();
    expected.in_vain();
    for addr in [SERVER4, SERVER6] {
        expected.tcp(addr);
        expected.udp(addr);
    }
    expected.mapped();
    expected.losses();
    expected.held();
    expected.sockets(&std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap());
    expected.lines
}

/// Takes what the manifest says that is not seen, each effect of which must take something.
fn less_what_is_not_seen(bundle: &Bundle, mut lines: Vec<Line>) -> Vec<Line> {
    let said: BTreeSet<&str> =
        bundle.manifest.head.hooks.iter().flat_map(|hook| &hook.limits).map(String::as_str).collect();
    let limits: Vec<&Limit> = ALL.iter().copied().filter(|limit| said.contains(limit.text)).collect();
    assert_eq!(limits.len(), said.len(), "a limit that `limits.rs` does not have: {said:?}");
    for limit in limits {
        for effect in limit.effects {
            assert_ne!(apply(effect, &mut lines), 0, "`{}` is stale: nothing shows it: {effect:?}", limit.text);
        }
    }
    lines
}
