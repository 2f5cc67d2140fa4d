//! What is unusual about a machine: first what was lost, then what is full or missing, then pressure, clock and settings.

use std::cmp::Reverse;

use ktrace_bundle::node::Listener;
use serde::Serialize;

use super::machine;
use crate::capture::{Capture, Looks, Place, Rising};
use crate::escape::shown;
use crate::units::{count, percent, share};

/// Notes of one kind; of more it is said how many.
const MAX_OF_A_KIND: usize = 4;
/// Names of counters of one thing that are told.
const MAX_NAMES: usize = 6;
/// From this share of its room on, a table is nearly full.
const FULL_SHARE: f64 = 0.9;
/// What the name of a counter of an interface or its driver contains if it tells of trouble.
const TROUBLE: [&str; 9] = ["drop", "err", "miss", "over", "fifo", "collision", "discard", "crc", "fail"];
/// How the name of a counter of a protocol ends if it tells of trouble.
const PROTOCOL_TROUBLE: [&str; 17] = [
    "Drop",
    "Drops",
    "Dropped",
    "Overflows",
    "Errors",
    "Errs",
    "Discards",
    "NoRoutes",
    "ReasmFails",
    "FragFails",
    "ReversePathFilter",
    "OnMemory",
    "MemoryPressures",
    "Pruned",
    "PruneCalled",
    "TruncatedPkts",
    "MD5Failure",
];

/// One unusual thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// What sort of thing: `queue`, `neighbour`, `setting` and so on.
    pub kind: &'static str,
    /// Network namespace; `None` of what the machine has once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<u32>,
    /// In words, escaped.
    pub text: String,
    /// Larger ones of a kind come first.
    #[serde(skip)]
    pub(super) weight: u64,
}

impl Note {
    pub(super) const fn new(kind: &'static str, netns: Option<u32>, weight: u64, text: String) -> Self {
        Self { kind, netns, text, weight }
    }
}

/// What is unusual about a place.
type Look = fn(&Capture, u32, &Place) -> Vec<Note>;

/// What was lost, what is full, and what is missing, in this order.
const NETWORK: [Look; 8] = [queues, interfaces, protocols, listeners, filters, neighbours, default_route, ports];

/// All that is unusual.
pub(super) fn of(capture: &Capture) -> Vec<Note> {
    let over_places = |look: Look| few(over_places(capture, look));
    let mut out = machine::receive_queues(capture);
    out.extend(NETWORK.into_iter().flat_map(over_places));
    out.extend(machine::pressure(capture));
    out.extend(few(machine::pods(capture)));
    out.extend(machine::clock(capture));
    out.extend(over_places(settings));
    out
}

fn over_places(capture: &Capture, of: Look) -> Vec<Note> {
    capture.node.places.iter().flat_map(|(netns, place)| of(capture, *netns, place)).collect()
}

/// The gravest of a kind, and how many more there are.
fn few(mut notes: Vec<Note>) -> Vec<Note> {
    notes.sort_by_key(|note| (Reverse(note.weight), note.netns));
    let more = notes.len().saturating_sub(MAX_OF_A_KIND);
    let kind = notes.first().map_or("", |note| note.kind);
    notes.truncate(MAX_OF_A_KIND);
    if more > 0 {
        notes.push(Note::new(kind, None, 0, format!("{kind}: {more} more like these")));
    }
    notes
}

/// ` in netns 4026532001`, or nothing on the node itself.
fn there(capture: &Capture, netns: u32) -> String {
    if capture.node.is_own(netns) { String::new() } else { format!(" in netns {netns}") }
}

/// `rx_dropped +12, tx_errors +3`: what rose, by a test of its name.
fn risen<T: Rising>(looks: &Looks<T>, is_trouble: impl Fn(&str) -> bool) -> Vec<(&str, u64)> {
    let mut risen: Vec<_> = looks.risen().filter(|(name, _)| is_trouble(name)).collect();
    risen.sort_by_key(|(name, n)| (Reverse(*n), *name));
    risen
}

fn listed(risen: &[(&str, u64)]) -> String {
    let mut parts: Vec<String> =
        risen.iter().take(MAX_NAMES).map(|(name, n)| format!("{} +{n}", shown(name))).collect();
    if risen.len() > MAX_NAMES {
        parts.push(format!("{} more", risen.len() - MAX_NAMES));
    }
    parts.join(", ")
}

fn sum(risen: &[(&str, u64)]) -> u64 {
    risen.iter().fold(0, |sum, (_, n)| u64::saturating_add(sum, *n))
}

fn queues(capture: &Capture, netns: u32, place: &Place) -> Vec<Note> {
    let dropping = place.qdiscs.values().filter_map(|looks| {
        let q = looks.latest()?;
        let total = |counter: &str| q.counters.get(counter).copied().unwrap_or(0);
        // of one that was first seen within the window only all it ever did is known
        let is_whole = looks.over_window().is_some();
        let n = |counter: &str| looks.rose(counter).unwrap_or_else(|| total(counter));
        let drops = Some(n("drops")).filter(|n| *n > 0)?;
        let (all, when) = (n("packets").saturating_add(drops), if is_whole { "" } else { " since it began" });
        let (kind, dev, there) = (shown(&q.kind), shown(&q.dev), there(capture, netns));
        let part = percent(share(drops, all));
        let text = format!("queue `{kind}` of `{dev}`{there} dropped {drops} of {all} packets{when} ({part})");
        Some(Note::new("queue", Some(netns), drops, text))
    });
    dropping.collect()
}

fn interfaces(capture: &Capture, netns: u32, place: &Place) -> Vec<Note> {
    let is_trouble = |name: &str| TROUBLE.iter().any(|part| name.to_ascii_lowercase().contains(part));
    let note = |dev: &str, what: &str, risen: &[(&str, u64)]| {
        let text = format!("{what} `{}`{}: {}", shown(dev), there(capture, netns), listed(risen));
        (!risen.is_empty()).then(|| Note::new("interface", Some(netns), sum(risen), text))
    };
    let links =
        place.links.values().filter_map(|looks| note(&looks.latest()?.dev, "interface", &risen(looks, is_trouble)));
    let nics = place.nics.iter().filter_map(|(dev, looks)| note(dev, "driver of", &risen(looks, is_trouble)));
    links.chain(nics).collect()
}

fn protocols(capture: &Capture, netns: u32, place: &Place) -> Vec<Note> {
    let is_trouble = |name: &str| PROTOCOL_TROUBLE.iter().any(|end| name.ends_with(end));
    let of_sockets = place.counters.iter().filter(|(group, _)| !group.starts_with("softnet"));
    let mut all: Vec<(String, u64)> = of_sockets
        .flat_map(|(group, looks)| {
            risen(looks, is_trouble).into_iter().map(move |(name, n)| (format!("{group}.{name}"), n))
        })
        .collect();
    all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let risen: Vec<(&str, u64)> = all.iter().map(|(name, n)| (name.as_str(), *n)).collect();
    if risen.is_empty() {
        return Vec::new();
    }
    let text = format!("counters{}: {}", there(capture, netns), listed(&risen));
    vec![Note::new("counter", Some(netns), sum(&risen), text)]
}

fn listeners(capture: &Capture, netns: u32, place: &Place) -> Vec<Note> {
    let full = |l: &Listener| l.backlog > 0 && l.accept_queue >= l.backlog;
    let troubled =
        place.listeners.values().filter_map(Looks::latest).filter(|l| full(l) || l.rose.is_some_and(|n| n > 0));
    let note = |l: &Listener| {
        let end = l.local.map_or_else(|| "at an unknown end".to_owned(), |end| end.to_string());
        let turned = l.rose.filter(|n| *n > 0).map_or_else(String::new, |n| format!(", {n} turned away"));
        let text = format!(
            "listener {end}{}: {} of {} places taken{turned}",
            there(capture, netns),
            l.accept_queue,
            l.backlog
        );
        Note::new("listener", Some(netns), l.rose.unwrap_or(0).max(l.accept_queue), text)
    };
    troubled.map(note).collect()
}

fn filters(capture: &Capture, netns: u32, place: &Place) -> Vec<Note> {
    let note = |(f, n): (&ktrace_bundle::node::Filter, u64)| {
        let (verdict, text) = (shown(&f.verdict), shown(&f.text));
        let (tool, table, chain) = (shown(&f.tool), shown(&f.table), shown(&f.chain));
        let text = format!(
            "{tool} {table} {chain}{}: `{verdict}` of {} (`{text}`)",
            there(capture, netns),
            count(n, "packet", "packets")
        );
        Note::new("filter", Some(netns), n, text)
    };
    place.dropping_filters().map(note).collect()
}

fn neighbours(capture: &Capture, netns: u32, place: &Place) -> Vec<Note> {
    let failed = place.failed_neighbours();
    let mut notes: Vec<Note> = failed
        .map(|n| {
            let text = format!(
                "neighbour {} on `{}`{} does not answer ({})",
                n.addr,
                shown(&n.dev),
                there(capture, netns),
                shown(&n.state)
            );
            Note::new("neighbour", Some(netns), 1, text)
        })
        .collect();
    let limit = |name: &str| place.sysctl(name).and_then(|n| n.parse::<u64>().ok());
    let held = place.neighbours.keys().filter(|(addr, _)| addr.is_ipv4()).count() as u64;
    if let Some(max) = limit("net.ipv4.neigh.default.gc_thresh3").filter(|max| share(held, *max) >= FULL_SHARE) {
        let text = format!("table of neighbours{}: {held} of {max} (`gc_thresh3`)", there(capture, netns));
        notes.push(Note::new("neighbour", Some(netns), held, text));
    }
    notes
}

/// Of a namespace that has an address and no way out, whichever table one might be in.
fn default_route(capture: &Capture, netns: u32, place: &Place) -> Vec<Note> {
    let has_address = place.addresses.keys().any(|(_, addr)| !addr.is_loopback());
    let routes = place.routes.latest().map(Vec::as_slice).unwrap_or_default();
    let has_default = routes.iter().any(|r| r.dst.is_none() && r.kind == "unicast");
    if !has_address || has_default || routes.is_empty() {
        return Vec::new();
    }
    vec![Note::new("route", Some(netns), 1, format!("no default route{}", there(capture, netns)))]
}

fn ports(capture: &Capture, netns: u32, place: &Place) -> Vec<Note> {
    let Some(p) = place.ports.latest() else { return Vec::new() };
    let all = (u64::from(p.high).saturating_sub(u64::from(p.low)) + 1).saturating_sub(p.reserved_count);
    let busiest = p.busiest.filter(|_| share(p.busiest_count, all) >= FULL_SHARE);
    let used = p.tcp_used_count.max(p.udp_used_count);
    if busiest.is_none() && share(used, all) < FULL_SHARE {
        return Vec::new();
    }
    let towards = busiest.map_or_else(String::new, |end| format!(", {} towards {end}", p.busiest_count));
    let text = format!("ephemeral ports{}: {used} of {all} taken{towards}", there(capture, netns));
    vec![Note::new("ports", Some(netns), used, text)]
}

fn settings(capture: &Capture, netns: u32, place: &Place) -> Vec<Note> {
    let is_own = capture.node.is_own(netns);
    let others = capture.node.places.len().saturating_sub(1);
    let odd = |name: &str, value: &str| match (name, value) {
        ("net.ipv4.ip_forward", "0") if is_own && others > 0 => Some("packets of other namespaces are not forwarded"),
        ("net.ipv4.tcp_syncookies", "0") => Some("a full queue of handshakes turns clients away"),
        ("net.ipv4.tcp_abort_on_overflow", "1") => Some("a full accept queue answers with resets"),
        ("net.ipv4.ip_no_pmtu_disc", "1") => Some("path MTU discovery is off"),
        (name, "1") if name.ends_with(".rp_filter") => {
            Some("strict: drops what comes in by another way than answers take")
        }
        _ => None,
    };
    let values = place.sysctls.latest().into_iter().flatten();
    let note = |(name, value): (&String, &String)| {
        let why = odd(name, value)?;
        let text = format!("`{}` = {}{}: {why}", shown(name), shown(value), there(capture, netns));
        Some(Note::new("setting", Some(netns), u64::from(is_own) + u64::from(value == "0"), text))
    };
    values.filter_map(note).collect()
}
