//! Lines of `coverage.jsonl` → when in the window something was lost, by reason, as a few spans of seconds.

use std::collections::BTreeMap;

use ktrace_bundle::coverage::LossRecord;
use ktrace_bundle::ledger::DropReason;

use crate::units::SECOND;

/// Most spans per reason; what comes later makes the last one longer.
const MAX_SPANS: usize = 64;
/// Most spans that are told.
const MAX_TOLD: usize = 3;

/// Spans of the window in whole seconds, rising.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Losses {
    dropped: BTreeMap<DropReason, Vec<(u64, u64)>>,
    missed: Vec<(u64, u64)>,
}

impl Losses {
    /// Adds a line. One that has no date adds nothing.
    pub fn push(&mut self, loss: &LossRecord) {
        if loss.undated {
            return;
        }
        let span = (loss.from_ns / SECOND, loss.to_ns.div_ceil(SECOND).max(loss.from_ns / SECOND));
        for (reason, _) in loss.dropped.iter().filter(|(_, n)| **n > 0) {
            extend(self.dropped.entry(*reason).or_default(), span);
        }
        if loss.missed > 0 {
            extend(&mut self.missed, span);
        }
    }

    /// When events were dropped for this reason: ` between +3 s and +7 s`, or nothing.
    pub fn when_dropped(&self, reason: DropReason) -> String {
        told(self.dropped.get(&reason).map_or(&[], Vec::as_slice))
    }

    /// The same of events that hooks missed.
    pub fn when_missed(&self) -> String {
        told(&self.missed)
    }
}

/// Spans that touch are one.
fn extend(spans: &mut Vec<(u64, u64)>, span: (u64, u64)) {
    let is_full = spans.len() >= MAX_SPANS;
    match spans.last_mut() {
        Some(last) if is_full || (last.0 <= span.0 && span.0 <= last.1) => last.1 = last.1.max(span.1),
        _ => spans.push(span),
    }
}

fn told(spans: &[(u64, u64)]) -> String {
    let shown: Vec<_> =
        spans.iter().take(MAX_TOLD).map(|(from, to)| format!("between +{from} s and +{to} s")).collect();
    match (shown.is_empty(), spans.len().saturating_sub(MAX_TOLD)) {
        (true, _) => String::new(),
        (false, 0) => format!(" {}", shown.join(", ")),
        (false, more) => format!(" {} and {more} more times", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(from_s: u64, reason: DropReason) -> LossRecord {
        let (from_ns, to_ns) = (from_s * SECOND + 2, (from_s + 1) * SECOND);
        LossRecord { from_ns, to_ns, dropped: [(reason, 1)].into(), ..LossRecord::default() }
    }

    #[test]
    fn seconds_that_touch_are_one_span() {
        let mut losses = Losses::default();
        [3, 4, 5, 6, 11].into_iter().for_each(|s| losses.push(&at(s, DropReason::RingFull)));
        losses.push(&LossRecord { undated: true, ..at(0, DropReason::RingFull) });
        assert_eq!(losses.when_dropped(DropReason::RingFull), " between +3 s and +7 s, between +11 s and +12 s");
        assert_eq!((losses.when_dropped(DropReason::EventCap), losses.when_missed()), (String::new(), String::new()));
    }

    #[test]
    fn any_number_of_lines_in_any_order_is_a_few_spans() {
        let mut losses = Losses::default();
        (0..1000).rev().for_each(|s| losses.push(&at(s * 7, DropReason::ByteCap)));
        losses.push(&LossRecord { from_ns: u64::MAX, to_ns: 0, ..at(1, DropReason::ByteCap) });
        assert_eq!(losses.dropped[&DropReason::ByteCap].len(), MAX_SPANS);
        assert!(losses.when_dropped(DropReason::ByteCap).ends_with("and 61 more times"));
    }
}
