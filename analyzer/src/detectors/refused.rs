//! `tcp.refused`: connection attempts that the peer answers with a reset.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Deserialize;

use super::{Rule, group, steps};
use crate::capture::{Attempt, Capture, Connection, Evidence, Failure, Needs, Races, Target};
use crate::finding::{Finding, Severity, Signal, Step};
use crate::kb::Ms;
use crate::units::{count, share};

/// See the module.
pub(super) struct Refused;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Thresholds {
    critical_share: f64,
    min_critical: usize,
    warning_share: f64,
    min_warning: usize,
    healthy_connects: u64,
    max_starting: usize,
    starting_ms: Ms,
    scanned_ports: usize,
}

impl Rule for Refused {
    const ID: &'static str = "tcp.refused";
    const TEXT: &'static str = include_str!("../../kb/tcp.refused.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        Needs { hooks: &["tcp_state"], lossless: true, ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        let races = capture.races();
        let attempts = capture.attempts();
        let worked = |target: &Target| -> u64 {
            let same = attempts.iter().filter(|(other, _)| other.comm == target.comm && other.netns == target.netns);
            same.flat_map(|(_, m)| m).filter(|(_, a)| *a == Attempt::Established).count() as u64
        };
        let scans = scans(&attempts, t);
        let mut found = Vec::new();
        for (target, members) in &attempts {
            let refused: Vec<&Connection> = members.iter().filter(|(_, a)| is_refused(*a)).map(|(c, _)| *c).collect();
            if refused.is_empty() {
                continue;
            }
            let is_scanned = members.len() == 1 && scans.contains(&host(target));
            let severity = if is_scanned {
                Some(Severity::Info)
            } else {
                severity(capture, t, races, members, &refused, || worked(target))
            };
            found.extend(severity.map(|s| finding(capture, t, target, (&refused, members.len() as u64), s)));
        }
        found
    }
}

/// Who asks whom, whatever the port.
type Host<'a> = (Option<&'a str>, u32, Option<IpAddr>);

fn host(target: &Target) -> Host<'_> {
    (target.comm.as_deref(), target.netns, target.remote.addr)
}

/// Where many ports were tried once each, and refused: somebody looks what listens, and needs none of them.
fn scans<'a>(attempts: &'a BTreeMap<Target, Vec<(&Connection, Attempt)>>, t: &Thresholds) -> BTreeSet<Host<'a>> {
    let mut ports: BTreeMap<Host<'a>, usize> = BTreeMap::new();
    for (target, members) in attempts {
        if let [(_, attempt)] = members.as_slice() {
            *ports.entry(host(target)).or_default() += usize::from(is_refused(*attempt));
        }
    }
    ports.into_iter().filter(|(_, count)| *count >= t.scanned_ports).map(|(host, _)| host).collect()
}

fn is_refused(attempt: Attempt) -> bool {
    attempt == Attempt::Failed(Failure::Refused)
}

fn severity(
    capture: &Capture,
    t: &Thresholds,
    races: &Races,
    members: &[(&Connection, Attempt)],
    refused: &[&Connection],
    worked: impl Fn() -> u64,
) -> Option<Severity> {
    let share = share(refused.len() as u64, members.len() as u64);
    let settled = refused.iter().all(|c| races.settled_elsewhere(c, Failure::Refused));
    let accident = refused.len() == 1 && worked() >= t.healthy_connects;
    if settled || accident || was_starting(capture, t, members, refused) {
        return Some(Severity::Info);
    }
    let without_success = refused.len() == members.len();
    if share >= t.critical_share && refused.len() >= t.min_critical {
        Some(Severity::Critical)
    } else if without_success || (refused.len() >= t.min_warning && share >= t.warning_share) {
        Some(Severity::Warning)
    } else {
        Some(Severity::Info)
    }
}

/// Refused for a moment, and never again after the first success.
fn was_starting(
    capture: &Capture,
    t: &Thresholds,
    members: &[(&Connection, Attempt)],
    refused: &[&Connection],
) -> bool {
    let times = || refused.iter().filter_map(|c| c.failed_at());
    let (Some(first), Some(last)) = (times().min(), times().max()) else { return false };
    let established = members.iter().filter(|(c, _)| c.attempt(capture.window_end_ns) == Some(Attempt::Established));
    let first_success = established.filter_map(|(c, _)| c.established.map(|m| m.at)).min();
    refused.len() <= t.max_starting
        && last.saturating_sub(first) <= t.starting_ms.ns()
        && first_success.is_some_and(|at| at > last)
}

/// `attempts` are all of that target, of which these were refused.
fn finding(
    capture: &Capture,
    t: &Thresholds,
    target: &Target,
    (refused, attempts): (&[&Connection], u64),
    severity: Severity,
) -> Finding {
    let subject = group::of_connections(capture, target, refused.iter().copied());
    let share = share(refused.len() as u64, attempts);
    let title = format!(
        "{} is refused by {}: {} of {}",
        subject.who(),
        subject.whom(),
        refused.len(),
        count(attempts, "attempt", "attempts")
    );
    let cause = if share >= t.critical_share {
        "the other end answers with a reset: nothing listens on that port, or a rule rejects the connection"
    } else {
        "the other end refuses some connections: its listener was away for a while, or only some backends have one"
    };
    let mut next_steps: Vec<Step> = steps::listeners(subject.answers_at(), "-ltnp").into_iter().collect();
    next_steps.extend(steps::route(&subject));
    next_steps.push(steps::filters(&subject));
    next_steps.extend(steps::try_connect(&subject));
    Finding {
        rule: "tcp.refused",
        severity,
        title,
        signal: Signal {
            name: "refused_connect_share",
            value: share * 100.0,
            unit: "percent",
            threshold: 100.0 * if severity == Severity::Critical { t.critical_share } else { t.warning_share },
        },
        subject,
        cause: cause.to_owned(),
        impact: "these connections fail at once; the process has to do without, or try again".to_owned(),
        next_steps,
        share,
        confidence: 0.95,
        evidence: evidence(refused),
        symptoms: Vec::new(),
        covers: None,
    }
}

/// The events that tell of failed attempts.
pub(super) fn evidence(failed: &[&Connection]) -> Evidence {
    let seq = |c: &&Connection| {
        c.closed.as_ref().map(|x| x.mark.seq).or_else(|| c.connect.as_ref().map(|(mark, _)| mark.seq))
    };
    Evidence::of(failed.iter().filter_map(seq))
}
