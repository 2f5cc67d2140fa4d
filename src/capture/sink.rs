//! The event path: ring → decode → pair DNS → line. One record at a time, on one thread, nothing blocks but the
//! disk. Every record that comes in is counted under exactly one outcome.

use std::collections::BTreeMap;
use std::time::Duration;

use ktrace_bundle::dns::DnsPairs;
use ktrace_bundle::event::{Event, EventKind, bulk_share, bulk_spare};
use ktrace_bundle::ledger::DropReason;
use ktrace_bundle::totals::SummaryBuilder;
use ktrace_bundle::writer::{BundleWriter, Capped, Pushed, WriteError};

use super::coverage::Timeline;
use super::hold::{Hold, Settled, Waiting};
use super::spare::Spare;
use super::tee::Tee;
use crate::clock;
use crate::hooks::{
    self,
    wire::{Context, RawEvent},
};
use crate::identity::{Cgroup, Homes};

/// What user space did with the events of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Lines written.
    pub written: u64,
    /// Refused by the event cap, or held for what rare events will leave of it; the kernel refuses most.
    pub event_cap: u64,
    /// The same of the byte cap.
    pub byte_cap: u64,
    /// Refused by a filter that the kernel could not ask when the event happened.
    pub filtered_late: u64,
    /// The line could not be written.
    pub write_failed: u64,
}

impl Tally {
    /// Records of this kind that could be decoded.
    pub const fn decoded(&self) -> u64 {
        self.written + self.event_cap + self.byte_cap + self.filtered_late + self.write_failed
    }

    /// The count of events that a cap keeps out.
    const fn capped(&mut self, reason: DropReason) -> &mut u64 {
        match reason {
            DropReason::ByteCap => &mut self.byte_cap,
            _ => &mut self.event_cap,
        }
    }
}

/// The user-space end of the event path.
pub struct Sink {
    /// The bundle.
    pub writer: BundleWriter,
    /// Totals of what was written.
    pub summary: SummaryBuilder,
    /// Queries and replies.
    pub dns: DnsPairs,
    /// Outcomes by kind.
    pub tally: BTreeMap<EventKind, Tally>,
    /// Where the lines go as well, if anywhere.
    pub tee: Option<Tee>,
    /// The first failure to write; nothing is written after it.
    pub failure: Option<WriteError>,
    max_events: u64,
    written: u64,
    written_bulk: u64,
    pub(super) spare: Spare,
    /// Losses so far.
    pub timeline: Timeline,
    reserve_is_open: bool,
    context: Context,
    /// Whose the owners are.
    pub homes: Homes,
    /// The longest time between two looks at the rings, less what was waited for them.
    pub longest_turn: Duration,
    batch: Batch,
    hold: Hold,
    /// Records of containers whose names may come in a moment.
    nameless: Waiting<Cgroup>,
}

/// Raw records with their times. The rings are read one after the other, so what came in since the last turn is in
/// two pieces, which are put in kernel order before they are written.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    index: Vec<(u64, std::ops::Range<usize>)>,
}

impl Sink {
    /// An empty sink that writes at most `max_events` lines to `writer`.
    pub fn new(
        writer: BundleWriter,
        summary: SummaryBuilder,
        dns: DnsPairs,
        max_events: u64,
        context: Context,
        homes: Homes,
    ) -> Self {
        Self {
            writer,
            summary,
            dns,
            tally: BTreeMap::new(),
            tee: None,
            failure: None,
            max_events,
            written: 0,
            written_bulk: 0,
            spare: Spare::new(bulk_spare(max_events)),
            timeline: Timeline::default(),
            reserve_is_open: false,
            context,
            homes,
            longest_turn: Duration::ZERO,
            batch: Batch::default(),
            hold: Hold::default(),
            nameless: Waiting::default(),
        }
    }

    /// Takes one record as it comes from a ring, for the next [`Sink::write_batch`].
    pub fn take(&mut self, record: &[u8]) {
        let start = self.batch.bytes.len();
        self.batch.bytes.extend_from_slice(record);
        // every record begins with its time; one that is too short for that fails to decode later
        let boot_ns = record.first_chunk().map_or(0, |first| u64::from_ne_bytes(*first));
        self.batch.index.push((boot_ns, start..self.batch.bytes.len()));
    }

    /// Writes what was taken, in kernel order.
    pub fn write_batch(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        batch.index.sort_by_key(|(boot_ns, _)| *boot_ns);
        let now = clock::boot_ns();
        if self.homes.refresh(!self.nameless.is_empty()) {
            self.write_named();
        }
        for (_, range) in batch.index.drain(..) {
            self.filter(batch.bytes.get(range).unwrap_or_default(), now);
        }
        batch.bytes.clear();
        self.flush_tee();
        self.batch = batch;
    }

    /// Settles what cannot wait any longer at this boot time, or without one everything: `passes` says what is known
    /// about a socket by now.
    pub fn settle_overdue(&mut self, now: Option<u64>, passes: impl Fn(u64) -> Option<bool>) {
        while let Some((_, records)) = self.nameless.overdue(now) {
            records.iter().for_each(|record| self.write_waited(record));
        }
        while let Some((cookie, records)) = self.hold.overdue(now) {
            let written = passes(cookie).unwrap_or(true);
            records.iter().for_each(|record| if written { self.write_waited(record) } else { self.drop_late(record) });
        }
    }

    /// Writes what has waited for names that are there now.
    fn write_named(&mut self) {
        let homes = &mut self.homes;
        for cookie in self.nameless.ready(|cgroup| homes.is_named(cgroup)) {
            self.nameless.take(cookie).iter().for_each(|record| self.write_waited(record));
        }
    }

    /// What no filter had doubts about is written at once.
    fn filter(&mut self, record: &[u8], now: u64) {
        let Ok(raw) = RawEvent::new(record) else { return };
        match self.hold.settle(record, raw.mark(), now) {
            Settled::Held => {}
            Settled::Written(before) => {
                let cookie = raw.mark().cookie;
                before.iter().for_each(|record| self.write_when_named(record, cookie, now, true));
                self.write_when_named(record, cookie, now, false);
            }
            Settled::Refused(before) => {
                before.iter().for_each(|record| self.drop_late(record));
                self.drop_late(record);
            }
        }
    }

    fn drop_late(&mut self, record: &[u8]) {
        if let Ok(raw) = RawEvent::new(record) {
            self.tally.entry(raw.kind()).or_default().filtered_late += 1;
        }
    }

    /// Records of one socket stay in order: those that follow one that waits wait with it. Others wait unless they have
    /// waited already, or nobody knows which socket they are of.
    fn write_when_named(&mut self, record: &[u8], cookie: u64, now: u64, has_waited: bool) {
        let Ok(mut event) = hooks::decode(record, &self.context) else { return };
        let cgroup = self.homes.settle(&mut event.id).filter(|_| !has_waited && cookie != 0);
        match self.nameless.of(cookie).or(cgroup) {
            Some(cgroup) => self.nameless.add(cookie, record, cgroup, now),
            None => self.admit(event, has_waited),
        }
    }

    /// A record that cannot be decoded is in no tally: what the kernel submitted and no tally has is undecodable.
    fn write_waited(&mut self, record: &[u8]) {
        let Ok(mut event) = hooks::decode(record, &self.context) else { return };
        self.homes.settle(&mut event.id);
        self.admit(event, true);
    }

    fn admit(&mut self, event: Event, has_waited: bool) {
        match self.cap_on(event.payload.kind()) {
            None => self.push(event, has_waited),
            Some(reason) => self.refuse(event, reason),
        }
    }

    /// The cap that an event of this kind runs into now.
    fn cap_on(&self, kind: EventKind) -> Option<DropReason> {
        let (bulk, capped) = (kind.is_bulk(), self.writer.capped());
        let share_is_gone = bulk && !self.reserve_is_open && self.written_bulk >= bulk_share(self.max_events);
        if self.failure.is_some() {
            None
        } else if self.written >= self.max_events || share_is_gone {
            Some(DropReason::EventCap)
        } else {
            (capped.all || (bulk && capped.bulk)).then_some(DropReason::ByteCap)
        }
    }

    /// Only UDP has a share that can end before the cap, so only UDP is worth holding.
    fn refuse(&mut self, event: Event, reason: DropReason) {
        let kind = event.payload.kind();
        *self.tally.entry(kind).or_default().capped(reason) += 1;
        let may_fit = self.written < self.max_events && !self.writer.capped().all;
        if kind.is_bulk() && may_fit && !self.reserve_is_open && !self.spare.is_full() {
            self.spare.hold(event, reason);
        } else {
            self.summary.push_refused(&event);
        }
    }

    fn push(&mut self, mut event: Event, has_waited: bool) {
        let kind = event.payload.kind();
        if self.failure.is_none() {
            self.dns.annotate(&mut event, self.writer.next_seq());
        }
        let tally = self.tally.entry(kind).or_default();
        if self.failure.is_some() {
            tally.write_failed += 1;
            self.summary.push_refused(&event);
            return;
        }
        let outcome = if has_waited { self.writer.push_waited(&mut event) } else { self.writer.push(&mut event) };
        match outcome {
            Ok(Pushed::Written) => {
                tally.written += 1;
                self.written += 1;
                self.written_bulk += u64::from(kind.is_bulk());
                self.summary.push_event(&event);
                if let Some(tee) = &mut self.tee {
                    tee.line(self.writer.line());
                }
                return;
            }
            Ok(Pushed::ByteCap) => tally.byte_cap += 1,
            Ok(Pushed::TooLong) => tally.write_failed += 1,
            Err(e) => {
                tally.write_failed += 1;
                self.failure = Some(e);
            }
        }
        self.summary.push_refused(&event);
    }

    /// What the kernel need not send any more: what would neither be written nor held.
    pub const fn refuses(&self) -> Capped {
        let capped = self.writer.capped();
        Capped { bulk: capped.bulk && self.spare.is_full(), all: capped.all }
    }

    /// To be called when the rings are drained for the last time: writes the held events as far as the caps allow.
    pub fn open_reserve(&mut self) {
        if self.failure.is_some() {
            return;
        }
        self.reserve_is_open = true;
        self.writer.open_reserve();
        for (event, reason) in self.spare.release() {
            *self.tally.entry(event.payload.kind()).or_default().capped(reason) -= 1;
            match self.cap_on(event.payload.kind()) {
                None => self.push(event, true),
                Some(reason) => self.refuse(event, reason),
            }
        }
        self.flush_tee();
    }

    /// Writes what became of the cgroups of pods, for the lines that came before it was known.
    pub fn write_workloads(&mut self) {
        for workload in self.homes.workloads() {
            self.summary.learn(&workload.k8s);
            if self.failure.is_none()
                && let Err(e) = self.writer.push_workload(&workload)
            {
                self.failure = Some(e);
            }
        }
    }

    fn flush_tee(&mut self) {
        if let Some(tee) = &mut self.tee {
            tee.flush();
        }
    }

    /// Brings every line so far to the disk.
    pub fn flush(&mut self) {
        if let Err(e) = self.writer.flush() {
            self.failure.get_or_insert(e);
        }
    }

    /// After a failure: takes over from the writer which lines really are on disk.
    pub fn settle(&mut self) {
        let on_disk = self.writer.written_by_type();
        for (kind, tally) in &mut self.tally {
            let written = on_disk.get(kind).copied().unwrap_or(0);
            tally.write_failed = (tally.written + tally.write_failed).saturating_sub(written);
            tally.written = written;
        }
    }
}

#[cfg(test)]
#[path = "sink_tests.rs"]
mod tests;
