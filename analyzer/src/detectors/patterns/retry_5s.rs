//! `dns.retry_5s`: lookups that stall because a query was asked again after the resolver's timeout.

use ktrace_bundle::event::EventKind;
use serde::Deserialize;

use super::most;
use crate::capture::{Capture, Evidence, Needs, Target, UdpFlow};
use crate::detectors::{Rule, group, steps};
use crate::finding::{Finding, Severity, Signal, Step};
use crate::kb::Ms;
use crate::units::{count, duration, share};

/// See the module.
pub(in crate::detectors) struct Retry5s;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::detectors) struct Thresholds {
    min_retries: u64,
    min_stalled_ms: Ms,
}

impl Rule for Retry5s {
    const ID: &'static str = "dns.retry_5s";
    const TEXT: &'static str = include_str!("../../../kb/dns.retry_5s.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        Needs { hooks: &["udp"], lossless: true, dns: true, ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        most(capture.dns_by_target().iter().filter_map(|(target, flows)| finding(capture, t, target, flows)).collect())
    }
}

fn finding(capture: &Capture, t: &Thresholds, target: &Target, flows: &[&UdpFlow]) -> Option<Finding> {
    let stalled: Vec<&UdpFlow> =
        flows.iter().filter(|f| f.retries > 0 && f.stalled_ns >= t.min_stalled_ms.ns()).copied().collect();
    // as many may have been answered as replies are missing from the capture
    let missing = capture.coverage.lost(&[EventKind::UdpRecv]);
    let retries = stalled.iter().fold(0_u64, |n, f| n.saturating_add(f.retries)).saturating_sub(missing);
    let answered = flows.iter().fold(0_u64, |n, f| n.saturating_add(f.answered));
    // a server that never answers is no matter of single queries
    if retries < t.min_retries || answered == 0 {
        return None;
    }
    let longest = stalled.iter().map(|f| f.stalled_ns).max()?;
    let sent = flows.iter().fold(0_u64, |n, f| n.saturating_add(f.sent));
    let subject = group::of_flows(capture, target, flows);
    let title = format!(
        "lookups of {} stall for {}: {} to {} asked again for want of a reply",
        subject.who(),
        duration(longest),
        count(retries, "query was", "queries were"),
        subject.whom(),
    );
    let mut evidence = Evidence::default();
    stalled.iter().for_each(|f| evidence.merge(&f.evidence));
    let mut next_steps: Vec<Step> = steps::route(&subject).into_iter().collect();
    next_steps.extend(steps::watch(&subject, "udp"));
    next_steps.push(Step::think(
        "if the two queries for A and AAAA are lost to each other in connection tracking: `options single-request-reopen`, \
         or a DNS cache on the node",
    ));
    Some(Finding {
        rule: Retry5s::ID,
        severity: Severity::Warning,
        title,
        signal: Signal {
            name: "repeated_query_count",
            value: retries as f64,
            unit: "queries",
            threshold: t.min_retries as f64,
        },
        cause: "single queries or replies are lost, and the resolver waits for its timeout before it asks again"
            .to_owned(),
        impact: format!("what needs these names waits {} longer", duration(longest)),
        next_steps,
        share: share(retries, sent),
        confidence: 0.8,
        evidence,
        symptoms: Vec::new(),
        covers: None,
        subject,
    })
}
