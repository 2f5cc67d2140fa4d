use ktrace_bundle::event::When;
use ktrace_bundle::node::{Item, Link, NodeRecord, Qdisc, Sysctls};
use ktrace_bundle::testing::{in_network, of_host};

use super::*;
use crate::capture::tests::{capture, capture_on};

fn text(capture: &Capture, all: bool) -> String {
    let mut out = Vec::new();
    NodeReport::new(capture).write_text(&mut out, all).unwrap();
    String::from_utf8(out).unwrap()
}

fn json(capture: &Capture) -> serde_json::Value {
    let mut out = Vec::new();
    NodeReport::new(capture).write_json(&mut out, false).unwrap();
    serde_json::from_slice(&out).unwrap()
}

/// A link of this number and name that lost a packet.
fn link(when: When, index: u32, dev: &str) -> NodeRecord {
    let rose = [("tx_dropped".to_owned(), 1)].into();
    in_network(when, Item::Link(Link { dev: dev.into(), index, up: true, rose, ..Link::default() }))
}

fn both(of: impl Fn(When) -> NodeRecord) -> [NodeRecord; 2] {
    [of(When::Start), of(When::End)]
}

#[test]
fn a_healthy_machine_is_told_to_be_unremarkable() {
    let text = text(&capture([]), false);
    assert!(text.contains("\nunusual\n  nothing in what was read\n"), "{text}");
    assert!(!text.contains("not read"), "{text}");
}

#[test]
fn a_bundle_without_a_node_says_so() {
    let text = text(&capture_on([], |m| m.head.sources.clear(), Vec::new()), false);
    assert!(text.contains("\nunusual\n  nothing is known of the node\n"), "{text}");
    assert!(text.contains("- this capture did not look at the node's network\n"), "{text}");
}

#[test]
fn hostile_names_do_not_steer_the_terminal() {
    let name = "e\u{1b}[31mth\n0";
    let qdisc = |when| {
        let rose = [("drops".to_owned(), 3)].into();
        in_network(when, Item::Qdisc(Qdisc { dev: name.into(), kind: name.into(), rose, ..Qdisc::default() }))
    };
    let c = capture_on([], |_| {}, both(qdisc).into_iter().chain(both(|when| link(when, 2, name))).collect());
    let text = text(&c, true);
    assert!(text.contains(r"queue `e\u{1b}[31mth\u{a}0` of `e\u{1b}[31mth\u{a}0`"), "{text}");
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    assert!(!json(&c).to_string().contains("\\u001b"), "{}", json(&c));
}

#[test]
fn a_thousand_unusual_things_are_a_few_and_a_number() {
    let links = (2..1002).flat_map(|n| both(|when| link(when, n, &format!("veth{n}"))));
    let c = capture_on([], |_| {}, links.collect());
    let text = text(&c, false);
    assert!(text.contains("  - interface: 996 more like these\n"), "{text}");
    assert!(text.lines().count() < 40, "{text}");
    assert_eq!(json(&c)["unusual"].as_array().unwrap().len(), 5);
}

#[test]
fn forwarding_that_is_off_matters_only_beside_other_namespaces() {
    let off = |when| {
        let values = [("net.ipv4.ip_forward".to_owned(), "0".to_owned())].into();
        in_network(when, Item::Sysctls(Sysctls { values }))
    };
    let pod = |when| NodeRecord { netns: Some(7), ..of_host(when, Item::Netns(Default::default())) };
    let told = |records: Vec<NodeRecord>| text(&capture_on([], |_| {}, records), false).contains("ip_forward` = 0");
    assert!(!told(both(off).into()));
    assert!(told(both(off).into_iter().chain(both(pod)).collect()));
}
