//! Kernel counters and the sink's tally → the ledger.

use std::collections::BTreeMap;

use ktrace_bundle::event::EventKind;
use ktrace_bundle::ledger::{DropReason, Ledger, TypeLedger};

use super::sink::Tally;
use crate::kernel::skel::types::{kt_counters, kt_drop, kt_filter};
use crate::plan::PortFilter;

/// Adds up both sides. Undecodable is what the kernel submitted and no tally has: exact once the rings are
/// drained, and before that it includes what is still on its way.
pub fn ledger(
    counters: &[(EventKind, kt_counters)],
    tally: &BTreeMap<EventKind, Tally>,
    filter: &PortFilter,
    missed: u64,
    max_disorder_ns: u64,
) -> Ledger {
    let mut ledger = Ledger { missed, max_disorder_ns, ..Ledger::default() };
    for (kind, kernel) in counters {
        let kt_counters { observed, filtered, seen, submitted, dropped, refused: _ } = kernel;
        ledger.observed += observed;
        for (filter, count) in filter_names(filter).into_iter().zip(filtered).filter(|(_, count)| **count > 0) {
            *ledger.filtered.entry(filter.into()).or_default() += count;
        }
        let user = tally.get(kind).copied().unwrap_or_default();
        ledger.by_type.insert(*kind, of_type(*seen, *submitted, dropped, user));
    }
    ledger.total_from_types();
    ledger
}

/// Takes the undecodable out of a ledger that was made before the rings were drained for the last time.
pub fn leave_out_what_is_under_way(ledger: &mut Ledger) {
    for of_type in ledger.by_type.values_mut() {
        of_type.dropped.remove(&DropReason::Undecodable);
    }
    ledger.dropped.insert(DropReason::Undecodable, 0);
}

/// By `enum kt_filter`.
fn filter_names(filter: &PortFilter) -> [&'static str; kt_filter::KT_FILTER_MAX.0 as usize] {
    let ports = match filter {
        PortFilter::Dns(_) => "dns_only",
        PortFilter::Ports(_) | PortFilter::All => "ports",
    };
    ["self", "netns", ports, "cidr", "pid", "comm", "cgroup", "namespace", "pod", "container"]
}

fn of_type(seen: u64, submitted: u64, kernel: &[u64; kt_drop::KT_DROP_MAX.0 as usize], user: Tally) -> TypeLedger {
    let [event_cap, byte_cap, ring_full, sampled] = *kernel;
    let dropped = [
        (DropReason::EventCap, event_cap + user.event_cap),
        (DropReason::ByteCap, byte_cap + user.byte_cap),
        (DropReason::Sampled, sampled),
        (DropReason::RingFull, ring_full),
        (DropReason::Undecodable, submitted.saturating_sub(user.decoded())),
        (DropReason::FilteredLate, user.filtered_late),
        (DropReason::WriteFailed, user.write_failed),
    ];
    TypeLedger { seen, written: user.written, dropped: dropped.into_iter().filter(|(_, n)| *n > 0).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_and_user_drops_add_up_to_what_was_seen() {
        let kernel = kt_counters {
            observed: 124,
            filtered: [5, 0, 15, 0, 0, 0, 0, 0, 0, 4],
            seen: 100,
            submitted: 80,
            dropped: [9, 1, 10, 0],
            ..kt_counters::default()
        };
        let user = Tally { written: 61, event_cap: 2, byte_cap: 4, filtered_late: 7, write_failed: 3 };
        let ledger = ledger(
            &[(EventKind::UdpSend, kernel)],
            &BTreeMap::from([(EventKind::UdpSend, user)]),
            &PortFilter::Dns([53].into()),
            0,
            0,
        );
        assert_eq!(ledger.check(), Ok(()));
        assert_eq!(
            ledger.filtered,
            BTreeMap::from([("self".into(), 5), ("dns_only".into(), 15), ("container".into(), 4)])
        );
        assert_eq!(ledger.dropped[&DropReason::EventCap], 11);
        assert_eq!(ledger.dropped[&DropReason::ByteCap], 5);
        assert_eq!(ledger.dropped[&DropReason::FilteredLate], 7);
        assert_eq!(ledger.dropped[&DropReason::Undecodable], 3);
    }

    #[test]
    fn a_record_that_the_kernel_lost_without_a_reason_is_an_imbalance() {
        let kernel = kt_counters { observed: 10, seen: 10, submitted: 9, ..kt_counters::default() };
        let user = Tally { written: 9, ..Tally::default() };
        let tally = BTreeMap::from([(EventKind::Connect, user)]);
        let ledger = ledger(&[(EventKind::Connect, kernel)], &tally, &PortFilter::All, 0, 0);
        assert!(ledger.check().is_err());
    }
}
