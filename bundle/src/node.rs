//! `node/network.jsonl` and `node/host.jsonl`: the node's network and the pressure on it, as they were when the window opened and
//! when it closed. One line per thing that was looked at, so that each is small and `jq 'select(.item == "route")'` works.
//!
//! Facts only, in the kernel's units and names; what is unusual about them is for a reader to say. What could not be read is a line,
//! too ([`Item::Absent`]), and so is what there was no room for ([`Item::Omitted`]).

mod host;
mod network;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::event::When;

pub use host::{Cgroup, Clock, Pressure, Resolver, System};
pub use network::{Address, Filter, Link, Listener, Neighbour, Netns, Nic, Ports, Qdisc, Route, Rule, Sockets};

/// Lines that `node/network.jsonl` holds at most; more are counted as omitted.
pub const MAX_NETWORK: u64 = 100_000;

/// Lines that `node/host.jsonl` holds at most; more are counted as omitted.
pub const MAX_HOST: u64 = 20_000;

/// Counters by the kernel's own names.
pub type Counters = BTreeMap<String, u64>;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Version of the contract, [`crate::event::LINE_VERSION`].
    pub v: u32,
    /// Of which of the two looks.
    pub when: When,
    /// UTC of `boot_ns`.
    pub ts: DateTime<Utc>,
    /// `CLOCK_BOOTTIME` in ns when it was read.
    pub boot_ns: u64,
    /// The network namespace that it is about, as `ns.net`; `None` of what the machine has once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<u32>,
    /// What was seen.
    #[serde(flatten)]
    pub item: Item,
}

/// What a line is about; `item` names it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "item", rename_all = "snake_case")]
pub enum Item {
    /// A network namespace that was looked at.
    Netns(Netns),
    /// An interface (rtnetlink `RTM_GETLINK`).
    Link(Link),
    /// An address of an interface (`RTM_GETADDR`).
    Address(Address),
    /// A route of any table (`RTM_GETROUTE`).
    Route(Route),
    /// A routing rule (`RTM_GETRULE`).
    Rule(Rule),
    /// A neighbour, failed ones included (`RTM_GETNEIGH`).
    Neighbour(Neighbour),
    /// A queueing discipline (`RTM_GETQDISC`).
    Qdisc(Qdisc),
    /// A group of counters, such as `TcpExt` (`/proc/net/{snmp,snmp6,netstat,sockstat,sockstat6}`, `/proc/stat`, ...).
    Counters(CounterGroup),
    /// Settings of `/proc/sys`, by their path below it with dots.
    Sysctls(Sysctls),
    /// TCP and UDP sockets added up (`sock_diag`).
    Sockets(Sockets),
    /// A TCP listener (`sock_diag`).
    Listener(Listener),
    /// How much of the range of ephemeral ports is in use.
    Ports(Ports),
    /// A rule of a packet filter that counts, or drops, or both.
    Filter(Filter),
    /// Driver, offloads and rings of an interface (`ethtool`).
    Nic(Nic),
    /// Pressure on a resource (`/proc/pressure`, or a cgroup's `cpu.pressure`, `memory.pressure`, `io.pressure`).
    Pressure(Pressure),
    /// A cgroup of a pod: what it was throttled, and how its memory did.
    Cgroup(Cgroup),
    /// A `resolv.conf`.
    Resolver(Resolver),
    /// How well the clock is kept (`adjtimex`).
    Clock(Clock),
    /// Kernel, system and hardware.
    System(System),
    /// Something that could not be read.
    Absent(Absent),
    /// Things that there was no room or no time for.
    Omitted(Omitted),
}

impl Item {
    /// The values of `item`, in the order of the variants.
    pub const NAMES: [&str; 21] = [
        "netns",
        "link",
        "address",
        "route",
        "rule",
        "neighbour",
        "qdisc",
        "counters",
        "sysctls",
        "sockets",
        "listener",
        "ports",
        "filter",
        "nic",
        "pressure",
        "cgroup",
        "resolver",
        "clock",
        "system",
        "absent",
        "omitted",
    ];
}

/// See [`Item::Counters`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CounterGroup {
    /// `Ip`, `Icmp`, `Tcp`, `Udp`, `TcpExt`, `IpExt`, `Ip6`, `sockstat.TCP`, `softnet` (added up over CPUs), `softnet.cpu<n>`,
    /// `ipvs` (`ip_vs_stats_percpu`: `conns`, `in_packets`, `out_packets`, `in_bytes`, `out_bytes`),
    /// `cpu` (`/proc/stat`, ms), `softirq.cpu<n>`, `meminfo` (bytes), `vmstat`, `load` (times 100) and so on.
    pub group: String,
    /// By the kernel's names; counters that are 0 are left out.
    pub counters: Counters,
    /// At the end: what they gained; of gauges (`sockstat`, `meminfo`, `load`) nothing.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rose: Counters,
}

/// See [`Item::Sysctls`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Sysctls {
    /// `net.ipv4.ip_forward` and so on; white space between values is one space.
    pub values: BTreeMap<String, String>,
}

/// See [`Item::Absent`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absent {
    /// What: a path, `qdiscs`, `nftables` and so on.
    pub what: String,
    /// Why, in the system's words.
    pub why: String,
}

/// See [`Item::Omitted`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Omitted {
    /// What there are more of: `routes`, `neighbours`, `namespaces` and so on.
    pub what: String,
    /// How many; absent where it was not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// `room` or `time`.
    pub why: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

#[cfg(test)]
#[path = "node/documented_tests.rs"]
mod documented_tests;
