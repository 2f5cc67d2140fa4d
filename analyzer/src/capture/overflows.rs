//! Listeners that turned connections away, each with its account.

use std::collections::BTreeMap;

use ktrace_bundle::event::{Endpoint, Event, Payload};

use super::FlowKey;
use super::evidence::Evidence;
use super::process::{OwnerSoFar, ProcId};

/// A listener without room.
#[derive(Debug, Clone, PartialEq)]
pub struct Overflow {
    /// Network namespace of the listener.
    pub netns: u32,
    /// Where it listens; without an address: on all of its namespace.
    pub local: Endpoint,
    /// SYNs, and last segments of handshakes, that it threw away.
    pub turned_away: u64,
    /// The most connections that waited to be accepted.
    pub accept_queue: Option<u64>,
    /// How many may.
    pub backlog: Option<u64>,
    /// The events that tell of it, one for each second.
    pub evidence: Evidence,
    owner: OwnerSoFar,
}

impl Overflow {
    /// The process that listens.
    pub const fn owner(&self) -> Option<ProcId> {
        self.owner.get()
    }
}

/// Every listener that overflowed; bounded.
#[derive(Debug, Default)]
pub(super) struct Overflows {
    by_socket: BTreeMap<FlowKey, Overflow>,
    /// Events for whose listeners there was no room.
    pub(super) overflow: u64,
}

impl Overflows {
    /// Adds an event; at most `max` listeners are kept.
    pub(super) fn push(&mut self, event: &Event, owner: Option<ProcId>, max: usize) {
        let (id, Payload::ListenOverflow(said)) = (&event.id, &event.payload) else { return };
        let key = FlowKey::of(id);
        if self.by_socket.len() >= max && !self.by_socket.contains_key(&key) {
            self.overflow = self.overflow.saturating_add(1);
            return;
        }
        let it = self.by_socket.entry(key).or_insert_with(|| Overflow {
            netns: id.netns,
            local: id.local,
            turned_away: 0,
            accept_queue: None,
            backlog: None,
            evidence: Evidence::default(),
            owner: OwnerSoFar::default(),
        });
        it.turned_away = it.turned_away.saturating_add(said.count);
        it.accept_queue = it.accept_queue.max(said.accept_queue);
        it.backlog = said.backlog.or(it.backlog);
        it.evidence.add(event.seq);
        it.owner.weigh(owner, &id.owner, event.boot_ns);
    }

    /// The listeners.
    pub(super) fn finish(self) -> Vec<Overflow> {
        self.by_socket.into_values().collect()
    }
}
