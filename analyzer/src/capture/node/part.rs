//! Parts of the node's state that rules need, and why one of them was not read.

use std::collections::{BTreeMap, BTreeSet};

use ktrace_bundle::manifest::{Head, SourceReport};
use ktrace_bundle::node::Omitted;

use super::{Looks, Node, Place};
use crate::escape;
use crate::units::count;

/// Longest reason that is repeated, in characters.
const MAX_WHY: usize = 200;
/// How many namespaces are looked at is bounded, and each of them has all parts of the network.
const NAMESPACES: &str = "namespaces";

/// A part of the node's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodePart {
    /// What queueing disciplines dropped.
    Qdiscs,
    /// Routes of all tables.
    Routes,
    /// Neighbours.
    Neighbours,
    /// Rules of packet filters.
    Filters,
    /// How many ephemeral ports are in use.
    Ports,
    /// What the queues between interfaces and stack dropped.
    Softnet,
    /// What pods were throttled.
    Cgroups,
    /// Pressure on the CPUs, or else their time.
    Cpu,
    /// Pressure on the memory, or else its counters.
    Memory,
    /// `resolv.conf` of the processes.
    Resolvers,
    /// How many connections wait at each listener.
    Listeners,
}

impl NodePart {
    /// All of them.
    const ALL: [Self; 11] = [
        Self::Qdiscs,
        Self::Routes,
        Self::Neighbours,
        Self::Filters,
        Self::Ports,
        Self::Softnet,
        Self::Cgroups,
        Self::Cpu,
        Self::Memory,
        Self::Resolvers,
        Self::Listeners,
    ];

    /// What that is, in a sentence.
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Qdiscs => "counters of queueing disciplines",
            Self::Routes => "routes",
            Self::Neighbours => "neighbours",
            Self::Filters => "rules of packet filters",
            Self::Ports => "use of ephemeral ports",
            Self::Softnet => "counters of receive queues (`softnet_stat`)",
            Self::Cgroups => "counters of pods' cgroups",
            Self::Cpu => "pressure on the CPUs, or their times",
            Self::Memory => "pressure on the memory, or its counters",
            Self::Resolvers => "`resolv.conf` of the processes",
            Self::Listeners => "queues of listeners",
        }
    }

    /// Its source in the manifest, and what that looks at.
    const fn source(self) -> (&'static str, &'static str) {
        match self {
            Self::Qdiscs | Self::Routes | Self::Neighbours | Self::Ports | Self::Listeners => {
                ("node_network", "the node's network")
            }
            Self::Filters => ("node_filters", "packet filters"),
            Self::Softnet | Self::Cgroups | Self::Cpu | Self::Memory | Self::Resolvers => {
                ("node_host", "the node's state")
            }
        }
    }

    /// What the name of something that is absent, or left out, contains if it belongs here.
    const fn names(self) -> &'static [&'static str] {
        match self {
            Self::Qdiscs => &["qdisc"],
            Self::Routes => &["route"],
            Self::Neighbours => &["neighbour"],
            Self::Filters => &["filter", "nft", "iptables", "ip6tables", "ipvs"],
            Self::Ports => &["ports", "port_range", "sockets", "sock_diag"],
            Self::Softnet => &["softnet"],
            Self::Cgroups => &["cgroup", "cpu.stat"],
            Self::Cpu => &["/proc/stat", "pressure/cpu"],
            Self::Memory => &["vmstat", "meminfo", "pressure/memory"],
            Self::Resolvers => &["resolv"],
            Self::Listeners => &["listener", "sockets", "sock_diag"],
        }
    }

    /// Whether something of it was read as the rules need it: of counters, at both looks.
    fn is_read(self, node: &Node) -> bool {
        let places = || node.places.values().chain([node.host()]);
        let any = |has: fn(&Place) -> bool| places().any(has);
        let pressure = |resource: &str| {
            let key = (None, resource.to_owned());
            node.pressure.get(&key).is_some_and(|p| p.over_window().is_some())
        };
        match self {
            Self::Qdiscs => any(|p| p.qdiscs.values().any(|q| q.over_window().is_some())),
            Self::Routes => any(|p| p.routes.latest().is_some()),
            Self::Neighbours => any(|p| p.netns.latest().is_some()),
            Self::Listeners => any(|p| p.sockets.latest().is_some()),
            Self::Filters => any(|p| p.filters.values().any(|f| f.over_window().is_some())),
            Self::Ports => any(|p| p.ports.latest().is_some()),
            Self::Softnet => node.rose("softnet", "dropped").is_some(),
            Self::Cgroups => node.cgroups.values().any(|c| c.over_window().is_some()),
            Self::Cpu => pressure("cpu") || (node.rose("cpu", "idle").is_some() && node.load().is_some()),
            Self::Memory => pressure("memory") || node.rose("vmstat", "oom_kill").is_some(),
            Self::Resolvers => node.resolvers.values().any(|r: &Looks<_>| r.latest().is_some()),
        }
    }

    /// Parts of which there can be none, so that finding none is no gap.
    const fn may_be_empty(self) -> bool {
        matches!(self, Self::Filters | Self::Neighbours | Self::Cgroups)
    }
}

/// Why parts were not read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeGaps {
    by_part: BTreeMap<NodePart, Gap>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Gap {
    why: String,
    is_by_plan: bool,
}

impl NodeGaps {
    pub(in crate::capture) fn new(node: &Node, head: Option<&Head>) -> Self {
        let gaps = NodePart::ALL.into_iter().filter_map(|part| Some((part, gap(part, node, head)?)));
        Self { by_part: gaps.collect() }
    }

    /// Why parts were not read, each reason once.
    pub fn reasons(&self) -> BTreeSet<&str> {
        self.by_part.values().map(|gap| gap.why.as_str()).collect()
    }

    /// Why one of these parts was not read.
    pub(in crate::capture) fn gap(&self, parts: &[NodePart]) -> Option<String> {
        parts.iter().find_map(|p| self.by_part.get(p)).map(|gap| gap.why.clone())
    }

    /// Whether nobody wanted them to be read.
    pub(in crate::capture) fn is_by_plan(&self, parts: &[NodePart]) -> bool {
        parts.iter().filter_map(|p| self.by_part.get(p)).any(|gap| gap.is_by_plan)
    }
}

/// What stands in for pressure where the kernel tells none.
pub(in crate::capture) fn without_pressure(node: &Node) -> Option<String> {
    let has = |resource: &str| node.waited(None, resource).is_some();
    let is_judged = NodePart::Cpu.is_read(node) && !has("cpu") && !has("memory") && !has("io");
    let sentence = "pressure on CPU, memory and storage: this kernel tells none, so CPU is judged by idle time, steal and load, memory by its counters, and storage not at all";
    is_judged.then(|| sentence.to_owned())
}

fn gap(part: NodePart, node: &Node, head: Option<&Head>) -> Option<Gap> {
    let (name, what) = part.source();
    let source = head.and_then(|h| h.sources.iter().find(|s| s.name == name));
    if let Some(gap) = unanswered(source, what) {
        return Some(gap);
    }
    let of_part = |what: &str| part.names().iter().any(|name| what.contains(name));
    let is_network = name == "node_network";
    let is_left_out = |o: &Omitted| of_part(&o.what) || (is_network && o.what.contains(NAMESPACES));
    let absent = node.absent.iter().map(|(_, a)| a).find(|a| of_part(&a.what));
    let omitted = node.omitted.iter().map(|(_, o)| o).find(|o| is_left_out(o));
    let words = part.in_words();
    let why = match (part.is_read(node), absent, omitted) {
        (_, _, Some(omitted)) => left_out(omitted),
        (false, Some(absent), _) => format!("{words}: could not be read: {}", shown(&absent.why)),
        (_, _, None) if part == NodePart::Qdiscs && unmeasured_queues(node) > 0 => {
            let queues = count(unmeasured_queues(node), "queue has", "queues have");
            format!("{queues} dropped packets, and it is not known when: seen for the first time within the window")
        }
        (false, None, None) if !part.may_be_empty() => format!("{words}: not in this bundle"),
        _ if node.overflow > 0 => {
            format!("{} about the node than the analyzer keeps", count(node.overflow, "line more", "lines more"))
        }
        _ => return None,
    };
    Some(Gap { why, is_by_plan: false })
}

/// Queues that had dropped packets by the end, and were not seen at the start.
fn unmeasured_queues(node: &Node) -> u64 {
    let qdiscs = node.places.values().flat_map(|p| p.qdiscs.values()).filter(|looks| looks.start.is_none());
    let dropping = qdiscs.filter(|looks| looks.end.as_ref().is_some_and(|q| q.counters.get("drops") > Some(&0)));
    dropping.count() as u64
}

fn unanswered(source: Option<&SourceReport>, what: &str) -> Option<Gap> {
    let Some(source) = source else {
        return Some(Gap { why: format!("this capture did not look at {what}"), is_by_plan: true });
    };
    let why = source.error.as_deref().map_or_else(String::new, |why| format!(": {}", shown(why)));
    match source.outcome.as_str() {
        "answered" => None,
        "not_requested" => Some(Gap { why: format!("{what}: not requested"), is_by_plan: true }),
        "absent" => Some(Gap { why: format!("{what}: there is nothing to read{why}"), is_by_plan: false }),
        _ => Some(Gap { why: format!("{what} could not be read{why}"), is_by_plan: false }),
    }
}

fn left_out(omitted: &Omitted) -> String {
    let n = omitted.count.map_or_else(|| "some".to_owned(), |n| n.to_string());
    let why = shown(&omitted.why);
    format!("{n} {} of the node were left out: no {why}", shown(&omitted.what))
}

fn shown(text: &str) -> String {
    escape::line(&text.chars().take(MAX_WHY).collect::<String>())
}
