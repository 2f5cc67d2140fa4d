//! Events of dropped packets → one row for each flow, reason and place, a bounded number of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ktrace_bundle::event::{Dropped, Endpoint, Event, PacketDir, Payload, Proto};

use super::DropRow;
use crate::capture::ends::Span;
use crate::capture::evidence::Evidence;
use crate::capture::process::ProcId;

/// Most names of reasons, functions and interfaces that are kept; a kernel has some hundred of each.
const MAX_NAMES: usize = 4096;

/// What makes drops one row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    proto: Proto,
    from: Endpoint,
    to: Endpoint,
    netns: u32,
    dir: PacketDir,
    reason: Option<Arc<str>>,
    symbol: Option<Arc<str>>,
    dev: Option<Arc<str>>,
}

/// Drops as they come; bounded.
#[derive(Debug, Default)]
pub(in crate::capture) struct DropTable {
    rows: BTreeMap<Key, DropRow>,
    names: BTreeSet<Arc<str>>,
    /// Events for whose rows there was no room.
    pub(in crate::capture) overflow: u64,
}

impl DropTable {
    /// Adds an event; at most `max` rows are kept.
    pub(in crate::capture) fn push(&mut self, event: &Event, owner: Option<ProcId>, max: usize) {
        let (id, Payload::Drop(drop)) = (&event.id, &event.payload) else { return };
        let (from, to) = match drop.dir {
            PacketDir::Received => (id.remote, id.local),
            PacketDir::Sent | PacketDir::Forwarded => (id.local, id.remote),
        };
        let [reason, symbol, dev] = [&drop.reason, &drop.symbol, &drop.dev].map(|name| self.name(name.as_ref()));
        let key = Key { proto: id.proto, from, to, netns: id.netns, dir: drop.dir, reason, symbol, dev };
        if self.rows.len() >= max && !self.rows.contains_key(&key) {
            self.overflow = self.overflow.saturating_add(1);
            return;
        }
        let row = self.rows.entry(key).or_insert_with_key(|key| key.row(event.boot_ns));
        row.add(event, drop, owner);
    }

    /// The rows, in the order of their keys.
    pub(super) fn finish(self) -> Vec<DropRow> {
        self.rows.into_values().collect()
    }

    /// The same name is kept once.
    fn name(&mut self, name: Option<&Arc<str>>) -> Option<Arc<str>> {
        let name = name?;
        if let Some(known) = self.names.get(name) {
            return Some(Arc::clone(known));
        }
        if self.names.len() < MAX_NAMES {
            self.names.insert(Arc::clone(name));
        }
        Some(Arc::clone(name))
    }
}

impl Key {
    fn row(&self, at: u64) -> DropRow {
        let key = self.clone();
        DropRow {
            proto: key.proto,
            from: key.from,
            to: key.to,
            netns: key.netns,
            dir: key.dir,
            reason: key.reason,
            symbol: key.symbol,
            dev: key.dev,
            owner: None,
            packets: 0,
            bytes: 0,
            span: Span::at(at),
            evidence: Evidence::default(),
        }
    }
}

impl DropRow {
    fn add(&mut self, event: &Event, drop: &Dropped, owner: Option<ProcId>) {
        self.packets = self.packets.saturating_add(drop.count);
        self.bytes = self.bytes.saturating_add(drop.bytes.unwrap_or(0));
        self.span.extend(event.boot_ns);
        self.span.extend(drop.first_boot_ns.unwrap_or(event.boot_ns).min(event.boot_ns));
        self.owner = owner.or(self.owner);
        self.evidence.add(event.seq);
    }
}
