//! Lines of `node/network.jsonl` and `node/host.jsonl` → the machine at both looks, by place: the host, and each network
//! namespace that was looked at.
//!
//! What was seen when the window opened and when it closed stands side by side ([`Looks`]). The number of things is bounded:
//! what no longer fits is counted, and makes the parts that it could belong to inconclusive ([`NodePart`]).

mod looks;
mod part;
mod place;
mod shares;

use std::collections::BTreeMap;
use std::net::IpAddr;

use ktrace_bundle::event::When;
use ktrace_bundle::node::{Absent, Cgroup, Clock, CounterGroup, Item, NodeRecord, Omitted, Pressure, Resolver, System};

pub use looks::{Looks, Rising};
pub(super) use part::without_pressure;
pub use part::{NodeGaps, NodePart};
pub use place::{FilterKey, Place};
pub use shares::Waiting;

/// Most things that are kept, both looks together.
const MAX_THINGS: u64 = 250_000;
/// Most things that were absent, or left out, of which is told why.
const MAX_GAPS: usize = 4096;

/// The machine, as it was when the window opened and when it closed.
#[derive(Debug, Default)]
pub struct Node {
    /// What the machine has once; see [`Self::host`].
    host: Place,
    /// Network namespaces by their number.
    pub places: BTreeMap<u32, Place>,
    /// Pressure by cgroup, of `None` the whole machine, and resource (`cpu`, `memory`, `io`).
    pub pressure: BTreeMap<(Option<u64>, String), Looks<Pressure>>,
    /// Cgroups of pods by id.
    pub cgroups: BTreeMap<u64, Looks<Cgroup>>,
    /// `resolv.conf` by mount namespace.
    pub resolvers: BTreeMap<u32, Looks<Resolver>>,
    /// How well the clock is kept.
    pub clock: Looks<Clock>,
    /// Kernel, system and hardware.
    pub system: Looks<System>,
    /// What could not be read, and in which namespace.
    pub absent: Vec<(Option<u32>, Absent)>,
    /// What there was no room or time for, and in which namespace.
    pub omitted: Vec<(Option<u32>, Omitted)>,
    /// Lines that did not fit.
    pub overflow: u64,
    things: u64,
}

impl Node {
    /// Adds a line.
    pub fn push(&mut self, record: NodeRecord) {
        if self.things >= MAX_THINGS {
            self.overflow = self.overflow.saturating_add(1);
            return;
        }
        self.things += 1;
        let (when, netns) = (record.when, record.netns);
        match record.item {
            Item::Pressure(p) => self.pressure.entry((p.cgroup_id, p.resource.clone())).or_default().set(when, p),
            Item::Cgroup(c) => self.cgroups.entry(c.cgroup_id).or_default().set(when, c),
            Item::Resolver(r) => self.resolvers.entry(r.mnt_ns).or_default().set(when, r),
            Item::Clock(c) => self.clock.set(when, c),
            Item::System(s) => self.system.set(when, s),
            Item::Absent(absent) => keep(&mut self.absent, (netns, absent), &mut self.overflow),
            Item::Omitted(omitted) => keep(&mut self.omitted, (netns, omitted), &mut self.overflow),
            item => self.place_mut(netns).push(when, item),
        }
    }

    fn place_mut(&mut self, netns: Option<u32>) -> &mut Place {
        match netns {
            Some(netns) => self.places.entry(netns).or_default(),
            None => &mut self.host,
        }
    }

    /// Whether there is any line about it.
    pub const fn is_told(&self) -> bool {
        self.things > 0
    }

    /// What the machine has once.
    pub const fn host(&self) -> &Place {
        &self.host
    }

    /// A network namespace that was looked at.
    pub fn place(&self, netns: u32) -> Option<&Place> {
        self.places.get(&netns)
    }

    /// The network namespace that the node itself is in.
    pub fn own(&self) -> Option<(u32, &Place)> {
        self.places.iter().find(|(_, p)| p.is_node()).map(|(netns, p)| (*netns, p))
    }

    /// Whether this network namespace is the node's own, as far as is known.
    pub fn is_own(&self, netns: u32) -> bool {
        self.place(netns).is_some_and(Place::is_node)
    }

    /// What a group of counters gained that the machine has once, though a namespace may tell of it.
    pub fn rose(&self, group: &str, counter: &str) -> Option<u64> {
        self.tellers().find_map(|p| p.counters.get(group)?.rose(counter))
    }

    /// Who may tell of what the machine has once: the host, the node's namespace, any other.
    fn tellers(&self) -> impl Iterator<Item = &Place> {
        let own = self.own().map(|(_, place)| place);
        [Some(&self.host), own].into_iter().flatten().chain(self.places.values().take(1))
    }

    /// Groups of counters that the machine has once and whose names begin so, by the rest of their names.
    pub fn groups<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Looks<CounterGroup>)> {
        let groups = self.tellers().flat_map(|p| p.counters.range(prefix.to_owned()..));
        groups.filter_map(move |(name, looks)| Some((name.strip_prefix(prefix)?, looks)))
    }

    /// The newest value of a counter or gauge of the machine.
    pub fn value(&self, group: &str, counter: &str) -> Option<u64> {
        self.tellers().find_map(|p| p.counters.get(group))?.latest()?.counters.get(counter).copied()
    }

    /// The namespace, other than the node's own, one of whose interfaces has this address: that of a pod, as a rule.
    pub fn netns_of(&self, addr: IpAddr) -> Option<u32> {
        let others = self.places.iter().filter(|(_, p)| !p.is_node());
        others.filter(|(_, p)| p.has_address(addr)).map(|(netns, _)| *netns).next()
    }
}

fn keep<T>(list: &mut Vec<T>, item: T, overflow: &mut u64) {
    if list.len() < MAX_GAPS {
        list.push(item);
    } else {
        *overflow = overflow.saturating_add(1);
    }
}

/// For the maps of a place: the entry of a key at one of both looks.
fn set<K: Ord, T>(map: &mut BTreeMap<K, Looks<T>>, key: K, when: When, value: T) {
    map.entry(key).or_default().set(when, value);
}

#[cfg(test)]
pub(super) mod tests;
