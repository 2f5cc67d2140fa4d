//! Packets that were seen to be thrown away at a queue: how many, by which events, and whose they were.

use std::collections::BTreeSet;

use super::{MAX_COVERED, key_of};
use crate::capture::{Capture, DropRow, Evidence, Hit, Target};
use crate::finding::Key;
use crate::units::share;

/// Reasons of the kernel for a queue that has no room, or tells its senders to slow down.
const AT_QDISC: [&str; 8] = [
    "QDISC_DROP",
    "QDISC_OVERLIMIT",
    "QDISC_CONGESTED",
    "QDISC_BURST_DROP",
    "CAKE_FLOOD",
    "FQ_BAND_LIMIT",
    "FQ_HORIZON_LIMIT",
    "FQ_FLOW_LIMIT",
];
/// The reason of a receive queue that is full.
const AT_BACKLOG: &str = "CPU_BACKLOG";

/// What was seen of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Thrown {
    /// Packets.
    pub(super) packets: u64,
    /// The events that tell of them.
    pub(super) evidence: Evidence,
    /// Whose they were.
    pub(super) keys: Vec<Key>,
    /// Segments of those connections, and how many of them were sent again.
    pub(super) segments: (u64, u64),
}

impl Thrown {
    /// The share of their segments that those connections had to send again.
    pub(super) fn loss(&self) -> f64 {
        share(self.segments.1, self.segments.0)
    }
}

/// Whether it was dropped by a queueing discipline.
pub(super) fn is_at_qdisc(row: &DropRow) -> bool {
    AT_QDISC.contains(&row.reason())
}

/// Whether it was dropped by a CPU's receive queue.
pub(super) fn is_at_backlog(row: &DropRow) -> bool {
    row.reason() == AT_BACKLOG
}

/// What was thrown away there; `None` if nothing was seen.
pub(super) fn thrown(capture: &Capture, is_there: impl Fn(&DropRow) -> bool) -> Option<Thrown> {
    let mut it = Thrown { packets: 0, evidence: Evidence::default(), keys: Vec::new(), segments: (0, 0) };
    for row in capture.drops.rows().iter().filter(|row| is_there(row)) {
        it.packets = it.packets.saturating_add(row.packets);
        it.evidence.merge(&row.evidence);
    }
    if it.packets == 0 {
        return None;
    }
    let services = capture.services.as_ref();
    let hit = |hits: Vec<Hit<'_>>| hits.iter().any(|hit| is_there(hit.row));
    let mut keys: BTreeSet<Key> = BTreeSet::new();
    for c in capture.connections.iter().filter(|c| hit(capture.drops.of_connection(c, services))).take(MAX_COVERED) {
        keys.insert(key_of(capture, c));
        let (all, again) = c.segments().unwrap_or_default();
        it.segments = (it.segments.0.saturating_add(all), it.segments.1.saturating_add(again));
    }
    for flow in capture.dns.iter().filter(|f| hit(capture.drops.of_udp(f, services))).take(MAX_COVERED) {
        let comm = flow.owner.and_then(|id| capture.processes.get(id)).map(|p| p.comm.clone());
        keys.insert(Key::from(&Target { comm, netns: flow.netns, remote: flow.server }));
    }
    it.keys = keys.into_iter().collect();
    Some(it)
}
