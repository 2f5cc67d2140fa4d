//! Datagrams of one process to and from its DNS servers → attempts, each a question until it is answered or no longer asked.
//!
//! Payload is never read, so what belongs together is told by sockets, sizes and times:
//! - a second query within 10 ms on the same socket is of the same attempt (A and AAAA), as is one to each other server then;
//! - so is a query of the same size on the same socket 0.9 to 11 s after the one before it, if that was not answered;
//! - so is a query of the same size by the same process to a server that was not asked yet, within 6 s, if none was answered; of
//!   several attempts that wait the oldest.
//!
//! A connection's story begins with a lookup that is *likely* its own: the last attempt of the same process in the same network
//! namespace of which an answer was read at most [`LOOKUP_BOUND_NS`] before the connection began.

use std::collections::BTreeSet;

use ktrace_bundle::event::{Datagram, Endpoint, Event, Payload};

use super::collect::{Asker, Collector, Line};
use super::index::Key;
use super::steps::Steps;
use super::{Place, words};
use crate::capture::{FlowKey, PAIR_NS, RETRY_NS, is_same};
use crate::units::{SECOND, bytes, duration};

mod tell;

pub(super) use tell::tell;

/// An answer that was read longer before a connection began is not taken for its own, ns.
pub const LOOKUP_BOUND_NS: u64 = SECOND;
/// A query to another server later than this is another question, ns.
const FAILOVER_NS: u64 = 6 * SECOND;
/// Most attempts, the newest, that a datagram is compared with.
const MAX_OPEN: usize = 32;
/// Questions that are asked at once: A and AAAA.
const MAX_AT_ONCE: usize = 2;

/// A question, until it is answered or no longer asked; events in the order of the kernel.
#[derive(Debug, Default)]
pub(super) struct Attempt<'a> {
    queries: Vec<&'a Event>,
    answers: Vec<&'a Event>,
    errors: Vec<&'a Event>,
}

fn datagram(event: &Event) -> Option<&Datagram> {
    match &event.payload {
        Payload::UdpSend(d) | Payload::UdpRecv(d) => Some(d),
        _ => None,
    }
}

fn size(event: &Event) -> Option<u64> {
    datagram(event).and_then(|d| d.bytes)
}

impl<'a> Attempt<'a> {
    fn events(&self) -> impl Iterator<Item = &'a Event> + use<'a, '_> {
        self.queries.iter().chain(&self.answers).chain(&self.errors).copied()
    }

    pub(super) fn start(&self) -> u64 {
        self.events().map(|e| e.boot_ns).min().unwrap_or(0)
    }

    /// What makes it one: no two attempts share a line.
    pub(super) fn id(&self) -> u64 {
        self.events().map(|e| e.seq).min().unwrap_or(0)
    }

    fn keys(&self) -> BTreeSet<Key> {
        self.events().map(|e| Key::of(&e.id)).collect()
    }

    /// When its last answer was read.
    pub(super) fn answered_at(&self) -> Option<u64> {
        self.answers.last().map(|e| e.boot_ns)
    }

    fn is_on(&self, socket: FlowKey) -> bool {
        self.queries.iter().any(|q| FlowKey::of(&q.id) == socket)
    }

    fn servers(&self) -> Vec<Endpoint> {
        let mut servers = Vec::new();
        for query in &self.queries {
            if !servers.contains(&query.id.remote) {
                servers.push(query.id.remote);
            }
        }
        servers
    }

    /// Questions that were asked at once.
    fn questions(&self) -> usize {
        let Some(first) = self.queries.first() else { return 0 };
        let at_once =
            |q: &&&Event| q.id.remote == first.id.remote && q.boot_ns.saturating_sub(first.boot_ns) <= PAIR_NS;
        self.queries.iter().filter(at_once).count()
    }

    fn is_settled(&self) -> bool {
        self.answers.len() >= self.questions()
    }

    /// The second of two questions, or the same to each server at once.
    fn is_asked_with(&self, query: &Event) -> bool {
        let near: Vec<_> = self.queries.iter().filter(|q| query.boot_ns.saturating_sub(q.boot_ns) <= PAIR_NS).collect();
        let to_it = near.iter().filter(|q| q.id.remote == query.id.remote).count();
        self.is_on(FlowKey::of(&query.id)) && !near.is_empty() && to_it < MAX_AT_ONCE
    }

    fn is_asked_again_by(&self, query: &Event) -> bool {
        let is_earlier = |q: &&&Event| {
            FlowKey::of(&q.id) == FlowKey::of(&query.id) && q.id.remote == query.id.remote && size(q) == size(query)
        };
        let last = self.queries.iter().rfind(is_earlier);
        !self.is_settled() && last.is_some_and(|q| RETRY_NS.contains(&query.boot_ns.saturating_sub(q.boot_ns)))
    }

    fn is_asked_elsewhere_by(&self, query: &Event) -> bool {
        let is_same = self.queries.iter().any(|q| size(q) == size(query) && size(q).is_some());
        let gap = self.queries.last().map(|q| query.boot_ns.saturating_sub(q.boot_ns));
        self.answers.is_empty()
            && is_same
            && !self.servers().contains(&query.id.remote)
            && gap.is_some_and(|gap| gap <= FAILOVER_NS)
    }

    /// Whether an answer that was read on this socket can be to it.
    fn is_answered_by(&self, answer: &Event) -> bool {
        let is_from =
            |q: &&Event| FlowKey::of(&q.id) == FlowKey::of(&answer.id) && is_same(q.id.remote, answer.id.remote);
        self.queries.iter().any(is_from)
    }
}

/// Every attempt of somebody, in the order of their beginnings.
pub(super) fn attempts<'a>(collector: &'a Collector<'_>, asker: Asker) -> Vec<Attempt<'a>> {
    let lines = collector.lookups(asker).into_iter().flat_map(|kept| kept.lines());
    let mut attempts: Vec<Attempt<'a>> = Vec::new();
    for event in lines.filter_map(Line::event) {
        let from = attempts.len().saturating_sub(MAX_OPEN);
        let recent = attempts.get_mut(from..).unwrap_or_default();
        match &event.payload {
            Payload::UdpSend(_) => {
                let is_newest = |a: &Attempt<'_>| a.is_asked_with(event) || a.is_asked_again_by(event);
                let place = recent.iter().rposition(is_newest);
                let place = place.or_else(|| recent.iter().position(|a| a.is_asked_elsewhere_by(event)));
                match place.and_then(|place| recent.get_mut(place)) {
                    Some(attempt) => attempt.queries.push(event),
                    None => attempts.push(Attempt { queries: vec![event], ..Attempt::default() }),
                }
            }
            Payload::UdpRecv(d) => {
                let of_query = |a: &Attempt<'_>| d.query_seq.is_some_and(|seq| a.queries.iter().any(|q| q.seq == seq));
                let place = recent.iter().rposition(of_query);
                let place = place.or_else(|| recent.iter().rposition(|a| !a.is_settled() && a.is_answered_by(event)));
                let place = place.or_else(|| recent.iter().rposition(|a| a.is_answered_by(event)));
                let attempt = match place.and_then(|place| recent.get_mut(place)) {
                    Some(attempt) => attempt,
                    None => attempts.push_mut(Attempt::default()),
                };
                let list = if d.error.is_some() { &mut attempt.errors } else { &mut attempt.answers };
                list.push(event);
            }
            _ => {}
        }
    }
    attempts
}

/// The lookup that is likely the one before a connection which began then.
pub(super) fn lookup_before<'b, 'a>(attempts: &'b [Attempt<'a>], begun: u64) -> Option<&'b Attempt<'a>> {
    let answered = attempts.iter().filter_map(|a| Some((a.answered_before(begun)?, a)));
    let near = answered.filter(|(at, _)| begun.saturating_sub(*at) <= LOOKUP_BOUND_NS);
    near.max_by_key(|(at, a)| (*at, a.id())).map(|(_, attempt)| attempt)
}

impl Attempt<'_> {
    /// When its last answer until then was read.
    fn answered_before(&self, at: u64) -> Option<u64> {
        self.answers.iter().map(|e| e.boot_ns).filter(|answered| *answered <= at).max()
    }

    /// Its steps until a moment.
    pub(super) fn steps(&self, steps: &mut Steps, place: Place, until: u64) {
        let prefix = if place == Place::Lookup { "likely its lookup: " } else { "" };
        for (n, event) in self.queries.iter().enumerate() {
            let before = self.queries.get(..n).unwrap_or_default();
            note(steps, place, event, until, format!("{prefix}{}", asked(event, before)));
        }
        for event in &self.answers {
            note(steps, place, event, until, format!("{prefix}{}", answered(event)));
        }
        for event in &self.errors {
            note(steps, place, event, until, format!("{prefix}{}", words::event(event)));
        }
    }
}

/// A step of an attempt, unless it is later than that.
fn note(steps: &mut Steps, place: Place, event: &Event, until: u64, what: String) {
    if event.boot_ns <= until {
        steps.clock(event.boot_ns, event.at);
        steps.add((event.boot_ns, event.seq, 0), Some(event.seq), place, what);
    }
}

fn asked(query: &Event, before: &[&Event]) -> String {
    let Some(d) = datagram(query) else { return String::new() };
    if d.error.is_some() {
        return words::event(query);
    }
    let is_first_here = !before.iter().any(|q| q.id.remote == query.id.remote);
    let is_again = before.iter().any(|q| {
        q.id.remote == query.id.remote && size(q) == size(query) && query.boot_ns.saturating_sub(q.boot_ns) > PAIR_NS
    });
    let what = match (before.is_empty(), is_first_here, is_again) {
        (false, true, _) => ", another server",
        (false, false, true) => ", asked again",
        (false, false, false) => ", a second question",
        (true, ..) => "",
    };
    let size = d.bytes.map_or_else(String::new, |n| format!(" of {}", bytes(n)));
    let via = d.asked.map_or_else(String::new, |asked| format!(" (asked {asked})"));
    format!("query{size} to {}{via}{what}", query.id.remote)
}

fn answered(answer: &Event) -> String {
    let Some(d) = datagram(answer) else { return String::new() };
    let size = d.bytes.map_or_else(String::new, |n| format!(" of {}", bytes(n)));
    let from = if answer.id.remote.addr.is_some() { format!(" from {}", answer.id.remote) } else { String::new() };
    let took = match (d.dns_rtt_ns, d.query_seq) {
        (Some(ns), Some(seq)) => format!(", {} after #{seq}", duration(ns)),
        (Some(ns), None) => format!(", {} after its query", duration(ns)),
        _ if d.ambiguous => ", to which query is not known".to_owned(),
        _ => String::new(),
    };
    let kind = match (d.late, d.duplicate) {
        (true, _) => ", too late",
        (_, true) => ", while none was awaited",
        _ => "",
    };
    format!("answer{size} read{from}{took}{kind}")
}

#[cfg(test)]
#[path = "dns_tests.rs"]
mod tests;
