use ktrace_bundle::event::EventKind;
use ktrace_bundle::ledger::DropReason;
use ktrace_bundle::manifest::SourceReport;
use ktrace_bundle::tcp::TcpState;
use ktrace_bundle::testing::{EventBuilder, a_nat, an_event};

use crate::capture::Capture;
use crate::capture::tests::{capture, capture_with};
use crate::detectors::{ranked, run};
use crate::finding::{Finding, Outcome, Severity};
use crate::kb::release;

const CLIENT: &str = "10.244.1.2:40000";
const VIP: &str = "10.96.0.80:80";

fn findings(capture: &Capture) -> Vec<Finding> {
    ranked(&run(capture, &release()).unwrap())
}

/// Attempts of this client that this backend of the VIP gets, of which the first ones are refused.
fn attempts(comm: &'static str, backend: &'static str, refused: u64, all: u64) -> Vec<EventBuilder> {
    let pid = if comm == "curl" { 9 } else { 10 };
    let base: u64 = backend.bytes().chain(comm.bytes()).fold(7, |n, b| (n * 31 + u64::from(b)) % 1_000_003) * 1000;
    let one = move |n: u64| {
        let event = an_event().from(CLIENT).to(VIP).by(comm, pid).socket(base + n);
        let syn = event.clone().tcp_state(TcpState::Close, TcpState::SynSent).at_ms(100 * n);
        let nat = |state| a_nat(state, CLIENT, VIP, backend, CLIENT);
        let end = if n < refused {
            event.nat(nat("CLOSE")).tcp_state(TcpState::SynSent, TcpState::Close).error("ECONNREFUSED")
        } else {
            event.nat(nat("ESTABLISHED")).established_after_ms(1)
        };
        [syn, end.at_ms(100 * n + 1)]
    };
    (0..all).flat_map(one).collect()
}

fn told(events: impl IntoIterator<Item = Vec<EventBuilder>>) -> Vec<(&'static str, Severity)> {
    findings(&capture(events.into_iter().flatten())).iter().map(|f| (f.rule, f.severity)).collect()
}

#[test]
fn of_four_backends_two_can_be_dead_and_the_client_s_failures_are_their_symptom() {
    let events = [("10.0.0.5:80", 4), ("10.0.0.6:80", 4), ("10.0.0.7:80", 0), ("10.0.0.8:80", 0)];
    let events = events.map(|(backend, refused)| attempts("curl", backend, refused, 4));
    let dead = ("nat.backend_dead", Severity::Critical);
    assert_eq!(told(events), [dead, dead]);
}

#[test]
fn a_backend_that_fails_now_and_then_is_told_of_if_the_others_do_not() {
    let ill = || attempts("curl", "10.0.0.5:80", 8, 20);
    let events = [ill(), attempts("curl", "10.0.0.6:80", 0, 20)];
    assert_eq!(told(events), [("nat.backend_dead", Severity::Warning)]);
    let both = [ill(), attempts("curl", "10.0.0.6:80", 6, 20)];
    assert_eq!(told(both), [("tcp.refused", Severity::Warning)]);
}

#[test]
fn one_failure_or_one_backend_is_no_dead_backend() {
    let once = [attempts("curl", "10.0.0.5:80", 1, 1), attempts("curl", "10.0.0.6:80", 0, 30)];
    assert_eq!(told(once), [("tcp.refused", Severity::Info)]);
    assert_eq!(told([attempts("curl", "10.0.0.5:80", 6, 6)]), [("tcp.refused", Severity::Critical)]);
}

#[test]
fn one_failure_is_a_dead_backend_for_who_says_so() {
    let once = [attempts("curl", "10.0.0.5:80", 1, 1), attempts("curl", "10.0.0.6:80", 0, 30)];
    let mut kb = release();
    kb.set("nat.backend_dead.min_failed=1").unwrap();
    let found = ranked(&run(&capture(once.into_iter().flatten()), &kb).unwrap());
    let told: Vec<_> = found.iter().map(|f| (f.rule, f.severity)).collect();
    assert_eq!(told, [("nat.backend_dead", Severity::Critical)]);
}

#[test]
fn a_client_that_fails_elsewhere_too_keeps_its_own_finding() {
    let dead = || attempts("curl", "10.0.0.5:80", 4, 4);
    let fine = || attempts("curl", "10.0.0.6:80", 0, 10);
    // two refusals of attempts of which nobody knows which backend got them
    let unknown = (0..2).flat_map(|n| {
        let event = an_event().from(CLIENT).to(VIP).by("curl", 9).socket(n + 1);
        let syn = event.clone().tcp_state(TcpState::Close, TcpState::SynSent).at_ms(n);
        [syn, event.tcp_state(TcpState::SynSent, TcpState::Close).error("ECONNREFUSED").at_ms(n + 1)]
    });
    let events = [dead(), fine(), unknown.collect()];
    assert_eq!(told(events), [("nat.backend_dead", Severity::Critical), ("tcp.refused", Severity::Warning)]);
}

#[test]
fn several_clients_of_a_dead_backend_are_one_finding() {
    let of = |comm, n| [attempts(comm, "10.0.0.5:80", n, n), attempts(comm, "10.0.0.6:80", 0, 10)];
    let c = capture(of("curl", 4).into_iter().chain(of("wget", 3)).flatten());
    let found = findings(&c);
    let [dead] = found.as_slice() else { panic!("{found:?}") };
    assert!(
        dead.title.starts_with("`curl` (pid 9) and 1 more client is turned down by backend 10.0.0.5:80"),
        "{}",
        dead.title
    );
    assert_eq!((&dead.symptoms, dead.covers.as_ref().map(Vec::len)), (&vec!["tcp.refused"], Some(2)));
}

#[test]
fn replies_that_the_capture_lost_are_not_blamed_on_a_backend() {
    let query = |n: u64, backend, is_answered: bool| {
        let event = an_event().from(CLIENT).to("10.96.0.10:53").by("dig", 9).socket(n).bytes(40);
        let nat = a_nat("UNREPLIED", CLIENT, "10.96.0.10:53", backend, CLIENT);
        let send = event.clone().nat(nat).udp_send().at_ms(100 * n);
        let reply = event.udp_recv().at_ms(100 * n + 1);
        [Some(send), is_answered.then_some(reply)].into_iter().flatten()
    };
    let events: Vec<_> = (0..4)
        .flat_map(|n| query(n, "10.0.0.5:53", false))
        .chain((10..20).flat_map(|n| query(n, "10.0.0.6:53", true)))
        .collect();
    let losing = |lost: u64| {
        let c = capture_with(events.clone(), |m| {
            let t = m.ledger.by_type.entry(EventKind::UdpRecv).or_default();
            t.dropped.insert(DropReason::RingFull, lost);
            m.ledger.total_from_types();
        });
        findings(&c).iter().any(|f| f.rule.starts_with("nat."))
    };
    assert_eq!((losing(0), losing(4)), (true, false));
}

#[test]
fn without_connection_tracking_the_rules_say_why_and_the_verdict_stays() {
    let c = |outcome: &str, error: &str| {
        capture_with([], |m| {
            let (name, outcome, error) = ("conntrack".to_owned(), outcome.to_owned(), Some(error.to_owned()));
            m.head.sources.retain(|s| s.name != name);
            m.head.sources.push(SourceReport { name, outcome, error, ..SourceReport::default() });
        })
    };
    let verdict = |c: &Capture| crate::report::Report::new(c, &release(), "b").unwrap().verdict.as_str();
    let inactive = c("absent", "inactive in every network namespace");
    let unjudged = run(&inactive, &release())
        .unwrap()
        .into_iter()
        .filter(|(_, o)| matches!(o, Outcome::Inconclusive { .. }))
        .count();
    assert_eq!((unjudged, verdict(&inactive)), (8, "ok"));
    assert_eq!(verdict(&c("failed", "CAP_NET_ADMIN")), "inconclusive");
}

#[test]
fn of_thousands_of_dead_backends_some_are_told() {
    let events = (0..20_000_u64).flat_map(|n| {
        let backend = format!("10.{}.{}.{}:80", n / 2 / 62_500, n / 2 / 250 % 250, n / 2 % 250 + 1);
        let event = an_event().from(CLIENT).to(VIP).by("curl", 9).socket(n + 1);
        let nat = a_nat("CLOSE", CLIENT, VIP, &backend, CLIENT);
        let syn = event.clone().tcp_state(TcpState::Close, TcpState::SynSent);
        let end = event.nat(nat).tcp_state(TcpState::SynSent, TcpState::Close);
        let end =
            if n < 200 { end.tcp_state(TcpState::SynSent, TcpState::Established) } else { end.error("ECONNREFUSED") };
        [syn.at_ms(n), end.at_ms(n)]
    });
    let dead = findings(&capture(events)).iter().filter(|f| f.rule == "nat.backend_dead").count();
    assert_eq!(dead, super::MAX_FINDINGS);
}
