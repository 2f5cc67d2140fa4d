//! The event path: ring → decode → pair DNS → line. One record at a time, on one thread, nothing blocks but the
//! disk. Every record that comes in is counted under exactly one outcome.

use std::collections::BTreeMap;

use ktrace_bundle::dns::DnsPairs;
use ktrace_bundle::event::EventKind;
use ktrace_bundle::totals::SummaryBuilder;
use ktrace_bundle::writer::{BundleWriter, Pushed, WriteError};

use super::tee::Tee;
use crate::hooks::{self, wire::Context};

/// Lines of `events.jsonl` at most.
#[derive(Debug, Clone, Copy)]
pub struct EventCaps {
    /// Of all kinds together.
    pub all: u64,
    /// Of UDP.
    pub bulk: u64,
}

/// What user space did with the events of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Lines written.
    pub written: u64,
    /// Refused by the event cap; the kernel refuses most, and lets a few too many through.
    pub event_cap: u64,
    /// Refused by the byte cap.
    pub byte_cap: u64,
    /// The line could not be written.
    pub write_failed: u64,
}

impl Tally {
    /// Records of this kind that could be decoded.
    pub const fn decoded(&self) -> u64 {
        self.written + self.event_cap + self.byte_cap + self.write_failed
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
    caps: EventCaps,
    written: u64,
    written_bulk: u64,
    context: Context,
    batch: Batch,
}

/// Raw records with their times. The rings are read one after the other, so what came in since the last turn is in
/// two pieces, which are put in kernel order before they are written.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    index: Vec<(u64, std::ops::Range<usize>)>,
}

impl Sink {
    /// An empty sink that writes to `writer`.
    pub fn new(
        writer: BundleWriter,
        summary: SummaryBuilder,
        dns: DnsPairs,
        caps: EventCaps,
        context: Context,
    ) -> Self {
        Self {
            writer,
            summary,
            dns,
            tally: BTreeMap::new(),
            tee: None,
            failure: None,
            caps,
            written: 0,
            written_bulk: 0,
            context,
            batch: Batch::default(),
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
        for (_, range) in batch.index.drain(..) {
            self.write(batch.bytes.get(range).unwrap_or_default());
        }
        batch.bytes.clear();
        if let Some(tee) = &mut self.tee {
            tee.flush();
        }
        self.batch = batch;
    }

    /// A record that cannot be decoded is in no tally: what the kernel submitted and no tally has is undecodable.
    fn write(&mut self, record: &[u8]) {
        let Ok(mut event) = hooks::decode(record, &self.context) else { return };
        let kind = event.payload.kind();
        let tally = self.tally.entry(kind).or_default();
        if self.failure.is_some() {
            tally.write_failed += 1;
            return;
        }
        self.dns.annotate(&mut event, self.writer.next_seq());
        let bulk = kind.is_bulk();
        if self.written >= self.caps.all || (bulk && self.written_bulk >= self.caps.bulk) {
            tally.event_cap += 1;
            return;
        }
        match self.writer.push(&mut event) {
            Ok(Pushed::Written) => {
                tally.written += 1;
                self.written += 1;
                self.written_bulk += u64::from(bulk);
                self.summary.push_event(&event);
                if let Some(tee) = &mut self.tee {
                    tee.line(self.writer.line());
                }
            }
            Ok(Pushed::ByteCap) => tally.byte_cap += 1,
            Ok(Pushed::TooLong) => tally.write_failed += 1,
            Err(e) => {
                tally.write_failed += 1;
                self.failure = Some(e);
            }
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
