//! Every flow in short → the stories to tell, the first ones in time, and how many more there are.
//!
//! Two flows that are the two ends of one connection on this node are one story, told from the client's end. A line without a
//! socket picks the flow that it hit, and is a story of its own where there is none.

use std::collections::{BTreeMap, BTreeSet};

use ktrace_bundle::event::{Endpoint, Proto};

use super::Kind;
use super::index::{Flow, Full, Index, Key, StrayKey};
use crate::capture::{Capture, Span, Way, pairs};
use crate::units::SECOND;

/// A listener's account is of the second before it: what it turned away can be this much earlier, and not later, ns.
const FULL_NS: u64 = SECOND;

/// What one story, or of DNS several, will be told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) kind: Kind,
    /// The flow; `None`: lines without a socket are all there is.
    pub(super) key: Option<Key>,
    /// The flow of the socket at the other end.
    pub(super) far: Option<Key>,
    /// Ends under which lines without a socket belong to it.
    pub(super) strays: BTreeSet<StrayKey>,
    /// When it was seen.
    pub(super) span: Span,
    /// When lines with these ends are about it.
    pub(super) hit: Span,
    /// When the line was that is asked for.
    pub(super) sought_at: Option<u64>,
    /// No event tells of it, the socket tables alone do.
    is_quiet: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Picked {
    pub(super) units: Vec<Unit>,
    /// Those that were left out.
    pub(super) more: u64,
}

/// The flows of the two ends of each chosen connection, where both are known.
#[derive(Debug, Default)]
struct Partners {
    server_of: BTreeMap<Key, Key>,
    client_of: BTreeMap<Key, Key>,
}

impl Picked {
    /// The first `max` of what was asked for.
    pub(super) fn new(index: &Index<'_>, capture: &Capture, max: usize) -> Self {
        let (meant, alone) = meant(index, capture);
        let partners = Partners::new(index, &meant);
        let mut units: BTreeMap<Key, Unit> = BTreeMap::new();
        for key in &meant {
            let client = partners.client_of.get(key).unwrap_or(key);
            let far = partners.server_of.get(client).copied();
            let sought = [Some(*client), far].into_iter().flatten();
            let sought_at = sought.filter_map(|key| index.flows.get(&key)?.sought_at).min();
            if let Some(flow) = index.flows.get(client) {
                let unit = units.entry(*client).or_insert_with(|| unit(*client, flow, far, capture));
                unit.sought_at = sought_at;
            }
        }
        let mut units: Vec<Unit> = units.into_values().collect();
        units.extend(alone.into_iter().filter_map(|key| stray_unit(index, key)));
        units.sort_by(|a, b| order(a).cmp(&order(b)));
        let more = units.len().saturating_sub(max) as u64;
        units.truncate(max);
        for unit in &mut units {
            if let Some((key, flow)) = unit.key.and_then(|key| Some((key, index.flows.get(&key)?))) {
                unit.strays = stray_keys(key, flow, capture);
            }
        }
        Self { units, more }
    }
}

/// Those with events first, then by time.
fn order(unit: &Unit) -> (bool, Span, Option<Key>, Option<&StrayKey>) {
    (unit.is_quiet, unit.span, unit.key, unit.strays.first())
}

fn unit(key: Key, flow: &Flow, far: Option<Key>, capture: &Capture) -> Unit {
    let kind = match key.proto {
        Proto::Tcp => Kind::Tcp,
        Proto::Udp if is_dns(flow, capture) => Kind::Dns,
        Proto::Udp => Kind::Udp,
    };
    let (span, hit) = (flow.seen(), flow.hit(key.proto));
    Unit {
        kind,
        key: Some(key),
        far,
        strays: BTreeSet::new(),
        span,
        hit,
        sought_at: None,
        is_quiet: flow.span.is_none(),
    }
}

/// Whether it asks a DNS server, by its port as the client names it or as the server has it.
pub(super) fn is_dns(flow: &Flow, capture: &Capture) -> bool {
    let ends = flow.ends.iter().map(|(_, remote)| *remote).chain(flow.asked);
    let named = ends.chain(flow.nats.iter().filter_map(|nat| nat.original_dst));
    let is_server = |end: Endpoint| {
        end.port.is_some_and(|port| capture.coverage.dns_ports.contains(&port))
            && !end.addr.is_some_and(|a| a.is_multicast())
    };
    flow.is_client(Proto::Udp) && named.into_iter().any(is_server)
}

/// Every pair of ends under which its packets can have been seen.
fn stray_keys(key: Key, flow: &Flow, capture: &Capture) -> BTreeSet<StrayKey> {
    let ways = flow.nats.iter().map(Some).chain(flow.nats.is_empty().then_some(None));
    let ways: Vec<Way> = ways
        .map(|nat| {
            let mut way = Way::default();
            way.learn(nat, flow.asked);
            way
        })
        .collect();
    let mut keys = BTreeSet::new();
    for (local, remote) in &flow.ends {
        for way in &ways {
            for (own, other) in pairs(key.proto, (*local, *remote), way, capture.services.as_ref()) {
                let portless = |end: Endpoint| Endpoint { port: None, ..end };
                let forms = [(own, other), (portless(own), other), (own, portless(other))];
                let is_told = |(a, b): &(Endpoint, Endpoint)| *a != Endpoint::default() && *b != Endpoint::default();
                let forms = forms.into_iter().filter(is_told);
                keys.extend(forms.map(|(a, b)| StrayKey::new(key.proto, key.netns(), a, b)));
            }
        }
    }
    keys
}

/// Keys that a stray with these ends may be known by: also without an address, as a socket bound to all has it.
pub(super) fn forms(key: StrayKey) -> [StrayKey; 3] {
    let (a, b) = key.ends;
    let bare = |end: Endpoint| Endpoint { addr: None, ..end };
    let form = |a: Endpoint, b: Endpoint| StrayKey { ends: (a.min(b), a.max(b)), ..key };
    [key, form(bare(a), b), form(a, bare(b))]
}

/// Flows that were asked for, by their own lines or by one that hit them; and strays that hit none.
fn meant(index: &Index<'_>, capture: &Capture) -> (BTreeSet<Key>, BTreeSet<StrayKey>) {
    let processes = &capture.processes;
    let own = index.flows.iter().filter(|(_, flow)| index.is_meant(flow, processes)).map(|(key, _)| *key);
    let mut meant: BTreeSet<Key> = own.collect();
    let asked = index.strays.iter().filter(|(_, stray)| index.is_stray_meant(stray, processes));
    let asked: Vec<(StrayKey, Span)> = asked.map(|(key, stray)| (*key, stray.span)).collect();
    let mut alone: BTreeSet<StrayKey> = asked.iter().map(|(key, _)| *key).collect();
    let mut by_form: BTreeMap<StrayKey, Vec<(StrayKey, Span)>> = BTreeMap::new();
    for (key, span) in asked {
        forms(key).into_iter().for_each(|form| by_form.entry(form).or_default().push((key, span)));
    }
    if by_form.is_empty() && index.sought.is_none() {
        return (meant, alone);
    }
    for (key, flow) in &index.flows {
        let hit = flow.hit(key.proto);
        let own = if by_form.is_empty() { BTreeSet::new() } else { stray_keys(*key, flow, capture) };
        let hits = own.iter().filter_map(|form| by_form.get(form)).flatten().filter(|(_, span)| span.meets(hit));
        let hits: Vec<StrayKey> = hits.map(|(stray, _)| *stray).collect();
        hits.iter().for_each(|stray| _ = alone.remove(stray));
        if !hits.is_empty() || index.sought.is_some_and(|full| is_at(index, full, *key, flow)) {
            meant.insert(*key);
        }
    }
    (meant, alone)
}

/// A story of lines without a socket alone.
fn stray_unit(index: &Index<'_>, key: StrayKey) -> Option<Unit> {
    let stray = index.strays.get(&key)?;
    Some(Unit {
        kind: if key.proto == Proto::Tcp { Kind::Tcp } else { Kind::Udp },
        key: None,
        far: None,
        strays: BTreeSet::from([key]),
        span: stray.span,
        hit: stray.span,
        sought_at: index.selector.seq.map(|_| stray.span.from),
        is_quiet: false,
    })
}

/// Whether a flow tried to reach a listener while that was full.
pub(super) fn is_at(index: &Index<'_>, full: Full, key: Key, flow: &Flow) -> bool {
    let Some(begun) = flow.begun.or(flow.span).filter(|_| key.proto == Proto::Tcp) else { return false };
    let until = flow.established.unwrap_or(flow.seen().to).saturating_add(FULL_NS);
    if !(begun.from..=until).contains(&full.at) {
        return false;
    }
    if !flow.is_client(Proto::Tcp) {
        let is_port = |(local, _): &(Endpoint, Endpoint)| local.port == full.local.port;
        return key.netns() == full.netns && flow.ends.iter().any(is_port);
    }
    flow.at_the_server(Proto::Tcp).iter().any(|(_, server)| {
        let Some(addr) = server.addr.filter(|_| server.port.is_some() && server.port == full.local.port) else {
            return false;
        };
        let is_reachable = !addr.is_loopback() || key.netns() == full.netns;
        let is_own = |own| own == addr;
        is_reachable
            && full
                .local
                .addr
                .map_or_else(|| addr.is_loopback() || index.addresses.contains(&(full.netns, addr)), is_own)
    })
}

/// The client, and the server's port, as the server sees both.
type View = (Proto, Endpoint, u16);

impl Partners {
    fn new(index: &Index<'_>, meant: &BTreeSet<Key>) -> Self {
        let mut wanted: BTreeMap<View, Vec<Key>> = BTreeMap::new();
        let chosen = meant.iter().filter_map(|key| Some((*key, index.flows.get(key)?)));
        for (key, flow) in chosen.clone() {
            views(key, flow).into_iter().for_each(|(view, _)| wanted.entry(view).or_default().push(key));
        }
        let mut partners = Self::default();
        let mut best: BTreeMap<Key, (u64, Key)> = BTreeMap::new();
        for (key, flow) in &index.flows {
            for (view, server) in views(*key, flow) {
                for other in wanted.get(&view).into_iter().flatten() {
                    let Some(known) = index.flows.get(other) else { continue };
                    if is_pair((*key, flow), server, (*other, known)) {
                        let distance = flow.seen().from.abs_diff(known.seen().from);
                        let nearest = best.entry(*other).or_insert((distance, *key));
                        *nearest = (*nearest).min((distance, *key));
                    }
                }
            }
        }
        for (key, flow) in chosen {
            let Some((_, other)) = best.get(&key) else { continue };
            let (client, server) = if flow.is_client(key.proto) { (key, *other) } else { (*other, key) };
            partners.server_of.entry(client).or_insert(server);
            partners.client_of.entry(server).or_insert(client);
        }
        partners
    }
}

/// What to look its other end up by, and the server's whole end.
fn views(key: Key, flow: &Flow) -> Vec<(View, Endpoint)> {
    let views = flow.at_the_server(key.proto).into_iter();
    let whole = |(client, server): (Endpoint, Endpoint)| {
        client.addr.and(client.port)?;
        Some(((key.proto, client, server.port?), server))
    };
    views.filter_map(whole).collect()
}

/// Whether these are the two ends of one flow: one asks, the other has the address that was asked, at the same time.
fn is_pair((a, one): (Key, &Flow), server: Endpoint, (b, other): (Key, &Flow)) -> bool {
    let is_same_address =
        |(_, s): &(Endpoint, Endpoint)| s.port == server.port && s.addr.zip(server.addr).is_none_or(|(x, y)| x == y);
    one.is_client(a.proto) != other.is_client(b.proto)
        && other.at_the_server(b.proto).iter().any(is_same_address)
        && one.seen().meets(other.seen())
}
