//! `summary.json`: what a person or a small program wants to know first, in at most 64 KiB.
//!
//! The types only; [`crate::totals`] fills them from the records of a running capture. Every list has at
//! most [`MAX_ROWS`] rows, and `omitted_count` says how many more there were. What this version does not
//! measure has no key here, and a sentence in `not_measured`.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::event::{EventKind, Proto};
use crate::ledger::Ledger;
use crate::manifest::Schema;
use crate::tcp::TcpState;

/// Name of the summary's schema.
pub const SUMMARY_SCHEMA: &str = "ktrace-summary";

/// Longest list of a summary, rows.
pub const MAX_ROWS: usize = 20;

/// `summary.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// [`SUMMARY_SCHEMA`] and its version.
    pub schema: Schema,
    /// The manifest's.
    pub capture_id: String,
    /// The manifest's.
    pub node: String,
    /// The manifest's.
    pub start_at: DateTime<Utc>,
    /// The manifest's.
    pub end_at: DateTime<Utc>,
    /// The manifest's, ns.
    pub duration_ns: u64,
    /// The manifest's.
    pub complete: bool,
    /// The manifest's.
    #[serde(default)]
    pub degraded: Vec<String>,
    /// Lines of `events.jsonl` by type; a type without a line is absent.
    #[serde(default)]
    pub events: BTreeMap<EventKind, u64>,
    /// All events that were seen, lines or not, by type; a type without any is absent.
    #[serde(default)]
    pub totals: BTreeMap<EventKind, TypeTotal>,
    /// The manifest's.
    pub ledger: Ledger,
    /// Who moved the most bytes.
    #[serde(default)]
    pub top_talkers: TopTalkers,
    /// Sockets by state.
    #[serde(default)]
    pub tcp_states: TcpStates,
    /// DNS over UDP, as seen by the clients of this node.
    #[serde(default)]
    pub dns: DnsSummary,
    /// Clients with unanswered queries, most unanswered first.
    #[serde(default)]
    pub dns_suspects: Vec<DnsSuspect>,
    /// TCP connection attempts.
    #[serde(default)]
    pub connect: ConnectSummary,
    /// TCP segments that were sent again.
    #[serde(default)]
    pub retransmits: RetransmitTables,
    /// Sockets in `CLOSE_WAIT` when the window closed, by owner and flow.
    #[serde(default)]
    pub close_wait: Vec<CloseWaitRow>,
    /// Sums over the datagrams that `--sample` let pass, and what they stand for; absent without sampling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling: Option<SamplingSummary>,
    /// What nobody may conclude from this bundle, one sentence each.
    #[serde(default)]
    pub not_measured: Vec<String>,
    /// Rows left out, by the name of their list (`top_talkers.by_flow`); every list is named, also with 0.
    #[serde(default)]
    pub omitted_count: BTreeMap<String, u64>,
}

/// UDP under `--sample`. The totals by type, process and flow are exact all the same; these are what lines alone tell.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SamplingSummary {
    /// N: each flow was recorded with the probability 1/N.
    pub one_in: u64,
    /// Flows in the sample.
    pub flow_count: u64,
    /// There were more flows than could be told apart, so the errors are too small.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub error_incomplete: bool,
    /// Sends.
    pub udp_send: Estimate,
    /// Receives.
    pub udp_recv: Estimate,
    /// Payload bytes sent.
    pub tx_bytes: Estimate,
    /// Payload bytes received.
    pub rx_bytes: Estimate,
}

/// A sum over sampled flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Estimate {
    /// Over the sampled flows.
    pub measured: u64,
    /// Over all flows: N times that.
    pub estimated: u64,
    /// Standard error of `estimated`, by how much the sampled flows differ.
    pub standard_error: u64,
}

/// Events of one type; exact whatever was written. Records that could not be decoded are left out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TypeTotal {
    /// Seen.
    pub event_count: u64,
    /// Lines of `events.jsonl`.
    pub written_count: u64,
    /// Payload bytes of the datagrams that were seen; absent where an event carries none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The same of those that are lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_bytes: Option<u64>,
}

impl TypeTotal {
    /// Adds events of which so many are lines, and their bytes: either all or none of them are.
    pub(crate) fn add(&mut self, events: u64, written: u64, bytes: Option<u64>) {
        self.event_count += events;
        self.written_count += written;
        let Some(bytes) = bytes else { return };
        let sum = self.bytes.get_or_insert(0);
        *sum = sum.saturating_add(bytes);
        let of_lines = self.written_bytes.get_or_insert(0);
        *of_lines = of_lines.saturating_add(if written > 0 { bytes } else { 0 });
    }
}

/// The tables of talkers, most bytes first; `total` is the sum of the rows of either, `other` included.
///
/// Events count whether they were written or not. Bytes are payload: of a TCP connection those between the start and
/// the end of the window, of UDP the bytes of the events. A flow leaves out the port that the client's kernel chose, so that the connections
/// of one client to one server are one row.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TopTalkers {
    /// Everybody, with the key `total`.
    #[serde(default)]
    pub total: TalkerRow,
    /// By process.
    #[serde(default)]
    pub by_process: Vec<TalkerRow>,
    /// By pod; all processes of the host are one row.
    #[serde(default)]
    pub by_pod: Vec<TalkerRow>,
    /// By flow.
    #[serde(default)]
    pub by_flow: Vec<TalkerRow>,
}

/// What a row of a table is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct RowKey {
    /// `comm[pid]`, `namespace/pod`, `pod <uid>`, `host`, `tcp local -> remote`, `unattributed`, `other` for everything without a row of its own, or `total`.
    pub key: String,
    /// Process name, in a table by process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comm: Option<String>,
    /// Process id, in a table by process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Uid of the pod, in a table by pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// Protocol, in a table by flow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proto: Option<Proto>,
    /// Network namespace, in a table by flow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<u32>,
}

/// A row of [`TopTalkers`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TalkerRow {
    /// Who.
    #[serde(flatten)]
    pub key: RowKey,
    /// Payload bytes sent in the window.
    pub tx_bytes: u64,
    /// Payload bytes received in the window.
    pub rx_bytes: u64,
    /// Events seen.
    pub event_count: u64,
    /// Those of them that are lines of `events.jsonl`.
    #[serde(default)]
    pub written_count: u64,
    /// TCP: connections that were closed in the window or open at its end. UDP: sockets with an event, as far as they
    /// can be told apart: those of 65,536 that had lines, and all whose first event was counted only.
    pub connection_count: u64,
}

/// Sockets by TCP state at both ends of the window.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TcpStates {
    /// Just before the window opened.
    #[serde(default)]
    pub at_start: BTreeMap<TcpState, u64>,
    /// Just after it closed.
    #[serde(default)]
    pub at_end: BTreeMap<TcpState, u64>,
}

/// Percentiles of a duration in µs, at most 1.6 % too low; `n` is exact, and `max` unless the largest value was of an
/// event that the kernel side only counted: then it is as a percentile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Quantiles {
    /// Number of values; with 0 there are no percentiles.
    pub n: u64,
    /// Median.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50: Option<u64>,
    /// 90th percentile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p90: Option<u64>,
    /// 99th percentile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99: Option<u64>,
    /// Largest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
}

/// What became of the queries: `sent = answered + unanswered + pending + untracked`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DnsCounts {
    /// Datagrams sent to a DNS port without an error.
    pub sent: u64,
    /// Queries for which a reply was read; `late` and `ambiguous` ones are among them.
    pub answered: u64,
    /// Replies read more than 5 s after their query.
    pub late: u64,
    /// Replies of which it is not known which of several queries they answer.
    pub ambiguous: u64,
    /// Queries without a reply, sent at least 5 s before the window's end.
    pub unanswered: u64,
    /// Queries without a reply, sent less than 5 s before the window's end: no suspects.
    pub pending: u64,
    /// Queries beyond the bound of the table, or on sockets without a cookie: nothing is known about their replies.
    pub untracked: u64,
}

/// DNS totals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DnsSummary {
    /// Queries and their outcome.
    #[serde(flatten)]
    pub counts: DnsCounts,
    /// Replies that no outstanding query explains.
    pub duplicate: u64,
    /// Query sent to reply read, exact ones only.
    pub rtt_us: Quantiles,
}

/// A client whose queries to a server stayed unanswered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsSuspect {
    /// Process name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comm: Option<String>,
    /// Process id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Network namespace of the socket.
    pub netns: u32,
    /// `addr:port` that was asked.
    pub server: String,
    /// Queries and their outcome.
    #[serde(flatten)]
    pub counts: DnsCounts,
    /// First query.
    pub first_at: DateTime<Utc>,
    /// Last query.
    pub last_at: DateTime<Utc>,
}

/// TCP connection attempts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ConnectSummary {
    /// Sockets that entered `SYN_SENT`.
    pub attempts: u64,
    /// How `SYN_SENT` ended in `CLOSE`, by error.
    #[serde(default)]
    pub errors: BTreeMap<String, u64>,
    /// `SYN_SENT` left without an error: the owner gave up.
    pub gave_up: u64,
    /// What `connect(2)` returned, by error; `EINPROGRESS` is no failure.
    #[serde(default)]
    pub syscall_errors: BTreeMap<String, u64>,
    /// `SYN_SENT` to `ESTABLISHED`.
    pub handshake_us: Quantiles,
    /// Time inside blocking `connect(2)` calls that succeeded.
    pub syscall_us: Quantiles,
    /// Smoothed round trip times of connections, as of their close.
    #[serde(default)]
    pub srtt_us: Quantiles,
}

/// The two tables of retransmits, most first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RetransmitTables {
    /// By flow.
    #[serde(default)]
    pub by_flow: Vec<RetransmitRow>,
    /// By process.
    #[serde(default)]
    pub by_process: Vec<RetransmitRow>,
}

/// A row of [`RetransmitTables`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RetransmitRow {
    /// Who.
    #[serde(flatten)]
    pub key: RowKey,
    /// Segments sent again, of every kind.
    pub retrans_count: u64,
    /// Data and FIN segments among them.
    pub data_count: u64,
    /// SYNs among them.
    pub syn_count: u64,
    /// SYN-ACKs among them.
    pub synack_count: u64,
    /// Tail loss probes among them.
    pub probe_count: u64,
    /// Segments sent in the window, of connections whose counters are known.
    pub tx_segs_count: u64,
}

/// Sockets that their owner has not closed although the peer has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CloseWaitRow {
    /// Process name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comm: Option<String>,
    /// Process id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Network namespace of the sockets.
    pub netns: u32,
    /// `local -> remote`, without the port that the client's kernel chose.
    pub flow: String,
    /// Sockets in `CLOSE_WAIT` at the start of the window.
    pub start_count: u64,
    /// The same at its end.
    pub end_count: u64,
}
