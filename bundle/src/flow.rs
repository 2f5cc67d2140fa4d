//! `flows.jsonl`: what became of each flow, on one line.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::event::{Endpoint, LINE_VERSION, Proto, Role};
use crate::nat::{Direction, Nat, end};
use crate::tcp::TcpState;
use crate::workload::Workload;

/// Lines that `flows.jsonl` holds at most; more are counted as omitted.
pub const MAX_FLOWS: u64 = 1 << 18;

/// Who of the two ended a TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClosedBy {
    /// This end sent its FIN first.
    Local,
    /// The other end did.
    Remote,
}

/// A line of `flows.jsonl`: one socket and one remote end. A flow that falls silent and goes on has more than one line: each
/// tells of its own time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlowRecord {
    /// Version of the contract.
    pub v: u32,
    /// Transport protocol.
    pub proto: Proto,
    /// Own end and other end of the socket.
    pub tuple: Direction,
    /// Inode number of the socket's network namespace, as `ns.net` of an event.
    pub netns: u32,
    /// Cookie of that namespace (`SO_NETNS_COOKIE`, Linux 5.14): unlike the inode number never used again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns_cookie: Option<u64>,
    /// Cookie of the socket, as in an event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<u64>,
    /// Part that the socket plays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Community ID v1 of `tuple`, seed 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub community_id: Option<String>,
    /// Time of its first event.
    pub first_at: DateTime<Utc>,
    /// Time of its last event.
    pub last_at: DateTime<Utc>,
    /// Records that it had; 0: this line is about the answer of connection tracking alone.
    pub event_count: u64,
    /// Name of the process that owned it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comm: Option<Arc<str>>,
    /// Its pid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Its pod, as far as that was known with its last event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub k8s: Option<Arc<Workload>>,
    /// TCP: the state after its last change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<TcpState>,
    /// TCP: whether a handshake of its was begun and completed by this end in the window; absent: no handshake was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_connected: Option<bool>,
    /// TCP: who closed first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_by: Option<ClosedBy>,
    /// Payload bytes sent. TCP: as of its close.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tx_bytes: Option<u64>,
    /// Payload bytes received. TCP: as of its close.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rx_bytes: Option<u64>,
    /// UDP: datagrams sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send_count: Option<u64>,
    /// UDP: datagrams read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recv_count: Option<u64>,
    /// TCP: segments sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retrans_count: Option<u64>,
    /// TCP: smoothed round trip time, µs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub srtt_us: Option<u64>,
    /// TCP: `SYN_SENT` to `ESTABLISHED`, ns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_ns: Option<u64>,
    /// Name of the last error number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Address that the program asked for, where a program in the kernel made the socket go elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "end")]
    pub asked: Option<Endpoint>,
    /// What connection tracking says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conntrack: Option<Arc<Nat>>,
    /// Why a key is absent, as in an event.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub why: BTreeMap<String, String>,
}

impl FlowRecord {
    /// One of which nothing else is known.
    pub fn new(proto: Proto, tuple: Direction, netns: u32, at: DateTime<Utc>) -> Self {
        Self {
            v: LINE_VERSION,
            proto,
            tuple,
            netns,
            netns_cookie: None,
            socket: None,
            role: None,
            community_id: None,
            first_at: at,
            last_at: at,
            event_count: 0,
            comm: None,
            pid: None,
            k8s: None,
            state: None,
            is_connected: None,
            closed_by: None,
            tx_bytes: None,
            rx_bytes: None,
            send_count: None,
            recv_count: None,
            retrans_count: None,
            srtt_us: None,
            handshake_ns: None,
            error: None,
            asked: None,
            conntrack: None,
            why: BTreeMap::new(),
        }
    }
}
