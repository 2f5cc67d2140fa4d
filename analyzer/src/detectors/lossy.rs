//! `evidence.lossy`: what the bundle itself is missing, so that nobody reads silence as health.

use std::collections::BTreeSet;

use ktrace_bundle::ledger::DropReason;
use serde::Deserialize;

use super::Rule;
use crate::capture::{Capture, Coverage, Evidence, Needs};
use crate::escape;
use crate::finding::{Finding, Severity, Signal, Step, Subject};
use crate::kb::Ms;
use crate::units::{count, duration, percent, share};

/// Most sentences that are repeated.
const MAX_REASONS: usize = 8;

/// See the module.
pub(super) struct Lossy;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Thresholds {
    missed_share: f64,
    disorder_ms: Ms,
}

/// What can be done about something that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Remedy {
    /// The capture took in more than it could hold.
    Room,
    /// The hooks, or the analyzer, could not keep up with the traffic.
    LessTraffic,
    /// A part of the collector did not work here.
    Check,
    /// The file is not what was written.
    Copy,
}

impl Remedy {
    fn step(self) -> Step {
        match self {
            Self::Room => Step::think(
                "capture again: a larger `--ring-bytes`, fewer ports (`--ports`, `--dns-only`) or larger caps (`--max-events`, `--max-bytes`)",
            ),
            Self::LessTraffic => Step::think("capture again with fewer ports: `--ports`, `--dns-only`"),
            Self::Check => Step::run("on the node: see what cannot be captured there, and why", "ktrace check"),
            Self::Copy => Step::think(
                "copy the bundle again and compare its size with the original; of a run that did not end properly there is no more",
            ),
        }
    }
}

/// Something that is missing, whether it is anybody's fault, and what to do about it.
struct Gap {
    text: String,
    severity: Severity,
    remedy: Option<Remedy>,
}

impl Rule for Lossy {
    const ID: &'static str = "evidence.lossy";
    const TEXT: &'static str = include_str!("../../kb/evidence.lossy.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        Needs::NOTHING
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        let c = &capture.coverage;
        let mut gaps: Vec<Gap> = [drops(c), hooks(c), damage(c), doubts(t, c)].into_iter().flatten().collect();
        if gaps.iter().all(|g| g.severity < Severity::Warning) {
            gaps.extend(degraded(c));
        }
        let Some(severity) = gaps.iter().map(|g| g.severity).max() else { return Vec::new() };
        vec![finding(c, &gaps, severity)]
    }
}

fn drops(c: &Coverage) -> Vec<Gap> {
    let Some(ledger) = &c.ledger else { return Vec::new() };
    let real = ledger.dropped.iter().filter(|(r, n)| **n > 0 && **r != DropReason::FilteredLate);
    real.map(|(reason, n)| {
        let by_user = c.user_caps.contains(reason);
        let whose = if by_user { ", as the user asked" } else { "" };
        let severity = if by_user { Severity::Info } else { Severity::Warning };
        let of = percent(share(*n, ledger.seen));
        let (events, when) = (count(*n, "event was", "events were"), c.losses.when_dropped(*reason));
        Gap {
            text: format!("{events} dropped{when} ({}, {of}{whose})", reason.as_str()),
            severity,
            remedy: Some(Remedy::Room),
        }
    })
    .collect()
}

fn hooks(c: &Coverage) -> Vec<Gap> {
    c.missing_hooks().map(|text| Gap { text, severity: Severity::Warning, remedy: Some(Remedy::Check) }).collect()
}

fn damage(c: &Coverage) -> Vec<Gap> {
    let mut out: Vec<String> = c.cut.iter().cloned().collect();
    out.extend(c.integrity.iter().take(MAX_REASONS).cloned());
    if c.bad_lines > 0 {
        out.push(format!("{} cannot be read", count(c.bad_lines, "line", "lines")));
    }
    out.into_iter().map(|text| Gap { text, severity: Severity::Warning, remedy: Some(Remedy::Copy) }).collect()
}

/// The collector's own reasons, where nothing above says the same.
fn degraded(c: &Coverage) -> impl Iterator<Item = Gap> {
    let reasons = if c.complete { &[] } else { c.degraded.as_slice() };
    reasons.iter().take(MAX_REASONS).map(|d| Gap {
        text: escape::line(d),
        severity: Severity::Warning,
        remedy: Some(Remedy::Check),
    })
}

fn doubts(t: &Thresholds, c: &Coverage) -> Vec<Gap> {
    let mut out = Vec::new();
    if let Some(l) = &c.ledger {
        let missed = share(l.missed, l.observed.saturating_add(l.missed));
        if l.missed > 0 {
            let severity = if missed >= t.missed_share { Severity::Warning } else { Severity::Info };
            let when = c.losses.when_missed();
            let text = format!("up to {} missed by the hooks{when}", count(l.missed, "event was", "events were"));
            out.push(Gap { text, severity, remedy: Some(Remedy::LessTraffic) });
        }
        if l.max_disorder_ns > t.disorder_ms.ns() {
            let text = format!("lines are out of order by up to {}", duration(l.max_disorder_ns));
            out.push(Gap { text, severity: Severity::Info, remedy: None });
        }
    }
    if c.clock_steps > 0 {
        let (times, by) = (count(c.clock_steps, "time", "times"), duration(c.max_clock_step_ns));
        let text = format!("the wall clock was stepped {times}, by up to {by}: times are by its first reading");
        out.push(Gap { text, severity: Severity::Info, remedy: None });
    }
    out.extend(c.overflow.iter().map(|(what, n)| Gap {
        text: format!("{} of more {what} than the analyzer keeps apart", count(*n, "record", "records")),
        severity: Severity::Warning,
        remedy: Some(Remedy::LessTraffic),
    }));
    out
}

fn finding(c: &Coverage, gaps: &[Gap], severity: Severity) -> Finding {
    let texts: Vec<&str> = gaps.iter().map(|g| g.text.as_str()).collect();
    let share = c.lost_share();
    let remedies: BTreeSet<Remedy> = gaps.iter().filter_map(|g| g.remedy).collect();
    Finding {
        rule: "evidence.lossy",
        severity,
        title: format!("this bundle does not tell everything: {}", texts.join("; ")),
        signal: signal(share, gaps.len()),
        subject: Subject::default(),
        cause: "the capture, or the copy of its bundle, lost part of what happened".to_owned(),
        impact: "what is reported was seen; what is not reported may have happened all the same".to_owned(),
        next_steps: remedies.into_iter().map(Remedy::step).collect(),
        share,
        confidence: 1.0,
        evidence: Evidence::default(),
        symptoms: Vec::new(),
        covers: None,
    }
}

/// The share of events that were dropped; where none was, the number of things that are missing.
fn signal(share: f64, gaps: usize) -> Signal {
    if share > 0.0 {
        Signal { name: "dropped_event_share", value: share * 100.0, unit: "percent", threshold: 0.0 }
    } else {
        Signal { name: "gap_count", value: gaps as f64, unit: "gaps", threshold: 1.0 }
    }
}
