//! What the kernel side refused after it had seen it, added up there by process and by flow: these events never
//! reached user space, and are in the totals all the same.

use super::keys::{Flow, Who};
use super::{Numbers, SummaryBuilder};
use crate::event::{Endpoint, EventKind, Proto};

/// What the kernel side refused. A table that had no room for a row says nothing about it, the totals do.
#[derive(Debug, Clone, Default)]
pub struct Refused {
    /// By event type, exact.
    pub totals: Vec<(EventKind, Numbers)>,
    /// By process.
    pub processes: Vec<RefusedProcess>,
    /// By flow.
    pub flows: Vec<RefusedFlow>,
    /// Handshakes, by bucket: place and number.
    pub handshake: Vec<(usize, u64)>,
    /// Blocking `connect(2)` calls that succeeded, the same.
    pub syscall: Vec<(usize, u64)>,
    /// Smoothed round trip times of connections that closed, the same.
    pub srtt: Vec<(usize, u64)>,
}

/// What was refused of one process.
#[derive(Debug, Clone)]
pub struct RefusedProcess {
    /// Pid, boot time of its start in ns, name; `None`: nobody is known to own it.
    pub owner: Option<(u32, u64, String)>,
    /// How much.
    pub numbers: Numbers,
}

/// What was refused on one flow.
#[derive(Debug, Clone)]
pub struct RefusedFlow {
    /// Network namespace.
    pub netns: u32,
    /// Protocol.
    pub proto: Proto,
    /// Local end, without the port if the kernel chose it.
    pub local: Endpoint,
    /// Remote end, without the port if its kernel chose it.
    pub remote: Endpoint,
    /// How much.
    pub numbers: Numbers,
}

impl SummaryBuilder {
    /// Adds what never reached user space; to be called once, after the last event.
    pub fn add_refused(&mut self, refused: Refused) {
        for (kind, n) in &refused.totals {
            self.tables.total.add(n);
            if n.events > 0 {
                let carries_bytes = kind.is_bulk().then(|| n.tx_bytes.saturating_add(n.rx_bytes));
                self.types.entry(*kind).or_default().add(n.events, 0, carries_bytes);
            }
        }
        for (histogram, buckets) in [
            (&mut self.handshake, &refused.handshake),
            (&mut self.syscall, &refused.syscall),
            (&mut self.srtt, &refused.srtt),
        ] {
            buckets.iter().for_each(|(at, n)| histogram.add_bucket(*at, *n));
        }
        for row in &refused.processes {
            self.tables.processes.row(Who::process_of(row.owner.as_ref())).add(&row.numbers);
        }
        for row in &refused.flows {
            let flow = Flow::between(row.netns, row.proto, row.local, row.remote);
            self.tables.flows.row(flow).add(&row.numbers);
        }
    }
}
