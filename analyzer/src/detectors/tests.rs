use std::collections::BTreeSet;

use ktrace_bundle::event::{EventKind, RetransmitKind, TcpClose};
use ktrace_bundle::ledger::DropReason;
use ktrace_bundle::manifest::{HookOutcome, Manifest, PlanEntry, PlanSource, TriedVariant};
use ktrace_bundle::tcp::TcpState;
use ktrace_bundle::testing::{EventBuilder, an_event};
use ktrace_bundle::workload::{Home, Workload};

use super::*;
use crate::capture::tests::{capture, capture_with};
use crate::finding::Severity;
use crate::kb::release;

const WEB: &str = "10.0.0.5:8080";

fn findings(capture: &Capture) -> Vec<Finding> {
    ranked(&run(capture, &release()).unwrap())
}

fn told(events: impl IntoIterator<Item = EventBuilder>) -> Vec<(&'static str, Severity)> {
    findings(&capture(events)).iter().map(|f| (f.rule, f.severity)).collect()
}

fn syn(ms: u64, socket: u64) -> EventBuilder {
    an_event().to(WEB).socket(socket).tcp_state(TcpState::Close, TcpState::SynSent).at_ms(ms)
}

/// An attempt that its owner leaves after so many ms.
fn given_up(ms: u64, socket: u64, after: u64) -> [EventBuilder; 2] {
    let close = TcpClose { gave_up_after_ns: Some(after * 1_000_000), ..TcpClose::default() };
    let end = an_event().to(WEB).socket(socket).closed(TcpState::SynSent, close).at_ms(ms + after);
    [syn(ms, socket), end]
}

fn refused(ms: u64, socket: u64) -> [EventBuilder; 2] {
    let end = an_event().to(WEB).socket(socket).closed(TcpState::SynSent, TcpClose::default());
    [syn(ms, socket), end.error("ECONNREFUSED").at_ms(ms + 1)]
}

fn worked(ms: u64, socket: u64) -> [EventBuilder; 2] {
    [syn(ms, socket), an_event().to(WEB).socket(socket).established_after_ms(1).at_ms(ms + 1)]
}

#[test]
fn every_rule_is_found_by_its_own_name() {
    let ids: BTreeSet<&str> = DETECTORS.iter().map(|d| d.id()).collect();
    assert_eq!(ids.len(), DETECTORS.len());
    assert!(ids.iter().all(|id| by_id(id).is_some_and(|d| d.id() == *id)));
    assert!(by_id("no.such_rule").is_none());
}

#[test]
fn a_capture_of_nothing_is_clear() {
    assert!(run(&capture([]), &release()).unwrap().iter().all(|(_, outcome)| *outcome == Outcome::Clear));
}

#[test]
fn an_application_that_gives_up_after_half_a_second_is_told_of() {
    assert_eq!(told(given_up(100, 1, 500)), [("tcp.connect_timeout", Severity::Warning)]);
}

#[test]
fn an_impatient_application_is_told_of_only_when_it_repeats() {
    assert_eq!(told([given_up(0, 1, 100), given_up(1000, 2, 100)].into_iter().flatten()), []);
    let thrice = [given_up(0, 1, 100), given_up(1000, 2, 100), given_up(2000, 3, 100)];
    assert_eq!(told(thrice.into_iter().flatten()), [("tcp.connect_timeout", Severity::Critical)]);
}

#[test]
fn a_slow_loser_of_the_same_family_is_no_happy_eyeballs() {
    let winner = an_event().to("10.0.0.6:8080").socket(9).established_after_ms(1).at_ms(599);
    let start = an_event().to("10.0.0.6:8080").socket(9).tcp_state(TcpState::Close, TcpState::SynSent).at_ms(598);
    let events = given_up(100, 1, 500).into_iter().chain([start, winner]);
    assert_eq!(told(events), [("tcp.connect_timeout", Severity::Warning)]);
}

#[test]
fn syns_sent_again_are_a_symptom_of_the_timeout() {
    let again = |ms| an_event().to(WEB).socket(1).tcp_retransmit(RetransmitKind::Syn, TcpState::SynSent).at_ms(ms);
    let events = given_up(0, 1, 8000).into_iter().chain([again(1000), again(3000), again(7000)]);
    let found = findings(&capture(events));
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].rule, &found[0].symptoms), ("tcp.connect_timeout", &vec!["tcp.retransmits"]));
}

#[test]
fn a_connection_that_the_plan_left_out_does_not_hang() {
    let hanging = |ports: serde_json::Value| {
        let entry = PlanEntry { value: ports, from: PlanSource::Flag };
        let c = capture_with([syn(0, 1)], |m| {
            m.head.plan.insert("ports".to_owned(), entry);
        });
        findings(&c).len()
    };
    assert_eq!(hanging(serde_json::json!([8080])), 1);
    assert_eq!(hanging(serde_json::json!([53])), 0);
    assert_eq!(hanging(serde_json::json!(["!8080"])), 0);
    assert_eq!(hanging(serde_json::json!(["!53"])), 1);
}

#[test]
fn a_server_that_was_only_starting_is_a_note() {
    let events = [refused(0, 1), refused(500, 2), worked(1000, 3), worked(1500, 4)];
    assert_eq!(told(events.into_iter().flatten()), [("tcp.refused", Severity::Info)]);
    let broken = [worked(0, 1), refused(500, 2), refused(1000, 3), refused(1500, 4)];
    assert_eq!(told(broken.into_iter().flatten()), [("tcp.refused", Severity::Warning)]);
}

#[test]
fn ports_that_were_tried_once_each_are_a_note_if_they_are_many() {
    let scan = |ports: u16| {
        let one = move |n: u16| refused(10 * u64::from(n), n.into()).map(|e| e.to(&format!("10.0.0.5:{}", 8000 + n)));
        (0..ports).flat_map(one)
    };
    assert_eq!(told(scan(7)), [("tcp.refused", Severity::Warning); 7]);
    assert_eq!(told(scan(8)), [("tcp.refused", Severity::Info); 8]);
    let needed = refused(900, 99).into_iter().map(|e| e.to("10.0.0.5:8003"));
    assert_eq!(told(scan(8).chain(needed))[0], ("tcp.refused", Severity::Warning));
}

#[test]
fn one_refused_connect_among_many_that_worked_is_a_note() {
    let many = (0..30).flat_map(|n| worked(100 * n, 100 + n).map(|e| e.to("10.0.0.9:80")));
    assert_eq!(told(refused(5000, 1).into_iter().chain(many)), [("tcp.refused", Severity::Info)]);
}

#[test]
fn connects_that_fail_before_their_socket_has_a_name_are_counted_one_by_one() {
    let failed = |ms| {
        let mut event = an_event().from("*").to(WEB).connect().error("ENETUNREACH").at_ms(ms).build();
        event.id.socket = None;
        event
    };
    let mut builder = crate::capture::Builder::default();
    [1, 2, 3].into_iter().for_each(|ms| builder.push(ktrace_bundle::reader::Record::Event(failed(ms))));
    let capture = builder.finish(&crate::capture::tests::a_report(ktrace_bundle::reader::Form::Events));
    let attempts: Vec<usize> = capture.attempts().values().map(Vec::len).collect();
    assert_eq!(attempts, [3]);
}

#[test]
fn queries_that_are_too_young_are_a_note() {
    let send = |ms, socket| an_event().udp_send().socket(socket).at_ms(ms);
    assert_eq!(told([send(56_000, 1), send(58_000, 2)]), [("dns.no_reply", Severity::Info)]);
    assert_eq!(told([send(59_500, 1), send(59_600, 2)]), []);
}

#[test]
fn a_server_that_never_answered_is_not_waited_for_once_asked_again() {
    let send = |ms, socket| an_event().udp_send().socket(socket).by("dig", 5).at_ms(ms);
    assert_eq!(told([send(57_000, 1), send(58_000, 2), send(59_000, 3)]), [("dns.no_reply", Severity::Critical)]);
}

#[test]
fn lost_data_explains_a_lost_syn() {
    let conn = an_event().to(WEB).socket(1);
    let late = conn.clone().established_after_ms(1020).payload(|p| {
        if let ktrace_bundle::event::Payload::TcpState(c) = p {
            c.syn_retrans_count = Some(1);
        }
    });
    let account = TcpClose { tx_segs_count: Some(300), retrans_count: Some(31), ..TcpClose::default() };
    let end = conn.closed(TcpState::LastAck, account).at_ms(9000);
    let found = findings(&capture([syn(0, 1), late.at_ms(1020), end]));
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].rule, &found[0].symptoms), ("tcp.retransmits", &vec!["connect.slow"]));
}

#[test]
fn a_client_that_asked_again_in_vain_is_told_of() {
    let send = |ms| an_event().udp_send().at_ms(ms);
    assert_eq!(told([send(56_000), send(58_000)]), [("dns.no_reply", Severity::Warning)]);
}

#[test]
fn one_query_without_a_reply_is_a_note() {
    assert_eq!(told([an_event().udp_send().at_ms(1)]), [("dns.no_reply", Severity::Info)]);
}

#[test]
fn replies_that_the_capture_lost_are_not_blamed_on_the_server() {
    let sends = (0..8).map(|n| an_event().udp_send().bytes(40 + n).socket(n).at_ms(1000 * n));
    let losing = |lost: u64| {
        capture_with(sends.clone(), move |m| {
            let t = m.ledger.by_type.entry(EventKind::UdpRecv).or_default();
            t.dropped.insert(DropReason::RingFull, lost);
            m.ledger.total_from_types();
        })
    };
    let rules = |c: &Capture| findings(c).iter().map(|f| f.rule).collect::<Vec<_>>();
    assert_eq!(rules(&losing(8)), ["evidence.lossy"]);
    assert_eq!(rules(&losing(1)), ["dns.no_reply", "evidence.lossy"]);
}

#[test]
fn findings_have_one_order_whatever_order_they_come_in() {
    let events = refused(0, 1).into_iter().chain(given_up(3000, 2, 700).map(|e| e.to("10.0.0.7:1")));
    let mut found = findings(&capture(events));
    let forth = rank::rank(found.clone());
    found.reverse();
    assert_eq!(rank::rank(found), forth);
}

/// A pod's container, named or known by its uid only.
fn pod(names: Option<[&str; 3]>) -> Home {
    let mut workload = Workload::of_cgroup("0b1c6c2e-4a77-4d8a-9d2b-3f5e8c7a9b10".into());
    if let Some([namespace, pod, container]) = names.map(|names| names.map(|name| Some(name.to_owned()))) {
        workload = Workload { namespace, pod, container, ..workload };
    }
    Home::Pod(workload.into())
}

#[test]
fn a_finding_names_the_pod_if_it_is_one() {
    let title = |homes: [Option<Home>; 2]| {
        let of = |n: usize| homes[n % 2].clone();
        let events = (0..4).flat_map(|n| {
            refused(1000 * n, n).map(|e| match of(n as usize) {
                Some(home) => e.by("api", 7 + u32::try_from(n % 2).unwrap()).home(home),
                None => e.by("api", 7 + u32::try_from(n % 2).unwrap()),
            })
        });
        findings(&capture(events))[0].title.clone()
    };
    let (one, other) = (pod(Some(["shop", "api-1", "api"])), pod(Some(["shop", "api-2", "api"])));
    assert!(title([Some(one.clone()), Some(one.clone())]).contains(" in shop/api-1/api "));
    assert!(title([Some(pod(None)), Some(pod(None))]).contains(" in pod 0b1c6c2e-4a77-4d8a-9d2b-3f5e8c7a9b10 "));
    for homes in
        [[Some(one.clone()), Some(other)], [Some(one.clone()), None], [Some(Home::Host("a.service".into())), None]]
    {
        assert!(!title(homes.clone()).contains(" in "), "{homes:?}");
    }
    let hostile = pod(Some(["sh\u{1b}[2Jop", "api-1", "a`reboot`pi"]));
    assert!(!title([Some(hostile.clone()), Some(hostile)]).contains('\u{1b}'));
}

#[test]
fn a_hostile_name_reaches_neither_a_command_nor_the_terminal() {
    let comm = "a;`reboot`\n\u{1b}[2J";
    let events = (0..3).flat_map(|n| refused(1000 * n, n)).map(|e| e.by(comm, 7));
    let found = findings(&capture(events));
    assert!(found[0].title.contains(r"a;`reboot`\u{a}\u{1b}[2J"), "{}", found[0].title);
    for command in found[0].next_steps.iter().filter_map(|s| s.command.as_deref()) {
        assert!(!command.contains("reboot"), "{command}");
    }
}

#[test]
fn processes_of_one_name_are_one_finding_with_the_worst_first() {
    let events = (0..5).flat_map(|n| refused(1000 * n, n).map(|e| e.by("api", if n == 0 { 5 } else { 9 })));
    let found = findings(&capture(events));
    assert_eq!((found.len(), &found[0].subject.pids), (1, &vec![9, 5]));
    assert!(found[0].title.starts_with("`api` (pid 9 and 1 more)"), "{}", found[0].title);
}

#[test]
fn thousands_of_findings_fit_into_a_document_that_counts_the_rest() {
    let events =
        (0..900_u64).flat_map(|n| refused(50 * n, n).map(|e| e.to(&format!("10.0.{}.{}:80", n / 250, n % 250 + 1))));
    let c = capture(events);
    let report = crate::report::Report::new(&c, &release(), "b.tgz").unwrap();
    let mut out = Vec::new();
    crate::report::json::write(&mut out, &report, false).unwrap();
    let document: serde_json::Value = serde_json::from_slice(&out).unwrap();
    let kept = document["findings"].as_array().unwrap().len() as u64;
    assert!(out.len() <= (32 << 10) + 1 && kept > 5, "{} bytes, {kept} findings", out.len());
    assert_eq!(document["omitted_count"].as_u64(), Some(900 - kept));
    out.clear();
    crate::report::json::write(&mut out, &report, true).unwrap();
    let all: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(all["findings"].as_array().unwrap().len(), 900);
}

#[test]
fn dns_is_not_judged_where_queries_went_to_an_end_that_is_not_known() {
    let why = |c: &Capture, rule: &str| {
        run(c, &release()).unwrap().into_iter().find(|(d, _)| d.id() == rule).and_then(|(_, o)| match o {
            Outcome::Inconclusive { why, by_plan: false } => Some(why),
            _ => None,
        })
    };
    let blind = capture([an_event().udp_send().to("*").at_ms(1), an_event().udp_recv().to("*").at_ms(2)]);
    let limited = capture_with([], |m| {
        let udp = m.head.hooks.iter_mut().find(|h| h.name == "udp").unwrap();
        udp.limits.push("the remote end of unconnected sockets".to_owned());
    });
    for rule in ["dns.no_reply", "dns.slow"] {
        assert_eq!(why(&blind, rule).unwrap(), "1 `udp_send` event does not say to which server");
        assert_eq!(why(&limited, rule).unwrap(), "hook `udp` could not see the remote end of unconnected sockets");
    }
    assert_eq!(why(&blind, "tcp.refused"), None);
}

#[test]
fn a_receive_without_its_sender_or_a_send_without_a_destination_leaves_dns_judged() {
    let nowhere = an_event().udp_send().to("*").error("EDESTADDRREQ");
    let events = [an_event().udp_send().at_ms(1), an_event().udp_recv().to("*").at_ms(2), nowhere.at_ms(3)];
    assert!(run(&capture(events), &release()).unwrap().iter().all(|(_, outcome)| *outcome == Outcome::Clear));
}

/// The report in words of a capture by this plan.
fn text_by_plan(events: impl IntoIterator<Item = EventBuilder>, plan: &[(&str, serde_json::Value)]) -> String {
    let c = capture_with(events, |m| {
        for (flag, value) in plan {
            let entry = PlanEntry { value: value.clone(), from: PlanSource::Flag };
            m.head.plan.insert((*flag).to_owned(), entry);
        }
    });
    let mut out = Vec::new();
    crate::report::text::write(&mut out, &crate::report::Report::new(&c, &release(), "b.tgz").unwrap(), false).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn dns_is_not_clear_where_the_plan_left_its_ports_out() {
    let one = || worked(1, 1);
    let without = text_by_plan(one(), &[("ports", serde_json::json!([9]))]);
    let of_dns: Vec<_> = DETECTORS.iter().filter(|d| d.needs().dns).map(|d| d.id()).collect();
    let judging = format!("verdict: ok: nothing found by {} rules (ports 9)\n", DETECTORS.len() - of_dns.len());
    assert!(without.contains(&judging), "{without}");
    let words = without.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains(&format!("{}: not requested by the plan: ports 9 only", of_dns.join(", "))), "{without}");
    assert!(without.contains("\nclear (ports 9): tcp."), "{without}");
    let own_port = [("ports", serde_json::json!([9])), ("dns-ports", serde_json::json!([53, 9]))];
    assert!(text_by_plan(one(), &own_port).contains("\nclear (ports 9): dns.no_reply, dns.slow, "));
    let dns_only = text_by_plan(one(), &[("dns-only", serde_json::json!(true))]);
    assert!(dns_only.contains("\nclear (ports 53): dns.no_reply, dns.slow, "), "{dns_only}");
    assert!(text_by_plan(one(), &[]).contains("\nclear: dns.no_reply, dns.slow, "));
}

#[test]
fn a_capture_without_events_says_that_nothing_was_recorded() {
    let empty = text_by_plan([], &[]);
    let text = format!("verdict: ok: nothing was recorded, so {} rules had nothing to judge\n", DETECTORS.len());
    assert!(empty.contains(&text), "{empty}");
}

#[test]
fn a_hook_that_is_missing_comes_with_the_last_reason() {
    let c = capture_with([], |m| {
        let hook = m.head.hooks.iter_mut().find(|h| h.name == "connect").unwrap();
        hook.outcome = HookOutcome::Unsupported;
        for why in ["no `fentry`", "`kprobe` is\u{1b} not permitted"] {
            hook.tried.push(TriedVariant { variant: "any".to_owned(), why: why.to_owned(), program: None });
        }
    });
    let text = "hook `connect` could not be attached here: `kprobe` is\\u{1b} not permitted";
    let why = |rule| run(&c, &release()).unwrap().into_iter().find(|(d, _)| d.id() == rule).map(|(_, outcome)| outcome);
    assert_eq!(why("tcp.unreachable"), Some(Outcome::Inconclusive { why: text.to_owned(), by_plan: false }));
    assert_eq!(findings(&c)[0].title, format!("this bundle does not tell everything: {text}"));
}

#[test]
fn a_hook_that_failed_comes_with_what_was_refused_not_with_what_was_passed_over() {
    let c = capture_with([], |m| {
        let hook = m.head.hooks.iter_mut().find(|h| h.name == "connect").unwrap();
        hook.outcome = HookOutcome::Failed;
        let mut tried = |why: &str, program: Option<&str>| {
            let (why, program) = (why.to_owned(), program.map(str::to_owned));
            hook.tried.push(TriedVariant { variant: "any".to_owned(), why, program });
        };
        tried("`connect__exit` cannot be loaded: EACCES", Some("connect__exit"));
        tried("not the one asked for", None);
    });
    let text = "hook `connect` failed to attach: `connect__exit` cannot be loaded: EACCES";
    assert_eq!(findings(&c)[0].title, format!("this bundle does not tell everything: {text}"));
}

#[test]
fn each_kind_of_gap_has_its_own_next_step() {
    let only = |change: fn(&mut Manifest)| {
        let found = findings(&capture_with([], change));
        let [lossy] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((lossy.rule, lossy.next_steps.len()), ("evidence.lossy", 1), "{lossy:?}");
        (lossy.title.clone(), lossy.next_steps[0].clone(), lossy.signal.name)
    };
    let (_, step, signal) = only(|m| {
        m.ledger.seen = 10;
        m.ledger.dropped.insert(DropReason::RingFull, 4);
    });
    assert_eq!((step.text.contains("`--ring-bytes`"), signal), (true, "dropped_event_share"));
    let (title, step, signal) = only(|m| m.ledger.missed = 3);
    assert!(title.ends_with("up to 3 events were missed by the hooks"), "{title}");
    assert_eq!((step.text.contains("fewer ports"), signal), (true, "gap_count"));
    let (_, step, signal) = only(|m| m.head.hooks[0].outcome = HookOutcome::Failed);
    assert_eq!((step.command.as_deref(), signal), (Some("ktrace check"), "gap_count"));
    let mut c = capture([]);
    c.coverage.cut = Some("`events.jsonl` is cut after line 3".to_owned());
    let found = findings(&c);
    assert!(found[0].next_steps[0].text.starts_with("copy the bundle again"), "{found:?}");
    assert_eq!((found[0].next_steps.len(), found[0].signal.value), (1, 1.0));
}

#[test]
fn a_threshold_that_is_set_decides() {
    let thrice = capture((1..4).flat_map(|n| refused(1000 * n, n)));
    let told = |kb: &Kb| {
        let found = ranked(&run(&thrice, kb).unwrap());
        found.iter().map(|f| (f.rule, f.severity, f.signal.threshold)).collect::<Vec<_>>()
    };
    let mut kb = release();
    assert_eq!(told(&kb), [("tcp.refused", Severity::Critical, 90.0)]);
    kb.set("tcp.refused.min_critical=4").unwrap();
    kb.set("tcp.refused.warning_share=0.25").unwrap();
    assert_eq!(told(&kb), [("tcp.refused", Severity::Warning, 25.0)]);
}
