//! `tcp.rtt_high`: connections whose round trips take long, by process and remote end.

use std::collections::BTreeMap;

use ktrace_bundle::event::Endpoint;
use serde::Deserialize;

use super::{Rule, group, steps};
use crate::capture::{Capture, Connection, Evidence, Needs, Target};
use crate::finding::{Finding, Severity, Signal, Step};
use crate::kb::Ms;
use crate::units::{MILLI, count, duration, percentile, share};

/// See the module.
pub(super) struct RttHigh;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Thresholds {
    high_ms: Ms,
    queueing_ms: Ms,
    min_segments: u64,
}

impl Rule for RttHigh {
    const ID: &'static str = "tcp.rtt_high";
    const TEXT: &'static str = include_str!("../../kb/tcp.rtt_high.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        Needs { hooks: &["tcp_state", "sockets"], lossless: true, ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        let mut groups: BTreeMap<Target, Vec<(u64, &Connection)>> = BTreeMap::new();
        for c in &capture.connections {
            let enough = c.segments().is_some_and(|(segs, _)| segs >= t.min_segments);
            if let (true, Some(srtt)) = (enough, c.srtt_us()) {
                let remote = if c.is_client() { c.remote } else { Endpoint { addr: c.remote.addr, port: None } };
                let target = Target { comm: capture.owner(c).map(|p| p.comm.clone()), netns: c.netns, remote };
                groups.entry(target).or_default().push((srtt.saturating_mul(1000), c));
            }
        }
        groups.into_iter().filter_map(|(target, members)| finding(capture, t, &target, members)).collect()
    }
}

/// `members` with their round trip times, ns.
fn finding(
    capture: &Capture,
    t: &Thresholds,
    target: &Target,
    mut members: Vec<(u64, &Connection)>,
) -> Option<Finding> {
    let (high_ns, queueing_ns) = (t.high_ms.ns(), t.queueing_ms.ns());
    members.sort_by_key(|(ns, _)| *ns);
    let times: Vec<u64> = members.iter().map(|(ns, _)| *ns).collect();
    let median = percentile(&times, 50).filter(|m| *m >= high_ns)?;
    let severity = if median >= queueing_ns { Severity::Warning } else { Severity::Info };
    let slow: Vec<&Connection> = members.iter().filter(|(ns, _)| *ns >= high_ns).map(|(_, c)| *c).collect();
    let subject = group::of_connections(capture, target, slow.iter().copied());
    let title = format!(
        "{} waits {} for a round trip to {} (median of {})",
        subject.who(),
        duration(median),
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
            value: median as f64 / MILLI as f64,
            unit: "ms",
            threshold: if severity == Severity::Warning { queueing_ns } else { high_ns } as f64 / MILLI as f64,
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
