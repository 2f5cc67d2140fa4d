//! `nat.port_exhaustion`: so many flows from one address to one destination that no source port is left for another.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ktrace_bundle::event::{Endpoint, Proto};
use ktrace_bundle::nat::NatKind;
use serde::Deserialize;

use super::{MAX_FINDINGS, Socket, Tally, Use, covered, subject_of, uses, words};
use crate::capture::{Capture, Needs, TrackingNeed};
use crate::detectors::Rule;
use crate::detectors::conntrack::{full::is_full, gained};
use crate::finding::{Finding, Key, Severity, Signal, Step, Subject};
use crate::units::share;

/// Ports that Linux chooses for clients, which a masquerade keeps where it can: 32768 to 60999.
const CLIENT_PORTS: std::ops::RangeInclusive<u16> = 32_768..=60_999;
/// Ports that a masquerade may choose by itself: 1024 to 65535.
const ALL_PORTS: u64 = 64_512;
/// Counters that rise where a flow finds no port.
const LOSSES: [&str; 2] = ["insert_failed", "drop"];

/// See the module.
pub(in crate::detectors) struct PortExhaustion;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::detectors) struct Thresholds {
    used_share: f64,
    min_ports: u64,
    min_silent: u64,
    full_share: f64,
}

/// Flows that one address stands for towards one destination.
#[derive(Default)]
struct Group<'a> {
    ports: BTreeSet<u16>,
    /// What clients ask to get there.
    asked: BTreeSet<Endpoint>,
    sockets: Vec<(&'a Use<'a>, Socket<'a>)>,
}

type Groups<'a> = BTreeMap<(Proto, IpAddr, Endpoint), Group<'a>>;

impl Rule for PortExhaustion {
    const ID: &'static str = "nat.port_exhaustion";
    const TEXT: &'static str = include_str!("../../../kb/nat.port_exhaustion.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        let (hooks, tracking) = (&["tcp_state", "udp"], TrackingNeed::FlowsAndCounters);
        Needs { hooks, lossless: true, tracking, ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        let all = uses(capture);
        let mut groups = Groups::new();
        for it in &all {
            let Some(nat) = it.socket.way().nat.as_deref() else { continue };
            let is_snat = matches!(nat.nat, NatKind::Snat | NatKind::Both);
            let (_, remote) = it.socket.ends();
            let is_own = nat.original.is_none_or(|original| original.to == remote);
            if let (true, Some(addr), Some(port)) = (is_snat && is_own, nat.reply.to.addr, nat.reply.to.port) {
                let group = groups.entry((it.kind.proto(), addr, nat.reply.from)).or_default();
                group.ports.insert(port);
                group.asked.insert(remote);
                group.sockets.push((it, it.socket));
            }
        }
        let mut crowded: Vec<_> = groups.iter().filter(|(_, g)| g.ports.len() as u64 >= t.min_ports).collect();
        crowded.sort_by_key(|(key, g)| (Reverse(g.ports.len()), **key));
        crowded.truncate(MAX_FINDINGS);
        crowded
            .into_iter()
            .filter_map(|((proto, addr, to), g)| finding(capture, t, &all, (*proto, *addr, *to), g))
            .collect()
    }
}

/// How many ports there are, by the ports that are used; and whether a rule must have set that range.
fn range_of(t: &Thresholds, ports: &BTreeSet<u16>) -> Option<(u64, bool)> {
    let (first, last) = ports.first().copied().zip(ports.last().copied())?;
    let (used, span) = (ports.len() as u64, u64::from(last - first) + 1);
    let is_dense = used >= t.min_ports && share(used, span) >= t.used_share;
    let by_kernel =
        if CLIENT_PORTS.contains(&first) && CLIENT_PORTS.contains(&last) { client_ports() } else { ALL_PORTS };
    let is_set = is_dense && share(used, by_kernel) < t.used_share;
    Some((if is_set { span } else { by_kernel }, is_set))
}

fn client_ports() -> u64 {
    u64::from(CLIENT_PORTS.end() - CLIENT_PORTS.start()) + 1
}

/// Attempts to get there that have neither an answer nor an entry.
fn without_port<'a>(all: &[Use<'a>], proto: Proto, asked: &BTreeSet<Endpoint>) -> Tally<'a> {
    let mut tally = Tally::default();
    let is_it = |it: &&Use<'_>| it.kind.proto() == proto && it.silent > 0 && asked.contains(&it.target.remote);
    all.iter().filter(is_it).filter(|it| it.socket.way().nat.is_none()).for_each(|it| tally.add(it));
    tally
}

fn finding(
    capture: &Capture,
    t: &Thresholds,
    all: &[Use<'_>],
    (proto, addr, to): (Proto, IpAddr, Endpoint),
    group: &Group<'_>,
) -> Option<Finding> {
    let used = group.ports.len() as u64;
    let (range, is_set) = range_of(t, &group.ports)?;
    let part = share(used, range);
    let failed = without_port(all, proto, &group.asked);
    let tables = || capture.coverage.tracking.tables().filter(|it| is_full(it, t.full_share).is_none());
    let lost = tables().map(|it| LOSSES.map(|c| gained(it, c)).into_iter().max().unwrap_or(0)).max().unwrap_or(0);
    let is_failing = failed.silent >= t.min_silent && lost > 0;
    if part < t.used_share || (is_set && !is_failing) {
        return None;
    }
    let (subject, more) = if failed.silent > 0 { failed.subject(capture) } else { most(capture, group) };
    let subject = Subject { backend: (Some(to) != subject.remote).then_some(to), ..subject };
    let refused =
        if is_failing { format!("; {} attempts got no port and no answer", failed.silent) } else { String::new() };
    let keys = tables().filter(|_| is_failing).map(|it| Key { netns: Some(it.netns), ..Key::default() });
    Some(Finding {
        rule: "nat.port_exhaustion",
        severity: if is_failing { Severity::Critical } else { Severity::Warning },
        title: format!(
            "{addr} has used {used} of {range} source ports for the flows of {} to {to}{refused}",
            words::clients(&subject, more)
        ),
        signal: Signal { name: "used_port_share", value: part * 100.0, unit: "percent", threshold: t.used_share * 100.0 },
        cause: "all flows to this destination leave with one address, and each needs a port of its own until its entry is gone".to_owned(),
        impact: match is_failing {
            true => "first packets of further flows to this destination are dropped, and its clients time out",
            false => "once the last port is taken, further flows to this destination time out",
        }
        .to_owned(),
        next_steps: next_steps(proto, addr, to),
        share: part,
        confidence: confidence(is_failing, is_set),
        evidence: failed.evidence(),
        symptoms: Vec::new(),
        covers: Some(covered(all, std::iter::once(&failed)).into_iter().chain(keys).collect()),
        subject,
    })
}

const fn confidence(is_failing: bool, is_set: bool) -> f64 {
    match (is_failing, is_set) {
        (true, false) => 0.9,
        (true, true) => 0.8,
        (false, _) => 0.6,
    }
}

/// The client with the most flows, and how many more there are.
fn most(capture: &Capture, group: &Group<'_>) -> (Subject, usize) {
    let mut by_target: BTreeMap<_, Vec<Socket<'_>>> = BTreeMap::new();
    group.sockets.iter().for_each(|(it, socket)| by_target.entry(&it.target).or_default().push(*socket));
    let worst = by_target.iter().max_by(|(a, s), (b, t)| s.len().cmp(&t.len()).then(b.cmp(a)));
    let Some((target, sockets)) = worst else { return (Subject::default(), 0) };
    (subject_of(capture, target, sockets), by_target.len() - 1)
}

fn next_steps(proto: Proto, addr: IpAddr, to: Endpoint) -> Vec<Step> {
    let proto = proto.as_str();
    let mut out = vec![Step::run("on the node: see the counters, by CPU", "conntrack -S")];
    if let Some(dest) = to.addr {
        let count = format!("conntrack -L -p {proto} --reply-src {dest} --reply-dst {addr} | wc -l");
        out.push(Step::run("on the node: count the entries of these flows", count));
    }
    out.push(Step::run("on the node: see which rule rewrites the source, and to which ports", "nft list ruleset"));
    out.push(Step::think("let the clients keep their connections; or masquerade with more addresses"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_is_that_of_a_rule_that_of_clients_or_that_of_the_kernel() {
        let t = crate::kb::release().thresholds(PortExhaustion::ID).unwrap();
        let of = |ports: &mut dyn Iterator<Item = u16>| range_of(&t, &ports.collect()).unwrap();
        assert_eq!(of(&mut (40_000..40_010)), (10, true));
        assert_eq!(of(&mut (40_000..40_004)), (28_232, false), "too few to be a range");
        assert_eq!(of(&mut (40_000..50_000).step_by(2)), (28_232, false));
        assert_eq!(of(&mut (32_768..=60_999)), (28_232, false));
        assert_eq!(of(&mut (32_800..60_900)), (28_232, false));
        assert_eq!(of(&mut (1024..60_000).step_by(3)), (64_512, false));
        assert_eq!(range_of(&t, &BTreeSet::new()), None);
    }
}
