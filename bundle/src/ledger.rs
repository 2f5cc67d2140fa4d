//! Where every event went. The law: `observed = filtered + seen` and `seen = written + Σ dropped`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::event::EventKind;

/// Why an event that was seen is not in `events.jsonl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// `--max-events` was reached.
    EventCap,
    /// `--max-bytes` was reached.
    ByteCap,
    /// Left out by `--sample`.
    Sampled,
    /// The ring to user space was full.
    RingFull,
    /// The record could not be decoded.
    Undecodable,
    /// A filter that the kernel could not decide said no later.
    FilteredLate,
    /// The line could not be written.
    WriteFailed,
}

impl DropReason {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::EventCap,
        Self::ByteCap,
        Self::Sampled,
        Self::RingFull,
        Self::Undecodable,
        Self::FilteredLate,
        Self::WriteFailed,
    ];

    /// The name as it stands in a bundle.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EventCap => "event_cap",
            Self::ByteCap => "byte_cap",
            Self::Sampled => "sampled",
            Self::RingFull => "ring_full",
            Self::Undecodable => "undecodable",
            Self::FilteredLate => "filtered_late",
            Self::WriteFailed => "write_failed",
        }
    }
}

/// Account of one event type.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TypeLedger {
    /// Admitted by the filters.
    pub seen: u64,
    /// Lines in `events.jsonl`.
    pub written: u64,
    /// Not written, by reason; a reason that never happened is absent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dropped: BTreeMap<DropReason, u64>,
}

/// Account of all events of a capture.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ledger {
    /// Occurrences that reached a hook while the window was open.
    pub observed: u64,
    /// Refused by a filter, by the filter's name.
    #[serde(default)]
    pub filtered: BTreeMap<String, u64>,
    /// Admitted by the filters.
    pub seen: u64,
    /// Lines in `events.jsonl`.
    pub written: u64,
    /// Not written, by reason. Every reason is listed, also with 0.
    pub dropped: BTreeMap<DropReason, u64>,
    /// Upper bound of what programs missed (`recursion_misses` of the kernel, less what a second program took); outside the law.
    pub missed: u64,
    /// The same account by event type.
    #[serde(default)]
    pub by_type: BTreeMap<EventKind, TypeLedger>,
    /// How far a line's `boot_ns` steps back behind an earlier line's, at most, in ns; events that were
    /// held back on purpose are left out.
    #[serde(default)]
    pub max_disorder_ns: u64,
}

/// A ledger that does not add up: a bug in the collector, or an edited bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Imbalance {
    /// `observed` is not `filtered + seen`.
    #[error("observed {observed} is not filtered {filtered} + seen {seen}")]
    Observed {
        /// Occurrences.
        observed: u64,
        /// Sum over filters.
        filtered: u64,
        /// Admitted.
        seen: u64,
    },
    /// `seen` is not `written + Σ dropped`.
    #[error("{of}: seen {seen} is not written {written} + dropped {dropped}")]
    Seen {
        /// `all`, or the event type.
        of: &'static str,
        /// Admitted.
        seen: u64,
        /// Lines.
        written: u64,
        /// Sum over reasons.
        dropped: u64,
    },
    /// A total differs from the sum of its types.
    #[error("{of}: the total {total} is not the sum over types {sum}")]
    Types {
        /// `seen` or `written`.
        of: &'static str,
        /// The total.
        total: u64,
        /// The sum.
        sum: u64,
    },
}

impl Ledger {
    /// Events that were seen and are not in the bundle, for whatever reason.
    pub fn dropped_total(&self) -> u64 {
        sum(self.dropped.values())
    }

    /// Occurrences refused by any filter.
    pub fn filtered_total(&self) -> u64 {
        sum(self.filtered.values())
    }

    /// Adds up the types into the totals; `observed`, `filtered`, `missed` stay as they are.
    pub fn total_from_types(&mut self) {
        self.seen = sum(self.by_type.values().map(|t| &t.seen));
        self.written = sum(self.by_type.values().map(|t| &t.written));
        self.dropped = DropReason::ALL
            .into_iter()
            .map(|r| (r, sum(self.by_type.values().filter_map(|t| t.dropped.get(&r)))))
            .collect();
    }

    /// Checks the conservation law.
    ///
    /// # Errors
    /// The first [`Imbalance`] found; the caller reports the bundle as untrustworthy.
    pub fn check(&self) -> Result<(), Imbalance> {
        let (filtered, dropped) = (self.filtered_total(), self.dropped_total());
        if self.observed != filtered.saturating_add(self.seen) {
            return Err(Imbalance::Observed { observed: self.observed, filtered, seen: self.seen });
        }
        if self.seen != self.written.saturating_add(dropped) {
            return Err(Imbalance::Seen { of: "all", seen: self.seen, written: self.written, dropped });
        }
        for (kind, t) in &self.by_type {
            let dropped = sum(t.dropped.values());
            if t.seen != t.written.saturating_add(dropped) {
                return Err(Imbalance::Seen { of: kind.as_str(), seen: t.seen, written: t.written, dropped });
            }
        }
        if !self.by_type.is_empty() {
            let seen = sum(self.by_type.values().map(|t| &t.seen));
            if seen != self.seen {
                return Err(Imbalance::Types { of: "seen", total: self.seen, sum: seen });
            }
            let written = sum(self.by_type.values().map(|t| &t.written));
            if written != self.written {
                return Err(Imbalance::Types { of: "written", total: self.written, sum: written });
            }
        }
        Ok(())
    }
}

/// The sum; an edited bundle can hold any numbers, and they must not stop its reader.
fn sum<'a>(numbers: impl Iterator<Item = &'a u64>) -> u64 {
    numbers.fold(0, |a, b| a.saturating_add(*b))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn a_ledger() -> Ledger {
        let mut ledger = Ledger { observed: 12, ..Ledger::default() };
        ledger.filtered.insert("ports".into(), 2);
        let dropped = BTreeMap::from([(DropReason::RingFull, 3)]);
        ledger.by_type.insert(EventKind::UdpSend, TypeLedger { seen: 10, written: 7, dropped });
        ledger.total_from_types();
        ledger
    }

    #[test]
    fn a_balanced_ledger_passes() {
        assert_eq!(a_ledger().check(), Ok(()));
    }

    #[test]
    fn an_event_without_a_reason_is_an_imbalance() {
        let mut ledger = a_ledger();
        ledger.seen += 1;
        ledger.observed += 1;
        assert_eq!(ledger.check(), Err(Imbalance::Seen { of: "all", seen: 11, written: 7, dropped: 3 }));
    }

    #[test]
    fn a_type_that_does_not_balance_is_named() {
        let mut ledger = a_ledger();
        ledger.by_type.insert(EventKind::Connect, TypeLedger { seen: 1, ..TypeLedger::default() });
        assert_eq!(ledger.check(), Err(Imbalance::Seen { of: "connect", seen: 1, written: 0, dropped: 0 }));
    }

    /// A ledger as any sequence of admissions and refusals leaves it: each event goes to one place.
    fn any_ledger() -> impl Strategy<Value = Ledger> {
        let event = (0..EventKind::ALL.len(), 0..DropReason::ALL.len() + 3);
        prop::collection::vec(event, 0..300).prop_map(|events| {
            let mut ledger = Ledger::default();
            for (kind, place) in events {
                ledger.observed += 1;
                let of_kind = ledger.by_type.entry(EventKind::ALL[kind]).or_default();
                match DropReason::ALL.get(place) {
                    Some(reason) => *of_kind.dropped.entry(*reason).or_default() += 1,
                    None if place == DropReason::ALL.len() => {
                        *ledger.filtered.entry("ports".into()).or_default() += 1;
                        continue;
                    }
                    None => of_kind.written += 1,
                }
                of_kind.seen += 1;
            }
            ledger.total_from_types();
            ledger
        })
    }

    proptest! {
        #[test]
        fn any_sequence_balances_and_one_event_more_or_less_anywhere_does_not(
            ledger in any_ledger(), place in 0..4_usize, kind in 0..EventKind::ALL.len(), reason in 0..DropReason::ALL.len(),
        ) {
            prop_assert_eq!(ledger.check(), Ok(()));
            let mut off = ledger;
            let of_kind = off.by_type.entry(EventKind::ALL[kind]).or_default();
            match place {
                0 => off.observed += 1,
                1 => of_kind.seen += 1,
                2 => of_kind.written += 1,
                _ => *of_kind.dropped.entry(DropReason::ALL[reason]).or_default() += 1,
            }
            prop_assert!(off.check().is_err());
            off.total_from_types();
            prop_assert!(off.check().is_err());
        }
    }

    #[test]
    fn numbers_of_an_edited_bundle_do_not_overflow() {
        let mut ledger = a_ledger();
        ledger.filtered.insert("more".into(), u64::MAX);
        ledger.dropped.insert(DropReason::EventCap, u64::MAX);
        assert!(ledger.check().is_err());
    }
}
