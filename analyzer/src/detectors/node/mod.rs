//! Rules about the machine: its queues, its ports, and the pressure on it.

pub(super) mod memory;
pub(super) mod ports;
pub(super) mod pressure;
pub(super) mod qdisc;
pub(super) mod softnet;
pub(super) mod throttled;
mod thrown;

use std::collections::BTreeSet;

use ktrace_bundle::event::Endpoint;
use ktrace_bundle::node::Cgroup;

use crate::capture::{Capture, Connection, ProcId, Target};
use crate::escape;
use crate::finding::{Key, Subject};

/// Most processes of a cgroup that are named.
const MAX_PIDS: usize = 64;
/// Most subjects that a finding about the machine takes in.
const MAX_COVERED: usize = 10_000;

/// A network namespace in a sentence.
pub(super) fn place(capture: &Capture, netns: u32) -> String {
    if capture.node.is_own(netns) { "the node".to_owned() } else { format!("network namespace {netns}") }
}

/// The processes of a cgroup as a subject: by name if they have one, and the pod.
fn of_cgroup(capture: &Capture, members: &BTreeSet<ProcId>) -> Subject {
    let known = || members.iter().filter_map(|id| capture.processes.get(*id));
    let comms: BTreeSet<&str> = known().map(|p| p.comm.as_str()).collect();
    let comm = if comms.len() == 1 { comms.first().map(|comm| (*comm).to_owned()) } else { None };
    let pids: BTreeSet<u32> = if comm.is_some() { known().map(|p| p.pid).collect() } else { BTreeSet::new() };
    let mut homes: BTreeSet<_> = members.iter().map(|id| capture.processes.home(*id)).collect();
    let home = homes.pop_first().filter(|_| homes.is_empty()).flatten().cloned();
    Subject { comm, pids: pids.into_iter().take(MAX_PIDS).collect(), home, ..Subject::default() }
}

/// A cgroup in a sentence: its process, its pod, or its path; escaped.
fn whose(subject: &Subject, cgroup: &Cgroup) -> String {
    match (&subject.comm, subject.pod()) {
        (Some(_), _) => subject.who(),
        (None, Some(pod)) => pod,
        (None, None) => format!("cgroup `{}`", escape::shown(end_of(&cgroup.path))),
    }
}

/// The end of a path, which says the most.
fn end_of(path: &str) -> &str {
    path.char_indices().rev().nth(63).map_or(path, |(at, _)| path.get(at..).unwrap_or(path))
}

/// Keys of what the processes of a cgroup talk to, and of who talks to them.
fn keys_of(capture: &Capture, members: &BTreeSet<ProcId>) -> Vec<Key> {
    let is_member = |id: Option<ProcId>| id.is_some_and(|id| members.contains(&id));
    let own = |c: &&Connection| is_member(c.owner());
    let towards = |c: &&Connection| capture.ends.server_of(c).is_some_and(|far| is_member(far.owner));
    let mut keys: BTreeSet<Key> =
        capture.connections.iter().filter(|c| own(c) || towards(c)).map(|c| key_of(capture, c)).collect();
    for flow in capture.dns.iter().filter(|f| is_member(f.owner)) {
        let comm = flow.owner.and_then(|id| capture.processes.get(id)).map(|p| p.comm.clone());
        keys.insert(Key::from(&Target { comm, netns: flow.netns, remote: flow.server }));
    }
    keys.into_iter().take(MAX_COVERED).collect()
}

/// The subject that rules about a connection name: of a server by the address of its client.
fn key_of(capture: &Capture, c: &Connection) -> Key {
    let remote = if c.is_client() { c.remote } else { Endpoint { addr: c.remote.addr, port: None } };
    Key::from(&Target { comm: capture.owner(c).map(|p| p.comm.clone()), netns: c.netns, remote })
}

#[cfg(test)]
mod tests;
