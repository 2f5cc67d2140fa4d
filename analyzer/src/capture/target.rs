//! Who talked to whom: flows of a capture in the groups that findings are about.

use std::collections::BTreeMap;

use ktrace_bundle::event::Endpoint;

use super::{Attempt, Capture, Connection, Process, UdpFlow};

/// One end of a conversation as a finding names it: a process by name, and what it talks to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Name of the process; `None` if it is not known.
    pub comm: Option<String>,
    /// Network namespace.
    pub netns: u32,
    /// The other end.
    pub remote: Endpoint,
}

impl Capture {
    /// The process that owns this connection.
    pub fn owner(&self, connection: &Connection) -> Option<&Process> {
        connection.owner().and_then(|id| self.processes.get(id))
    }

    /// Connection attempts by who tried to reach what.
    pub fn attempts(&self) -> BTreeMap<Target, Vec<(&Connection, Attempt)>> {
        let mut by_target: BTreeMap<Target, Vec<_>> = BTreeMap::new();
        for c in &self.connections {
            if let Some(attempt) = c.attempt(self.window_end_ns) {
                let comm = self.owner(c).map(|p| p.comm.clone());
                let target = Target { comm, netns: c.netns, remote: c.remote };
                by_target.entry(target).or_default().push((c, attempt));
            }
        }
        by_target
    }

    /// DNS flows by who asked whom.
    pub fn dns_by_target(&self) -> BTreeMap<Target, Vec<&UdpFlow>> {
        let mut by_target: BTreeMap<Target, Vec<_>> = BTreeMap::new();
        for flow in &self.dns {
            let comm = flow.owner.and_then(|id| self.processes.get(id)).map(|p| p.comm.clone());
            by_target.entry(Target { comm, netns: flow.netns, remote: flow.server }).or_default().push(flow);
        }
        by_target
    }

    /// UDP flows of clients, DNS included.
    pub fn udp_flow_count(&self) -> u64 {
        (self.dns.len() + self.udp.len()) as u64
    }

    /// Number of events.
    pub fn event_count(&self) -> u64 {
        self.events.values().sum()
    }
}
