//! One network namespace, or the host: links, addresses, routes, neighbours, queues, sockets and filters, by what makes each of
//! them the same at both looks.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ktrace_bundle::event::{Endpoint, When};
use ktrace_bundle::node::{
    Address, CounterGroup, Filter, Item, Link, Listener, Neighbour, Netns, Nic, Ports, Qdisc, Route, Rule, Sockets,
};

use super::{Looks, set};

/// Number of the table `main`.
const MAIN: u32 = 254;
/// `FAILED` and `INCOMPLETE` of a neighbour: nobody answers for its address.
const UNANSWERED: [&str; 2] = ["failed", "incomplete"];

/// What makes a rule of a packet filter the same at both looks: tool, family, table, chain, number.
pub type FilterKey = (String, String, String, String, Option<u64>);

/// A network namespace, or what the machine has once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// The look itself.
    pub netns: Looks<Netns>,
    /// Interfaces by number.
    pub links: BTreeMap<u32, Looks<Link>>,
    /// Addresses by interface.
    pub addresses: BTreeMap<(String, IpAddr), Looks<Address>>,
    /// Routes of all tables.
    pub routes: Looks<Vec<Route>>,
    /// Routing rules.
    pub rules: Looks<Vec<Rule>>,
    /// Neighbours by address and interface.
    pub neighbours: BTreeMap<(IpAddr, String), Looks<Neighbour>>,
    /// Queueing disciplines by interface, handle and parent.
    pub qdiscs: BTreeMap<(String, String, String), Looks<Qdisc>>,
    /// Groups of counters by name.
    pub counters: BTreeMap<String, Looks<CounterGroup>>,
    /// Settings.
    pub sysctls: Looks<BTreeMap<String, String>>,
    /// Sockets added up.
    pub sockets: Looks<Sockets>,
    /// Listeners by socket and end.
    pub listeners: BTreeMap<(u64, Option<Endpoint>), Looks<Listener>>,
    /// Ephemeral ports.
    pub ports: Looks<Ports>,
    /// Rules of packet filters.
    pub filters: BTreeMap<FilterKey, Looks<Filter>>,
    /// Driver and rings by interface.
    pub nics: BTreeMap<String, Looks<Nic>>,
}

impl Place {
    pub(super) fn push(&mut self, when: When, item: Item) {
        match item {
            Item::Netns(n) => self.netns.set(when, n),
            Item::Link(l) => set(&mut self.links, l.index, when, l),
            Item::Address(a) => set(&mut self.addresses, (a.dev.clone(), a.addr), when, a),
            Item::Route(r) => add(&mut self.routes, when, r),
            Item::Rule(r) => add(&mut self.rules, when, r),
            Item::Neighbour(n) => set(&mut self.neighbours, (n.addr, n.dev.clone()), when, n),
            Item::Qdisc(q) => {
                set(&mut self.qdiscs, (q.dev.clone(), q.handle.clone(), q.parent.clone()), when, q);
            }
            Item::Counters(c) => set(&mut self.counters, c.group.clone(), when, c),
            Item::Sysctls(s) => look(&mut self.sysctls, when).extend(s.values),
            Item::Sockets(s) => self.sockets.set(when, s),
            Item::Listener(l) => set(&mut self.listeners, (l.socket, l.local), when, l),
            Item::Ports(p) => self.ports.set(when, p),
            Item::Filter(f) => {
                let [tool, family, table, chain] = [&f.tool, &f.family, &f.table, &f.chain].map(Clone::clone);
                set(&mut self.filters, (tool, family, table, chain, f.number), when, f);
            }
            Item::Nic(n) => set(&mut self.nics, n.dev.clone(), when, n),
            // these are kept by the node itself
            Item::Pressure(_)
            | Item::Cgroup(_)
            | Item::Resolver(_)
            | Item::Clock(_)
            | Item::System(_)
            | Item::Absent(_)
            | Item::Omitted(_) => {}
        }
    }

    /// Whether it is the namespace that the node itself is in.
    pub fn is_node(&self) -> bool {
        [&self.netns.start, &self.netns.end].into_iter().flatten().any(|n| n.is_node)
    }

    /// Whether one of its interfaces has this address.
    pub fn has_address(&self, addr: IpAddr) -> bool {
        self.addresses.keys().any(|(_, own)| *own == addr && !own.is_loopback())
    }

    /// A setting, as it was last seen.
    pub fn sysctl(&self, name: &str) -> Option<&str> {
        self.sysctls.latest()?.get(name).map(String::as_str)
    }

    /// The route of the table `main` that this address takes, as it was last seen: of the longest prefix, and of several the one
    /// with the lowest metric. Rules and other tables can send it elsewhere.
    pub fn route_to(&self, addr: IpAddr) -> Option<&Route> {
        let routes = self.routes.latest()?.iter().filter(|r| r.table == MAIN);
        let lengths = routes.filter_map(|r| Some((prefix_that_holds(r, addr)?, r)));
        lengths.min_by_key(|(length, r)| (u8::MAX - length, r.metric.unwrap_or(0))).map(|(_, r)| r)
    }

    /// Whether a table `main` that was read has a default route for this family (`inet`, `inet6`).
    pub fn has_default_route(&self, family: &str) -> Option<bool> {
        let routes = self.routes.latest()?;
        Some(routes.iter().any(|r| r.family == family && r.dst.is_none() && is_way(r)))
    }

    /// Neighbours with this address, as they were last seen.
    pub fn neighbours_at(&self, addr: IpAddr) -> impl Iterator<Item = &Neighbour> {
        let same = self.neighbours.range((addr, String::new())..).take_while(move |((a, _), _)| *a == addr);
        same.filter_map(|(_, looks)| looks.latest())
    }

    /// Neighbours that do not answer.
    pub fn failed_neighbours(&self) -> impl Iterator<Item = &Neighbour> {
        let latest = self.neighbours.values().filter_map(Looks::latest);
        latest.filter(|n| UNANSWERED.contains(&n.state.as_str()))
    }

    /// Rules of packet filters whose counter rose, with by how much; the most first.
    pub fn risen_filters(&self) -> Vec<(&Filter, u64)> {
        let ends = self.filters.values().filter_map(Looks::over_window);
        let mut risen: Vec<_> = ends.filter_map(|f| Some((f, f.rose.filter(|n| *n > 0)?))).collect();
        risen.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        risen
    }

    /// The same of those that drop or reject.
    pub fn dropping_filters(&self) -> impl Iterator<Item = (&Filter, u64)> {
        let drops = |f: &Filter| ["drop", "reject"].iter().any(|verdict| f.verdict.contains(verdict));
        self.risen_filters().into_iter().filter(move |(f, _)| drops(f))
    }
}

/// Whether a route leads somewhere.
fn is_way(route: &Route) -> bool {
    route.kind == "unicast" || route.kind == "local"
}

/// Length of the prefix, if this address is in it.
fn prefix_that_holds(route: &Route, addr: IpAddr) -> Option<u8> {
    let Some(dst) = &route.dst else {
        let family = if addr.is_ipv6() { "inet6" } else { "inet" };
        return (route.family == family).then_some(0);
    };
    let (net, length) = match dst.split_once('/') {
        Some((net, length)) => (net.parse().ok()?, length.parse().ok()?),
        None => (dst.parse().ok()?, if addr.is_ipv6() { 128 } else { 32 }),
    };
    holds(net, length, addr).then_some(length)
}

fn holds(net: IpAddr, length: u8, addr: IpAddr) -> bool {
    let (net, addr, bits) = match (net, addr) {
        (IpAddr::V4(net), IpAddr::V4(addr)) => (u128::from(net.to_bits()), u128::from(addr.to_bits()), 32),
        (IpAddr::V6(net), IpAddr::V6(addr)) => (net.to_bits(), addr.to_bits(), 128),
        _ => return false,
    };
    let Some(rest) = u32::checked_sub(bits, u32::from(length)) else { return false };
    let cut = |bits: u128| bits.checked_shr(rest).unwrap_or(0);
    cut(net) == cut(addr)
}

fn look<T: Default>(looks: &mut Looks<T>, when: When) -> &mut T {
    let at = match when {
        When::Start => &mut looks.start,
        When::End => &mut looks.end,
    };
    at.get_or_insert_default()
}

fn add<T>(list: &mut Looks<Vec<T>>, when: When, item: T) {
    look(list, when).push(item);
}
