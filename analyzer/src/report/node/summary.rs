//! What is ordinary about a machine, in rows: its network first, then the host.

use ktrace_bundle::node::{Link, Resolver};
use serde::Serialize;

use super::machine::part;
use crate::capture::{Capture, Looks, Node, Place};
use crate::escape::shown;
use crate::units::{bytes, count, duration};

/// Interfaces that have a row.
const MAX_LINKS: usize = 5;
/// Addresses of an interface that are told.
const MAX_ADDRESSES: usize = 2;
/// States of TCP sockets that are told.
const MAX_STATES: usize = 5;
/// Name servers that are told.
const MAX_SERVERS: usize = 3;

/// One row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// `network` or `host`.
    pub section: &'static str,
    /// What it is about: a name of ours, or of an interface, escaped.
    pub name: String,
    /// In words, escaped.
    pub text: String,
}

pub(super) fn rows(capture: &Capture) -> Vec<Row> {
    let node = &capture.node;
    if !node.is_told() {
        return Vec::new();
    }
    let place = node.own().or_else(|| node.places.iter().next().map(|(netns, place)| (*netns, place)));
    let mut out = Vec::new();
    if let Some((netns, place)) = place {
        let whose = if place.is_node() { "the node's" } else { "not the node's own, which was not seen" };
        let others = count(node.places.len() as u64 - 1, "other", "others");
        out.push(network("namespace", format!("{netns}, {whose}; {others} looked at")));
        out.extend(links(place));
        out.extend([default_route(place), tables(place), sockets(place), ports(place)].into_iter().flatten());
    }
    out.extend(
        [system(node), cpu(node), pressure(node), memory(node), pods(node), clock(node), resolvers(node)]
            .into_iter()
            .flatten(),
    );
    out
}

fn network(name: &str, text: String) -> Row {
    Row { section: "network", name: name.to_owned(), text }
}

fn host(name: &str, text: String) -> Row {
    Row { section: "host", name: name.to_owned(), text }
}

fn links(place: &Place) -> Vec<Row> {
    let all = || place.links.values().filter_map(Looks::latest).filter(|l| l.dev != "lo");
    // what is virtual is there once for each pod
    let mut links: Vec<&Link> = all().collect();
    links.sort_by_key(|l| (l.kind.is_some(), l.index));
    let more = links.len().saturating_sub(MAX_LINKS);
    let mut rows: Vec<Row> =
        links.into_iter().take(MAX_LINKS).map(|l| network(&shown(&l.dev), link(place, l))).collect();
    if more > 0 {
        rows.push(network("", format!("and {}", count(more as u64, "interface more", "interfaces more"))));
    }
    rows
}

fn link(place: &Place, link: &Link) -> String {
    let state = if link.up { shown(&link.operstate) } else { "switched off".to_owned() };
    let mut parts = vec![state, format!("mtu {}", link.mtu)];
    parts.extend(link.kind.as_deref().map(shown));
    if let Some(nic) = place.nics.get(&link.dev).and_then(Looks::latest) {
        parts.extend(nic.driver.as_deref().map(shown));
        parts.extend(nic.speed_mbit.map(|mbit| format!("{mbit} Mbit/s")));
    }
    let own = place.addresses.values().filter_map(Looks::latest).filter(|a| a.dev == link.dev);
    parts.extend(own.take(MAX_ADDRESSES).map(|a| format!("{}/{}", a.addr, a.prefix_len)));
    let rose = |name: &str| link.rose.get(name).copied();
    if let (Some(rx), Some(tx)) = (rose("rx_bytes"), rose("tx_bytes")) {
        parts.push(format!("{} in, {} out", bytes(rx), bytes(tx)));
    }
    parts.join(", ")
}

fn default_route(place: &Place) -> Option<Row> {
    let routes = place.routes.latest()?;
    let ways = routes.iter().filter(|r| r.dst.is_none() && r.kind == "unicast").take(2).map(|r| {
        let via = r.via.map_or_else(String::new, |via| format!("via {via} "));
        format!("{via}dev {}", r.dev.as_deref().map_or_else(|| "of several".to_owned(), shown))
    });
    let ways: Vec<String> = ways.collect();
    (!ways.is_empty()).then(|| network("default", ways.join("; ")))
}

fn tables(place: &Place) -> Option<Row> {
    let routes = place.routes.latest().map_or(0, Vec::len);
    let rules = place.rules.latest().map_or(0, Vec::len);
    let parts = [
        count(routes as u64, "route", "routes"),
        count(rules as u64, "routing rule", "routing rules"),
        count(place.neighbours.len() as u64, "neighbour", "neighbours"),
        count(place.filters.len() as u64, "counted filter rule", "counted filter rules"),
    ];
    (routes + rules + place.neighbours.len() + place.filters.len() > 0).then(|| network("tables", parts.join(", ")))
}

fn sockets(place: &Place) -> Option<Row> {
    let sockets = place.sockets.latest()?;
    let mut states: Vec<(&String, &u64)> = sockets.tcp.iter().collect();
    states.sort_by_key(|(state, n)| (std::cmp::Reverse(**n), *state));
    let tcp: Vec<String> = states.iter().take(MAX_STATES).map(|(state, n)| format!("{n} {}", shown(state))).collect();
    let tcp = if tcp.is_empty() { "none".to_owned() } else { tcp.join(", ") };
    Some(network(
        "sockets",
        format!(
            "TCP {tcp}; UDP {}; {} unread, {} not acknowledged",
            sockets.udp,
            bytes(sockets.rx_queue_bytes),
            bytes(sockets.tx_queue_bytes)
        ),
    ))
}

fn ports(place: &Place) -> Option<Row> {
    let p = place.ports.latest()?;
    Some(network(
        "ports",
        format!("{} to {}: {} taken by TCP, {} by UDP", p.low, p.high, p.tcp_used_count, p.udp_used_count),
    ))
}

fn system(node: &Node) -> Option<Row> {
    let s = node.system.latest()?;
    let mut parts = vec![format!("Linux {}", shown(&s.kernel))];
    parts.extend([&s.os, &s.hardware].into_iter().flatten().map(|text| shown(text)));
    parts.extend([count(s.cpu_count, "CPU", "CPUs"), bytes(s.memory_bytes)]);
    Some(host("system", parts.join(", ")))
}

fn cpu(node: &Node) -> Option<Row> {
    let times = ["user", "system", "softirq", "iowait", "steal", "idle"];
    let parts: Vec<String> = times
        .iter()
        .filter_map(|t| Some((t, node.cpu_share(t)?)))
        .filter(|(_, share)| *share >= 0.001)
        .map(|(t, share)| format!("{t} {}", part(share)))
        .collect();
    let load =
        node.value("load", "load1").map_or_else(String::new, |load| format!("; load {:.2}", load as f64 / 100.0));
    (!parts.is_empty()).then(|| host("cpu", format!("{}{load}", parts.join(", "))))
}

fn pressure(node: &Node) -> Option<Row> {
    let of = |resource: &str| Some(format!("{resource} {}", part(node.waited(None, resource)?.some)));
    let parts: Vec<String> = ["cpu", "memory", "io"].into_iter().filter_map(of).collect();
    let text = if parts.is_empty() {
        "not told by this kernel".to_owned()
    } else {
        format!("{} of the window", parts.join(", "))
    };
    Some(host("pressure", text))
}

fn memory(node: &Node) -> Option<Row> {
    let value = |name: &str| node.value("meminfo", name);
    let (available, total) = (value("MemAvailable")?, value("MemTotal")?);
    Some(host("memory", format!("{} of {} available", bytes(available), bytes(total))))
}

fn pods(node: &Node) -> Option<Row> {
    let limited = node.cgroups.values().filter_map(Looks::latest).filter(|c| c.quota_us.is_some()).count();
    let n = node.cgroups.len() as u64;
    (n > 0).then(|| host("pods", format!("{}, {limited} with a CPU limit", count(n, "cgroup", "cgroups"))))
}

fn clock(node: &Node) -> Option<Row> {
    let c = node.clock.latest()?;
    let state = if c.synchronized { "synchronized" } else { "not synchronized" };
    let source = c.clocksource.as_deref().map_or_else(String::new, |source| format!(", {}", shown(source)));
    Some(host("clock", format!("{state}{source}, error up to {}", duration(c.max_error_us.saturating_mul(1000)))))
}

fn resolvers(node: &Node) -> Option<Row> {
    let latest = || node.resolvers.values().filter_map(Looks::latest);
    let first = latest().find(|r| r.is_node).or_else(|| latest().next())?;
    let others = match latest().count() as u64 - 1 {
        0 => String::new(),
        n => format!("; {}", count(n, "other file", "other files")),
    };
    Some(host("resolver", format!("{}{others}", resolver(first))))
}

fn resolver(r: &Resolver) -> String {
    let servers: Vec<String> = r.nameservers.iter().take(MAX_SERVERS).map(|s| shown(s)).collect();
    let servers = if servers.is_empty() { "no servers".to_owned() } else { servers.join(", ") };
    format!("{servers}, {}, ndots:{}", count(r.search_count, "search domain", "search domains"), r.ndots)
}
