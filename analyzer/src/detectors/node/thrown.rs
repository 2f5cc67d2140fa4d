//! Packets that were seen to be thrown away at a queue: how many, by which events, and whose they were.

use std::collections::{BTreeMap, BTreeSet};

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
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Thrown {
    /// Packets.
    pub(super) packets: u64,
    /// The events that tell of them.
    pub(super) evidence: Evidence,
    /// Whose they were.
    pub(super) keys: BTreeSet<Key>,
    /// Segments of those connections, and how many of them were sent again.
    pub(super) segments: (u64, u64),
}

impl Thrown {
    fn hit(&mut self, key: Key, (all, again): (u64, u64)) {
        if self.keys.len() < MAX_COVERED {
            self.keys.insert(key);
        }
        self.segments = (self.segments.0.saturating_add(all), self.segments.1.saturating_add(again));
    }

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

/// What was thrown away, by place; `place` says where a row belongs, if anywhere. Each flow is looked up once.
pub(super) fn thrown_by<K: Ord>(capture: &Capture, place: impl Fn(&DropRow) -> Option<K>) -> BTreeMap<K, Thrown> {
    let mut all: BTreeMap<K, Thrown> = BTreeMap::new();
    for row in capture.drops.rows() {
        if let Some(key) = place(row) {
            let it = all.entry(key).or_default();
            it.packets = it.packets.saturating_add(row.packets);
            it.evidence.merge(&row.evidence);
        }
    }
    if all.is_empty() {
        return all;
    }
    let services = capture.services.as_ref();
    let places = |hits: Vec<Hit<'_>>| hits.iter().filter_map(|hit| place(hit.row)).collect::<BTreeSet<K>>();
    for c in &capture.connections {
        for key in places(capture.drops.of_connection(c, services)) {
            all.entry(key).or_default().hit(key_of(capture, c), c.segments().unwrap_or_default());
        }
    }
    for flow in &capture.dns {
        for key in places(capture.drops.of_udp(flow, services)) {
            let comm = flow.owner.and_then(|id| capture.processes.get(id)).map(|p| p.comm.clone());
            let target = Target { comm, netns: flow.netns, remote: flow.server };
            all.entry(key).or_default().hit(Key::from(&target), (0, 0));
        }
    }
    all
}
