//! `evidence.incomplete`: the kernel counted what the hooks did not see, and nothing explains it.

use std::collections::BTreeMap;

use ktrace_bundle::audit::AuditEntry;
use serde::Deserialize;

use super::Rule;
use crate::capture::{Capture, Evidence, Needs};
use crate::escape;
use crate::finding::{Finding, Severity, Signal, Step, Subject};
use crate::units::share;

/// Most counters that a sentence lists.
const MAX_COUNTERS: usize = 9;

/// See the module.
pub(super) struct Incomplete;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Thresholds {
    warning_share: f64,
}

impl Rule for Incomplete {
    const ID: &'static str = "evidence.incomplete";
    const TEXT: &'static str = include_str!("../../kb/evidence.incomplete.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        Needs { audit: true, ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        let mut by_netns: BTreeMap<u32, Vec<&AuditEntry>> = BTreeMap::new();
        for entry in capture.coverage.audit.iter().filter(|e| e.unexplained() > 0) {
            by_netns.entry(entry.netns).or_default().push(entry);
        }
        by_netns.into_iter().filter_map(|(netns, entries)| finding(t, netns, &entries)).collect()
    }
}

/// The part of all that either side counted.
fn unexplained_share(entry: &AuditEntry) -> f64 {
    share(entry.unexplained(), entry.kernel_delta.max(entry.ktrace_seen.unwrap_or(0)))
}

/// `120 of 120 (Udp.OutDatagrams)`.
fn in_words(entry: &AuditEntry) -> String {
    let (counter, left) = (escape::shown(&entry.counter), entry.unexplained());
    match entry.ktrace_seen {
        Some(seen) if seen > entry.kernel_delta => {
            format!("{left} of {seen} `{counter}` are more than the kernel counted")
        }
        Some(_) => format!("{left} of {} `{counter}` were not seen", entry.kernel_delta),
        None => format!("{left} of {} `{counter}` were not seen, for lack of a hook", entry.kernel_delta),
    }
}

fn finding(t: &Thresholds, netns: u32, entries: &[&AuditEntry]) -> Option<Finding> {
    let worst = entries.iter().copied().max_by(|a, b| unexplained_share(a).total_cmp(&unexplained_share(b)))?;
    let part = unexplained_share(worst);
    let mut texts: Vec<String> = entries.iter().take(MAX_COUNTERS).map(|e| in_words(e)).collect();
    if entries.len() > MAX_COUNTERS {
        texts.push(format!("{} more counters", entries.len() - MAX_COUNTERS));
    }
    let cause = match worst.ktrace_seen {
        None => "the hook for it was not attached",
        Some(0) => "the hook for it never ran there: its program was taken away, or this kernel does not run it",
        Some(_) => "a hook did not run each time, or something that ktrace does not know of is counted there, too",
    };
    Some(Finding {
        rule: "evidence.incomplete",
        severity: if part >= t.warning_share { Severity::Warning } else { Severity::Info },
        title: format!(
            "the kernel's own counters and this bundle disagree in network namespace {netns}: {}",
            texts.join("; ")
        ),
        signal: Signal {
            name: "unexplained_share",
            value: part * 100.0,
            unit: "percent",
            threshold: t.warning_share * 100.0,
        },
        subject: Subject { netns: Some(netns), ..Subject::default() },
        cause: cause.to_owned(),
        impact: "what is reported about this namespace was seen; what is not reported may have happened all the same"
            .to_owned(),
        next_steps: vec![
            Step::think(format!(
                "compare: `audit` in `manifest.json` has both counts and what explains part of it, netns {netns}"
            )),
            Step::run("on the node: see how each hook attaches there", "ktrace check"),
            Step::run("on the node: see which programs are attached, and by whom", "bpftool link show"),
        ],
        share: part,
        confidence: 1.0,
        evidence: Evidence::default(),
        symptoms: Vec::new(),
        covers: None,
    })
}
