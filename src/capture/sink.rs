//! The event path: ring → decode → pair DNS → line. One record at a time, on one thread, nothing blocks but the
//! disk. Every record that comes in is counted under exactly one outcome.

mod filtered;
mod flows;
mod node;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};
use ktrace_bundle::attribution::Attribution;
use ktrace_bundle::dns::DnsPairs;
use ktrace_bundle::event::{Event, EventKind, Identity, bulk_share, bulk_spare};
use ktrace_bundle::ledger::DropReason;
use ktrace_bundle::totals::SummaryBuilder;
use ktrace_bundle::writer::{BundleWriter, Capped, Pushed, WriteError};

use super::coverage::Timeline;
use super::hold::{Hold, Settled, Waiting};
use super::spare::Spare;
use super::tee::Tee;
use crate::cgroup::Hierarchy;
use crate::clock;
use crate::flows::Flows;
use crate::hooks::{
    self,
    wire::{Context, Doubt, RawEvent},
};
use crate::identity::{Cgroup, Homes};
use crate::lifetimes::{Notice, Notices};
use crate::node::Node;
use crate::processes::Processes;
pub use filtered::Acceptor;

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
    /// What the owners are.
    pub processes: Processes,
    /// What becomes of each flow.
    pub flows: Flows,
    /// How the node looks.
    pub node: Node,
    pub(super) notices: Notices,
    /// Notices that found no room in their ring.
    pub untold: u64,
    /// The longest time between two looks at the rings, less what was waited for them.
    pub longest_turn: Duration,
    batch: Batch,
    hold: Hold,
    /// Records of containers whose names may come in a moment.
    nameless: Waiting<Cgroup>,
    /// Events that were written although nobody could say whether a filter by pod refuses them: absence would be no evidence.
    pub unjudged: u64,
}

/// Raw records with their times. The rings are read one after the other, so what came in since the last turn is in
/// two pieces, which are put in kernel order before they are written.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    index: Vec<(u64, std::ops::Range<usize>)>,
}

impl Sink {
    /// An empty sink that writes at most `max_events` lines to `writer`, and asks nobody about flows and the node.
    pub fn new(
        writer: BundleWriter,
        summary: SummaryBuilder,
        dns: DnsPairs,
        max_events: u64,
        context: Context,
        homes: Homes,
        processes: Processes,
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
            processes,
            flows: Flows::new(false),
            node: Node::new(false, Path::new("/")),
            notices: Notices::new(),
            untold: 0,
            longest_turn: Duration::ZERO,
            batch: Batch::default(),
            hold: Hold::default(),
            nameless: Waiting::default(),
            unjudged: 0,
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
            self.flows.see(&mut event);
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
                self.see_owner(&event.id);
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

    /// Takes what a process or a cgroup was seen to do.
    pub fn take_notice(&mut self, bytes: &[u8]) {
        match self.notices.read(bytes) {
            Some(Notice::Made { cgroup, path }) => self.homes.made(cgroup, path),
            Some(Notice::Removed { cgroup, boot_ns }) => self.homes.removed(cgroup, boot_ns),
            Some(Notice::Exec { task, exe }) => self.processes.exec(&task, exe),
            Some(Notice::Exit { task, boot_ns }) => self.processes.exit(&task, boot_ns),
            None => {}
        }
    }

    /// The owner of a record that is written.
    pub fn see_owner(&mut self, id: &Identity) {
        self.node.see(id);
        if let Attribution::Resolved(owner) = &id.owner {
            self.processes.see(owner, Hierarchy::of(id.why.get("cgroup_id")));
        }
    }

    /// Writes who the owners are and who is above them. `utc_of`: the time that a boot time stands for.
    pub fn write_processes(&mut self, utc_of: impl Fn(u64) -> DateTime<Utc>) {
        let Self { processes, writer, failure, .. } = self;
        processes.each(utc_of, |process| {
            if failure.is_none()
                && let Err(e) = writer.push_process(&process)
            {
                *failure = Some(e);
            }
        });
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
    /// `utc_of`: the time that a boot time stands for.
    pub fn write_workloads(&mut self, utc_of: impl Fn(u64) -> DateTime<Utc>) {
        for workload in self.homes.workloads(utc_of) {
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
