//! `connect.bad_path`: nothing gets through to one address, whatever the port and whoever asks, and to others it does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ktrace_bundle::event::Endpoint;
use serde::Deserialize;

use super::{is_failed, most, named};
use crate::capture::{Attempt, Capture, Connection, Evidence, Failure, Needs, Target};
use crate::detectors::{Rule, group, steps};
use crate::finding::{Finding, Key, Severity, Signal, Step};
use crate::units::{count, share};

/// See the module.
pub(in crate::detectors) struct BadPath;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::detectors) struct Thresholds {
    min_targets: usize,
    min_good_addresses: usize,
    critical_share: f64,
}

/// What is known of the way to an address.
#[derive(Debug, Default)]
struct Way<'a> {
    /// Attempts that got an answer, if only a reset.
    answered: u64,
    attempts: u64,
    unanswered: BTreeMap<Target, Vec<&'a Connection>>,
}

impl Rule for BadPath {
    const ID: &'static str = "connect.bad_path";
    const TEXT: &'static str = include_str!("../../../kb/connect.bad_path.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        Needs { hooks: &["tcp_state"], lossless: true, ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        let races = capture.races();
        let mut ways: BTreeMap<IpAddr, Way<'_>> = BTreeMap::new();
        for (target, members) in capture.attempts() {
            let Some(addr) = target.remote.addr else { continue };
            let way = ways.entry(addr).or_default();
            for (c, attempt) in members {
                let Some(is_failed) = is_failed(capture, races, c, attempt) else { continue };
                way.attempts += 1;
                if is_failed && attempt != Attempt::Failed(Failure::Refused) {
                    way.unanswered.entry(target.clone()).or_default().push(c);
                } else {
                    way.answered += 1;
                }
            }
        }
        let good = ways.values().filter(|way| way.answered > 0 && way.unanswered.is_empty()).count();
        let found = ways.iter().filter(|(_, way)| way.answered == 0 && way.unanswered.len() >= t.min_targets);
        if good < t.min_good_addresses {
            return Vec::new();
        }
        most(found.filter_map(|(addr, way)| finding(capture, t, *addr, way, good)).collect())
    }
}

fn finding(capture: &Capture, t: &Thresholds, addr: IpAddr, way: &Way<'_>, good: usize) -> Option<Finding> {
    let (worst, members) = way.unanswered.iter().rev().max_by_key(|(_, members)| members.len())?;
    let ports: BTreeSet<u16> = way.unanswered.keys().filter_map(|target| target.remote.port).collect();
    let target = Target { remote: Endpoint { addr: Some(addr), port: None }, ..worst.clone() };
    let subject = group::of_connections(capture, &target, members.iter().copied());
    let failed = way.unanswered.values().map(|m| m.len() as u64).sum::<u64>();
    let share = share(failed, way.attempts);
    let others = way.unanswered.len() - 1;
    let title = format!(
        "nothing gets through to {addr}, for {} and {}, on {}: {failed} of {} unanswered; {} answer",
        subject.who(),
        count(others as u64, "other target", "other targets"),
        named(ports.iter().map(|port| format!("port {port}"))),
        count(way.attempts, "attempt", "attempts"),
        count(good as u64, "other address", "other addresses"),
    );
    let mut next_steps: Vec<Step> = steps::route(&subject).into_iter().collect();
    next_steps.push(Step::run("see whether it answers at all", steps::inside(&subject, &format!("ping -c 3 {addr}"))));
    next_steps.push(Step::run("see where the way ends", steps::inside(&subject, &format!("tracepath -n {addr}"))));
    next_steps.extend(steps::watch(&subject, "tcp"));
    let all = way.unanswered.values().flatten();
    Some(Finding {
        rule: BadPath::ID,
        severity: if share >= t.critical_share { Severity::Critical } else { Severity::Warning },
        title,
        signal: Signal {
            name: "unanswered_target_count",
            value: way.unanswered.len() as f64,
            unit: "targets",
            threshold: t.min_targets as f64,
        },
        cause:
            "that machine is down, or the way to it is broken: no port of it answers anybody, not even with a reset, \
                and other addresses do"
                .to_owned(),
        impact: "everything that needs a service on that address waits and fails".to_owned(),
        next_steps,
        share,
        confidence: 0.9,
        evidence: Evidence::of(all.filter_map(|c| c.opened.map(|m| m.seq))),
        symptoms: Vec::new(),
        covers: Some(way.unanswered.keys().map(Key::from).collect()),
        subject,
    })
}
