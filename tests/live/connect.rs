//! Connecting: the handshake is measured on the socket and not by the system call, and giving up is an outcome.

use ktrace_bundle::event::{Connect, Errno, Event, Payload, RetransmitKind, TcpStateChange};
use ktrace_bundle::tcp::TcpState;
use ktrace_traffic::{Connect as Told, Outcome, Truth};

use crate::analyze::analyze;
use crate::capture::{Bundle, Capture};
use crate::net::{Lab, SERVER4};
use crate::program::Program;
use crate::truth::owner;
use crate::{Test, tests};

const MS: u64 = 1_000_000;
const FIRST_SYN_ONLY: &str = "tcp dport 8080 tcp flags & (syn | ack) == syn numgen inc mod 1000 == 0 counter drop";
const EVERY_SYN: &str = "tcp dport 8080 tcp flags & (syn | ack) == syn counter drop";

pub fn tests() -> Vec<Test> {
    tests![
        a_lost_first_syn_makes_a_handshake_of_a_second,
        giving_up_after_half_a_second_is_named,
        giving_up_after_one_and_a_half_seconds_is_named,
        a_blocking_connect_takes_as_long_as_its_handshake,
        a_refused_connect_has_its_errno_on_the_socket,
    ]
}

/// The outcome that `traffic connect` told.
fn told(lab: &Lab, args: &str) -> Told {
    let truths = Program::run(lab.client.traffic(&format!("connect {args}"))).truths();
    let [Truth::Connect(connect)] = truths.as_slice() else { panic!("{truths:?}") };
    connect.clone()
}

/// The events of the one process that connected.
fn of(bundle: &Bundle, pid: u32) -> Vec<&Event> {
    bundle.events.iter().filter(|e| e.id.owner.value().is_some_and(|o| o.pid == pid)).collect()
}

fn connect_call<'a>(events: &[&'a Event]) -> &'a Connect {
    let calls: Vec<_> = events
        .iter()
        .filter_map(|e| match &e.payload {
            Payload::Connect(c) => Some(c),
            _ => None,
        })
        .collect();
    assert_eq!(calls.len(), 1, "{events:?}");
    calls[0]
}

fn state_change<'a>(events: &[&'a Event], old: TcpState) -> &'a TcpStateChange {
    let mut changes = events.iter().filter_map(|e| match &e.payload {
        Payload::TcpState(s) if s.old == old => Some(s),
        _ => None,
    });
    changes.next().unwrap_or_else(|| panic!("never left {old:?}: {events:?}"))
}

fn syn_retransmits(events: &[&Event]) -> usize {
    let syn = |e: &&&Event| matches!(&e.payload, Payload::TcpRetransmit(r) if r.kind == RetransmitKind::Syn);
    events.iter().filter(syn).count()
}

fn a_lost_first_syn_makes_a_handshake_of_a_second() {
    let lab = Lab::new();
    let server = lab.server.start(&format!("tcp-server --listen {SERVER4}:8080 --then close"));
    server.ready();
    lab.fault(FIRST_SYN_ONLY);
    let capture = Capture::start();
    let told = told(&lab, &format!("--to {SERVER4}:8080"));
    lab.client.wait_until_quiet();
    let bundle = capture.stop();

    assert_eq!((told.outcome, lab.faulted_packets()), (Outcome::Established, 1));
    let events = of(&bundle, told.pid);
    let call = connect_call(&events);
    assert_eq!((call.error, call.nonblocking), (Some(Errno(115)), true), "EINPROGRESS");
    assert!(call.syscall_ns <= told.syscall_ns && call.syscall_ns > 0, "{call:?}, told {told:?}");
    let established = state_change(&events, TcpState::SynSent);
    let handshake_ns = established.handshake_ns.unwrap();
    assert!((900 * MS..=told.elapsed_ns).contains(&handshake_ns), "{handshake_ns} ns, told {told:?}");
    assert_eq!((established.syn_retrans_count, syn_retransmits(&events)), (Some(1), 1));
}

fn giving_up_after_half_a_second_is_named() {
    gives_up(500, 0);
}

fn giving_up_after_one_and_a_half_seconds_is_named() {
    gives_up(1500, 1);
}

fn gives_up(after_ms: u64, retransmits: usize) {
    let lab = Lab::new();
    lab.fault(EVERY_SYN);
    let capture = Capture::of_drops_elsewhere();
    let told = told(&lab, &format!("--to {SERVER4}:8080 --timeout-ms {after_ms}"));
    let bundle = capture.stop();

    assert_eq!((told.outcome, lab.faulted_packets()), (Outcome::GaveUp, 1 + retransmits as u64));
    let events = of(&bundle, told.pid);
    let close = state_change(&events, TcpState::SynSent).close.as_ref().unwrap();
    assert_eq!((close.error, syn_retransmits(&events)), (None, retransmits));
    let gave_up_ns = close.gave_up_after_ns.unwrap();
    // the socket is closed just after the program has looked at its clock
    assert!((after_ms * MS..told.elapsed_ns + 100 * MS).contains(&gave_up_ns), "{gave_up_ns} ns, told {told:?}");
    assert_eq!(owner(events[0]).comm, "traffic");

    let report = analyze(&bundle.path);
    let findings = report.findings(&lab.inodes());
    let top = findings.first().unwrap_or_else(|| panic!("nothing found: {}", report.text()));
    assert_eq!((top.rule(), top.pid()), ("tcp.connect_timeout".into(), Some(told.pid.into())));
    assert_eq!(top.subject("remote"), format!("{SERVER4}:8080"));
    assert!(top.title().contains("given up"), "not the gave-up form: {}", top.title());
}

fn a_blocking_connect_takes_as_long_as_its_handshake() {
    let lab = Lab::new();
    let server = lab.server.start(&format!("tcp-server --listen {SERVER4}:8080 --then close"));
    server.ready();
    lab.fault(FIRST_SYN_ONLY);
    let capture = Capture::start();
    let told = told(&lab, &format!("--to {SERVER4}:8080 --blocking"));
    lab.client.wait_until_quiet();
    let bundle = capture.stop();
    let events = of(&bundle, told.pid);
    let call = connect_call(&events);
    assert_eq!((call.error, call.nonblocking), (None, false));
    assert!((900 * MS..=told.syscall_ns).contains(&call.syscall_ns), "{call:?}, told {told:?}");
}

fn a_refused_connect_has_its_errno_on_the_socket() {
    let lab = Lab::new();
    let capture = Capture::start();
    let told = told(&lab, &format!("--to {SERVER4}:8080"));
    let bundle = capture.stop();
    assert_eq!((told.outcome, told.errno), (Outcome::Failed, Some(111)));
    let events = of(&bundle, told.pid);
    let close = state_change(&events, TcpState::SynSent).close.as_ref().unwrap();
    assert_eq!((close.error, close.soft_error, close.gave_up_after_ns), (Some(Errno(111)), false, None));
    assert_eq!((close.tx_bytes, close.rx_bytes), (Some(0), Some(0)));
}
