//! `tcp.churn`: a connection for each request, many in a second.

use std::collections::BTreeMap;

use ktrace_bundle::tcp::TcpState;
use serde::Deserialize;

use super::most;
use crate::capture::{Capture, Connection, Evidence, Needs, Target};
use crate::detectors::{Rule, group, steps};
use crate::finding::{Finding, Severity, Signal, Step};
use crate::kb::Ms;
use crate::units::{SECOND, duration, percent, share};

/// Time that a socket stays in `TIME_WAIT` (`TCP_TIMEWAIT_LEN`).
const TIME_WAIT_S: f64 = 60.0;
/// Ports that Linux chooses from by default, 32768 to 60999.
const DEFAULT_PORTS: u64 = 28_232;

/// See the module.
pub(in crate::detectors) struct Churn;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::detectors) struct Thresholds {
    short_ms: Ms,
    min_short: usize,
    min_rate: f64,
}

impl Rule for Churn {
    const ID: &'static str = "tcp.churn";
    const TEXT: &'static str = include_str!("../../../kb/tcp.churn.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        Needs { hooks: &["tcp_state"], lossless: true, ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        let mut groups: BTreeMap<Target, Vec<&Connection>> = BTreeMap::new();
        for c in capture.connections.iter().filter(|c| is_short(c, t)) {
            let comm = capture.owner(c).map(|p| p.comm.clone());
            groups.entry(Target { comm, netns: c.netns, remote: c.remote }).or_default().push(c);
        }
        most(groups.iter().filter_map(|(target, short)| finding(capture, t, target, short)).collect())
    }
}

/// Opened by this end, established and closed again at once.
fn is_short(c: &Connection, t: &Thresholds) -> bool {
    let times = c.established.map(|m| m.at).zip(c.closed.as_ref().map(|x| x.mark.at));
    c.is_client() && times.is_some_and(|(from, to)| to.saturating_sub(from) <= t.short_ms.ns())
}

/// Whether this end closed first, which then keeps the port in `TIME_WAIT`: it went by `FIN_WAIT1`, and a reset leaves
/// none behind.
fn closed_first(c: &Connection) -> bool {
    let by_fin = [TcpState::FinWait1, TcpState::FinWait2, TcpState::TimeWait];
    c.closed.as_ref().is_some_and(|x| by_fin.contains(&x.from))
}

fn finding(capture: &Capture, t: &Thresholds, target: &Target, short: &[&Connection]) -> Option<Finding> {
    let begun = || short.iter().filter_map(|c| c.begun_at());
    let (first, last) = (begun().min()?, begun().max()?);
    let span = last.saturating_sub(first).max(SECOND);
    let rate = short.len() as f64 * SECOND as f64 / span as f64;
    if short.len() < t.min_short || rate < t.min_rate {
        return None;
    }
    let subject = group::of_connections(capture, target, short.iter().copied());
    let own = short.iter().filter(|c| closed_first(c)).count();
    let waiting = own as f64 * SECOND as f64 / span as f64 * TIME_WAIT_S;
    let ports = capture.node.place(target.netns).and_then(|place| place.ports.latest());
    let ports = ports.map_or(DEFAULT_PORTS, |p| u64::from(p.high.saturating_sub(p.low)).saturating_add(1));
    let closer = if own * 2 >= short.len() {
        format!(
            "it closes first, so about {waiting:.0} of its {ports} ports towards that end would be in `TIME_WAIT` \
             after a minute ({})",
            percent((waiting / ports as f64).min(1.0))
        )
    } else {
        "the other end closes first, and keeps `TIME_WAIT`".to_owned()
    };
    let title = format!(
        "{} makes a new connection to {} {rate:.0} times a second, each of {} at most: {closer}",
        subject.who(),
        subject.whom(),
        duration(t.short_ms.ns())
    );
    let mut next_steps: Vec<Step> =
        steps::sockets(&subject, "count what waits there now", "-tnH state time-wait").into_iter().collect();
    next_steps.push(Step::think("in the program: keep connections open and use them again (keep-alive, a pool)"));
    Some(Finding {
        rule: Churn::ID,
        severity: Severity::Info,
        title,
        signal: Signal { name: "short_connection_rate", value: rate, unit: "per second", threshold: t.min_rate },
        cause: "the process opens a connection for each request instead of using one again".to_owned(),
        impact: "each request pays for a handshake, and each connection leaves a port in `TIME_WAIT` for 60 s with \
                 whoever closes first; with TLS and name lookups it costs several times that"
            .to_owned(),
        next_steps,
        share: share(short.len() as u64, capture.connections.len() as u64),
        confidence: 0.9,
        evidence: Evidence::of(short.iter().filter_map(|c| c.opened.map(|m| m.seq))),
        symptoms: Vec::new(),
        covers: None,
        subject,
    })
}
