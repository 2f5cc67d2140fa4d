//! From the members of a group to the subject of its finding.

use std::collections::{BTreeMap, BTreeSet};

use ktrace_bundle::event::Endpoint;

use crate::capture::{Capture, Connection, FarEnd, ProcId, Target, UdpFlow};
use crate::finding::{Far, Subject};

/// One socket of a group.
struct Member<'a> {
    owner: Option<ProcId>,
    local: Endpoint,
    weight: u64,
    vip: Option<Endpoint>,
    backend: Option<Endpoint>,
    far: Option<&'a FarEnd>,
    is_client: bool,
}

/// The subject of a group of connections to one target.
pub(super) fn of_connections<'a>(
    capture: &Capture,
    target: &Target,
    members: impl Iterator<Item = &'a Connection>,
) -> Subject {
    let member = |c: &'a Connection| {
        let is_client = c.is_client();
        let vip = c.way.vip(c.remote).filter(|_| is_client);
        let far = if is_client { capture.ends.server_of(c) } else { capture.ends.client_of(c) };
        let backend = vip.map(|_| c.way.backend(c.remote));
        Member { owner: c.owner(), local: c.local, weight: 1, vip, backend, far, is_client }
    };
    of_members(capture, target, members.map(member))
}

/// The subject of a group of UDP flows to one target; a flow weighs what failed on it.
pub(super) fn of_flows(capture: &Capture, target: &Target, flows: &[&UdpFlow]) -> Subject {
    let member = |f: &&UdpFlow| {
        let weight = f.lost.saturating_add(f.refused).saturating_add(f.failed.n);
        let vip = f.way.vip(f.server);
        let backend = vip.filter(|_| !f.way.is_moved).map(|_| f.way.backend(f.server));
        let far = capture.ends.server_of_flow(f);
        Member { owner: f.owner, local: f.local, weight, vip, backend, far, is_client: true }
    };
    of_members(capture, target, flows.iter().map(member))
}

fn of_members<'a>(capture: &'a Capture, target: &Target, members: impl Iterator<Item = Member<'a>>) -> Subject {
    let mut weights: BTreeMap<u32, u64> = BTreeMap::new();
    let mut local: Option<Endpoint> = None;
    let (mut homes, mut ways, mut fars) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
    for m in members {
        homes.insert(m.owner.and_then(|id| capture.processes.home(id)));
        if let Some(process) = m.owner.and_then(|id| capture.processes.get(id)) {
            let w = weights.entry(process.pid).or_default();
            *w = w.saturating_add(m.weight);
        }
        local = Some(local.map_or(m.local, |known| common(known, m.local)));
        ways.insert((m.vip, m.backend));
        if let Some(owner) = m.far.and_then(|far| far.owner) {
            fars.entry((owner, m.is_client)).or_insert(m.far);
        }
    }
    let mut pids: Vec<(u32, u64)> = weights.into_iter().collect();
    pids.sort_by_key(|(pid, weight)| (std::cmp::Reverse(*weight), *pid));
    let vips: BTreeSet<Option<Endpoint>> = ways.iter().map(|(vip, _)| *vip).collect();
    Subject {
        comm: target.comm.clone(),
        pids: pids.into_iter().map(|(pid, _)| pid).collect(),
        home: only(homes).flatten().cloned(),
        local: local.filter(|l| *l != Endpoint::default()),
        remote: (target.remote != Endpoint::default()).then_some(target.remote),
        netns: Some(target.netns),
        vip: only(vips).flatten(),
        backend: only(ways).and_then(|(_, backend)| backend),
        far: only(fars.into_iter().collect()).and_then(|((id, is_client), end)| far(capture, id, !is_client, end?)),
    }
}

fn far(capture: &Capture, id: ProcId, is_client: bool, end: &FarEnd) -> Option<Far> {
    let process = capture.processes.get(id)?;
    let home = capture.processes.home(id).cloned();
    Some(Far { is_client, comm: process.comm.clone(), pid: process.pid, home, end: end.local })
}

/// The member of a set that has one.
fn only<T: Ord>(mut set: BTreeSet<T>) -> Option<T> {
    set.pop_first().filter(|_| set.is_empty())
}

/// What two ends have in common.
fn common(a: Endpoint, b: Endpoint) -> Endpoint {
    Endpoint { addr: a.addr.filter(|_| a.addr == b.addr), port: a.port.filter(|_| a.port == b.port) }
}
