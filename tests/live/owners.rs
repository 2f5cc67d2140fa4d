//! Sockets that change hands: opened by one program and used by another one. Every line has the owner of its own time, or
//! the manifest says what was not seen.

use std::collections::BTreeSet;
use std::path::PathBuf;

use ktrace_bundle::attribution::OwnerSource;
use ktrace_bundle::event::{Event, Payload};
use ktrace_bundle::tcp::TcpState;
use ktrace_bundle::tcp::TcpState::{Close, CloseWait, Established, LastAck, Listen, SynRecv, SynSent};
use nix::sys::signal::Signal;

use crate::capture::{Bundle, Capture};
use crate::hook_limits::{HANDED_OVER, LISTENERS_OWNER, URING_ACCEPTS};
use crate::net::{Lab, Netns, SERVER4};
use crate::observer::{Observed, Observer};
use crate::program::Program;
use crate::workdir::Workdir;
use crate::{Test, tests};

const SCRIPT: &str = include_str!("owners/client.py");
const YOUNG: u16 = 8081;
/// Of the connection that is older than the window.
const OLD: u16 = 8082;

pub fn tests() -> Vec<Test> {
    tests![
        a_connection_that_was_sent_to_another_process_is_its,
        a_connection_that_a_child_was_left_is_its,
        a_connection_held_across_exec_is_of_the_new_program,
        connections_of_a_listener_that_was_handed_over_are_of_who_accepts_them,
        connections_by_io_uring_are_of_who_asked_for_them,
    ]
}

/// A process under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Who {
    pid: u32,
    name: String,
}

impl Who {
    fn of(pid: u32) -> Self {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().trim_end().to_owned();
        Self { pid, name }
    }

    /// `PID NAME`.
    fn parse(line: &str) -> Self {
        let (pid, name) = line.split_once(' ').unwrap();
        Self { pid: pid.parse().unwrap(), name: name.to_owned() }
    }
}

/// `client.py`, and the directory that it is told by to go on.
struct Script {
    program: Program,
    dir: Workdir,
}

impl Script {
    fn start(netns: &Netns, args: &[&str]) -> Self {
        let dir = Workdir::new();
        let mut command = netns.command("python3");
        command.args(["-I", "-S", "-c", SCRIPT]).args(args).arg(dir.join("")).env("SCRIPT", SCRIPT);
        let script = Self { program: Program::start(command), dir };
        assert_eq!(script.program.wait_for_lines(1), ["open"]);
        script
    }

    fn who(&self) -> Who {
        Who::of(self.program.pid())
    }

    fn go_on(&self, word: &str) {
        std::fs::write::<PathBuf, _>(self.dir.join(word), "").unwrap();
    }

    /// Lets it hand over, and returns who has used the socket then.
    fn hand_over(&self) -> Who {
        self.go_on("open");
        Who::parse(&self.program.wait_for_lines(2)[1])
    }

    fn end(self) {
        self.go_on("used");
        let ended = self.program.wait();
        assert!(ended.status.success(), "{ended:?}");
    }
}

/// State changes of the connections with this port at either end, in the order of kernel time, with their owners.
fn changes(bundle: &Bundle, netns: &Netns, port: u16) -> Vec<(TcpState, Option<(Who, OwnerSource)>)> {
    let inode = netns.inode();
    let is_its = |e: &&Event| e.id.netns == inode && [e.id.local.port, e.id.remote.port].contains(&Some(port));
    let mut events: Vec<_> = bundle.events.iter().filter(is_its).collect();
    events.sort_by_key(|e| e.boot_ns);
    let change = |e: &Event| {
        let Payload::TcpState(change) = &e.payload else { return None };
        let owner = e.id.owner.value().map(|o| (Who { pid: o.pid, name: o.comm.clone() }, o.source));
        Some((change.new, owner))
    };
    events.into_iter().filter_map(change).collect()
}

/// Whether this kernel's variants cannot see something, and say so.
fn is_said(bundle: &Bundle, limit: &crate::hook_limits::Limit) -> bool {
    bundle.manifest.head.hooks.iter().flat_map(|hook| &hook.limits).any(|said| said == limit.text)
}

/// The changes less those that no program sees on top of process 1.
fn visible(states: &[TcpState], observed: &Observed, port: u16) -> Vec<TcpState> {
    let hidden: BTreeSet<TcpState> =
        observed.changes.iter().filter(|t| t.over_init && [t.lport, t.rport].contains(&port)).map(|t| t.new).collect();
    states.iter().copied().filter(|state| !hidden.contains(state)).collect()
}

fn states(changes: &[(TcpState, Option<(Who, OwnerSource)>)]) -> Vec<TcpState> {
    changes.iter().map(|(state, _)| *state).collect()
}

/// A connection stands, is handed over in this way, is used by its new owner, and ended by the server.
fn handed_over(how: &str) -> (Who, Who) {
    let lab = Lab::new();
    let serve = |port| {
        let server = lab.server.start(&format!("tcp-server --listen {SERVER4}:{port} --then echo"));
        server.ready();
        server
    };
    let servers = [OLD, YOUNG].map(serve);
    let open = |port: u16| Script::start(&lab.client, &[how, &SERVER4.to_string(), &port.to_string()]);
    let observer = Observer::of_ports(YOUNG..=OLD);
    let old = open(OLD);
    let capture = Capture::start();
    let young = open(YOUNG);
    let scripts = [(OLD, old), (YOUNG, young)].map(|(port, script)| (port, script.who(), script.hand_over(), script));
    for server in servers {
        // its kernel closes: the client's next change is made by an interrupt
        server.signal(Signal::SIGKILL);
        server.wait();
    }
    let hands = scripts.map(|(port, first, last, script)| {
        script.end();
        (port, first, last)
    });
    lab.client.wait_until_quiet();
    let bundle = capture.stop_unaudited();
    let observed = observer.finish();
    bundle.assert_audited_but(|entry| observed.counted_over_init(&entry.counter));
    for (port, first, last) in &hands {
        let all: &[_] = if *port == OLD { &[] } else { &[SynSent, Established] };
        let all = visible(&[all, &[CloseWait, LastAck, Close]].concat(), &observed, *port);
        let changes = changes(&bundle, &lab.client, *port);
        assert_eq!(states(&changes), all, "{port}: {changes:?}");
        let unseen = is_said(&bundle, &HANDED_OVER) || is_said(&bundle, &URING_ACCEPTS);
        for (state, owner) in changes {
            let (who, source) = owner.unwrap_or_else(|| panic!("{port}, {state:?}: no owner"));
            let expected = match state {
                SynSent | Established => (first, OwnerSource::Connect),
                CloseWait if unseen && *port == OLD => (first, OwnerSource::FdTable),
                CloseWait if unseen => (first, OwnerSource::Connect),
                CloseWait => (last, OwnerSource::FirstIo),
                _ => (last, OwnerSource::Close),
            };
            assert_eq!((&who, source), expected, "{port}, {state:?}");
        }
    }
    let [_, (_, first, last)] = hands;
    (first, last)
}

fn a_connection_that_was_sent_to_another_process_is_its() {
    let (first, last) = handed_over("message");
    assert_ne!(first.pid, last.pid);
}

fn a_connection_that_a_child_was_left_is_its() {
    let (first, last) = handed_over("fork");
    assert_ne!(first.pid, last.pid);
}

fn a_connection_held_across_exec_is_of_the_new_program() {
    let (first, last) = handed_over("exec");
    assert_eq!((first.pid, &*last.name), (last.pid, "renamed"));
    assert_ne!(first.name, last.name);
}

/// As a service manager does it (socket activation): one process listens, another program accepts.
fn connections_of_a_listener_that_was_handed_over_are_of_who_accepts_them() {
    let lab = Lab::new();
    let observer = Observer::of_ports(YOUNG..=OLD);
    let listen = |port: u16| Script::start(&lab.server, &["activate", &SERVER4.to_string(), &port.to_string()]);
    let old = listen(OLD);
    let capture = Capture::start();
    let young = listen(YOUNG);
    let hands = [(OLD, old), (YOUNG, young)].map(|(port, script)| {
        script.go_on("open");
        let chat = lab.client.start(&format!("tcp-chat --to {SERVER4}:{port} --rounds 1"));
        let accepting = Who::parse(&script.program.wait_for_lines(2)[1]);
        assert!(chat.wait().status.success());
        let listening = script.who();
        script.end();
        (port, listening, accepting)
    });
    lab.client.wait_until_quiet();
    lab.server.wait_until_quiet();
    let bundle = capture.stop_unaudited();
    let observed = observer.finish();
    bundle.assert_audited_but(|entry| observed.counted_over_init(&entry.counter));
    for (port, listening, accepting) in &hands {
        assert_ne!(listening.pid, accepting.pid);
        let changes = changes(&bundle, &lab.server, *port);
        for (state, owner) in &changes {
            let Some((who, source)) = owner else {
                assert!(is_said(&bundle, &LISTENERS_OWNER), "{port}, {state:?}: no owner");
                continue;
            };
            let expected = match source {
                OwnerSource::Listen | OwnerSource::Inherited => listening,
                // of the listener itself, when its last process ends
                OwnerSource::Close if *state == Close && who == listening => listening,
                _ => accepting,
            };
            assert_eq!(who, expected, "{port}, {state:?}, {source:?}");
        }
        let last = changes.iter().rfind(|(state, _)| matches!(state, CloseWait | LastAck));
        let Some((LastAck, Some((who, OwnerSource::Close)))) = last else { panic!("{port}: {changes:?}") };
        assert_eq!(who, accepting, "{port}");
    }
}

fn connections_by_io_uring_are_of_who_asked_for_them() {
    let lab = Lab::new();
    let observer = Observer::of_ports(YOUNG..=YOUNG);
    let capture = Capture::start();
    // one process listens, its child accepts
    let server = lab.server.start(&format!("tcp-uring --listen {SERVER4}:{YOUNG}"));
    let listening = Who::of(server.ready().pid);
    let client = lab.client.start(&format!("tcp-uring --to {SERVER4}:{YOUNG}"));
    let connecting = client.pid();
    assert!(client.wait().status.success());
    let served = server.wait();
    let [_, conn] = &served.truths()[..] else { panic!("{served:?}") };
    let ktrace_traffic::Truth::Conn(conn) = conn else { panic!("{conn:?}") };
    assert_ne!(conn.pid, listening.pid);
    lab.client.wait_until_quiet();
    lab.server.wait_until_quiet();
    let bundle = capture.stop_unaudited();
    let observed = observer.finish();
    bundle.assert_audited_but(|entry| observed.counted_over_init(&entry.counter));
    let at_client = changes(&bundle, &lab.client, YOUNG);
    let all = [SynSent, Established, TcpState::FinWait1, TcpState::FinWait2, Close];
    assert_eq!(states(&at_client), visible(&all, &observed, YOUNG));
    for (state, owner) in at_client {
        let (who, source) = owner.unwrap_or_else(|| panic!("{state:?}: no owner"));
        assert_eq!(who.pid, connecting, "{state:?}, {source:?}");
    }
    for (state, owner) in changes(&bundle, &lab.server, YOUNG) {
        let Some((who, source)) = owner else {
            assert!(is_said(&bundle, &LISTENERS_OWNER) && !matches!(state, Listen | LastAck), "{state:?}: no owner");
            continue;
        };
        let expected = match source {
            OwnerSource::Listen | OwnerSource::Inherited => listening.pid,
            OwnerSource::Close if who == listening => listening.pid,
            _ => conn.pid,
        };
        assert_eq!(who.pid, expected, "{state:?}, {source:?}");
        let is_late = is_said(&bundle, &URING_ACCEPTS);
        assert!(source != OwnerSource::Inherited || is_late || matches!(state, SynRecv | Established), "{state:?}");
    }
}
