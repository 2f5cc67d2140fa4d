//! UDP events beyond UDP's share of the caps, held until the window has closed: what rare events then have left of
//! their quarter goes to the oldest of them. Bounded, so that a flood costs no more memory than a trickle.

use ktrace_bundle::event::{Event, EventKind};
use ktrace_bundle::ledger::DropReason;

/// Events in kernel order, each with the cap that keeps it from being written now.
pub struct Spare {
    held: Vec<(Event, DropReason)>,
    max: usize,
}

impl Spare {
    /// Room for `max` events.
    pub fn new(max: u64) -> Self {
        Self { held: Vec::new(), max: usize::try_from(max).unwrap_or(usize::MAX) }
    }

    /// Whether the next event would not be held.
    pub const fn is_full(&self) -> bool {
        self.held.len() >= self.max
    }

    /// Takes an event; the caller has counted it under this reason, and asked [`Spare::is_full`].
    pub fn hold(&mut self, event: Event, reason: DropReason) {
        self.held.push((event, reason));
    }

    /// Kind and reason of each.
    pub fn held(&self) -> impl Iterator<Item = (EventKind, DropReason)> {
        self.held.iter().map(|(event, reason)| (event.payload.kind(), *reason))
    }

    /// All of them, oldest first.
    pub fn release(&mut self) -> Vec<(Event, DropReason)> {
        std::mem::take(&mut self.held)
    }
}
