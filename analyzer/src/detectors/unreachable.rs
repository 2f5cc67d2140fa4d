//! `tcp.unreachable`: connection attempts that the network, or this machine, turns down with an error.

use std::collections::BTreeMap;

use ktrace_bundle::event::Errno;
use serde::Deserialize;

use super::{Rule, group, refused, steps};
use crate::capture::{Attempt, Capture, Connection, Failure, Needs, Races, Target};
use crate::finding::{Finding, Severity, Signal, Step};
use crate::units::{count, share};

/// See the module.
pub(super) struct Unreachable;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Thresholds {
    critical_share: f64,
    min_critical: u64,
    warning_share: f64,
}

impl Rule for Unreachable {
    const ID: &'static str = "tcp.unreachable";
    const TEXT: &'static str = include_str!("../../kb/tcp.unreachable.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        Needs { hooks: &["tcp_state", "connect"], lossless: true, ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        let races = capture.races();
        let mut found = Vec::new();
        for (target, members) in &capture.attempts() {
            let mut by_errno: BTreeMap<Errno, Vec<&Connection>> = BTreeMap::new();
            for (c, attempt) in members {
                if let Attempt::Failed(Failure::Unreachable(errno)) = attempt {
                    by_errno.entry(*errno).or_default().push(c);
                }
            }
            let attempts = members.len() as u64;
            found.extend(by_errno.iter().map(|(e, failed)| finding(capture, t, races, target, (*e, failed, attempts))));
        }
        found
    }
}

/// `attempts` are all of that target, of which these failed with this error.
fn finding(
    capture: &Capture,
    t: &Thresholds,
    races: &Races,
    target: &Target,
    (errno, failed, attempts): (Errno, &[&Connection], u64),
) -> Finding {
    let n = failed.len() as u64;
    let share = share(n, attempts);
    let severity = if failed.iter().all(|c| races.settled_elsewhere(c, Failure::Unreachable(errno))) {
        Severity::Info
    } else if share >= t.critical_share && n >= t.min_critical {
        Severity::Critical
    } else if share >= t.warning_share {
        Severity::Warning
    } else {
        Severity::Info
    };
    let subject = group::of_connections(capture, target, failed.iter().copied());
    let title = format!(
        "{} cannot reach {}: {n} of {} failed with `{errno}`",
        subject.who(),
        subject.whom(),
        count(attempts, "attempt", "attempts")
    );
    let mut next_steps: Vec<Step> = steps::route(&subject).into_iter().collect();
    next_steps.push(Step::run("see whether neighbours answer", steps::inside(&subject, "ip neigh show")));
    next_steps.push(steps::filters(&subject));
    next_steps.extend(steps::try_connect(&subject));
    Finding {
        rule: "tcp.unreachable",
        severity,
        title,
        signal: Signal {
            name: "unreachable_connect_share",
            value: share * 100.0,
            unit: "percent",
            threshold: 100.0 * if severity == Severity::Critical { t.critical_share } else { t.warning_share },
        },
        subject,
        cause: cause(errno).to_owned(),
        impact: "these connections fail; the process has to do without, or try again".to_owned(),
        next_steps,
        share,
        confidence: 0.9,
        evidence: refused::evidence(failed),
        symptoms: Vec::new(),
        covers: None,
    }
}

fn cause(errno: Errno) -> &'static str {
    match errno.name() {
        Some("EHOSTUNREACH" | "EHOSTDOWN") => {
            "the last hop does not find the host (no neighbour entry), or a rule rejects with ICMP"
        }
        Some("ENETUNREACH" | "ENETDOWN") => "there is no route to that network, here or on a router on the way",
        Some("EADDRNOTAVAIL") => "no local address or port is free for this destination: the port range is used up",
        Some("EPERM" | "EACCES") => "a local policy forbids it: a filter rule, a security module or a cgroup program",
        _ => "the error comes from this machine's network stack",
    }
}
