//! `conntrack.insert_failed`: entries that a table with room could not take in.

use ktrace_bundle::tracking::Table;
use serde::Deserialize;

use super::full::is_full;
use super::{gained, name, steps};
use crate::capture::{Capture, Evidence, Needs, TrackingNeed};
use crate::detectors::Rule;
use crate::finding::{Finding, Severity, Signal, Step, Subject};
use crate::units::{SECOND, duration};

/// See the module.
pub(in crate::detectors) struct InsertFailed;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::detectors) struct Thresholds {
    warning_rate: f64,
    min_warning: u64,
    full_share: f64,
}

impl Rule for InsertFailed {
    const ID: &'static str = "conntrack.insert_failed";
    const TEXT: &'static str = include_str!("../../../kb/conntrack.insert_failed.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        Needs { tracking: TrackingNeed::Counters, ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        let tables = capture.coverage.tracking.tables().filter(|table| is_full(table, t.full_share).is_none());
        tables.filter_map(|table| finding(t, table, capture.duration_ns)).collect()
    }
}

fn finding(t: &Thresholds, table: &Table, window_ns: u64) -> Option<Finding> {
    let n = gained(table, "insert_failed");
    if n == 0 {
        return None;
    }
    let rate = n as f64 / (window_ns.max(SECOND) as f64 / SECOND as f64);
    let is_grave = rate >= t.warning_rate && n >= t.min_warning;
    let mut next_steps = steps(table);
    next_steps.push(Step::think(
        "resolvers: `options single-request-reopen`, or a DNS cache on the node, keeps A and AAAA apart",
    ));
    Some(Finding {
        rule: "conntrack.insert_failed",
        severity: if is_grave { Severity::Warning } else { Severity::Info },
        title: format!("{} lost packets of new flows: `insert_failed` rose by {n} in {}", name(table), duration(window_ns)),
        signal: Signal { name: "insert_failed_rate", value: rate, unit: "packets/s", threshold: t.warning_rate },
        subject: Subject { netns: Some(table.netns), ..Subject::default() },
        cause: "two packets came at once whose flows are, or are translated to, the same one: the second one finds its place taken and is dropped"
            .to_owned(),
        impact: "each is a first packet that its sender has to send again, after 1 s (TCP) or its own timeout (DNS: 5 s)".to_owned(),
        next_steps,
        share: (rate / 100.0).min(1.0),
        confidence: 0.9,
        evidence: Evidence::default(),
        symptoms: Vec::new(),
        covers: Some(Vec::new()),
    })
}
