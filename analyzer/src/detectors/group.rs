//! From the members of a group to the subject of its finding.

use std::collections::{BTreeMap, BTreeSet};

use ktrace_bundle::event::Endpoint;

use crate::capture::{Capture, Connection, ProcId, Target, UdpFlow};
use crate::finding::Subject;

/// The subject of a group of connections to one target.
pub(super) fn of_connections<'a>(
    capture: &Capture,
    target: &Target,
    members: impl Iterator<Item = &'a Connection>,
) -> Subject {
    of_members(capture, target, members.map(|c| (c.owner(), c.local, 1)))
}

/// The subject of a group of DNS flows to one target; a flow weighs what failed on it.
pub(super) fn of_flows(capture: &Capture, target: &Target, flows: &[&UdpFlow]) -> Subject {
    let weight = |f: &UdpFlow| f.lost.saturating_add(f.refused).saturating_add(f.failed.n);
    of_members(capture, target, flows.iter().map(|f| (f.owner, f.local, weight(f))))
}

fn of_members(
    capture: &Capture,
    target: &Target,
    members: impl Iterator<Item = (Option<ProcId>, Endpoint, u64)>,
) -> Subject {
    let mut weights: BTreeMap<u32, u64> = BTreeMap::new();
    let mut local: Option<Endpoint> = None;
    let mut homes = BTreeSet::new();
    for (owner, end, weight) in members {
        homes.insert(owner.and_then(|id| capture.processes.home(id)));
        if let Some(process) = owner.and_then(|id| capture.processes.get(id)) {
            let w = weights.entry(process.pid).or_default();
            *w = w.saturating_add(weight);
        }
        local = Some(local.map_or(end, |known| common(known, end)));
    }
    let mut pids: Vec<(u32, u64)> = weights.into_iter().collect();
    pids.sort_by_key(|(pid, weight)| (std::cmp::Reverse(*weight), *pid));
    Subject {
        comm: target.comm.clone(),
        pids: pids.into_iter().map(|(pid, _)| pid).collect(),
        home: homes.pop_first().flatten().filter(|_| homes.is_empty()).cloned(),
        local: local.filter(|l| *l != Endpoint::default()),
        remote: (target.remote != Endpoint::default()).then_some(target.remote),
        netns: Some(target.netns),
    }
}

/// What two ends have in common.
fn common(a: Endpoint, b: Endpoint) -> Endpoint {
    Endpoint { addr: a.addr.filter(|_| a.addr == b.addr), port: a.port.filter(|_| a.port == b.port) }
}
