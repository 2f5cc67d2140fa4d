//! Rules in, ports and what is said about them out.

use std::time::Duration;

use ktrace_bundle::event::Proto;

use super::*;
use crate::cli::{Request, parse};
use crate::services::{Backend, Declared, RuleReport, RuleSource, Vip};

fn plan(args: &[&str]) -> Plan {
    match parse([&["ktrace", "--node", "n1"], args].concat()).unwrap() {
        Request::Capture(args, origins) => Plan::from_args(&args, &origins).unwrap(),
        other => panic!("not a capture: {other:?}"),
    }
}

/// Rules by which each first port goes to the second.
fn rules(ports: &[(u16, u16)]) -> Rules {
    let declared = ports.iter().map(|(vip, backend)| Declared {
        proto: Proto::Udp,
        vip: Vip { addr: None, port: Some(*vip), last_port: None },
        backends: vec![Backend { addr: None, port: Some(*backend) }],
        source: RuleSource::Nftables,
        name: None,
    });
    Rules { declared: declared.collect(), reports: Vec::new() }
}

fn admitted(args: &[&str], rules: &[Rules]) -> Plan {
    let mut plan = plan(args);
    plan.admit_behind(rules);
    plan
}

#[test]
fn ports_behind_the_wanted_ones_are_admitted_and_recorded() {
    let both = [rules(&[(80, 8080), (81, 8081), (443, 80)]), rules(&[(80, 8088)])];
    let plan = admitted(&["--ports", "80,!8088"], &both);
    assert_eq!(plan.behind.ports, [8080].into());
    let entry = PlanEntry { value: json!([8080]), from: PlanSource::Nat };
    assert_eq!(plan.entries["ports-behind-nat"], entry);
    assert_eq!(plan.behind.notes, ["ports behind NAT are recorded, too, as rules of this node tell: 8080"]);
    assert!(plan.behind.dns_ports.is_empty() && !plan.entries.contains_key("dns-ports-behind-nat"));
}

#[test]
fn a_dns_service_makes_the_port_of_its_backends_one_of_dns() {
    let rules = [rules(&[(53, 5353), (80, 8080)])];
    for args in [&["--dns-only"][..], &["--ports", "53"], &["--ports", "53,5353"]] {
        let plan = admitted(args, &rules);
        assert_eq!(plan.all_dns_ports(), [53, 5353].into(), "{args:?}");
        assert_eq!(plan.entries["dns-ports-behind-nat"].value, json!([5353]));
    }
    // what the filter does not admit is no pair
    assert_eq!(admitted(&["--ports", "80"], &rules).all_dns_ports(), [53].into());
    assert_eq!(admitted(&["--dns-only", "--dns-ports", "80"], &rules).all_dns_ports(), [80, 8080].into());
}

#[test]
fn without_wanted_ports_no_rule_is_looked_at() {
    for args in [&[][..], &["--ports", "!80"]] {
        let plan = admitted(args, &[rules(&[(80, 8080)])]);
        assert_eq!(plan.behind, Behind::default());
        assert!(!plan.entries.contains_key("ports-behind-nat"));
    }
    let mut unwanted = plan(&["--ports", "80"]);
    unwanted.look_behind_nat(false);
    assert_eq!(unwanted, plan(&["--ports", "80"]));
}

#[test]
fn what_does_not_fit_into_the_filter_is_said() {
    let many: Vec<_> = (0..64).map(|n| (80, 9000 + n)).collect();
    let plan = admitted(&["--ports", "80,!81"], &[rules(&many)]);
    assert_eq!(plan.behind.ports.len(), ports::MAX - 2);
    assert_eq!(plan.behind.notes[1], "the filter has no room for 2 ports behind NAT, as it holds 64: 9062, 9063");
}

#[test]
fn rules_that_could_not_be_read_are_said() {
    let report =
        |source, outcome, omitted| RuleReport { source, outcome, latency: Duration::ZERO, entries: 0, omitted };
    let reports = vec![
        report(RuleSource::Nftables, Outcome::Failed { why: "no answer".into() }, 0),
        report(RuleSource::Iptables, Outcome::Failed { why: "no answer".into() }, 0),
        report(RuleSource::Iptables, Outcome::Absent { why: "not installed".into() }, 0),
        report(RuleSource::Ipvs, Outcome::Answered, 3),
    ];
    let plan = admitted(&["--dns-only"], &[Rules { declared: Vec::new(), reports }]);
    assert_eq!(
        plan.behind.notes,
        [
            "ports behind NAT may be missing, as rules of nftables, iptables could not be read: no answer",
            "ports behind NAT may be missing, as rules of ipvs could not be read: \
             3 rules, services or backends are too many or not understood"
        ]
    );
    assert_eq!(plan.entries["ports-behind-nat"].value, json!([]));
}
