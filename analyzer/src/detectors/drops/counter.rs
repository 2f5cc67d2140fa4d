//! `policy.drop` where drops were not seen: rules of packet filters that drop, and whose counters rose, are all that tells then.

use ktrace_bundle::node::Filter;

use super::{Thresholds, state, words};
use crate::capture::{Capture, Evidence};
use crate::detectors::steps;
use crate::escape;
use crate::finding::{Finding, Severity, Signal, Step, Subject};
use crate::units::count;

/// A note for each namespace, about the rule that rose most; at most `max`.
pub(super) fn findings(capture: &Capture, t: &Thresholds, max: usize) -> Vec<Finding> {
    if capture.coverage.attached("drop") {
        return Vec::new();
    }
    let places = capture.node.places.iter();
    let risen = places.filter_map(|(netns, place)| Some((*netns, place.dropping_filters().next()?)));
    let many = risen.filter(|(_, (_, rose))| *rose >= t.min_strange);
    many.map(|(netns, rule)| finding(capture, t, netns, rule)).take(max).collect()
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
        rule: "policy.drop",
        severity: Severity::Info,
        title,
        signal: Signal {
            name: "rule_packet_count",
            value: rose as f64,
            unit: "packets",
            threshold: t.min_strange as f64,
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
