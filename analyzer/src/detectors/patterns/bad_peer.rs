//! `connect.bad_peer`: one end of many fails, and the others do not.

use std::collections::BTreeMap;

use ktrace_bundle::event::Endpoint;
use serde::Deserialize;

use super::{is_failed, most};
use crate::capture::{Capture, Connection, Evidence, Needs, Target};
use crate::detectors::{Rule, group, steps};
use crate::finding::{Finding, Severity, Signal, Step};
use crate::units::{count, share};

/// See the module.
pub(in crate::detectors) struct BadPeer;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::detectors) struct Thresholds {
    bad_share: f64,
    critical_share: f64,
    min_failed: u64,
    good_share: f64,
    min_good_peers: usize,
}

/// Attempts to one end.
#[derive(Debug, Default)]
struct Tally<'a> {
    attempts: u64,
    failed: Vec<&'a Connection>,
}

impl Tally<'_> {
    fn share(&self) -> f64 {
        share(self.failed.len() as u64, self.attempts)
    }
}

/// The ends that processes of one name connect to on one port.
type Peers<'a> = BTreeMap<Endpoint, Tally<'a>>;

impl Rule for BadPeer {
    const ID: &'static str = "connect.bad_peer";
    const TEXT: &'static str = include_str!("../../../kb/connect.bad_peer.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        Needs { hooks: &["tcp_state"], lossless: true, ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        let races = capture.races();
        let mut groups: BTreeMap<(Option<String>, u32, Option<u16>), Peers<'_>> = BTreeMap::new();
        for (target, members) in capture.attempts() {
            let peers = groups.entry((target.comm, target.netns, target.remote.port)).or_default();
            let tally = peers.entry(target.remote).or_default();
            for (c, attempt) in members {
                let Some(is_failed) = is_failed(capture, races, c, attempt) else { continue };
                tally.attempts += 1;
                if is_failed {
                    tally.failed.push(c);
                }
            }
        }
        most(
            groups
                .iter()
                .filter_map(|((comm, netns, _), peers)| finding(capture, t, comm.as_ref(), *netns, peers))
                .collect(),
        )
    }
}

fn finding(capture: &Capture, t: &Thresholds, comm: Option<&String>, netns: u32, peers: &Peers<'_>) -> Option<Finding> {
    let is_bad = |tally: &Tally<'_>| tally.failed.len() as u64 >= t.min_failed && tally.share() >= t.bad_share;
    let mut bad = peers.iter().filter(|(_, tally)| is_bad(tally));
    let (remote, tally) = bad.next()?;
    let others = || peers.iter().filter(|(end, tally)| *end != remote && tally.attempts > 0);
    let good = others().filter(|(_, tally)| tally.share() <= t.good_share).count();
    if good < t.min_good_peers || good < others().count() {
        return None;
    }
    let worked = others().map(|(_, tally)| tally.attempts).sum::<u64>();
    let failed = others().map(|(_, tally)| tally.failed.len() as u64).sum::<u64>();
    let target = Target { comm: comm.cloned(), netns, remote: *remote };
    let subject = group::of_connections(capture, &target, tally.failed.iter().copied());
    let share = tally.share();
    let severity = if share >= t.critical_share { Severity::Critical } else { Severity::Warning };
    let title = format!(
        "of {} that {} connects to, only {} fails: {} of {}; the others {failed} of {worked}",
        count(good as u64 + 1, "end", "ends"),
        subject.who(),
        subject.whom(),
        tally.failed.len(),
        count(tally.attempts, "attempt", "attempts"),
    );
    let mut next_steps: Vec<Step> = steps::listeners(subject.answers_at(), "-ltnp").into_iter().collect();
    next_steps.extend(steps::route(&subject));
    next_steps.extend(steps::try_connect(&subject));
    next_steps.push(Step::think("take that end out of use until it answers: the others carry the traffic"));
    Some(Finding {
        rule: BadPeer::ID,
        severity,
        title,
        signal: Signal {
            name: "failed_peer_share",
            value: share * 100.0,
            unit: "percent",
            threshold: t.bad_share * 100.0,
        },
        cause: "the fault is at that end or on the way to it alone: what all ends have in common (this process, its \
                network namespace, its rules) works"
            .to_owned(),
        impact: "what is sent to that end fails; clients that choose among the ends fail now and then".to_owned(),
        next_steps,
        share,
        confidence: 0.9,
        evidence: Evidence::of(
            tally.failed.iter().filter_map(|c| c.closed.as_ref().map(|x| x.mark.seq).or(c.opened.map(|m| m.seq))),
        ),
        symptoms: Vec::new(),
        covers: None,
        subject,
    })
}
