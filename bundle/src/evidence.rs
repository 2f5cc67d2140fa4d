//! Events that tell why a connection does not work: resets, stalls, listeners without room, packets that the kernel threw
//! away. Between [`crate::event`], which has them as payloads, and [`crate::line`]; as there, an unknown value is absent.

use std::sync::Arc;

use crate::event::Errno;
use crate::tcp::TcpState;

/// Which way a segment or a packet was going.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PacketDir {
    /// From a socket of this node; `tuple` begins with where it came from.
    Sent,
    /// To an address of this node; `tuple` begins with where it was going to.
    Received,
    /// Through this node, or it is not known to whom; `tuple` begins with where it came from.
    Forwarded,
}

impl PacketDir {
    /// The name as it stands in a bundle.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Received => "received",
            Self::Forwarded => "forwarded",
        }
    }
}

/// A TCP reset (`tcp_send_reset`, `tcp_receive_reset`).
#[derive(Debug, Clone, PartialEq)]
pub struct Reset {
    /// `Sent` or `Received`.
    pub dir: PacketDir,
    /// State of the socket at that moment; `None` of a reset that answers a segment for which there is no socket.
    pub state: Option<TcpState>,
    /// Why it was sent: name in the running kernel's `enum sk_rst_reason`, without `SK_RST_REASON_` (Linux 6.10); absent of a
    /// received one, which does not say.
    pub reason: Option<Arc<str>>,
    /// Its number in that kernel.
    pub reason_id: Option<u32>,
}

/// What a TCP connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StallKind {
    /// For the peer to read: its receive window has no room for what is to be sent next.
    ZeroWindow,
    /// For its own send buffer, which was full while the network could have taken more.
    SendBuffer,
    /// For its own process to read: what has arrived fills the window that was told to the peer.
    ReceiveBuffer,
    /// For the network to carry what is sent again and again: it has said that the peer cannot be reached (`sk_err_soft`).
    Unreachable,
}

impl StallKind {
    /// The name as it stands in a bundle.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ZeroWindow => "zero_window",
            Self::SendBuffer => "send_buffer",
            Self::ReceiveBuffer => "receive_buffer",
            Self::Unreachable => "unreachable",
        }
    }
}

/// Time in which a TCP connection had data and could not move it, told at most once a second and kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Stall {
    /// What it waited for.
    pub kind: StallKind,
    /// How long, in ns, since the connection's last event of this kind; as exact as the kernel's tick
    /// (`tcp_sock.chrono_stat`), of `ReceiveBuffer` and `Unreachable` as the second in which it is looked at.
    pub duration_ns: u64,
    /// Bytes that wait: not yet sent or acknowledged, of `ReceiveBuffer` not yet read.
    pub queued_bytes: Option<u64>,
    /// Of `Unreachable`: what the network's message (ICMP) stands for.
    pub error: Option<Errno>,
}

/// A listener without room, told once a second.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenOverflow {
    /// Connections that waited to be accepted when it was looked at (`sk_ack_backlog`).
    pub accept_queue: Option<u64>,
    /// How many may (`sk_max_ack_backlog`).
    pub backlog: Option<u64>,
    /// SYNs, and last segments of handshakes, that it threw away since it was looked at before (`sk_drops`).
    pub count: u64,
}

/// Packets of one flow that the kernel threw away in one second for one reason at one place (`kfree_skb`).
#[derive(Debug, Clone, PartialEq)]
pub struct Dropped {
    /// Which way they were going.
    pub dir: PacketDir,
    /// Why: name in the running kernel's `enum skb_drop_reason`, without `SKB_DROP_REASON_` (Linux 5.17).
    pub reason: Option<Arc<str>>,
    /// Its number in that kernel; another one has another number for the same.
    pub reason_id: Option<u32>,
    /// Function of the kernel that threw them away.
    pub symbol: Option<Arc<str>>,
    /// Interface that they were at.
    pub dev: Option<Arc<str>>,
    /// Packets, at least 1; a packet can stand for several segments that were put together (GRO, GSO).
    pub count: u64,
    /// Their length in bytes, headers included as far as they were on them.
    pub bytes: Option<u64>,
    /// `CLOCK_BOOTTIME` of the first, ns; the event's own is that of the last.
    pub first_boot_ns: Option<u64>,
}
