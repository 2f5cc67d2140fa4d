//! What one line of `sockets.jsonl` says: a socket that existed when the window opened, or when it closed. Beside
//! [`crate::event`], with which it shares who the socket is and whose.

use chrono::{DateTime, Utc};

use crate::event::Identity;

/// When a socket record was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// Just before the window opened.
    Start,
    /// Just after the window closed.
    End,
}

impl When {
    /// The name as it stands in a bundle.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::End => "end",
        }
    }
}

/// A socket that existed at the start or the end of the window: one line of `sockets.jsonl`.
#[derive(Debug, Clone, PartialEq)]
pub struct SocketRecord {
    /// UTC of `boot_ns`.
    pub at: DateTime<Utc>,
    /// `CLOCK_BOOTTIME` in nanoseconds when it was read.
    pub boot_ns: u64,
    /// Start or end of the window.
    pub when: When,
    /// The socket and its owner.
    pub id: Identity,
    /// TCP state; `None` for UDP.
    pub state: Option<crate::tcp::TcpState>,
    /// Bytes received and not yet read; for a listener see `accept_queue`. UDP: memory that waiting datagrams take.
    pub rx_queue_bytes: Option<u64>,
    /// Bytes written and not yet acknowledged. UDP: memory of datagrams not yet sent.
    pub tx_queue_bytes: Option<u64>,
    /// Age in ns, for sockets whose birth the capture saw.
    pub age_ns: Option<u64>,
    /// Accept queue limit of a listener (`sk_max_ack_backlog`).
    pub backlog: Option<u64>,
    /// Connections waiting to be accepted (`sk_ack_backlog`).
    pub accept_queue: Option<u64>,
    /// Payload bytes sent so far, without retransmits.
    pub tx_bytes: Option<u64>,
    /// Payload bytes received so far.
    pub rx_bytes: Option<u64>,
    /// Segments sent so far.
    pub tx_segs_count: Option<u64>,
    /// Segments sent again so far.
    pub retrans_count: Option<u64>,
    /// Smoothed round trip time in µs.
    pub srtt_us: Option<u64>,
}
