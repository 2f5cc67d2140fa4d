//! Who talked to whom: flows of a capture in the groups that findings are about.

use std::collections::{BTreeMap, HashMap};

use ktrace_bundle::event::Endpoint;

use super::{Attempt, Capture, Connection, Process, Races, UdpFlow};

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

/// A target whose name is still that of the table of processes.
type Group<'a> = (Option<&'a str>, u32, Endpoint);

impl Capture {
    /// The process that owns this connection.
    pub fn owner(&self, connection: &Connection) -> Option<&Process> {
        connection.owner().and_then(|id| self.processes.get(id))
    }

    /// Connection attempts by who tried to reach what.
    pub fn attempts(&self) -> BTreeMap<Target, Vec<(&Connection, Attempt)>> {
        let index = self.attempts.get_or_init(|| self.index_attempts());
        let at = |(place, attempt): &(usize, Attempt)| Some((self.connections.get(*place)?, *attempt));
        index.iter().map(|(target, members)| (target.clone(), members.iter().filter_map(at).collect())).collect()
    }

    /// Grouped by hash, which is many times faster where there are hundreds of thousands; a group is named once.
    fn index_attempts(&self) -> BTreeMap<Target, Vec<(usize, Attempt)>> {
        let mut groups: HashMap<Group<'_>, Vec<(usize, Attempt)>> = HashMap::new();
        for (place, c) in self.connections.iter().enumerate() {
            if let Some(attempt) = c.attempt(self.window_end_ns) {
                let comm = self.owner(c).map(|p| p.comm.as_str());
                groups.entry((comm, c.netns, c.remote)).or_default().push((place, attempt));
            }
        }
        let named = |((comm, netns, remote), members): (Group<'_>, _)| {
            (Target { comm: comm.map(str::to_owned), netns, remote }, members)
        };
        groups.into_iter().map(named).collect()
    }

    /// Who got through by another address instead.
    pub fn races(&self) -> &Races {
        self.races.get_or_init(|| Races::new(self))
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
