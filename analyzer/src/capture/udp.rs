//! UDP flows of clients: what was asked of a server, what came back, and what never did.
//!
//! One flow is one socket and one remote end. Payload is never read, so replies are matched by order: within the
//! newest burst of queries first come, first served; a query without a reply after 5 s is lost. A resolver that
//! asks several servers at once (musl) takes the first answer: its other queries were served elsewhere.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use ktrace_bundle::event::{Endpoint, Errno, Event, Payload, Role};
use ktrace_bundle::flow::FlowRecord;

use super::FlowKey;
use super::ends::Span;
use super::evidence::Evidence;
use super::process::ProcId;
use super::rtts::{Cutoffs, RETRY_CLUSTER_NS, Rtts};
use super::way::Way;
use crate::units::{MILLI, SECOND};

/// A query older than this is lost. A hair below 5 s, so that the retry of glibc at 5 s finds it so.
const LOST_AFTER_NS: u64 = 4_900 * MILLI;
/// A query sent later than this before the window's end is not judged.
pub const PENDING_NS: u64 = 5 * SECOND;
/// Queries closer together than this belong to one burst.
const BURST_NS: u64 = 250 * MILLI;
/// Queries to several servers closer together than this are one question.
const PARALLEL_NS: u64 = 100 * MILLI;
/// The same number of bytes, sent again after a silence between these, is a retry.
pub const RETRY_NS: std::ops::RangeInclusive<u64> = 900 * MILLI..=11 * SECOND;
/// Queries of one flow whose time is kept while they wait.
const MAX_OUTSTANDING: usize = 512;
/// Remote ends of one socket that are compared with each other.
const MAX_SIBLINGS: usize = 8;
/// A resolver sends its two questions, for A and AAAA, this close to each other.
pub const PAIR_NS: u64 = 10 * MILLI;

#[derive(Debug, Clone, Copy)]
struct Query {
    at: u64,
    seq: u64,
    bytes: Option<u64>,
    burst: u32,
}

/// Queries that failed with an error.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Failed {
    /// How many.
    pub n: u64,
    /// The latest error.
    pub errno: Option<Errno>,
}

/// What one socket asked of one remote end.
#[derive(Debug, Clone)]
pub struct UdpFlow {
    /// Network namespace of the socket.
    pub netns: u32,
    /// Own end.
    pub local: Endpoint,
    /// The server.
    pub server: Endpoint,
    /// Last process that sent or received.
    pub owner: Option<ProcId>,
    /// Queries, with those that could not be sent.
    pub sent: u64,
    /// Queries that got their reply, late ones too.
    pub answered: u64,
    /// Queries without a reply.
    pub lost: u64,
    /// Queries to which another server's reply was the answer.
    pub elsewhere: u64,
    /// Queries refused with `ECONNREFUSED`.
    pub refused: u64,
    /// Queries that could not be sent.
    pub failed: Failed,
    /// Queries too young to be judged when the window closed.
    pub pending: u64,
    /// Age of the oldest of them, ns.
    pub pending_age_ns: u64,
    /// Times that the same query was sent again after a silence.
    pub retries: u64,
    /// The longest such silence, ns.
    pub stalled_ns: u64,
    /// Times that this silence was a resolver's 5 s, after two questions that it had sent at once.
    pub pair_retries: Evidence,
    /// Round trip times.
    pub rtts: Rtts,
    /// Where its packets go.
    pub way: Way,
    /// When it was seen.
    pub span: Span,
    /// Queries that were lost, refused or not sent.
    pub evidence: Evidence,
    outstanding: VecDeque<Query>,
    untimed: u64,
    early: u64,
    early_at: u64,
    last: Option<Query>,
    last_lost_at: u64,
    is_pair: bool,
}

impl UdpFlow {
    fn new(event: &Event) -> Self {
        Self {
            netns: event.id.netns,
            local: event.id.local,
            server: event.id.remote,
            owner: None,
            sent: 0,
            answered: 0,
            lost: 0,
            elsewhere: 0,
            refused: 0,
            failed: Failed::default(),
            pending: 0,
            pending_age_ns: 0,
            retries: 0,
            stalled_ns: 0,
            pair_retries: Evidence::default(),
            rtts: Rtts::default(),
            way: Way::default(),
            span: Span::at(event.boot_ns),
            evidence: Evidence::default(),
            outstanding: VecDeque::new(),
            untimed: 0,
            early: 0,
            early_at: 0,
            last: None,
            last_lost_at: 0,
            is_pair: false,
        }
    }

    fn send(&mut self, at: u64, seq: u64, bytes: Option<u64>) {
        self.expire(at);
        self.sent = self.sent.saturating_add(1);
        let mut query = Query { at, seq, bytes, burst: 0 };
        if let Some(last) = self.last {
            let silence = at.saturating_sub(last.at);
            query.burst = last.burst.saturating_add(u32::from(silence > BURST_NS));
            if RETRY_NS.contains(&silence) && last.bytes == bytes {
                self.retry(query, silence);
            }
            self.is_pair = silence <= PAIR_NS || (self.is_pair && silence <= BURST_NS);
        }
        self.last = Some(query);
        if self.early > 0 && at <= self.early_at {
            self.early -= 1;
            self.answered = self.answered.saturating_add(1);
        } else if self.outstanding.len() < MAX_OUTSTANDING {
            self.outstanding.push_back(query);
        } else {
            self.untimed = self.untimed.saturating_add(1);
        }
    }

    /// The client has stopped waiting for what it asks again.
    fn retry(&mut self, query: Query, silence: u64) {
        let waited = query.at.saturating_sub(*RETRY_NS.start());
        while let Some(q) = self.outstanding.front().copied().filter(|q| q.at <= waited && q.bytes == query.bytes) {
            self.outstanding.pop_front();
            self.lose(q);
        }
        if self.last_lost_at > 0 && query.at.saturating_sub(self.last_lost_at) <= *RETRY_NS.end() {
            self.retries = self.retries.saturating_add(1);
            self.stalled_ns = self.stalled_ns.max(silence);
            if self.is_pair && RETRY_CLUSTER_NS.contains(&silence) {
                self.pair_retries.add(query.seq);
            }
        }
    }

    /// Returns when the query was sent that this is taken to answer.
    fn reply(&mut self, at: u64) -> Option<u64> {
        self.expire(at);
        if let Some(query) = self.take() {
            self.answered = self.answered.saturating_add(1);
            return Some(query.at);
        }
        for waiting in [&mut self.untimed, &mut self.elsewhere, &mut self.lost] {
            if *waiting > 0 {
                *waiting -= 1;
                self.answered = self.answered.saturating_add(1);
                return None;
            }
        }
        self.early = self.early.saturating_add(1);
        self.early_at = at;
        None
    }

    /// An `ECONNREFUSED` that came back for a query, or instead of sending one.
    fn refuse(&mut self, seq: u64, not_sent: bool) {
        if not_sent {
            self.sent = self.sent.saturating_add(1);
        } else {
            self.take();
        }
        self.refused = self.refused.saturating_add(1);
        self.evidence.add(seq);
    }

    fn fail(&mut self, seq: u64, errno: Errno) {
        self.sent = self.sent.saturating_add(1);
        self.failed.n = self.failed.n.saturating_add(1);
        self.failed.errno = Some(errno);
        self.evidence.add(seq);
    }

    /// The oldest query of the newest burst.
    fn take(&mut self) -> Option<Query> {
        let newest = self.outstanding.back()?.burst;
        let first = self.outstanding.partition_point(|q| q.burst < newest);
        let query = self.outstanding.remove(first);
        if self.outstanding.is_empty() {
            // most flows are a query and its answer
            self.outstanding = VecDeque::new();
        }
        query
    }

    /// Queries of the same moment were served by another server.
    fn serve_elsewhere(&mut self, at: u64) {
        let before = self.outstanding.len();
        self.outstanding.retain(|q| q.at.abs_diff(at) > PARALLEL_NS);
        self.elsewhere = self.elsewhere.saturating_add((before - self.outstanding.len()) as u64);
    }

    fn expire(&mut self, now: u64) {
        while let Some(q) = self.outstanding.front().copied() {
            if now.saturating_sub(q.at) < LOST_AFTER_NS {
                break;
            }
            self.outstanding.pop_front();
            self.lose(q);
        }
    }

    fn lose(&mut self, query: Query) {
        self.lost = self.lost.saturating_add(1);
        self.last_lost_at = query.at;
        self.evidence.add(query.seq);
    }

    fn finish(&mut self, window_end_ns: u64) {
        self.expire(window_end_ns.saturating_sub(PENDING_NS - LOST_AFTER_NS));
        let oldest = self.outstanding.front().map_or(window_end_ns, |q| q.at);
        self.pending = self.untimed.saturating_add(self.outstanding.len() as u64);
        self.pending_age_ns = window_end_ns.saturating_sub(oldest);
    }

    /// Whether anything at all came back.
    pub const fn is_heard(&self) -> bool {
        self.answered > 0 || self.early > 0
    }

    /// When the last query was sent.
    pub fn last_sent_at(&self) -> u64 {
        self.last.map_or(0, |q| q.at)
    }

    /// Pending queries that were sent until then, by `seq`.
    pub fn waiting_since(&self, at: u64) -> impl Iterator<Item = u64> {
        self.outstanding.iter().filter(move |q| q.at <= at).map(|q| q.seq)
    }
}

/// Every UDP flow of a client.
#[derive(Debug, Default)]
pub(super) struct UdpFlows {
    flows: Vec<UdpFlow>,
    /// Where in `flows`.
    places: HashMap<(FlowKey, Endpoint), usize>,
    /// Of each socket the first of its flows, and a few more.
    siblings: HashMap<FlowKey, (usize, Vec<usize>)>,
    pub(super) overflow: u64,
}

impl UdpFlows {
    /// Adds a datagram; at most `max` flows are kept.
    pub(super) fn push(&mut self, event: &Event, proc: Option<ProcId>, cutoffs: Cutoffs, max: usize) {
        let (datagram, is_send) = match &event.payload {
            Payload::UdpSend(d) => (d, true),
            Payload::UdpRecv(d) => (d, false),
            _ => return,
        };
        if event.id.role == Some(Role::Server) {
            return;
        }
        let socket = FlowKey::of(&event.id);
        if event.id.remote.addr.is_none() {
            if !is_send && datagram.error.is_none() {
                self.reply_from_somewhere(&socket, event.boot_ns);
            }
            return;
        }
        let Some(flow) = self.flow(socket, event, max) else { return };
        flow.owner = proc.or(flow.owner);
        flow.span.extend(event.boot_ns);
        flow.way.learn(event.id.nat.as_ref(), None);
        let refused = datagram.error.and_then(Errno::name) == Some("ECONNREFUSED");
        match (is_send, datagram.error) {
            (_, Some(_)) if refused => flow.refuse(event.seq, is_send),
            (true, Some(errno)) => flow.fail(event.seq, errno),
            (true, None) => flow.send(event.boot_ns, event.seq, datagram.bytes),
            (false, Some(_)) => {}
            (false, None) => {
                flow.rtts.push(event.seq, datagram, cutoffs);
                if let Some(asked_at) = flow.reply(event.boot_ns) {
                    self.serve_siblings(&socket, event.id.remote, asked_at);
                }
            }
        }
    }

    /// Adds what the record of a flow says.
    pub(super) fn conclude(&mut self, socket: FlowKey, record: &FlowRecord) {
        let place = self.places.get(&(socket, record.tuple.to));
        if let Some(flow) = place.and_then(|place| self.flows.get_mut(*place)) {
            flow.way.conclude(record);
        }
    }

    /// The flows, judged at the window's end.
    pub(super) fn finish(mut self, window_end_ns: u64) -> Vec<UdpFlow> {
        self.flows.iter_mut().for_each(|f| f.finish(window_end_ns));
        self.flows
    }

    fn flow(&mut self, socket: FlowKey, event: &Event, max: usize) -> Option<&mut UdpFlow> {
        let place = match self.places.entry((socket, event.id.remote)) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(_) if self.flows.len() >= max => {
                self.overflow += 1;
                return None;
            }
            Entry::Vacant(new) => {
                let place = *new.insert(self.flows.len());
                let (first, more) = self.siblings.entry(socket).or_insert((place, Vec::new()));
                if *first != place && more.len() + 1 < MAX_SIBLINGS {
                    more.push(place);
                }
                self.flows.push(UdpFlow::new(event));
                place
            }
        };
        self.flows.get_mut(place)
    }

    /// The flows of a socket, as far as they are compared with each other, the oldest first.
    fn of_socket(&self, socket: &FlowKey) -> Vec<usize> {
        let known = self.siblings.get(socket);
        known.map_or_else(Vec::new, |(first, more)| std::iter::once(*first).chain(more.iter().copied()).collect())
    }

    fn serve_siblings(&mut self, socket: &FlowKey, server: Endpoint, asked_at: u64) {
        if self.siblings.get(socket).is_none_or(|(_, more)| more.is_empty()) {
            return;
        }
        for place in self.of_socket(socket) {
            if let Some(flow) = self.flows.get_mut(place).filter(|flow| flow.server != server) {
                flow.serve_elsewhere(asked_at);
            }
        }
    }

    /// A reply read without its sender's address: the server that has waited longest is taken to have sent it.
    fn reply_from_somewhere(&mut self, socket: &FlowKey, at: u64) {
        let siblings = self.of_socket(socket);
        let since = |place: &usize| self.flows.get(*place)?.outstanding.front().map(|q| q.at);
        let waiting = siblings.iter().filter_map(|place| Some((since(place)?, *place))).min();
        let place = waiting.map(|(_, place)| place).or_else(|| siblings.first().copied());
        let Some(flow) = place.and_then(|place| self.flows.get_mut(place)) else { return };
        let server = flow.server;
        if let Some(asked_at) = flow.reply(at) {
            self.serve_siblings(socket, server, asked_at);
        }
    }
}
