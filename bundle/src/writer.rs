//! Records → the files of a bundle: loose ones as the capture goes, and a tgz that grows beside them.
//!
//! `events.jsonl` is the journal; `manifest.partial.json` stands beside it from the first moment, so that
//! whatever ends the run, what is on disk can be read and judged. The writer owns the byte cap and the
//! count of the lines that really reached the disk. It reads no clock and decides nothing about events.

mod error;
mod journal;
mod loose;
mod name;
mod readme;
mod sealed;
mod side;
mod tgz;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::event::{Event, EventKind, bulk_share};
use crate::line::{MAX_LINE_BYTES, write_event};
use crate::manifest::{Checkpoint, Head, Manifest, Member, PartialManifest};
use crate::summary::Summary;
use crate::tracking::{ServicesReport, TrackingReport};

pub use error::WriteError;
pub use name::BundleName;
pub use sealed::Sealed;
pub use side::MAX_SOCKETS;

use journal::Journal;
use loose::Loose;
use side::Sides;
use tgz::Tgz;

/// Longest line with its newline, bytes.
const MAX_LINE: u64 = MAX_LINE_BYTES as u64 + 1;

/// Bounds that the user sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriterCaps {
    /// Length of `events.jsonl`, bytes; never exceeded.
    pub max_bytes: u64,
}

/// Classes of events that the byte cap refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capped {
    /// UDP.
    pub bulk: bool,
    /// Every event.
    pub all: bool,
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It is line `seq`.
    Written,
    /// It would exceed the byte cap, or is UDP whose share of it is used up; from the first time on, every event, or
    /// every UDP event, is refused.
    ByteCap,
    /// Its line would be longer than the contract allows.
    TooLong,
}

/// Writes one bundle.
///
/// After any error the writer has already saved what can be saved (see [`BundleWriter::abandon`]) and
/// refuses further records; [`BundleWriter::written_by_type`] is then the truth about the lines on disk.
#[derive(Debug)]
pub struct BundleWriter {
    loose: Loose,
    head: Head,
    caps: WriterCaps,
    events: Journal<File, EventKind>,
    sides: Sides,
    /// `None` once the bundle was given up.
    tgz: Option<Tgz>,
    line: Vec<u8>,
    bulk_bytes: u64,
    /// UDP may take what rare events have left.
    reserve_is_open: bool,
    capped: Capped,
    newest_boot_ns: u64,
    max_disorder_ns: u64,
    tracking: TrackingReport,
    services: ServicesReport,
}

impl BundleWriter {
    /// Makes `out_dir` if need be and starts a bundle in it; `manifest.partial.json` is there on return.
    /// A name that is taken gets `-2`, `-3` and so on.
    ///
    /// # Errors
    /// If anything in `out_dir` cannot be made.
    pub fn create(out_dir: &Path, name: &BundleName, head: Head, caps: WriterCaps) -> Result<Self, WriteError> {
        let loose = Loose::create(out_dir, name)?;
        let tgz = Tgz::create(&loose.tgz_path(), loose.stem(), name.at.timestamp(), caps.max_bytes)?;
        let events = Journal::new(loose.create_file("events.jsonl")?);
        let sides = Sides::create(&loose)?;
        loose.reserve()?;
        let writer = Self {
            loose,
            head,
            caps,
            events,
            sides,
            tgz: Some(tgz),
            line: Vec::with_capacity(MAX_LINE_BYTES),
            bulk_bytes: 0,
            reserve_is_open: false,
            capped: Capped { bulk: MAX_LINE > bulk_share(caps.max_bytes), all: false },
            tracking: TrackingReport::default(),
            services: ServicesReport::default(),
            newest_boot_ns: 0,
            max_disorder_ns: 0,
        };
        writer.write_partial(None)?;
        Ok(writer)
    }

    /// Directory of the loose files.
    pub fn dir(&self) -> &Path {
        self.loose.dir()
    }

    /// The `seq` that the next event gets.
    pub fn next_seq(&self) -> u64 {
        self.events.lines() + 1
    }

    /// Lines of `events.jsonl`, those still on their way to the disk included; after an error only those on disk.
    pub fn written(&self) -> u64 {
        self.events.lines()
    }

    /// The same by event type; a type without a line is absent.
    pub fn written_by_type(&self) -> BTreeMap<EventKind, u64> {
        self.events.by_tag().clone()
    }

    /// Length of `events.jsonl`, bytes.
    pub fn bytes(&self) -> u64 {
        self.events.bytes()
    }

    /// How far an event's `boot_ns` stepped back behind an earlier line's, at most, ns; those that waited left out.
    pub fn max_disorder_ns(&self) -> u64 {
        self.max_disorder_ns
    }

    /// Replaces what is known of the capture, for the partial manifest from the next checkpoint on.
    pub fn set_head(&mut self, head: Head) {
        self.head = head;
    }

    /// To be called when no rare event can come any more: from here on UDP may take all that the byte cap has left.
    pub const fn open_reserve(&mut self) {
        self.reserve_is_open = true;
        self.capped.bulk = false;
    }

    /// Writes an event as the next line and sets its `seq`. An event that is refused keeps `seq` 0.
    ///
    /// # Errors
    /// If the disk fails. Whether this event was written is then for [`BundleWriter::written_by_type`] to say.
    pub fn push(&mut self, event: &mut Event) -> Result<Pushed, WriteError> {
        let outcome = self.push_waited(event)?;
        if outcome == Pushed::Written {
            self.max_disorder_ns = self.max_disorder_ns.max(self.newest_boot_ns.saturating_sub(event.boot_ns));
            self.newest_boot_ns = self.newest_boot_ns.max(event.boot_ns);
        }
        Ok(outcome)
    }

    /// The same for an event that was held back on purpose, so that its place is no sign of disorder.
    ///
    /// # Errors
    /// As [`BundleWriter::push`].
    pub fn push_waited(&mut self, event: &mut Event) -> Result<Pushed, WriteError> {
        let kind = event.payload.kind();
        if self.capped.all || (self.capped.bulk && kind.is_bulk()) {
            return Ok(Pushed::ByteCap);
        }
        event.seq = self.next_seq();
        self.line.clear();
        write_event(&mut self.line, event);
        let refused = if self.line.len() > MAX_LINE_BYTES {
            Some(Pushed::TooLong)
        } else {
            self.line.push(b'\n');
            self.over_cap().then_some(Pushed::ByteCap)
        };
        if let Some(refused) = refused {
            event.seq = 0;
            return Ok(refused);
        }
        let outcome = self.append(kind);
        self.or_give_up(outcome)?;
        if kind.is_bulk() {
            self.count_bulk();
        }
        Ok(Pushed::Written)
    }

    /// The line of the event that was written last, with its newline.
    pub fn line(&self) -> &[u8] {
        &self.line
    }

    /// Latches the cap if the line in hand would exceed it.
    fn over_cap(&mut self) -> bool {
        self.capped.all = self.events.bytes() + self.line.len() as u64 > self.caps.max_bytes;
        self.capped.all
    }

    /// UDP's share ends where its longest line might not fit, so that it is known before the next one is made.
    fn count_bulk(&mut self) {
        self.bulk_bytes += self.line.len() as u64;
        self.capped.bulk = !self.reserve_is_open && self.bulk_bytes + MAX_LINE > bulk_share(self.caps.max_bytes);
    }

    /// What the byte cap refuses from now on.
    pub const fn capped(&self) -> Capped {
        self.capped
    }

    fn append(&mut self, kind: EventKind) -> Result<(), WriteError> {
        let Some(tgz) = &mut self.tgz else { return Err(WriteError::GivenUp) };
        let journal = self.events.push(&self.line, kind);
        journal.map_err(|e| WriteError::at(&self.loose.path("events.jsonl"), e))?;
        tgz.line(&self.line)
    }

    /// Brings every line so far into its file.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn flush(&mut self) -> Result<(), WriteError> {
        let outcome = self.flush_files();
        self.or_give_up(outcome)
    }

    /// The same, and rewrites `manifest.partial.json`; to be called each second.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn checkpoint(&mut self, checkpoint: Checkpoint) -> Result<(), WriteError> {
        let outcome = self.flush_files().and_then(|()| self.write_partial(Some(checkpoint)));
        self.or_give_up(outcome)
    }

    fn flush_files(&mut self) -> Result<(), WriteError> {
        self.events.flush().map_err(|e| WriteError::at(&self.loose.path("events.jsonl"), e))?;
        self.sides.flush(&self.loose)?;
        self.tgz.as_mut().map_or(Ok(()), Tgz::flush)
    }

    fn write_partial(&self, checkpoint: Option<Checkpoint>) -> Result<(), WriteError> {
        let partial = PartialManifest { head: self.head.clone(), checkpoint };
        self.loose.replace("manifest.partial.json", &document(&partial)?, false)
    }

    /// On an error: the tgz goes, which gives its space back, and the journals keep what they can.
    fn or_give_up<T>(&mut self, outcome: Result<T, WriteError>) -> Result<T, WriteError> {
        if outcome.is_err() {
            self.give_up();
        }
        outcome
    }

    fn give_up(&mut self) {
        if let Some(tgz) = self.tgz.take() {
            tgz.remove();
        }
        self.events.settle();
        self.sides.settle();
    }

    /// Takes what `conntrack.json` and `services.json` will say; without it they say that nothing was looked at.
    pub fn set_tracking(&mut self, tracking: TrackingReport, services: ServicesReport) {
        (self.tracking, self.services) = (tracking, services);
    }

    /// Completes the bundle: README, summary and manifest, first loose, then in the tgz, which gets its name
    /// last. The manifest's members are filled in here; its ledger must say what [`BundleWriter::written`] says.
    ///
    /// # Errors
    /// If the disk fails; there is no tgz then, and the loose files are as complete as the space allows. Call
    /// [`BundleWriter::flush`] just before, so that a full disk shows while `abandon` is still possible.
    pub fn seal(mut self, mut manifest: Manifest, summary: &Summary) -> Result<Sealed, WriteError> {
        let outcome = self.flush_files().and_then(|()| self.seal_loose(&mut manifest, summary));
        if outcome.is_err() {
            self.give_up();
            self.seal_loose(&mut manifest, summary)?;
        }
        outcome?;
        let sealed = Sealed { tgz: self.loose.tgz_path(), dir: self.loose.dir().to_owned() };
        let Some(tgz) = self.tgz.take() else { return Err(WriteError::GivenUp) };
        tgz.seal(&self.loose, self.events.bytes(), manifest.end_at.timestamp())?;
        Ok(sealed)
    }

    fn seal_loose(&self, manifest: &mut Manifest, summary: &Summary) -> Result<(), WriteError> {
        self.loose.release()?;
        let summary = document(summary)?;
        let readme = readme::text(manifest, self.loose.stem());
        self.loose.replace("summary.json", &summary, true)?;
        self.loose.replace("README.md", readme.as_bytes(), true)?;
        let (tracking, services) = (document(&self.tracking)?, document(&self.services)?);
        self.loose.replace("conntrack.json", &tracking, true)?;
        self.loose.replace("services.json", &services, true)?;
        manifest.members = self.journal_members();
        for (name, bytes) in [
            ("conntrack.json", tracking.len()),
            ("services.json", services.len()),
            ("README.md", readme.len()),
            ("summary.json", summary.len()),
        ] {
            let (bytes, name) = (bytes as u64, name.to_owned());
            manifest.members.push(Member { name, bytes, records: None, omitted_count: None });
        }
        self.seal_manifest(manifest)
    }

    fn journal_members(&self) -> Vec<Member> {
        let events = Member {
            name: "events.jsonl".to_owned(),
            bytes: self.events.bytes(),
            records: Some(self.events.lines()),
            omitted_count: None,
        };
        std::iter::once(events).chain(self.sides.members()).collect()
    }

    fn seal_manifest(&self, manifest: &Manifest) -> Result<(), WriteError> {
        let synced = self.events.medium().sync_all();
        synced.map_err(|e| WriteError::at(&self.loose.path("events.jsonl"), e))?;
        self.sides.sync(&self.loose)?;
        self.loose.replace("manifest.json", &document(manifest)?, true)?;
        self.loose.remove("manifest.partial.json")
    }

    /// Ends the bundle without a tgz, with this manifest (its members are filled in), and returns the
    /// directory of the loose files: `events.jsonl` ends with its last whole line.
    ///
    /// After an error the caller takes [`BundleWriter::written_by_type`] into the ledger first.
    ///
    /// # Errors
    /// If even the manifest cannot be written; what was written before stays readable.
    pub fn abandon(mut self, mut manifest: Manifest) -> Result<PathBuf, WriteError> {
        self.give_up();
        self.loose.release()?;
        manifest.members = self.journal_members();
        self.seal_manifest(&manifest)?;
        Ok(self.loose.dir().to_owned())
    }
}

fn document<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, WriteError> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    Ok(text)
}

#[cfg(test)]
#[path = "writer/tests.rs"]
mod tests;
