//! Messages of rtnetlink, as `netlink-packet-route` reads them → items. What a message does not say is absent; one that is not
//! understood is none.

use std::collections::HashMap;
use std::net::IpAddr;

use ktrace_bundle::node::{Address, Item, Link, Neighbour, Qdisc, Route, Rule};
use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteNextHop, RouteType, RouteVia,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::tc::TcMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::qdiscs;

/// Names of interfaces by their numbers.
pub type Names = HashMap<u32, String>;

/// What a message says; `None`: nothing that is told. Its kind is an `RTM_NEW*`.
///
/// # Errors
/// It is not understood.
pub fn item(kind: u16, body: &[u8], names: &mut Names) -> Result<Option<Item>, ()> {
    let mut header = NetlinkHeader::default();
    header.message_type = kind;
    match RouteNetlinkMessage::deserialize(&header, body).map_err(drop)? {
        RouteNetlinkMessage::NewLink(it) => {
            let link = link(&it);
            names.insert(link.index, link.dev.clone());
            Ok(Some(Item::Link(link)))
        }
        RouteNetlinkMessage::NewAddress(it) => Ok(address(&it, names).map(Item::Address)),
        RouteNetlinkMessage::NewRoute(it) => Ok(route(&it, names).map(Item::Route)),
        RouteNetlinkMessage::NewRule(it) => Ok(rule(&it).map(Item::Rule)),
        RouteNetlinkMessage::NewNeighbour(it) => Ok(neighbour(&it, names).map(Item::Neighbour)),
        RouteNetlinkMessage::NewQueueDiscipline(it) => Ok(Some(Item::Qdisc(qdisc(&it, names)))),
        _ => Err(()),
    }
}

/// The name of an interface; `if7` of one that appeared meanwhile.
fn dev(names: &Names, index: u32) -> String {
    names.get(&index).cloned().unwrap_or_else(|| format!("if{index}"))
}

fn family(family: AddressFamily) -> Option<&'static str> {
    match family {
        AddressFamily::Inet => Some("inet"),
        AddressFamily::Inet6 => Some("inet6"),
        _ => None,
    }
}

fn link(message: &LinkMessage) -> Link {
    let mut link =
        Link { index: message.header.index, up: message.header.flags.contains(LinkFlags::Up), ..Link::default() };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.dev.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Controller(index) => link.master = Some(*index),
            LinkAttribute::OperState(state) => link.operstate = state.to_string().to_lowercase(),
            LinkAttribute::Stats64(stats) => link.counters = qdiscs::of_link(stats),
            LinkAttribute::LinkInfo(infos) => {
                let kind = |info: &LinkInfo| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                };
                link.kind = infos.iter().find_map(kind);
            }
            _ => {}
        }
    }
    link
}

fn address(message: &AddressMessage, names: &Names) -> Option<Address> {
    let (mut of_peer, mut own, mut flags) = (None, None, AddressFlags::empty());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(addr) => of_peer = Some(*addr),
            AddressAttribute::Local(addr) => own = Some(*addr),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    let told = [
        (AddressFlags::Tentative, "tentative"),
        (AddressFlags::Dadfailed, "dadfailed"),
        (AddressFlags::Deprecated, "deprecated"),
    ];
    let flags = told.into_iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, name)| name.to_owned()).collect();
    let (dev, prefix_len) = (dev(names, message.header.index), message.header.prefix_len);
    Some(Address { dev, addr: own.or(of_peer)?, prefix_len, flags })
}

/// `10.0.0.0/8`; `None`: everything.
fn prefix(addr: Option<IpAddr>, length: u8) -> Option<String> {
    addr.map(|addr| format!("{addr}/{length}"))
}

const fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(addr) => Some(IpAddr::V4(*addr)),
        RouteAddress::Inet6(addr) => Some(IpAddr::V6(*addr)),
        _ => None,
    }
}

const fn via(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(addr) => ip(addr),
        RouteAttribute::Via(RouteVia::Inet(addr)) => Some(IpAddr::V4(*addr)),
        RouteAttribute::Via(RouteVia::Inet6(addr)) => Some(IpAddr::V6(*addr)),
        _ => None,
    }
}

fn route(message: &RouteMessage, names: &Names) -> Option<Route> {
    let header = &message.header;
    let mut route = Route {
        family: family(header.address_family)?.to_owned(),
        table: header.table.into(),
        kind: kind(header.kind),
        ..Route::default()
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::Destination(addr) => route.dst = prefix(ip(addr), header.destination_prefix_length),
            RouteAttribute::PrefSource(addr) => route.src = ip(addr),
            RouteAttribute::Oif(index) => route.dev = Some(dev(names, *index)),
            RouteAttribute::Priority(metric) => route.metric = Some(*metric).filter(|it| *it > 0),
            RouteAttribute::Metrics(metrics) => {
                let mtu = |it: &RouteMetric| if let RouteMetric::Mtu(mtu) = it { Some(*mtu) } else { None };
                route.mtu = metrics.iter().find_map(mtu);
            }
            RouteAttribute::MultiPath(hops) => several(&mut route, hops, names),
            other => route.via = route.via.or_else(|| via(other)),
        }
    }
    Some(route)
}

fn several(route: &mut Route, hops: &[RouteNextHop], names: &Names) {
    let Some(first) = hops.first() else { return };
    route.via = first.attributes.iter().find_map(via);
    route.dev = Some(dev(names, first.interface_index));
    route.hop_count = u32::try_from(hops.len()).ok().filter(|count| *count > 1);
}

fn kind(kind: RouteType) -> String {
    let name = match kind {
        RouteType::Unicast => "unicast",
        RouteType::Local => "local",
        RouteType::Broadcast => "broadcast",
        RouteType::Anycast => "anycast",
        RouteType::Multicast => "multicast",
        RouteType::BlackHole => "blackhole",
        RouteType::Unreachable => "unreachable",
        RouteType::Prohibit => "prohibit",
        RouteType::Throw => "throw",
        RouteType::Nat => "nat",
        other => return format!("type_{}", u8::from(other)),
    };
    name.to_owned()
}

fn rule(message: &RuleMessage) -> Option<Rule> {
    let header = &message.header;
    let action = match header.action {
        RuleAction::ToTable => "to_table".to_owned(),
        RuleAction::Goto => "goto".to_owned(),
        RuleAction::Nop => "nop".to_owned(),
        RuleAction::Blackhole => "blackhole".to_owned(),
        RuleAction::Unreachable => "unreachable".to_owned(),
        RuleAction::Prohibit => "prohibit".to_owned(),
        other => format!("action_{}", u8::from(other)),
    };
    let mut table = Some(u32::from(header.table)).filter(|table| *table > 0);
    let mut rule = Rule { family: family(header.family)?.to_owned(), action, ..Rule::default() };
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = *priority,
            RuleAttribute::Source(addr) => rule.from = prefix(Some(*addr), header.src_len),
            RuleAttribute::Destination(addr) => rule.to = prefix(Some(*addr), header.dst_len),
            RuleAttribute::Iifname(name) => rule.iif = Some(name.clone()),
            RuleAttribute::Oifname(name) => rule.oif = Some(name.clone()),
            RuleAttribute::FwMark(mark) => rule.fwmark = Some(*mark),
            RuleAttribute::Table(number) => table = Some(*number),
            _ => {}
        }
    }
    rule.table = table.filter(|_| header.action == RuleAction::ToTable);
    Some(rule)
}

/// Those that need no answer of a neighbour (multicast, the loopback) are not told.
fn neighbour(message: &NeighbourMessage, names: &Names) -> Option<Neighbour> {
    let state = match message.header.state {
        NeighbourState::Incomplete => "incomplete",
        NeighbourState::Reachable => "reachable",
        NeighbourState::Stale => "stale",
        NeighbourState::Delay => "delay",
        NeighbourState::Probe => "probe",
        NeighbourState::Failed => "failed",
        NeighbourState::Permanent => "permanent",
        _ => return None,
    };
    let addr = |attribute: &NeighbourAttribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(addr)) => Some(IpAddr::V4(*addr)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(addr)) => Some(IpAddr::V6(*addr)),
        _ => None,
    };
    let addr = message.attributes.iter().find_map(addr)?;
    Some(Neighbour { dev: dev(names, message.header.ifindex), addr, state: state.to_owned() })
}

fn qdisc(message: &TcMessage, names: &Names) -> Qdisc {
    let index = message.header.index.cast_unsigned();
    Qdisc { dev: dev(names, index), ..qdiscs::of(message) }
}
