//! `tcp.rtt_high`: connections whose round trips take long, by process and remote end.

use std::collections::BTreeMap;

use ktrace_bundle::event::Endpoint;

use super::{Rule, group, steps};
use crate::capture::{Capture, Connection, Evidence, Needs, Target};
use crate::finding::{Finding, Severity, Signal, Step};
use crate::kb::NoThresholds;
use crate::units::{count, duration, percentile, share};

/// From this median on a path is slow.
const HIGH_US: u64 = 300_000;
/// From this median on no path is that long: something queues.
const QUEUEING_US: u64 = 1_000_000;
/// A connection counts when it has sent so many segments.
const MIN_SEGMENTS: u64 = 10;

/// See the module.
pub(super) struct RttHigh;

impl Rule for RttHigh {
    const ID: &'static str = "tcp.rtt_high";
    const TEXT: &'static str = include_str!("../../kb/tcp.rtt_high.toml");
    type Thresholds = NoThresholds;

    fn needs(&self) -> Needs {
        Needs { hooks: &["tcp_state", "sockets"], lossless: true, ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, _: &NoThresholds) -> Vec<Finding> {
        let mut groups: BTreeMap<Target, Vec<(u64, &Connection)>> = BTreeMap::new();
        for c in &capture.connections {
            let enough = c.segments().is_some_and(|(segs, _)| segs >= MIN_SEGMENTS);
            if let (true, Some(srtt)) = (enough, c.srtt_us()) {
                let remote = if c.is_client() { c.remote } else { Endpoint { addr: c.remote.addr, port: None } };
                let target = Target { comm: capture.owner(c).map(|p| p.comm.clone()), netns: c.netns, remote };
                groups.entry(target).or_default().push((srtt, c));
            }
        }
        groups.into_iter().filter_map(|(target, members)| finding(capture, &target, members)).collect()
    }
}

fn finding(capture: &Capture, target: &Target, mut members: Vec<(u64, &Connection)>) -> Option<Finding> {
    members.sort_by_key(|(us, _)| *us);
    let times: Vec<u64> = members.iter().map(|(us, _)| *us).collect();
    let median = percentile(&times, 50).filter(|m| *m >= HIGH_US)?;
    let severity = if median >= QUEUEING_US { Severity::Warning } else { Severity::Info };
    let slow: Vec<&Connection> = members.iter().filter(|(us, _)| *us >= HIGH_US).map(|(_, c)| *c).collect();
    let subject = group::of_connections(capture, target, slow.iter().copied());
    let title = format!(
        "{} waits {} for a round trip to {} (median of {})",
        subject.who(),
        duration(median.saturating_mul(1000)),
        subject.whom(),
        count(times.len() as u64, "connection", "connections")
    );
    let mut next_steps: Vec<Step> = steps::route(&subject).into_iter().collect();
    if let Some(addr) = subject.remote.and_then(|r| r.addr) {
        let ping = steps::inside(&subject, &format!("ping -c 3 {addr}"));
        next_steps.push(Step::run("compare with the idle path", ping));
    }
    next_steps.push(Step::run("see what queues here", steps::inside(&subject, "tc -s qdisc")));
    Some(Finding {
        rule: "tcp.rtt_high",
        severity,
        title,
        signal: Signal {
            name: "srtt_median",
            value: median as f64 / 1000.0,
            unit: "ms",
            threshold: if severity == Severity::Warning { QUEUEING_US } else { HIGH_US } as f64 / 1000.0,
        },
        subject,
        cause: if severity == Severity::Warning {
            "packets wait in a queue on the way (an overloaded link, a policer), or the other end is slow to acknowledge"
        } else {
            "the other end is far away, or packets wait in a queue on the way"
        }
        .to_owned(),
        impact: "each exchange of the protocol takes at least that long".to_owned(),
        next_steps,
        share: share(slow.len() as u64, times.len() as u64),
        confidence: if times.len() >= 3 { 0.85 } else { 0.6 },
        evidence: Evidence::of(slow.iter().filter_map(|c| c.closed.as_ref().map(|x| x.mark.seq))),
        symptoms: Vec::new(),
        covers: None,
    })
}
