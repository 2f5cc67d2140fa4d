//! What rtnetlink, `sock_diag`, `ethtool` and the packet filters say of one network namespace.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Counters, is_false};
use crate::event::Endpoint;

/// See [`super::Item::Netns`].
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

/// See [`super::Item::Link`].
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

/// See [`super::Item::Address`].
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

/// See [`super::Item::Route`].
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

/// See [`super::Item::Rule`].
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

/// See [`super::Item::Neighbour`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// Interface.
    pub dev: String,
    /// Address whose link-layer address is looked for.
    pub addr: IpAddr,
    /// `reachable`, `stale`, `delay`, `probe`, `failed`, `incomplete`, `permanent`.
    pub state: String,
}

/// See [`super::Item::Qdisc`].
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

/// See [`super::Item::Sockets`].
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

/// See [`super::Item::Listener`].
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

/// See [`super::Item::Ports`].
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

/// See [`super::Item::Filter`].
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

/// See [`super::Item::Nic`].
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
