//! Ledgers as time goes on → the lines of `coverage.jsonl`: what was lost between two looks at the counters.

use std::collections::BTreeMap;

use ktrace_bundle::coverage::LossRecord;
use ktrace_bundle::event::LINE_VERSION;
use ktrace_bundle::ledger::{DropReason, Ledger};

use super::sink::Sink;
use crate::hooks::HOOKS;
use crate::kernel::session::Skipped;

/// Shortest interval, ns.
const INTERVAL_NS: u64 = 1_000_000_000;

/// Events that a hook's programs may have missed so far, by hook.
pub type Missed = BTreeMap<&'static str, u64>;

/// What is known of one hook at one moment, since the window opened.
#[derive(Debug, Clone, Default)]
struct Counts {
    seen: u64,
    written: u64,
    dropped: BTreeMap<DropReason, u64>,
    missed: u64,
}

/// The newest look at the counters.
#[derive(Debug, Default)]
pub struct Timeline {
    opened_ns: u64,
    looked_ns: u64,
    looked_before_ns: u64,
    counts: BTreeMap<&'static str, Counts>,
    /// How often programs had been skipped at the newest look.
    skipped: BTreeMap<&'static str, u64>,
}

impl Timeline {
    /// Of a window that opened at this boot time.
    pub fn new(opened_ns: u64) -> Self {
        Self { opened_ns, looked_ns: opened_ns, looked_before_ns: opened_ns, ..Self::default() }
    }

    /// Whether an interval is over.
    pub const fn is_due(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.looked_ns) >= INTERVAL_NS
    }

    /// What is missed for good: skipped by the look before this one, and taken by no other program since. An event that
    /// another program is about to take is not lost, and what a line has told cannot be taken back.
    pub fn settled(&mut self, now: &BTreeMap<&'static str, Skipped>) -> Missed {
        let before = |hook: &str| self.skipped.get(hook).copied().unwrap_or(0);
        let settled = now.iter().map(|(hook, it)| (*hook, before(hook).saturating_sub(it.rescued))).collect();
        self.skipped = now.iter().map(|(hook, it)| (*hook, it.skipped)).collect();
        settled
    }

    /// What lines tell of as missed so far, of all hooks.
    pub fn missed(&self) -> u64 {
        self.counts.values().map(|counts| counts.missed).sum()
    }

    fn advance(&mut self, now_ns: u64, counts: BTreeMap<&'static str, Counts>) -> Vec<LossRecord> {
        let (from_ns, to_ns) = (self.looked_ns - self.opened_ns, now_ns.saturating_sub(self.opened_ns));
        let missed_from_ns = self.looked_before_ns - self.opened_ns;
        let before = std::mem::replace(&mut self.counts, counts);
        for (hook, now) in &mut self.counts {
            now.missed = now.missed.max(before.get(hook).map_or(0, |it| it.missed));
        }
        self.looked_before_ns = self.looked_ns;
        self.looked_ns = now_ns.max(self.looked_ns);
        let losses = self.counts.iter().filter_map(|(hook, now)| lost(hook, before.get(hook), now, from_ns, to_ns));
        // what is missed is known one look late, see `settled`
        losses.map(|loss| if loss.missed > 0 { LossRecord { from_ns: missed_from_ns, ..loss } } else { loss }).collect()
    }
}

/// What one hook has lost between two looks; `None` if nothing.
fn lost(hook: &str, before: Option<&Counts>, now: &Counts, from_ns: u64, to_ns: u64) -> Option<LossRecord> {
    let before = before.cloned().unwrap_or_default();
    let more = |reason: &DropReason, n: &u64| n.saturating_sub(before.dropped.get(reason).copied().unwrap_or(0));
    let dropped: BTreeMap<_, _> =
        now.dropped.iter().map(|(reason, n)| (*reason, more(reason, n))).filter(|(_, n)| *n > 0).collect();
    let missed = now.missed.saturating_sub(before.missed);
    (missed > 0 || !dropped.is_empty()).then(|| LossRecord {
        v: LINE_VERSION,
        from_ns,
        to_ns,
        undated: false,
        hook: hook.to_owned(),
        seen: now.seen.saturating_sub(before.seen),
        written: now.written.saturating_sub(before.written),
        dropped,
        missed,
    })
}

impl Sink {
    /// Writes what was lost since the last look. Events that are held are not lost yet, and records in the ring look
    /// undecodable until they are read: [`Sink::note_undated`] tells of both.
    pub fn note_losses(&mut self, ledger: &Ledger, missed: &Missed, now_ns: u64) {
        let mut counts = by_hook(ledger, missed);
        for counts in counts.values_mut() {
            counts.dropped.remove(&DropReason::Undecodable);
        }
        for (kind, reason) in self.spare.held() {
            let hook = HOOKS.iter().find(|h| h.kinds().contains(&kind));
            let counts = hook.and_then(|h| counts.get_mut(h.name()));
            if let Some(n) = counts.and_then(|c| c.dropped.get_mut(&reason)) {
                *n = n.saturating_sub(1);
            }
        }
        let losses = self.timeline.advance(now_ns, counts);
        self.write_losses(&losses);
    }

    /// Writes what is lost by the final account and by no line so far.
    pub fn note_undated(&mut self, ledger: &Ledger, missed: &Missed) {
        let end_ns = self.timeline.looked_ns - self.timeline.opened_ns;
        let mut losses = self.timeline.advance(self.timeline.looked_ns, by_hook(ledger, missed));
        for loss in &mut losses {
            (loss.undated, loss.from_ns, loss.to_ns) = (true, 0, end_ns);
        }
        self.write_losses(&losses);
    }

    fn write_losses(&mut self, losses: &[LossRecord]) {
        for loss in losses {
            if self.failure.is_none()
                && let Err(e) = self.writer.push_loss(loss)
            {
                self.failure = Some(e);
            }
        }
    }
}

fn by_hook(ledger: &Ledger, missed: &Missed) -> BTreeMap<&'static str, Counts> {
    let mut by_hook: BTreeMap<&'static str, Counts> = BTreeMap::new();
    for hook in HOOKS {
        for account in hook.kinds().iter().filter_map(|kind| ledger.by_type.get(kind)) {
            let counts = by_hook.entry(hook.name()).or_default();
            counts.seen += account.seen;
            counts.written += account.written;
            for (reason, n) in &account.dropped {
                *counts.dropped.entry(*reason).or_default() += n;
            }
        }
    }
    for (hook, n) in missed {
        by_hook.entry(hook).or_default().missed = *n;
    }
    by_hook
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(seen: u64, ring_full: u64, missed: u64) -> BTreeMap<&'static str, Counts> {
        let dropped = [(DropReason::RingFull, ring_full)].into_iter().filter(|(_, n)| *n > 0).collect();
        BTreeMap::from([("udp", Counts { seen, written: seen - ring_full, dropped, missed })])
    }

    #[test]
    fn an_interval_without_a_loss_has_no_line_and_one_with_a_loss_has_the_difference() {
        let second = INTERVAL_NS;
        let mut timeline = Timeline::new(5 * second);
        assert!(!timeline.is_due(5 * second + 1) && timeline.is_due(6 * second));
        assert_eq!(timeline.advance(6 * second, counts(100, 0, 0)), []);
        let loss = LossRecord {
            v: 1,
            from_ns: 0,
            to_ns: 2 * second,
            hook: "udp".into(),
            seen: 900,
            written: 860,
            dropped: [(DropReason::RingFull, 40)].into(),
            missed: 2,
            ..LossRecord::default()
        };
        assert_eq!(timeline.advance(7 * second, counts(1000, 40, 2)), [loss]);
        assert_eq!(timeline.advance(8 * second, counts(2000, 40, 2)), []);
    }

    #[test]
    fn what_another_program_is_about_to_take_is_not_missed() {
        let mut timeline = Timeline::new(0);
        let mut settled =
            |skipped, rescued| timeline.settled(&BTreeMap::from([("udp", Skipped { skipped, rescued })]))["udp"];
        assert_eq!(settled(3, 0), 0, "three skips just now");
        assert_eq!(settled(3, 2), 1, "one of them was not made good since");
        assert_eq!(settled(9, 3), 0);
        assert_eq!(settled(9, 8), 1);
    }

    #[test]
    fn what_a_line_has_told_as_missed_is_not_told_again() {
        let mut timeline = Timeline::new(0);
        assert_eq!(timeline.advance(INTERVAL_NS, counts(9, 0, 5)).len(), 1);
        assert_eq!(timeline.advance(2 * INTERVAL_NS, counts(9, 0, 3)), []);
        assert_eq!(timeline.advance(3 * INTERVAL_NS, counts(9, 0, 5)), []);
        assert_eq!(timeline.missed(), 5);
    }
}
