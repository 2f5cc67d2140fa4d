//! A bundle → records, pushed one by one; never extracts, never holds more than a line or a small document.
//!
//! Takes a `.tgz` (also one that was cut, or still grows), a bare `events.jsonl`, or a directory of loose
//! files, sealed or of a crashed run. Everything in it is a stranger's: only regular members of known names
//! are read, and members, bytes, compression ratio and line length are bounded. What is readable is
//! delivered; what is not stands in the [`ReadReport`].

mod archive;
mod batches;
mod directory;
mod documents;
mod intake;
mod known;
mod lines;
mod newest;
mod side;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use crate::coverage::LossRecord;
use crate::event::{Event, SocketRecord};
use crate::flow::FlowRecord;
use crate::manifest::{Manifest, PartialManifest};
use crate::node::NodeRecord;
use crate::process::ProcessRecord;
use crate::summary::Summary;
use crate::tracking::{ServicesReport, TrackingReport};
use crate::workload::WorkloadRecord;

pub use newest::newest_bundle;

use intake::Intake;
use known::Known;

/// One thing that a bundle says.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// A line of `events.jsonl`.
    Event(Event),
    /// A line of `sockets.jsonl`.
    Socket(SocketRecord),
    /// A line of `coverage.jsonl`.
    Loss(LossRecord),
    /// A line of `workloads.jsonl`. It comes after the events.
    Workload(WorkloadRecord),
    /// A line of `processes.jsonl`. It comes after the events.
    Process(Box<ProcessRecord>),
    /// A line of `flows.jsonl`. It comes after the events.
    Flow(Box<FlowRecord>),
    /// A line of `node/network.jsonl` or `node/host.jsonl`, of either look. It comes after the events.
    Node(Box<NodeRecord>),
    /// `conntrack.json`.
    Tracking(Box<TrackingReport>),
    /// `services.json`.
    Services(Box<ServicesReport>),
    /// `manifest.json`. A tgz holds it last, so it comes after the events; of a directory it comes first.
    Manifest(Box<Manifest>),
    /// `manifest.partial.json` of a run that was never sealed; comes before the events.
    Partial(Box<PartialManifest>),
    /// `summary.json`.
    Summary(Box<Summary>),
}

/// What a reader puts up with. The defaults fit every bundle that ktrace writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Entries of a tar, of any kind.
    pub max_members: u64,
    /// Length of one `.jsonl` member, bytes.
    pub max_member_bytes: u64,
    /// Length of `manifest.json`, `manifest.partial.json` or `summary.json`, bytes: they are held in memory.
    pub max_document_bytes: u64,
    /// Length of the whole tar, bytes.
    pub max_total_bytes: u64,
    /// Bytes that one compressed byte may become, judged from 16 MiB on.
    pub max_ratio: u64,
    /// Threads that parse events; what comes out does not depend on it.
    pub threads: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_members: 64,
            max_member_bytes: 64 << 30,
            max_document_bytes: 4 << 20,
            max_total_bytes: 65 << 30,
            max_ratio: 200,
            threads: batches::threads(),
        }
    }
}

/// What kind of thing was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A compressed tar.
    Tgz,
    /// Loose files.
    Directory,
    /// A bare `events.jsonl`: nothing says what could have been seen.
    Events,
}

/// Where a bundle ends before its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// Member in which it ends.
    pub member: String,
    /// Last whole line of that member, from 1; 0 if there is none.
    pub line: u64,
    /// What was found there.
    pub why: String,
}

/// `events.jsonl is cut after line 17: …`
impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` is cut after line {}: {}", self.member, self.line, self.why)
    }
}

/// A line that is not a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// Member that holds it.
    pub member: &'static str,
    /// Line number, from 1.
    pub line: u64,
    /// What is wrong; control characters are escaped.
    pub error: String,
}

/// How the reading went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadReport {
    /// What was read.
    pub form: Form,
    /// Events delivered.
    pub events: u64,
    /// Lines of `events.jsonl`, the bad and the unknown ones included.
    pub event_lines: u64,
    /// Socket records delivered.
    pub sockets: u64,
    /// Set when the bundle ends before its end; everything up to there was delivered.
    pub cut: Option<Cut>,
    /// Lines that are not records.
    pub bad_lines: u64,
    /// The first 10 of them.
    pub first_bad_lines: Vec<BadLine>,
    /// Lines of types that this version does not know: no fault. The first 32 types by name, the rest as `other`.
    pub unknown_types: BTreeMap<String, u64>,
    /// Keys that this version does not know: no fault.
    pub unknown_keys: u64,
    /// Members that were skipped: unknown names, links, paths that lead elsewhere.
    pub unknown_members: u64,
    /// What does not agree with what: reasons not to trust the bundle, one sentence each, at most 32.
    pub integrity: Vec<String>,
}

/// Why nothing could be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be opened.
    #[error("cannot open `{path}`")]
    Open {
        /// What was asked for.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is something else.
    #[error("`{path}` is not a ktrace bundle: {why}")]
    Foreign {
        /// What was asked for.
        path: PathBuf,
        /// What it is instead.
        why: &'static str,
    },
    /// It is of a version that this reader does not know.
    #[error("`{path}` has format version {found}, this program reads up to {known}")]
    Newer {
        /// What was asked for.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest that can be read.
        known: u32,
    },
}

/// Reads a bundle and pushes what it says into `sink`, in the order in which it stands there.
///
/// # Errors
/// [`ReadError`] if this is no bundle that can be read at all. Records may have been delivered before
/// [`ReadError::Newer`]. Damage is no error: it stands in the report.
pub fn read(path: &Path, limits: &Limits, sink: &mut dyn FnMut(Record)) -> Result<ReadReport, ReadError> {
    let open = |source| ReadError::Open { path: path.to_owned(), source };
    let meta = std::fs::metadata(path).map_err(open)?;
    if meta.is_dir() {
        return directory::read(path, Intake::new(Form::Directory, path, limits, sink));
    }
    if !meta.is_file() {
        return Err(ReadError::Foreign { path: path.to_owned(), why: "it is not a regular file" });
    }
    let mut file = File::open(path).map_err(open)?;
    let mut magic = Vec::with_capacity(2);
    file.by_ref().take(2).read_to_end(&mut magic).map_err(open)?;
    file.rewind().map_err(open)?;
    if magic == [0x1f, 0x8b] {
        return archive::read(file, limits, Intake::new(Form::Tgz, path, limits, sink));
    }
    let mut intake = Intake::new(Form::Events, path, limits, sink);
    intake.member(Known::Events, &mut BufReader::new(file), meta.len())?;
    intake.finish()
}

#[cfg(test)]
#[path = "reader/tests.rs"]
mod tests;
