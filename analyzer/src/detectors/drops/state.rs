//! What the node's state says of the place where packets were dropped: rules whose counters rose, a process that lives there,
//! settings, neighbours. Read twice, when the window opened and when it closed, so it stands beside the drops and proves nothing
//! alone.

use std::net::IpAddr;

use ktrace_bundle::event::{Endpoint, PacketDir};
use ktrace_bundle::node::Filter;

use crate::capture::{Capture, DropRow};
use crate::escape;
use crate::units::count;

/// Most rules that a sentence names.
const MAX_RULES: usize = 2;
/// Chains, by their hooks, through which packets go that way.
const OUT: [&str; 3] = ["output", "postrouting", "egress"];
const IN: [&str; 3] = ["input", "prerouting", "ingress"];
const THROUGH: [&str; 5] = ["forward", "postrouting", "input", "prerouting", "ingress"];

/// Whether this namespace is the node's own, by either of those who looked.
pub(super) fn is_own(capture: &Capture, netns: u32) -> bool {
    let tables = capture.coverage.tracking.report.iter().flat_map(|r| &r.tables);
    capture.node.is_own(netns) || tables.into_iter().any(|t| t.is_node && t.netns == netns)
}

/// A process that lives in this namespace.
pub(super) fn pid_in(capture: &Capture, netns: u32) -> Option<u32> {
    capture.node.place(netns)?.netns.latest()?.pid
}

/// The rules that may have dropped it: those that drop or reject there, are asked for packets that go that way, and whose counter
/// rose. If some of them name its ports or addresses, only those.
pub(super) fn rules<'a>(capture: &'a Capture, row: &DropRow) -> Vec<(&'a Filter, u64)> {
    let Some(place) = capture.node.place(row.netns) else { return Vec::new() };
    let mut rules: Vec<_> = place.dropping_filters().filter(|(f, _)| can_meet(f, row)).collect();
    if rules.iter().any(|(f, _)| names(f, row)) {
        rules.retain(|(f, _)| names(f, row));
    }
    rules.truncate(MAX_RULES);
    rules
}

fn can_meet(f: &Filter, row: &DropRow) -> bool {
    let hooks: &[&str] = match row.dir {
        PacketDir::Sent => &OUT,
        PacketDir::Received => &IN,
        PacketDir::Forwarded => &THROUGH,
    };
    let is_six = row.to.addr.is_some_and(|a| a.is_ipv6());
    let is_other_family = match f.family.as_str() {
        "ip" | "ipv4" => is_six,
        "ip6" | "ipv6" => !is_six,
        _ => false,
    };
    !is_other_family && f.hook.as_deref().is_none_or(|hook| hooks.contains(&hook))
}

/// Whether the rule is about an end of the packet.
fn names(f: &Filter, row: &DropRow) -> bool {
    let mut words = f.text.split(|c: char| c.is_whitespace() || ",{}:/".contains(c));
    let is_of = |word: &str, end: Endpoint| {
        word.parse::<u16>().is_ok_and(|port| end.port == Some(port))
            || word.parse::<IpAddr>().is_ok_and(|addr| end.addr == Some(addr))
    };
    words.any(|word| is_of(word, row.to) || is_of(word, row.from))
}

/// `` `tcp dport 8080 counter drop` (nftables, inet host out, rule 4) ``; escaped.
pub(super) fn rule_in_words(f: &Filter) -> String {
    let text = if f.text.is_empty() { &f.verdict } else { &f.text };
    let [tool, family, table, chain] = [&f.tool, &f.family, &f.table, &f.chain].map(|part| escape::shown(part));
    let number = f.number.map_or_else(String::new, |n| format!(", rule {n}"));
    format!("`{}` ({tool}, {family} {table} {chain}{number})", escape::shown(text))
}

/// The same, with how often it was met.
pub(super) fn risen_in_words((f, rose): (&Filter, u64)) -> String {
    format!("{}, whose counter rose by {}", rule_in_words(f), count(rose, "packet", "packets"))
}

/// Settings of reverse path filtering that count where the packet arrived: `` `net.ipv4.conf.all.rp_filter` is 1 ``.
pub(super) fn rp_filter(capture: &Capture, row: &DropRow) -> Option<String> {
    let place = capture.node.place(row.netns)?;
    let of = |name: &str| {
        let key = format!("net.ipv4.conf.{name}.rp_filter");
        place.sysctl(&key).map(|value| format!("`{}` is {}", escape::shown(&key), escape::shown(value)))
    };
    let parts: Vec<String> = [Some("all"), row.dev.as_deref()].into_iter().flatten().filter_map(of).collect();
    (!parts.is_empty()).then(|| parts.join(" and "))
}

/// `` its next hop 10.0.0.1 at `eth0` was `failed` ``, where routes and neighbours were read.
pub(super) fn next_hop(capture: &Capture, row: &DropRow) -> Option<String> {
    let place = capture.node.place(row.netns)?;
    let to = row.to.addr?;
    let hop = place.route_to(to).and_then(|route| route.via).unwrap_or(to);
    let neighbour = place.neighbours_at(hop).next()?;
    Some(format!(
        "its next hop {hop} at `{}` was `{}` when the neighbours were read",
        escape::shown(&neighbour.dev),
        escape::shown(&neighbour.state)
    ))
}

/// Whether it is known that no default route was there.
pub(super) fn lacks_default_route(capture: &Capture, netns: u32, to: Option<IpAddr>) -> bool {
    let family = if to.is_some_and(|a| a.is_ipv6()) { "inet6" } else { "inet" };
    capture.node.place(netns).and_then(|place| place.has_default_route(family)) == Some(false)
}
