//! The first reading of a bundle → every flow in short, and which of them were asked for.
//!
//! What is kept of a flow does not depend on the order in which its lines come: sets, first and last times, flags. Lines
//! without a socket of their own (dropped packets, resets that answer for nobody, SYN-ACKs of a request) are *strays* until
//! all flows are known, since a flow with their ends may come later.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ktrace_bundle::event::{Endpoint, Event, Identity, Payload, Proto, Role, SocketRecord};
use ktrace_bundle::flow::FlowRecord;
use ktrace_bundle::nat::Nat;
use ktrace_bundle::tcp::TcpState;

use super::select::{Course, Selector};
use crate::capture::{FlowKey, ProcId, Processes, Span, has_client_ports, is_of_a_connection};

/// Most flows, and most strays, that are told apart.
const MAX_FLOWS: usize = 400_000;
/// Most owners, pairs of ends and entries of connection tracking of one flow that are kept: the smallest.
const MAX_NAMES: usize = 8;

/// What makes a flow one: its socket, and of UDP, where one socket can have many, its other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) proto: Proto,
    pub(super) socket: FlowKey,
    pub(super) remote: Endpoint,
}

impl Key {
    pub(super) fn of(id: &Identity) -> Self {
        Self::new(id.proto, FlowKey::of(id), id.remote)
    }

    pub(super) fn of_record(flow: &FlowRecord) -> Self {
        let socket = match flow.socket {
            Some(cookie) => FlowKey::Cookie(flow.netns, cookie),
            None => FlowKey::Ends(flow.netns, flow.tuple.from, flow.tuple.to),
        };
        Self::new(flow.proto, socket, flow.tuple.to)
    }

    fn new(proto: Proto, socket: FlowKey, remote: Endpoint) -> Self {
        Self { proto, socket, remote: if proto == Proto::Udp { remote } else { Endpoint::default() } }
    }

    pub(super) const fn netns(self) -> u32 {
        match self.socket {
            FlowKey::Cookie(netns, _) | FlowKey::Ends(netns, ..) => netns,
        }
    }
}

/// A flow in short.
#[derive(Debug, Default)]
pub(super) struct Flow {
    pub(super) role: Option<Role>,
    pub(super) is_opened: bool,
    /// Of its events.
    pub(super) span: Option<Span>,
    /// Of the socket tables.
    pub(super) table: Option<Span>,
    /// Of its connects.
    pub(super) begun: Option<Span>,
    /// First time that its handshake was complete.
    pub(super) established: Option<u64>,
    /// Last time that it was closed.
    closed: Option<u64>,
    /// Own end and other end.
    pub(super) ends: Vec<(Endpoint, Endpoint)>,
    pub(super) nats: Vec<Arc<Nat>>,
    pub(super) asked: Option<Endpoint>,
    pub(super) owners: Vec<ProcId>,
    /// When the line was that is asked for.
    pub(super) sought_at: Option<u64>,
    is_on: bool,
    is_peer: bool,
}

impl Flow {
    /// Whether this end connected, or asks.
    pub(super) fn is_client(&self, proto: Proto) -> bool {
        match (proto, self.role) {
            (_, Some(Role::Client)) => true,
            (_, Some(Role::Server | Role::Listener)) => false,
            (Proto::Udp, None) => true,
            (Proto::Tcp, None) => {
                self.is_opened || self.ends.iter().any(|(local, remote)| has_client_ports(*local, *remote))
            }
        }
    }

    /// From its first event to its last; of one without any, of the socket tables.
    pub(super) fn seen(&self) -> Span {
        self.span.or(self.table).unwrap_or(Span::at(0))
    }

    /// When what is thrown away between its ends is its own: one that is older than the window has no beginning, and a
    /// connection that is never closed goes on being hit.
    pub(super) fn hit(&self, proto: Proto) -> Span {
        let seen = self.seen();
        if proto == Proto::Udp {
            return seen;
        }
        let from = if self.begun.is_some() || self.established.is_some() { seen.from } else { 0 };
        Span { from, to: self.closed.unwrap_or(u64::MAX) }
    }

    /// The client's end and the server's, as the server sees them.
    pub(super) fn at_the_server(&self, proto: Proto) -> BTreeSet<(Endpoint, Endpoint)> {
        let mut views = BTreeSet::new();
        for (local, remote) in &self.ends {
            if !self.is_client(proto) {
                views.insert((*remote, *local));
                continue;
            }
            let nats = self.nats.iter().filter(|nat| nat.original.is_none_or(|original| original.to == *remote));
            let before = views.len();
            views.extend(nats.map(|nat| (nat.reply.to, nat.reply.from)));
            if views.len() == before {
                views.insert((*local, *remote));
            }
        }
        views
    }

    fn identity(&mut self, id: &Identity, proc: Option<ProcId>, selector: &Selector) {
        self.role = self.role.or(id.role);
        add(&mut self.ends, (id.local, id.remote));
        if let Some(nat) = &id.nat {
            add(&mut self.nats, Arc::clone(nat));
        }
        if let Some(proc) = proc.filter(|p| !self.owners.contains(p) && self.owners.len() < MAX_NAMES) {
            self.owners.push(proc);
        }
        self.is_peer = self.is_peer || is_peer(id, selector);
    }

    fn event(&mut self, event: &Event, selector: &Selector) {
        let (at, asked) = (event.boot_ns, asked(event));
        extend(&mut self.span, at);
        self.asked = self.asked.max(asked);
        self.is_on = self.is_on || selector.is_on(&course(&event.id, asked));
        match &event.payload {
            Payload::TcpState(change) if change.new == TcpState::SynSent => {
                self.is_opened = true;
                extend(&mut self.begun, at);
            }
            Payload::TcpState(change) if change.new == TcpState::Established => {
                self.established = Some(self.established.map_or(at, |known| known.min(at)));
            }
            Payload::TcpState(change) if change.new == TcpState::Close => self.closed = self.closed.max(Some(at)),
            Payload::TcpState(change) if change.new == TcpState::Listen => self.role = Some(Role::Listener),
            Payload::Connect(connect) => {
                self.role = self.role.or(Some(Role::Client));
                extend(&mut self.begun, at.saturating_sub(connect.syscall_ns));
            }
            _ => {}
        }
    }
}

/// What its owner named, where that is not where it went.
fn asked(event: &Event) -> Option<Endpoint> {
    match &event.payload {
        Payload::Connect(connect) => connect.asked,
        Payload::UdpSend(sent) => sent.asked,
        _ => None,
    }
}

/// Keeps the smallest.
fn add<T: Ord>(list: &mut Vec<T>, item: T) {
    if let Err(place) = list.binary_search(&item) {
        list.insert(place, item);
        list.truncate(MAX_NAMES);
    }
}

fn extend(span: &mut Option<Span>, at: u64) {
    span.get_or_insert(Span::at(at)).extend(at);
}

fn course(id: &Identity, asked: Option<Endpoint>) -> Course<'_> {
    Course { proto: id.proto, local: id.local, remote: id.remote, nat: id.nat.as_deref(), asked }
}

fn is_peer(id: &Identity, selector: &Selector) -> bool {
    selector.pod.as_ref().zip(id.peer.as_deref()).is_some_and(|(pod, peer)| pod.is_peer(peer))
}

/// Both ends of a line without a socket, the smaller first; of loopback addresses with their namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StrayKey {
    pub(super) proto: Proto,
    pub(super) netns: Option<u32>,
    pub(super) ends: (Endpoint, Endpoint),
}

impl StrayKey {
    pub(super) fn of(id: &Identity) -> Self {
        Self::new(id.proto, id.netns, id.local, id.remote)
    }

    pub(super) fn new(proto: Proto, netns: u32, a: Endpoint, b: Endpoint) -> Self {
        let is_loopback = [a, b].iter().any(|end| end.addr.is_some_and(|addr| addr.is_loopback()));
        Self { proto, netns: is_loopback.then_some(netns), ends: (a.min(b), a.max(b)) }
    }
}

/// Lines without a socket, by their ends.
#[derive(Debug)]
pub(super) struct Stray {
    pub(super) span: Span,
    pub(super) owners: Vec<ProcId>,
    is_peer: bool,
}

/// A full listener: when, and where it listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full {
    pub(super) at: u64,
    pub(super) netns: u32,
    pub(super) local: Endpoint,
}

/// Every flow in short.
#[derive(Debug)]
pub(super) struct Index<'a> {
    pub(super) selector: &'a Selector,
    pub(super) flows: BTreeMap<Key, Flow>,
    pub(super) strays: BTreeMap<StrayKey, Stray>,
    /// The line that is asked for tells of a listener.
    pub(super) sought: Option<Full>,
    /// Addresses that sockets of each namespace have, for listeners on all of them.
    pub(super) addresses: BTreeSet<(u32, IpAddr)>,
    /// Records of flows for which there was no room.
    pub(super) overflow: u64,
}

/// Whether this is about no socket that has a flow of its own.
pub(super) fn is_stray(event: &Event) -> bool {
    match &event.payload {
        Payload::Drop(_) => true,
        Payload::TcpReset(_) => !is_of_a_connection(event),
        Payload::TcpRetransmit(_) => event.id.socket.is_none(),
        _ => false,
    }
}

impl<'a> Index<'a> {
    pub(super) fn new(selector: &'a Selector) -> Self {
        let (flows, strays, addresses) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { selector, flows, strays, sought: None, addresses, overflow: 0 }
    }

    pub(super) fn event(&mut self, event: &Event, proc: Option<ProcId>) {
        let id = &event.id;
        let is_sought = self.selector.seq == Some(event.seq);
        if matches!(event.payload, Payload::ListenOverflow(_)) {
            if is_sought {
                self.sought = Some(Full { at: event.boot_ns, netns: id.netns, local: id.local });
            }
            return;
        }
        if is_stray(event) {
            return self.stray(event, proc, is_sought);
        }
        let selector = self.selector;
        let Some(flow) = self.flow(Key::of(id)) else { return };
        flow.identity(id, proc, selector);
        flow.event(event, selector);
        if is_sought {
            flow.sought_at = Some(event.boot_ns);
        }
        self.addresses.extend(id.local.addr.map(|addr| (id.netns, addr)));
    }

    pub(super) fn socket(&mut self, socket: &SocketRecord, proc: Option<ProcId>) {
        let is_listener = socket.id.role == Some(Role::Listener) || socket.state == Some(TcpState::Listen);
        if socket.id.proto == Proto::Udp || is_listener {
            return;
        }
        let selector = self.selector;
        if let Some(flow) = self.flow(Key::of(&socket.id)) {
            flow.identity(&socket.id, proc, selector);
            flow.is_on = flow.is_on || selector.is_on(&course(&socket.id, None));
            extend(&mut flow.table, socket.boot_ns);
        }
    }

    /// What the record of a flow says of it; one without any other record is none.
    pub(super) fn record(&mut self, record: &FlowRecord) {
        let Some(flow) = self.flows.get_mut(&Key::of_record(record)) else { return };
        if let Some(nat) = &record.conntrack {
            add(&mut flow.nats, Arc::clone(nat));
        }
        flow.asked = flow.asked.max(record.asked);
        let (local, remote) = (record.tuple.from, record.tuple.to);
        let course =
            Course { proto: record.proto, local, remote, nat: record.conntrack.as_deref(), asked: record.asked };
        let is_it = self.selector.is_on(&course) || self.selector.is_community(record.community_id.as_deref());
        flow.is_on = flow.is_on || is_it;
    }

    /// Only those are kept that may have been asked for.
    fn stray(&mut self, event: &Event, proc: Option<ProcId>, is_sought: bool) {
        let is_meant = (self.selector.seq.is_none() || is_sought)
            && (self.selector.flow.is_none() || self.selector.is_on(&course(&event.id, None)));
        if !is_meant {
            return;
        }
        let key = StrayKey::of(&event.id);
        if self.strays.len() >= MAX_FLOWS && !self.strays.contains_key(&key) {
            self.overflow = self.overflow.saturating_add(1);
            return;
        }
        let new = Stray { span: Span::at(event.boot_ns), owners: Vec::new(), is_peer: false };
        let stray = self.strays.entry(key).or_insert(new);
        stray.span.extend(event.boot_ns);
        stray.is_peer = stray.is_peer || is_peer(&event.id, self.selector);
        if let Some(proc) = proc.filter(|p| !stray.owners.contains(p) && stray.owners.len() < MAX_NAMES) {
            stray.owners.push(proc);
        }
    }

    fn flow(&mut self, key: Key) -> Option<&mut Flow> {
        if self.flows.len() >= MAX_FLOWS && !self.flows.contains_key(&key) {
            self.overflow = self.overflow.saturating_add(1);
            return None;
        }
        Some(self.flows.entry(key).or_default())
    }

    /// Whether this flow was asked for by its own lines.
    pub(super) fn is_meant(&self, flow: &Flow, processes: &Processes) -> bool {
        flow.role != Some(Role::Listener)
            && (self.selector.seq.is_none() || flow.sought_at.is_some())
            && (self.selector.flow.is_none() || flow.is_on)
            && self.selector.is_owned(&flow.owners, flow.is_peer, processes)
    }

    /// The same of a stray, of which only those whose ends fit are kept.
    pub(super) fn is_stray_meant(&self, stray: &Stray, processes: &Processes) -> bool {
        self.selector.is_owned(&stray.owners, stray.is_peer, processes)
    }
}
