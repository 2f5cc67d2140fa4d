//! `node/network.jsonl` and `node/host.jsonl`: the node's network and the pressure on it, as they were when the window opened and
//! when it closed. One line per thing that was looked at, so that each is small and `jq 'select(.item == "route")'` works.
//!
//! Facts only, in the kernel's units and names; what is unusual about them is for a reader to say. What could not be read is a line,
//! too ([`Item::Absent`]), and so is what there was no room for ([`Item::Omitted`]).

use std::collections::BTreeMap;
use std::net::IpAddr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::event::{Endpoint, When};

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

/// See [`Item::Netns`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Netns {
    /// It is the one that the node itself is in.
    #[serde(skip_serializing_if = "is_false")]
    pub is_node: bool,
    /// A process that lives in it, as it was looked at through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// How long looking at it took, µs.
    pub took_us: u64,
}

/// See [`Item::Link`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Link {
    /// Its name.
    pub dev: String,
    /// Its number in this namespace.
    pub index: u32,
    /// `veth`, `bridge`, `vxlan` and so on (`IFLA_INFO_KIND`); absent of hardware and of the loopback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// It is switched on (`IFF_UP`).
    pub up: bool,
    /// RFC 2863: `up`, `down`, `lowerlayerdown`, `unknown` and so on.
    pub operstate: String,
    /// Largest packet, bytes.
    pub mtu: u32,
    /// Number of the bridge, bond or VRF that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master: Option<u32>,
    /// `rx_bytes`, `tx_dropped` and the others of `struct rtnl_link_stats64` that are not 0.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub counters: Counters,
    /// At the end: what they gained.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rose: Counters,
}

/// See [`Item::Address`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Interface.
    pub dev: String,
    /// The address.
    pub addr: IpAddr,
    /// Length of its prefix, bits.
    pub prefix_len: u8,
    /// `tentative`, `dadfailed`, `deprecated`; others are not told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
}

/// See [`Item::Route`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Route {
    /// `inet` or `inet6`.
    pub family: String,
    /// Number of its table; 254 is `main`, 255 `local`.
    pub table: u32,
    /// `unicast`, `local`, `broadcast`, `unreachable`, `blackhole`, `prohibit` and so on.
    pub kind: String,
    /// `10.0.0.0/8`; absent: everything (the default route).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dst: Option<String>,
    /// Next hop; of several the first, and `hop_count` says how many there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
    /// Interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dev: Option<String>,
    /// Preferred source address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub src: Option<IpAddr>,
    /// Metric; absent: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
    /// MTU that it sets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Next hops, where there is more than one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hop_count: Option<u32>,
}

/// See [`Item::Rule`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Rule {
    /// `inet` or `inet6`.
    pub family: String,
    /// Lower ones are asked first.
    pub priority: u32,
    /// `from` prefix; absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// `to` prefix; absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Interface that it came in by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iif: Option<String>,
    /// Interface that it goes out by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oif: Option<String>,
    /// Mark of the packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fwmark: Option<u32>,
    /// `to_table`, `unreachable`, `blackhole`, `prohibit` and so on.
    pub action: String,
    /// Table that is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
}

/// See [`Item::Neighbour`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// Interface.
    pub dev: String,
    /// Address whose link-layer address is looked for.
    pub addr: IpAddr,
    /// `reachable`, `stale`, `delay`, `probe`, `failed`, `incomplete`, `noarp`, `permanent`.
    pub state: String,
}

/// See [`Item::Qdisc`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Qdisc {
    /// Interface.
    pub dev: String,
    /// `fq_codel`, `tbf`, `noqueue` and so on.
    pub kind: String,
    /// `1:`; as `tc` writes it.
    pub handle: String,
    /// `root`, `ingress` or the class that it hangs on.
    pub parent: String,
    /// `bytes`, `packets`, `drops`, `overlimits`, `requeues`, `qlen_packets`, `backlog_bytes`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub counters: Counters,
    /// At the end: what they gained.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rose: Counters,
}

/// See [`Item::Counters`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CounterGroup {
    /// `Ip`, `Icmp`, `Tcp`, `Udp`, `TcpExt`, `IpExt`, `Ip6`, `sockstat.TCP`, `softnet` (added up over CPUs), `softnet.cpu<n>`,
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

/// See [`Item::Sockets`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Sockets {
    /// TCP sockets by state, `TIME_WAIT` and `NEW_SYN_RECV` included.
    pub tcp: BTreeMap<String, u64>,
    /// UDP sockets.
    pub udp: u64,
    /// Bytes received by all of them and not yet read.
    pub rx_queue_bytes: u64,
    /// Bytes written and not yet acknowledged.
    pub tx_queue_bytes: u64,
}

/// See [`Item::Listener`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Address and port that it listens on.
    #[serde(with = "crate::nat::end")]
    pub local: Option<Endpoint>,
    /// Socket cookie, as `socket` of events.
    pub socket: u64,
    /// Connections that wait to be accepted.
    pub accept_queue: u64,
    /// How many may.
    pub backlog: u64,
    /// Handshakes that it turned away (`sk_drops`), if that could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop_count: Option<u64>,
    /// At the end: how many more it were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rose: Option<u64>,
}

/// See [`Item::Ports`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Ports {
    /// First of `net.ipv4.ip_local_port_range`.
    pub low: u16,
    /// Last of it.
    pub high: u16,
    /// Ports in between that may not be chosen (`net.ipv4.ip_local_reserved_ports`).
    pub reserved_count: u64,
    /// Ports of the range that a TCP socket has, whatever its other end; those in `TIME_WAIT` included.
    pub tcp_used_count: u64,
    /// The same of UDP.
    pub udp_used_count: u64,
    /// The other end to which most of them are taken: a port can be used again towards another one.
    #[serde(skip_serializing_if = "Option::is_none", with = "crate::nat::end")]
    pub busiest: Option<Endpoint>,
    /// How many are taken towards it.
    pub busiest_count: u64,
}

/// See [`Item::Filter`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// `nftables`, `iptables`, `ip6tables` or `ipvs`.
    pub tool: String,
    /// Family of its table (nftables: `ip`, `ip6`, `inet`, `bridge`, `netdev`).
    pub family: String,
    /// Its table.
    pub table: String,
    /// Its chain.
    pub chain: String,
    /// `input`, `forward` and so on, where the chain hangs on a hook.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook: Option<String>,
    /// Number of the rule (nftables: its handle; iptables: its place in the chain, from 1); absent of a chain's policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// `drop`, `reject`, `accept`, `policy drop` and so on.
    pub verdict: String,
    /// The rule as its tool writes it, at most 256 bytes. Untrusted.
    pub text: String,
    /// Packets that matched, if it counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packets: Option<u64>,
    /// At the end: how many more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rose: Option<u64>,
}

/// See [`Item::Nic`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Nic {
    /// Interface.
    pub dev: String,
    /// Its driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Mbit/s; absent where it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed_mbit: Option<u32>,
    /// Offloads that are on.
    pub offloads: Vec<String>,
    /// `rx`, `rx_max`, `tx`, `tx_max`: descriptors.
    pub rings: Counters,
    /// Counters of the driver whose names tell of drops or errors and that are not 0.
    pub counters: Counters,
    /// At the end: what they gained.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rose: Counters,
}

/// See [`Item::Pressure`]: shares of time in which tasks waited for it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Pressure {
    /// `cpu`, `memory` or `io`.
    pub resource: String,
    /// v2 id of the cgroup that it is about; absent: the whole machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_id: Option<u64>,
    /// Some task waited, so far, µs.
    pub some_total_us: u64,
    /// All tasks waited, so far, µs; absent where the kernel does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_total_us: Option<u64>,
    /// Percent of the last 10 s, times 100.
    pub some_avg10: u64,
    /// Percent of the last 60 s, times 100.
    pub some_avg60: u64,
    /// At the end: what `some_total_us` gained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub some_rose_us: Option<u64>,
    /// At the end: what `full_total_us` gained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_rose_us: Option<u64>,
    /// At the end: time between the two looks, µs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elapsed_us: Option<u64>,
}

/// See [`Item::Cgroup`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Cgroup {
    /// Its id, as on lines of events.
    pub cgroup_id: u64,
    /// Its path.
    pub path: String,
    /// Time that it may run in a period, µs; absent: as much as it likes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_us: Option<u64>,
    /// Length of that period, µs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period_us: Option<u64>,
    /// `cpu.stat` and `memory.events` by their names, with `cpu.` and `memory.` before them; v1's names are told as v2's.
    pub counters: Counters,
    /// At the end: what they gained.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rose: Counters,
}

/// See [`Item::Resolver`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Resolver {
    /// Mount namespace in which it stands, as `ns.mnt`.
    pub mnt_ns: u32,
    /// It is the node's own.
    #[serde(skip_serializing_if = "is_false")]
    pub is_node: bool,
    /// A process that sees it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// `nameserver` lines.
    pub nameservers: Vec<String>,
    /// Domains of `search` or `domain`; their names are not told.
    pub search_count: u64,
    /// `options ndots:`; 1 if it is not there.
    pub ndots: u64,
    /// All `options`, at most 16.
    pub options: Vec<String>,
}

/// See [`Item::Clock`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Clock {
    /// The kernel believes that it is kept in step (no `STA_UNSYNC`).
    pub synchronized: bool,
    /// Estimated error, µs.
    pub est_error_us: u64,
    /// Largest error, µs.
    pub max_error_us: u64,
    /// `tsc`, `kvm-clock` and so on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clocksource: Option<String>,
}

/// See [`Item::System`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct System {
    /// `uname -r`.
    pub kernel: String,
    /// `PRETTY_NAME` of `os-release`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
    /// Machine's make and model, as the firmware has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hardware: Option<String>,
    /// CPUs that are online.
    pub cpu_count: u64,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Id of this boot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
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
