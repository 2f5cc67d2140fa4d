//! `policy.counter`: where drops were not watched, rules of packet filters that drop, and whose counters rose, are all that tells.

use ktrace_bundle::node::Filter;

use serde::Deserialize;

use super::{MAX_FINDINGS, state, words};
use crate::capture::{Capture, Evidence, Needs, NodePart};
use crate::detectors::{Rule, steps};
use crate::escape;
use crate::finding::{Finding, Severity, Signal, Step, Subject};
use crate::units::count;

/// See the module.
pub(in crate::detectors) struct PolicyCounter;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::detectors) struct Thresholds {
    min_packets: u64,
}

impl Rule for PolicyCounter {
    const ID: &'static str = "policy.counter";
    const TEXT: &'static str = include_str!("../../../kb/policy.counter.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        Needs::NOTHING
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        if capture.coverage.attached("drop") {
            return Vec::new();
        }
        let places = capture.node.places.iter();
        let risen = places.filter_map(|(netns, place)| Some((*netns, place.dropping_filters().next()?)));
        let many = risen.filter(|(_, (_, rose))| *rose >= t.min_packets);
        many.map(|(netns, rule)| finding(capture, t, netns, rule)).take(MAX_FINDINGS).collect()
    }

    fn unjudged(&self, capture: &Capture, _: &Thresholds) -> Option<String> {
        let needs = Needs { node: &[NodePart::Filters], ..Needs::NOTHING };
        capture.coverage.gap(&needs).filter(|_| !capture.coverage.attached("drop"))
    }
}

fn finding(capture: &Capture, t: &Thresholds, netns: u32, (filter, rose): (&Filter, u64)) -> Finding {
    let subject =
        Subject { netns: Some(netns), pids: state::pid_in(capture, netns).into_iter().collect(), ..Subject::default() };
    let title = format!(
        "a rule in {} dropped {}, it is not known whose: {}",
        words::netns(capture, netns, &Subject::default()),
        count(rose, "packet", "packets"),
        state::rule_in_words(filter),
    );
    Finding {
        rule: PolicyCounter::ID,
        severity: Severity::Info,
        title,
        signal: Signal {
            name: "rule_packet_count",
            value: rose as f64,
            unit: "packets",
            threshold: t.min_packets as f64,
        },
        cause: format!(
            "the counter of a rule with the verdict `{}` rose; packets that are dropped were not watched",
            escape::shown(&filter.verdict)
        ),
        impact: "none that is known: firewalls drop what nobody wants all day".to_owned(),
        next_steps: vec![Step::run("see the rules and their counters", steps::inside(&subject, "nft list ruleset"))],
        share: 0.0,
        confidence: 0.3,
        evidence: Evidence::default(),
        symptoms: Vec::new(),
        covers: Some(Vec::new()),
        subject,
    }
}
