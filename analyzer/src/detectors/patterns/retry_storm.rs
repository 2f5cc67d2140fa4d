//! `connect.retry_storm`: a process that tries again at once, over and over, what fails each time.

use serde::Deserialize;

use super::{is_failed, most};
use crate::capture::{Capture, Connection, Needs, Target};
use crate::detectors::{Rule, group, steps};
use crate::finding::{Finding, Severity, Signal, Step};
use crate::units::{SECOND, share};

/// See the module.
pub(in crate::detectors) struct RetryStorm;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::detectors) struct Thresholds {
    min_failed_rate: f64,
    min_failed: usize,
    failed_share: f64,
}

impl Rule for RetryStorm {
    const ID: &'static str = "connect.retry_storm";
    const TEXT: &'static str = include_str!("../../../kb/connect.retry_storm.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        Needs { hooks: &["tcp_state"], lossless: true, ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        let races = capture.races();
        let mut found = Vec::new();
        for (target, members) in capture.attempts() {
            let judged = || members.iter().filter_map(|(c, a)| Some((*c, is_failed(capture, races, c, *a)?)));
            let failed: Vec<&Connection> = judged().filter(|(_, failed)| *failed).map(|(c, _)| c).collect();
            found.extend(finding(capture, t, &target, &failed, judged().count() as u64));
        }
        most(found)
    }
}

fn finding(
    capture: &Capture,
    t: &Thresholds,
    target: &Target,
    failed: &[&Connection],
    attempts: u64,
) -> Option<Finding> {
    let share = share(failed.len() as u64, attempts);
    if failed.len() < t.min_failed || share < t.failed_share {
        return None;
    }
    let rate = busiest_second(failed) as f64;
    if rate < t.min_failed_rate {
        return None;
    }
    let subject = group::of_connections(capture, target, failed.iter().copied());
    let title = format!(
        "{} tries again and again to connect to {}: {} attempts came to nothing, up to {rate} in a second",
        subject.who(),
        subject.whom(),
        failed.len(),
    );
    let mut next_steps: Vec<Step> = steps::listeners(subject.answers_at(), "-ltnp").into_iter().collect();
    next_steps.push(Step::think(
        "in the program: wait longer after each failure, with some chance in it (backoff with jitter)",
    ));
    Some(Finding {
        rule: RetryStorm::ID,
        severity: Severity::Warning,
        title,
        signal: Signal { name: "failed_connect_rate", value: rate, unit: "per second", threshold: t.min_failed_rate },
        cause: "the process does not wait between its attempts, so a fault of the other end becomes load for both"
            .to_owned(),
        impact:
            "processor time and ports of this node go into attempts that fail, and the other end meets a flood when \
                 it comes back"
                .to_owned(),
        next_steps,
        share,
        confidence: 0.9,
        evidence: super::super::refused::evidence(failed),
        symptoms: Vec::new(),
        covers: None,
        subject,
    })
}

/// The most of them that began within one second.
fn busiest_second(failed: &[&Connection]) -> usize {
    let mut times: Vec<u64> = failed.iter().filter_map(|c| c.begun_at()).collect();
    times.sort_unstable();
    let until = |at: u64| times.partition_point(|t| *t < at.saturating_add(SECOND));
    times.iter().enumerate().map(|(n, at)| until(*at) - n).max().unwrap_or(0)
}
