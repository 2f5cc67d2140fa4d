use ktrace_bundle::event::{PacketDir, Payload, Proto, RetransmitKind, TcpClose};
use ktrace_bundle::tcp::TcpState;
use ktrace_bundle::testing::{EventBuilder, an_event};

use crate::capture::tests::capture;
use crate::detectors::{ranked, run};
use crate::finding::{Finding, Severity};
use crate::kb::release;

const WEB: &str = "10.0.0.5:8080";

fn found(events: impl IntoIterator<Item = EventBuilder>) -> Vec<Finding> {
    ranked(&run(&capture(events), &release()).unwrap())
}

fn on(socket: u64, ms: u64) -> EventBuilder {
    an_event().from(&format!("10.42.1.15:{}", 40_000 + socket)).to(WEB).socket(socket).at_ms(ms)
}

/// A connection that sent 20 of 100 segments again, of which this many bytes in four packets were dropped.
fn lossy(bytes: u64) -> Vec<EventBuilder> {
    let again = (0..4).map(|n| {
        on(1, 2000 + n).tcp_retransmit(RetransmitKind::Data, TcpState::Established).payload(|p| {
            let Payload::TcpRetransmit(r) = p else { panic!() };
            (r.tx_segs_count, r.retrans_count) = (Some(90 + 2 * n), Some(10 + n));
        })
    });
    let drop = on(1, 2000).dropped(Proto::Tcp, PacketDir::Forwarded, "NETFILTER_DROP", 4).payload(|p| {
        let Payload::Drop(d) = p else { panic!() };
        d.bytes = Some(bytes);
    });
    let account = TcpClose { tx_segs_count: Some(100), retrans_count: Some(20), ..TcpClose::default() };
    let ends = [drop, on(1, 9000).closed(TcpState::LastAck, account)];
    std::iter::once(on(1, 1000).established_after_ms(1)).chain(again).chain(ends).collect()
}

#[test]
fn drops_that_account_for_heavy_loss_are_its_cause() {
    let found = found(lossy(4 * 6000));
    let told: Vec<_> = found.iter().map(|f| (f.rule, f.severity, f.symptoms.as_slice())).collect();
    assert_eq!(told, [("policy.drop", Severity::Critical, &["tcp.retransmits"][..])]);
}

#[test]
fn a_few_drops_do_not_hide_heavy_loss_that_has_another_cause() {
    let told: Vec<_> = found(lossy(4 * 1500)).iter().map(|f| (f.rule, f.severity)).collect();
    assert_eq!(told, [("tcp.retransmits", Severity::Critical), ("policy.drop", Severity::Warning)]);
}

#[test]
fn how_many_drops_a_connection_suffers_from_can_be_set() {
    let mut kb = release();
    kb.set("policy.drop.min_ailing=5").unwrap();
    let found = ranked(&run(&capture(lossy(4 * 1500)), &kb).unwrap());
    let told: Vec<_> = found.iter().map(|f| (f.rule, f.severity)).collect();
    assert_eq!(told, [("tcp.retransmits", Severity::Critical)]);
}

#[test]
fn no_more_queries_are_lost_to_a_rule_than_packets_were_dropped() {
    let query = |ms| an_event().udp_send().bytes(40 + ms / 1000).socket(7).at_ms(ms);
    let drop = an_event().socket(7).at_ms(1000).dropped(Proto::Udp, PacketDir::Sent, "NETFILTER_DROP", 2);
    let found = found((1..9).map(|n| query(1000 * n)).chain([drop]));
    let policy = found.iter().find(|f| f.rule == "policy.drop").unwrap();
    assert!(policy.title.ends_with("2 packets of 2 of 8 queries"), "{}", policy.title);
    assert!(found.iter().any(|f| f.rule == "dns.no_reply" && f.severity == Severity::Critical), "the others stand");
}

#[test]
fn a_loser_of_a_race_that_was_won_is_a_note() {
    let six = |ms| an_event().from("[2001:db8::1]:40001").to("[2001:db8::5]:8080").socket(1).at_ms(ms);
    let lost = [
        six(1000).tcp_state(TcpState::Close, TcpState::SynSent),
        six(1250).closed(TcpState::SynSent, TcpClose::default()),
    ];
    let drop = six(1000).dropped(Proto::Tcp, PacketDir::Sent, "NETFILTER_DROP", 1);
    let won = [on(2, 1200).tcp_state(TcpState::Close, TcpState::SynSent), on(2, 1240).established_after_ms(40)];
    let told: Vec<_> = found(lost.into_iter().chain([drop]).chain(won)).iter().map(|f| (f.rule, f.severity)).collect();
    assert_eq!(told, [("policy.drop", Severity::Info)]);
}

#[test]
fn a_full_table_of_connection_tracking_stands_above_its_drops() {
    // netfilter drops for it, by its own reason
    let (full, dropped) = (("conntrack.full", "table_share"), ("policy.drop", "blocked_share"));
    assert!(crate::detectors::rank::explains(full, dropped));
    assert!(!crate::detectors::rank::explains(dropped, full));
}

/// A machine on which a packet to the port 8080 was dropped, and these rules dropped so many in its namespace.
fn suspects(dir: PacketDir, rules: &[(&str, &str, &str, u64)]) -> Vec<String> {
    use ktrace_bundle::event::When;
    use ktrace_bundle::node::{Filter, Item};
    use ktrace_bundle::testing::in_network;

    let mut capture = capture([on(1, 1000).dropped(Proto::Tcp, dir, "NETFILTER_DROP", 4)]);
    for (number, (family, hook, text, rose)) in (1..).zip(rules) {
        let filter = Filter {
            family: (*family).to_owned(),
            hook: Some((*hook).to_owned()),
            number: Some(number),
            verdict: "drop".to_owned(),
            text: (*text).to_owned(),
            rose: Some(*rose),
            ..Filter::default()
        };
        for when in [When::Start, When::End] {
            capture.node.push(in_network(when, Item::Filter(filter.clone())));
        }
    }
    let row = &capture.drops.rows()[0];
    super::state::rules(&capture, row).iter().map(|(f, rose)| format!("{} {rose}", f.text)).collect()
}

#[test]
fn a_rule_is_suspected_if_it_is_asked_for_such_packets_and_its_counter_rose() {
    let rules = [
        ("inet", "input", "drop a", 9),
        ("ip6", "output", "drop b", 8),
        ("ip", "output", "drop c", 7),
        ("ip", "output", "drop d", 0),
        ("inet", "postrouting", "drop e", 12),
    ];
    assert_eq!(suspects(PacketDir::Sent, &rules), ["drop e 12", "drop c 7"]);
    assert_eq!(suspects(PacketDir::Received, &rules), ["drop a 9"]);
}

#[test]
fn a_rule_that_names_the_port_is_suspected_alone() {
    let rules = [
        ("inet", "output", "ct state invalid counter drop", 900),
        ("inet", "output", "tcp dport { 80, 8080 } counter drop", 4),
        ("inet", "output", "tcp dport 18080 counter drop", 500),
    ];
    assert_eq!(suspects(PacketDir::Sent, &rules), ["tcp dport { 80, 8080 } counter drop 4"]);
}
