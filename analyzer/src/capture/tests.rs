use ktrace_bundle::event::{EventKind, RetransmitKind, TcpClose};
use ktrace_bundle::ledger::{DropReason, Ledger};
use ktrace_bundle::manifest::{ByteBound, Checkpoint, HookOutcome, PartialManifest, PlanEntry, PlanSource};
use ktrace_bundle::node::NodeRecord;
use ktrace_bundle::reader::{Cut, Form};
use ktrace_bundle::tcp::TcpState;
use ktrace_bundle::testing::{
    EventBuilder, START_BOOT_NS, WINDOW_NS, a_head, a_manifest, a_socket, a_tracking_report, an_event, start_at,
};

use super::*;

impl Default for Builder {
    fn default() -> Self {
        Self::new(crate::kb::release().cutoffs().unwrap())
    }
}

const LOSSLESS: Needs = Needs { hooks: &["udp"], lossless: true, ..Needs::NOTHING };

pub(crate) fn a_report(form: Form) -> ReadReport {
    ReadReport {
        form,
        events: 0,
        event_lines: 0,
        sockets: 0,
        cut: None,
        bad_lines: 0,
        first_bad_lines: Vec::new(),
        unknown_types: BTreeMap::new(),
        unknown_keys: 0,
        unknown_members: 0,
        integrity: Vec::new(),
    }
}

/// A sealed capture of these events.
pub(crate) fn capture(events: impl IntoIterator<Item = EventBuilder>) -> Capture {
    capture_with(events, |_| {})
}

/// The same, with another manifest.
pub(crate) fn capture_with(
    events: impl IntoIterator<Item = EventBuilder>,
    change: impl FnOnce(&mut Manifest),
) -> Capture {
    capture_of(events, change, node::tests::a_node())
}

/// The same, of a node that has this, too; without any of it, of one that was not looked at.
pub(crate) fn capture_on(
    events: impl IntoIterator<Item = EventBuilder>,
    change: impl FnOnce(&mut Manifest),
    more: Vec<NodeRecord>,
) -> Capture {
    let node = if more.is_empty() { more } else { [node::tests::a_node(), more].concat() };
    capture_of(events, change, node)
}

fn capture_of(
    events: impl IntoIterator<Item = EventBuilder>,
    change: impl FnOnce(&mut Manifest),
    node: Vec<NodeRecord>,
) -> Capture {
    let events: Vec<Event> = (1..).zip(events).map(|(seq, e)| e.seq(seq).build()).collect();
    let mut manifest = a_manifest(&events);
    manifest.head.sources.extend(node::tests::sources());
    change(&mut manifest);
    let mut builder = Builder::default();
    node.into_iter().for_each(|record| builder.push(Record::Node(Box::new(record))));
    events.into_iter().for_each(|e| builder.push(Record::Event(e)));
    builder.push(Record::Tracking(Box::new(a_tracking_report())));
    builder.push(Record::Manifest(Box::new(manifest)));
    builder.finish(&a_report(Form::Tgz))
}

fn send(ms: u64) -> EventBuilder {
    an_event().udp_send().at_ms(ms)
}

fn recv(ms: u64) -> EventBuilder {
    an_event().udp_recv().at_ms(ms)
}

fn state(ms: u64, old: TcpState, new: TcpState) -> EventBuilder {
    an_event().to("10.0.0.5:80").tcp_state(old, new).at_ms(ms)
}

fn only_flow(capture: &Capture) -> &UdpFlow {
    assert_eq!(capture.dns.len(), 1);
    &capture.dns[0]
}

#[test]
fn a_query_without_a_reply_is_lost_after_5_s_and_pending_before() {
    let c = capture([send(0), send(54_000), send(58_000).bytes(46)]);
    let f = only_flow(&c);
    assert_eq!((f.sent, f.answered, f.lost, f.pending), (3, 0, 2, 1));
    assert_eq!(f.evidence.seqs(), vec![1, 2]);
}

#[test]
fn a_reply_belongs_to_the_newest_burst() {
    let c = capture([send(0), send(2000).bytes(50), recv(2003), send(57_000).bytes(51), recv(57_001)]);
    let f = only_flow(&c);
    assert_eq!((f.lost, f.answered, f.pending), (1, 2, 0));
    assert_eq!(f.evidence.seqs(), vec![1]);
}

#[test]
fn a_reply_that_arrives_before_its_query_answers_it() {
    let c = capture([recv(10), send(10)]);
    let f = only_flow(&c);
    assert_eq!((f.sent, f.answered, f.lost, f.pending), (1, 1, 0, 0));
}

#[test]
fn a_late_reply_takes_its_query_off_the_lost_ones() {
    let c = capture([send(0), recv(7000)]);
    let f = only_flow(&c);
    assert_eq!((f.answered, f.lost), (1, 0));
}

#[test]
fn the_same_query_after_a_silence_is_a_retry() {
    let c = capture([send(0), send(1), recv(3), send(5001), recv(5002), send(5003), recv(5004)]);
    let f = only_flow(&c);
    assert_eq!((f.sent, f.answered, f.lost, f.retries), (4, 3, 1, 1));
    assert_eq!(f.stalled_ns, 5_000_000_000);
}

#[test]
fn an_answer_by_another_server_serves_the_queries_of_that_moment() {
    let other = "10.96.0.11:53";
    let c = capture([send(0), send(0).to(other), recv(4), send(9000).to(other).bytes(60)]);
    let (asked, unanswered) = (&c.dns[0], &c.dns[1]);
    assert_eq!((asked.answered, asked.lost), (1, 0));
    assert_eq!((unanswered.elsewhere, unanswered.lost), (1, 1));
}

#[test]
fn a_reply_without_a_sender_is_given_to_the_server_that_waits() {
    let c = capture([send(0), recv(4).to("*")]);
    assert_eq!(only_flow(&c).answered, 1);
}

#[test]
fn a_refused_query_is_neither_lost_nor_pending() {
    let c = capture([send(58_000), recv(58_001).error("ECONNREFUSED")]);
    let f = only_flow(&c);
    assert_eq!((f.refused, f.lost, f.pending), (1, 0, 0));
}

#[test]
fn multicast_is_no_server() {
    assert_eq!(capture([send(0).to("224.0.0.251:53")]).dns.len(), 0);
}

#[test]
fn servers_and_other_ports_are_no_dns_clients() {
    let server = recv(0).from("10.0.0.1:53").to("10.0.0.9:53").socket(1).role(Role::Server);
    let c = capture([server, send(1).to("10.0.0.1:123").socket(2)]);
    assert_eq!((c.dns.len(), c.udp_flow_count()), (0, 1));
}

#[test]
fn the_plan_names_the_dns_ports() {
    let entry = ktrace_bundle::manifest::PlanEntry {
        value: serde_json::json!([53, 5353]),
        from: ktrace_bundle::manifest::PlanSource::Flag,
    };
    let c = capture_with([send(0).to("10.0.0.1:5353")], |m| {
        m.head.plan.insert("dns-ports".to_owned(), entry);
    });
    assert_eq!(c.dns.len(), 1);
}

#[test]
fn the_plan_names_the_ports_behind_nat() {
    let by = |from, value| ktrace_bundle::manifest::PlanEntry { value, from };
    let nat = |value| by(ktrace_bundle::manifest::PlanSource::Nat, value);
    let c = capture_with([send(0).to("10.0.0.1:5353")], |m| {
        let flag = ktrace_bundle::manifest::PlanSource::Flag;
        m.head.plan.insert("ports".to_owned(), by(flag, serde_json::json!([53, 80])));
        m.head.plan.insert("ports-behind-nat".to_owned(), nat(serde_json::json!([5353, 8080])));
        m.head.plan.insert("dns-ports-behind-nat".to_owned(), nat(serde_json::json!([5353])));
    });
    assert_eq!(c.dns.len(), 1);
    assert_eq!(c.coverage.ports.as_deref(), Some(&[53, 80, 5353, 8080][..]));
    assert_eq!(c.coverage.dns_ports, [53, 5353]);
}

#[test]
fn state_goes_by_the_kernel_s_clock_not_by_arrival() {
    let end = state(3, TcpState::SynSent, TcpState::Close).error("ECONNREFUSED");
    let c = capture([end, state(2, TcpState::Close, TcpState::SynSent)]);
    assert_eq!(c.connections[0].latest.map(|(_, s)| s), Some(TcpState::Close));
    assert_eq!(c.connections[0].attempt(c.window_end_ns), Some(Attempt::Failed(Failure::Refused)));
}

#[test]
fn a_socket_that_connects_again_is_another_attempt() {
    let c = capture([
        state(1, TcpState::Close, TcpState::SynSent),
        state(2, TcpState::SynSent, TcpState::Close).error("ECONNREFUSED"),
        state(100, TcpState::Close, TcpState::SynSent),
        state(101, TcpState::SynSent, TcpState::Established),
    ]);
    let attempts: Vec<_> = c.connections.iter().map(|x| x.attempt(c.window_end_ns)).collect();
    assert_eq!(attempts, [Some(Attempt::Failed(Failure::Refused)), Some(Attempt::Established)]);
}

#[test]
fn an_attempt_without_an_error_was_given_up() {
    let end = an_event().closed(TcpState::SynSent, TcpClose { gave_up_after_ns: Some(7), ..TcpClose::default() });
    let c = capture([state(1, TcpState::Close, TcpState::SynSent), end.at_ms(501)]);
    assert_eq!(c.connections[0].attempt(c.window_end_ns), Some(Attempt::Failed(Failure::GaveUp(7))));
}

#[test]
fn an_error_of_the_call_counts_where_the_socket_has_none() {
    let call = an_event().to("10.0.0.5:80").connect();
    let c = capture([
        state(1, TcpState::Close, TcpState::SynSent),
        state(1, TcpState::SynSent, TcpState::Close),
        call.clone().error("EADDRNOTAVAIL").at_ms(1),
        call.clone().error("EINPROGRESS").socket(2).at_ms(5),
        call.error("ENETUNREACH").socket(3).at_ms(9),
    ]);
    let attempts: Vec<_> = c.connections.iter().map(|x| x.attempt(c.window_end_ns)).collect();
    let failed = |n| Some(Attempt::Failed(Failure::Unreachable(ktrace_bundle::event::Errno(n))));
    assert_eq!(attempts, [failed(99), None, failed(101)]);
}

#[test]
fn rates_count_only_what_happened_in_the_window() {
    let start = a_socket().at_start().with(|s| (s.tx_segs_count, s.retrans_count) = (Some(1000), Some(50))).build();
    let end = a_socket().with(|s| (s.tx_segs_count, s.retrans_count) = (Some(1100), Some(53))).build();
    let probe = an_event().tcp_retransmit(RetransmitKind::Probe, TcpState::Established).seq(1).build();
    let mut builder = Builder::default();
    for record in [Record::Event(probe), Record::Socket(start), Record::Socket(end)] {
        builder.push(record);
    }
    let c = builder.finish(&a_report(Form::Directory));
    assert_eq!(c.connections[0].segments(), Some((100, 3)));
}

#[test]
fn what_does_not_fit_becomes_coverage() {
    let mut builder = Builder { max_flows: 1, ..Builder::default() };
    for socket in 1..=3 {
        builder.push(Record::Event(state(1, TcpState::Close, TcpState::SynSent).socket(socket).build()));
        builder.push(Record::Event(send(1).socket(socket).build()));
    }
    builder.push(Record::Manifest(Box::new(a_manifest(&[]))));
    let c = builder.finish(&a_report(Form::Tgz));
    assert_eq!((c.connections.len(), c.dns.len()), (1, 1));
    assert_eq!(c.coverage.overflow, vec![("connections", 2), ("UDP flows", 2)]);
    assert_eq!(c.coverage.gap(&LOSSLESS), Some("2 records of more connections than the analyzer keeps apart".into()));
}

#[test]
fn a_bare_journal_proves_no_absence() {
    let c = Builder::default().finish(&a_report(Form::Events));
    assert_eq!(c.coverage.gap(&LOSSLESS), Some("no manifest: what was measured is not known".into()));
    assert_eq!(c.coverage.cut, None);
}

#[test]
fn a_capture_that_was_never_sealed_counts_as_cut() {
    let c = Builder::default().finish(&a_report(Form::Directory));
    assert!(c.coverage.cut.is_some());
}

#[test]
fn the_remains_of_a_killed_run_say_up_to_when_their_losses_are_known() {
    let said = |checkpoint| {
        let mut builder = Builder::default();
        builder.push(Record::Partial(Box::new(PartialManifest { head: a_head(), checkpoint })));
        builder.finish(&a_report(Form::Directory)).coverage.cut.unwrap()
    };
    assert_eq!(said(None), "the capture did not end properly, before its first account of what it lost");
    let ledger = Ledger { seen: 40, written: 30, ..Ledger::default() };
    let at = Checkpoint { at: start_at(), boot_ns: START_BOOT_NS + 3_500_000_000, ledger };
    assert_eq!(
        said(Some(at)),
        "the capture did not end properly: its last account is from 3.50 s into the window (40 events seen, 30 written); \
         what it lost after that, about a second as a rule, is on no record"
    );
}

#[test]
fn a_cut_bundle_proves_no_absence_but_keeps_its_hooks() {
    let mut report = a_report(Form::Directory);
    report.cut = Some(Cut { member: "events.jsonl".into(), line: 17, why: "its last line has no end".into() });
    let mut builder = Builder::default();
    builder.push(Record::Manifest(Box::new(a_manifest(&[]))));
    let c = builder.finish(&report);
    assert_eq!(c.coverage.gap(&LOSSLESS), Some("`events.jsonl` is cut after line 17: its last line has no end".into()));
    assert_eq!(c.coverage.gap(&Needs { lossless: false, ..LOSSLESS }), None);
}

#[test]
fn loss_counts_for_the_rules_that_need_those_events() {
    let c = capture_with([send(0)], |m| {
        let t = m.ledger.by_type.entry(EventKind::UdpRecv).or_default();
        t.dropped.insert(DropReason::RingFull, 4);
        m.ledger.total_from_types();
    });
    let why = c.coverage.gap(&LOSSLESS);
    assert_eq!(why, Some("4 `udp_send` or `udp_recv` events are missing (ring_full 4 of all types)".into()));
    assert_eq!(c.coverage.gap(&Needs { hooks: &["tcp_state"], lossless: true, ..Needs::NOTHING }), None);
}

#[test]
fn a_byte_cap_is_the_users_if_the_bound_that_held_was() {
    let entry = |from| PlanEntry { value: "x".into(), from };
    for (by, asked) in [("max-bytes", vec![DropReason::ByteCap]), ("max-disk-share", vec![])] {
        let c = capture_with([send(0)], |m| {
            m.head.plan.insert("max-bytes".to_owned(), entry(PlanSource::Flag));
            m.head.plan.insert("max-disk-share".to_owned(), entry(PlanSource::Default));
            m.head.byte_bound = Some(ByteBound { bytes: 1, by: by.to_owned(), volume_bytes: None });
        });
        assert_eq!(c.coverage.user_caps, asked, "{by}");
    }
}

#[test]
fn a_late_filter_loses_nothing() {
    let c = capture_with([send(0)], |m| {
        let t = m.ledger.by_type.entry(EventKind::UdpRecv).or_default();
        t.dropped.insert(DropReason::FilteredLate, 4);
        m.ledger.total_from_types();
    });
    assert_eq!((c.coverage.gap(&LOSSLESS), c.coverage.lost_share()), (None, 0.0));
}

#[test]
fn a_hook_that_was_not_requested_is_a_gap_by_plan() {
    let without = |outcome| {
        capture_with([send(0)], |m| {
            let hook = m.head.hooks.iter_mut().find(|h| h.name == "udp");
            hook.expect("the hook").outcome = outcome;
        })
    };
    let asked = without(HookOutcome::NotRequested).coverage;
    assert_eq!(asked.gap(&LOSSLESS), Some("hook `udp` was not requested".into()));
    assert!(asked.gap_is_by_plan(&LOSSLESS));
    assert!(!without(HookOutcome::Failed).coverage.gap_is_by_plan(&LOSSLESS));
}

#[test]
fn the_window_ends_where_the_manifest_says() {
    let c = capture([send(0)]);
    assert_eq!(c.window_end_ns, START_BOOT_NS + WINDOW_NS);
    assert_eq!(c.duration_ns, WINDOW_NS);
}

#[test]
fn memory_grows_with_flows_not_with_events() {
    let mut builder = Builder::default();
    for n in 0..200_000 {
        builder.push(Record::Event(send(n / 10).seq(n).build()));
    }
    let c = builder.finish(&a_report(Form::Events));
    let f = only_flow(&c);
    assert_eq!((f.sent, f.evidence.seqs().len(), f.evidence.total()), (200_000, 8, f.lost));
}

#[test]
fn a_filter_of_the_plan_is_something_that_was_not_measured() {
    let entry = |value| ktrace_bundle::manifest::PlanEntry { value, from: ktrace_bundle::manifest::PlanSource::Flag };
    let with = |flag: &'static str, value| {
        let c = capture_with([], |m| {
            m.head.plan.insert(flag.to_owned(), entry(value));
        });
        c.coverage.not_measured[0].clone()
    };
    assert_eq!(with("dns-only", serde_json::json!(true)), "traffic other than DNS (`--dns-only`)");
    assert_eq!(with("dns-only", serde_json::json!(false)), "DNS answer codes (payload is never read)");
    assert_eq!(with("ports", serde_json::json!([80, 443])), "traffic of other ports than 80, 443 (`--ports`)");
    assert_eq!(with("ports", serde_json::json!(["!22"])), "traffic of the ports 22 (`--ports`)");
    let cidr = serde_json::json!(["10.0.0.0/8", "!10.1.0.0/16"]);
    assert_eq!(with("cidr", cidr), "traffic that `--cidr` leaves out: 10.0.0.0/8, !10.1.0.0/16");
}
