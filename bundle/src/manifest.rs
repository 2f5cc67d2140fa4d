//! The manifest: what was asked, what could be seen, and what became of every event.

mod schema;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::audit::{AuditEntry, Audited};
use crate::ledger::Ledger;

pub use schema::{SCHEMA_NAME, SCHEMA_VERSION, Schema};

/// The program that wrote the bundle.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Collector {
    /// Release version.
    pub version: String,
    /// Source commit; absent when built from a tarball.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Target triple.
    pub target: String,
}

/// Where the value of a plan entry came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlanSource {
    /// Command line.
    Flag,
    /// `KTRACE_*`.
    Env,
    /// `--config`.
    File,
    /// `--profile`.
    Profile,
    /// Built in.
    Default,
    /// NAT rules of the node, as they were when the capture began.
    Nat,
}

/// One value of the effective plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanEntry {
    /// The validated value.
    pub value: serde_json::Value,
    /// Where it came from.
    pub from: PlanSource,
}

/// One reading of both clocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockSample {
    /// `CLOCK_BOOTTIME`, ns.
    pub boot_ns: u64,
    /// `CLOCK_REALTIME` at the same moment.
    pub utc: DateTime<Utc>,
}

/// How `boot_ns` maps to UTC.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Clocks {
    /// Window opened.
    pub start_boot_ns: u64,
    /// Window closed; absent in a partial manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_boot_ns: Option<u64>,
    /// Readings: the first at start, both sides of each step, the last at the end.
    #[serde(default)]
    pub samples: Vec<ClockSample>,
    /// How far UTC moved against boot time between two readings in a row, at most, ns.
    #[serde(default)]
    pub max_step_ns: u64,
    /// How often it moved so far that the clock was stepped; absent where nobody counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_count: Option<u64>,
    /// Whether the kernel says that the clock is synchronized (`adjtimex`); absent if it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synchronized: Option<bool>,
}

/// The machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Host {
    /// `uname -r`.
    pub kernel: String,
    /// `uname -m`.
    pub arch: String,
    /// `/proc/sys/kernel/random/boot_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// BTF that the programs were relocated against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub btf: Option<String>,
}

/// What became of a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookOutcome {
    /// It saw what it is for, within its `limits`.
    Attached,
    /// The plan did not ask for it.
    NotRequested,
    /// This kernel has none of its variants.
    Unsupported,
    /// It should have worked and did not.
    Failed,
}

/// A variant that was passed over, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriedVariant {
    /// Variant name.
    pub variant: String,
    /// Why it was not used.
    pub why: String,
    /// The program of it that the kernel refused, although it seemed to offer all that it needs; absent where the
    /// variant was passed over without being tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
}

/// A BPF program of a hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramReport {
    /// Name in the collector's BPF object.
    pub name: String,
    /// Instructions that the kernel's verifier went through to accept it; absent before Linux 5.16, which does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_insns: Option<u32>,
    /// How often the kernel skipped it while the window was open; absent until that has closed, and for probes and
    /// classic tracepoints before Linux 6.7, which skips them uncounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<u64>,
}

/// Coverage of one hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookReport {
    /// Hook name: `tcp_state`, `udp`, `connect`, `tcp_retransmit`, `sockets`.
    pub name: String,
    /// What became of it.
    pub outcome: HookOutcome,
    /// Variant in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Variants passed over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<TriedVariant>,
    /// Its programs; absent where it is not attached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub programs: Vec<ProgramReport>,
    /// From the first attach of the capture to this hook's, ns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached_after_ns: Option<u64>,
    /// What this variant cannot see, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<String>,
}

/// Whether an optional source of annotations answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceReport {
    /// Source name.
    pub name: String,
    /// What came of the last question: `answered`, `absent`, `failed`, or `not_asked`: there was no need.
    pub outcome: String,
    /// Where it was asked: path of a socket or a directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// What it calls itself, with its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The slowest answer, us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_us: Option<u64>,
    /// How much it knows at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<u64>,
    /// How often it failed to answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<u64>,
    /// Why it failed the last time that it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How often it told by itself, unasked, that a container begins or has ended; absent where it has no stream of events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notices: Option<u64>,
    /// How much of it was forgotten because a table was full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evicted: Option<u64>,
}

/// Why the window closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndedBy {
    /// `--duration` was over.
    Deadline,
    /// SIGINT or SIGTERM.
    Signal,
    /// `--max-events`.
    MaxEvents,
    /// `--max-bytes`.
    MaxBytes,
    /// The command that it ran has ended.
    Command,
    /// Nobody reads the events of `--stdout` any more.
    ClosedPipe,
    /// Who read along had seen enough: `ktrace doctor`.
    Evidence,
    /// No space left.
    DiskFull,
    /// Anything else; the reason stands in `degraded`.
    Error,
}

/// How long `events.jsonl` may get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByteBound {
    /// Bytes.
    pub bytes: u64,
    /// Flag that says so: `max-bytes` or `max-disk-share`, whichever is smaller.
    pub by: String,
    /// Size of the volume that the bundle is on, bytes; absent if it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_bytes: Option<u64>,
}

/// Text of a command in the manifest at most, bytes; later arguments are counted only.
pub const MAX_ARGV_BYTES: usize = 4096;

/// The command that ran while the window was open.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CommandReport {
    /// The command and its arguments as they were given, [`MAX_ARGV_BYTES`] at most.
    pub argv: Vec<String>,
    /// Arguments that did not fit; absent if all did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub omitted_count: Option<u64>,
    /// Process id as the collector saw it; absent if it could not be started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Its exit code, 128 + n if signal n ended it; absent if it still ran when the bundle was sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
}

/// What became of the lines of `--stdout`. The bundle has all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StdoutReport {
    /// Lines that were handed over, those included that the reader had not taken yet when the bundle was sealed.
    pub written_count: u64,
    /// Lines that were left out because the reader was too slow.
    pub omitted_count: u64,
}

/// What the capture itself cost.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cost {
    /// CPU time of the collector, user and system, ns.
    pub cpu_ns: u64,
    /// Peak resident set of the collector alone, whatever the program that started it used, bytes.
    pub peak_rss_bytes: u64,
    /// The longest that events waited in the rings because the collector was busy with something, ns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest_stall_ns: Option<u64>,
}

/// A member of the bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// File name inside the bundle.
    pub name: String,
    /// Length, bytes.
    pub bytes: u64,
    /// Lines of a `.jsonl` member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<u64>,
    /// Records that its own bound left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub omitted_count: Option<u64>,
}

/// The part that is known before the first event: `manifest.partial.json` holds it with the newest
/// [`Checkpoint`], so that a crashed run can still say what could have been seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// Bundle schema.
    pub schema: Schema,
    /// Random id of this capture, 32 hex digits.
    pub capture_id: String,
    /// Who wrote it.
    pub collector: Collector,
    /// Node name.
    pub node: String,
    /// `--cluster`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// `--label`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// UTC at which the window opened.
    pub start_at: DateTime<Utc>,
    /// Effective plan: flag name → value and origin.
    pub plan: BTreeMap<String, PlanEntry>,
    /// Clock mapping.
    pub clocks: Clocks,
    /// The machine.
    pub host: Host,
    /// Coverage by hook.
    pub hooks: Vec<HookReport>,
    /// Coverage by source.
    #[serde(default)]
    pub sources: Vec<SourceReport>,
    /// Bound of `events.jsonl`; absent in bundles of collectors that knew only `max-bytes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub byte_bound: Option<ByteBound>,
    /// The command that the capture ran, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandReport>,
}

/// State of a running capture, rewritten each second.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// When it was taken.
    pub at: DateTime<Utc>,
    /// `CLOCK_BOOTTIME` of that moment, ns.
    pub boot_ns: u64,
    /// Ledger at that moment. Events still in the ring, or that wait, make it unbalanced by their number.
    pub ledger: Ledger,
}

/// `manifest.partial.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PartialManifest {
    /// What was known at the start.
    #[serde(flatten)]
    pub head: Head,
    /// Newest checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,
}

/// `manifest.json`: written last, when the bundle is sealed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// What was known at the start; `clocks` are complete now.
    #[serde(flatten)]
    pub head: Head,
    /// UTC at which the window closed.
    pub end_at: DateTime<Utc>,
    /// Length of the window, ns of boot time.
    pub duration_ns: u64,
    /// Why it closed.
    pub ended_by: EndedBy,
    /// All that was asked for was recorded; a cap that the user set counts as asked.
    pub complete: bool,
    /// Why it is not complete, one sentence each.
    #[serde(default)]
    pub degraded: Vec<String>,
    /// What came otherwise than by default and yet as asked, one sentence each: an early end, a cap that was reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Where every event went.
    pub ledger: Ledger,
    /// Lines on stdout; absent without `--stdout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<StdoutReport>,
    /// The kernel's own counters against what the hooks saw.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audit: Vec<AuditEntry>,
    /// What that covers; absent where there was no audit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audited: Option<Audited>,
    /// What it cost.
    pub cost: Cost,
    /// The other members.
    pub members: Vec<Member>,
}
