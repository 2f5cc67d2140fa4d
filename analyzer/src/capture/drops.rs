//! Packets that the kernel threw away, by flow, reason and place; and whose they were.
//!
//! A packet is dropped where it was, which need not be where its socket is: a client's SYN can end in the node's own
//! namespace, after translation. So drops are joined with sockets by their two ends, in either order, in any namespace
//! (loopback addresses in their own only), as the client or connection tracking has them, and by time, since ports are
//! used again.

mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ktrace_bundle::event::{Endpoint, PacketDir, Proto};
use ktrace_bundle::tracking::ServicesReport;

use super::ends::Span;
use super::evidence::Evidence;
use super::process::ProcId;
use super::{Connection, UdpFlow, Way};

pub(super) use table::DropTable;

/// Most drops with the same end and the same other port that are compared.
const MAX_SAME: usize = 64;
/// Most backends of an address that are tried for a flow without an entry.
const MAX_BACKENDS: usize = 64;

/// Length of a large segment on most links.
const LARGE_BYTES: u64 = 1500;

/// Packets of one flow that were thrown away for one reason at one place.
#[derive(Debug, Clone, PartialEq)]
pub struct DropRow {
    /// Transport protocol.
    pub proto: Proto,
    /// Where the packets came from.
    pub from: Endpoint,
    /// Where they were going to.
    pub to: Endpoint,
    /// Network namespace in which they were dropped.
    pub netns: u32,
    /// Which way they were going there.
    pub dir: PacketDir,
    /// Why, by the kernel's name; `None` if it gives none (before Linux 5.17).
    pub reason: Option<Arc<str>>,
    /// Function of the kernel that dropped them.
    pub symbol: Option<Arc<str>>,
    /// Interface that they were at: hostile.
    pub dev: Option<Arc<str>>,
    /// Who owns the socket that they were of, if there was one.
    pub owner: Option<ProcId>,
    /// How many.
    pub packets: u64,
    /// Their length with headers, as far as it is known.
    pub bytes: u64,
    /// From the first to the last of them.
    pub span: Span,
    /// The events that tell of them.
    pub evidence: Evidence,
}

impl DropRow {
    /// Why, or an empty text.
    pub fn reason(&self) -> &str {
        self.reason.as_deref().unwrap_or_default()
    }

    /// The function, or an empty text.
    pub fn symbol(&self) -> &str {
        self.symbol.as_deref().unwrap_or_default()
    }

    /// How many segments they stood for, at least about: several can be one packet until it leaves (GSO), or after it arrived (GRO).
    pub fn segments(&self) -> u64 {
        self.packets.max(self.bytes / LARGE_BYTES)
    }

    fn other(&self, end: Endpoint) -> Endpoint {
        if self.from == end { self.to } else { self.from }
    }

    fn is_loopback(&self) -> bool {
        [self.from, self.to].iter().any(|e| e.addr.is_some_and(|a| a.is_loopback()))
    }
}

/// A drop that hit a flow.
#[derive(Debug, Clone, Copy)]
pub struct Hit<'a> {
    /// The drop.
    pub row: &'a DropRow,
    /// Its place in [`Drops::rows`].
    pub place: usize,
    /// The packets came from the flow's own end, so they were no answers.
    pub is_own: bool,
}

/// One end of a drop, and the port of the other one.
type Half = (Proto, Endpoint, Option<u16>);

/// Every drop, and how to find those of a flow.
#[derive(Debug, Default)]
pub struct Drops {
    rows: Vec<DropRow>,
    by_half: BTreeMap<Half, Vec<usize>>,
}

impl Drops {
    pub(super) fn new(table: DropTable) -> Self {
        let rows: Vec<DropRow> = table.finish();
        let mut by_half: BTreeMap<Half, Vec<usize>> = BTreeMap::new();
        for (place, row) in rows.iter().enumerate() {
            for (end, other) in [(row.from, row.to), (row.to, row.from)] {
                by_half.entry((row.proto, end, other.port)).or_default().push(place);
            }
        }
        Self { rows, by_half }
    }

    /// All of them, in an order of their own.
    pub fn rows(&self) -> &[DropRow] {
        &self.rows
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Drops that hit this connection.
    pub fn of_connection<'a>(&'a self, c: &Connection, services: Option<&ServicesReport>) -> Vec<Hit<'a>> {
        // one that never ends goes on being hit
        let to = c.closed.as_ref().map_or(u64::MAX, |_| c.span.to);
        let from = if c.opened.is_some() || c.connect.is_some() { c.span.from } else { 0 };
        let flow = Flow { proto: Proto::Tcp, netns: c.netns, span: Span { from, to } };
        self.of(flow, (c.local, c.remote), &c.way, services)
    }

    /// Drops that hit this UDP flow.
    pub fn of_udp<'a>(&'a self, f: &UdpFlow, services: Option<&ServicesReport>) -> Vec<Hit<'a>> {
        let flow = Flow { proto: Proto::Udp, netns: f.netns, span: f.span };
        self.of(flow, (f.local, f.server), &f.way, services)
    }

    fn of(&self, flow: Flow, ends: (Endpoint, Endpoint), way: &Way, services: Option<&ServicesReport>) -> Vec<Hit<'_>> {
        if self.is_empty() {
            return Vec::new();
        }
        let mut hits: BTreeMap<usize, Hit<'_>> = BTreeMap::new();
        for (own, other) in pairs(flow.proto, ends, way, services) {
            for hit in self.between(flow, own, other) {
                hits.entry(hit.place).or_insert(hit);
            }
        }
        hits.into_values().collect()
    }

    /// Drops between these ends; of the own one the address may not be known.
    ///
    /// In a flood the kernel side leaves out the larger of both ports, which is the client's as a rule.
    fn between(&self, flow: Flow, own: Endpoint, other: Endpoint) -> impl Iterator<Item = Hit<'_>> {
        let portless = |end: Endpoint| Endpoint { port: None, ..end };
        let whole = self.at(flow, own, other);
        let without_own = self.at(flow, portless(own), other);
        let without_other = self.at(flow, own, portless(other));
        whole.chain(without_own).chain(without_other)
    }

    fn at(&self, flow: Flow, own: Endpoint, other: Endpoint) -> impl Iterator<Item = Hit<'_>> {
        let places = self.by_half.get(&(flow.proto, other, own.port)).map(Vec::as_slice).unwrap_or_default();
        places.iter().take(MAX_SAME).filter_map(move |place| {
            let row = self.rows.get(*place)?;
            let theirs = row.other(other);
            let is_own = row.to == other && row.from == theirs;
            let is_it = own.addr.map_or(own.port.is_some(), |a| theirs.addr == Some(a))
                && (row.netns == flow.netns || !row.is_loopback())
                && row.span.meets(flow.span);
            is_it.then_some(Hit { row, place: *place, is_own })
        })
    }
}

/// What is the same of a flow however it is translated.
#[derive(Debug, Clone, Copy)]
struct Flow {
    proto: Proto,
    netns: u32,
    span: Span,
}

/// The ends of a flow, own one first, as its packets may have them at different places.
pub(crate) fn pairs(
    proto: Proto,
    (local, remote): (Endpoint, Endpoint),
    way: &Way,
    services: Option<&ServicesReport>,
) -> BTreeSet<(Endpoint, Endpoint)> {
    let mut pairs = BTreeSet::new();
    if local.port.is_none() || remote.addr.is_none() {
        return pairs;
    }
    let (mut own, mut others) = (vec![local], vec![remote]);
    if way.nat.is_some() {
        let (client, server) = way.at_the_server(local, remote);
        own.push(client);
        others.push(server);
    } else {
        others.extend(backends(proto, remote, services));
    }
    for a in own {
        others.iter().for_each(|b| _ = pairs.insert((a, *b)));
    }
    pairs
}

/// Who may have got what was sent to this address: a packet that is dropped after its translation leaves no entry behind.
fn backends(proto: Proto, vip: Endpoint, services: Option<&ServicesReport>) -> impl Iterator<Item = Endpoint> {
    let services = services.map(|s| s.services.as_slice()).unwrap_or_default();
    let place = services.binary_search_by_key(&(proto, vip), |s| (s.proto, s.vip)).ok();
    let service = place.and_then(|place| services.get(place));
    service.into_iter().flat_map(|s| s.backends.iter().take(MAX_BACKENDS).map(|b| b.end))
}

#[cfg(test)]
mod tests;
