//! The typed records of a bundle: what one line of `events.jsonl` says, and what it shares with one of `sockets.jsonl`.
//!
//! A collector builds these from kernel bytes, the writer turns them into lines (see [`crate::line`]),
//! and the reader turns lines back into them. Nothing here knows about files, clocks or printing.
//! An unknown value is an absent value (`None`); the reason, where a user would ask, stands in [`Why`].

use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::attribution::{Attribution, Owner};
pub use crate::evidence::{Dropped, ListenOverflow, PacketDir, Reset, Stall, StallKind};
use crate::nat::Nat;
use crate::peer::Peer;
pub use crate::socket::{SocketRecord, When};
use crate::why::Why;
use crate::workload::Home;

/// Version of the line contract, written as `v` on every line.
pub const LINE_VERSION: u32 = 1;

/// Transport protocol of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    /// TCP, `sk_protocol` 6.
    Tcp,
    /// UDP, `sk_protocol` 17 on a datagram socket.
    Udp,
}

impl Proto {
    /// The name as it stands in a bundle.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// The part that a socket plays in its connection; the same for the socket's whole life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It connected, or (UDP) its first operation was a send.
    Client,
    /// It was accepted, or (UDP) its first operation was a receive.
    Server,
    /// It is in `LISTEN`.
    Listener,
}

impl Role {
    /// The name as it stands in a bundle.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Listener => "listener",
        }
    }
}

/// One end of a socket. Both parts can be unknown, and are then absent from the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Endpoint {
    /// Address; a v4-mapped v6 address is already shown as v4. `None`: wildcard bind, or not known.
    pub addr: Option<IpAddr>,
    /// Port in host byte order. `None`: not chosen yet, or not known. Never 0.
    pub port: Option<u16>,
}

impl Endpoint {
    /// An end of which both parts are known.
    pub const fn new(addr: IpAddr, port: u16) -> Self {
        Self { addr: Some(addr), port: Some(port) }
    }
}

/// `addr:port`, `[addr]:port`, `*:port` without an address, `*` without both.
impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.addr, self.port) {
            (Some(IpAddr::V6(a)), Some(p)) => write!(f, "[{a}]:{p}"),
            (Some(IpAddr::V6(a)), None) => write!(f, "[{a}]"),
            (Some(IpAddr::V4(a)), Some(p)) => write!(f, "{a}:{p}"),
            (Some(IpAddr::V4(a)), None) => write!(f, "{a}"),
            (None, Some(p)) => write!(f, "*:{p}"),
            (None, None) => f.write_str("*"),
        }
    }
}

/// What every record says about its socket, whoever recorded it.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    /// Node name: `--node`, else the host name.
    pub node: Arc<str>,
    /// Transport protocol.
    pub proto: Proto,
    /// The socket's own end, in both data directions.
    pub local: Endpoint,
    /// The other end.
    pub remote: Endpoint,
    /// Inode number of the **socket's** network namespace (`sk->__sk_common.skc_net.net->ns.inum`).
    pub netns: u32,
    /// Socket cookie, unique per boot (`sk->__sk_common.skc_cookie`).
    pub socket: Option<u64>,
    /// Part that the socket plays, when known.
    pub role: Option<Role>,
    /// The process behind the socket and how it was found, or why it is not known.
    pub owner: Attribution<Owner>,
    /// What the owner belongs to, or why that is not known.
    pub home: Attribution<Home>,
    /// Who is at the other end, if this node knows.
    pub peer: Option<Arc<Peer>>,
    /// What connection tracking says of its flow, as far as it was known by then.
    pub nat: Option<Arc<Nat>>,
    /// Reasons for absent keys.
    pub why: Why,
}

/// One event: one line of `events.jsonl`.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Line number in `events.jsonl`, from 1. 0 until the writer has placed it.
    pub seq: u64,
    /// UTC of `boot_ns` by the capture's clock samples.
    pub at: DateTime<Utc>,
    /// `CLOCK_BOOTTIME` in nanoseconds when the kernel did it.
    pub boot_ns: u64,
    /// CPU the hook ran on.
    pub cpu: u32,
    /// The socket and its owner.
    pub id: Identity,
    /// What happened.
    pub payload: Payload,
}

/// What happened, by event type.
#[derive(Debug, Clone, PartialEq)]
pub enum Payload {
    /// A TCP socket changed state.
    TcpState(TcpStateChange),
    /// A datagram was handed to the kernel, or could not be.
    UdpSend(Datagram),
    /// A datagram was read by its receiver.
    UdpRecv(Datagram),
    /// A `connect(2)` on a TCP socket returned.
    Connect(Connect),
    /// A TCP segment was sent again.
    TcpRetransmit(Retransmit),
    /// A connection was reset, or one that nobody has.
    TcpReset(Reset),
    /// A TCP connection had data to move and could not.
    TcpStall(Stall),
    /// A listener turned connections away.
    ListenOverflow(ListenOverflow),
    /// The kernel threw packets away.
    Drop(Dropped),
}

impl Payload {
    /// The `type` key of the line.
    pub const fn kind(&self) -> EventKind {
        match self {
            Self::TcpState(_) => EventKind::TcpState,
            Self::UdpSend(_) => EventKind::UdpSend,
            Self::UdpRecv(_) => EventKind::UdpRecv,
            Self::Connect(_) => EventKind::Connect,
            Self::TcpRetransmit(_) => EventKind::TcpRetransmit,
            Self::TcpReset(_) => EventKind::TcpReset,
            Self::TcpStall(_) => EventKind::TcpStall,
            Self::ListenOverflow(_) => EventKind::ListenOverflow,
            Self::Drop(_) => EventKind::Drop,
        }
    }
}

/// Event types of contract version 1 that this crate reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// See [`Payload::TcpState`].
    TcpState,
    /// See [`Payload::UdpSend`].
    UdpSend,
    /// See [`Payload::UdpRecv`].
    UdpRecv,
    /// See [`Payload::Connect`].
    Connect,
    /// See [`Payload::TcpRetransmit`].
    TcpRetransmit,
    /// See [`Payload::TcpReset`].
    TcpReset,
    /// See [`Payload::TcpStall`].
    TcpStall,
    /// See [`Payload::ListenOverflow`].
    ListenOverflow,
    /// See [`Payload::Drop`].
    Drop,
}

impl EventKind {
    /// Every kind, in the order of the contract.
    pub const ALL: [Self; 9] = [
        Self::TcpState,
        Self::UdpSend,
        Self::UdpRecv,
        Self::Connect,
        Self::TcpRetransmit,
        Self::TcpReset,
        Self::TcpStall,
        Self::ListenOverflow,
        Self::Drop,
    ];

    /// Whether it is one of the many: datagrams, which may take [`bulk_share`] of a cap, so that a flood of them
    /// leaves room for what is rarer.
    pub const fn is_bulk(self) -> bool {
        matches!(self, Self::UdpSend | Self::UdpRecv)
    }

    /// The name as it stands in a bundle.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TcpState => "tcp_state",
            Self::UdpSend => "udp_send",
            Self::UdpRecv => "udp_recv",
            Self::Connect => "connect",
            Self::TcpRetransmit => "tcp_retransmit",
            Self::TcpReset => "tcp_reset",
            Self::TcpStall => "tcp_stall",
            Self::ListenOverflow => "listen_overflow",
            Self::Drop => "drop",
        }
    }
}

/// What of a cap on events or bytes UDP may take: three quarters.
pub const fn bulk_share(cap: u64) -> u64 {
    cap - cap / 4
}

/// Longest list of UDP events that wait for what rare events leave of their quarter: about 2 MiB of memory.
pub const MAX_SPARE: u64 = 4096;

/// How many UDP events beyond [`bulk_share`] a capture with this cap on events holds until its window has closed.
pub const fn bulk_spare(cap: u64) -> u64 {
    if cap / 4 < MAX_SPARE { cap / 4 } else { MAX_SPARE }
}

/// A state change of a TCP socket (`inet_sock_set_state`).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TcpStateChange {
    /// State before.
    pub old: crate::tcp::TcpState,
    /// State after.
    pub new: crate::tcp::TcpState,
    /// `SYN_SENT` to `ESTABLISHED`, in ns; present on a client's entry into `ESTABLISHED`.
    pub handshake_ns: Option<u64>,
    /// SYNs sent again before the handshake completed; present with `handshake_ns`.
    pub syn_retrans_count: Option<u64>,
    /// Present when `new` is `CLOSE`.
    pub close: Option<TcpClose>,
}

/// The account of a TCP socket as it enters `CLOSE`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TcpClose {
    /// From the socket's first state change to this one, in ns; `None` if it is older than the capture.
    pub duration_ns: Option<u64>,
    /// Payload bytes sent, without retransmits (`bytes_sent - bytes_retrans`).
    pub tx_bytes: Option<u64>,
    /// Payload bytes received in order (`bytes_received`, less the FIN).
    pub rx_bytes: Option<u64>,
    /// Segments sent, of every kind (`segs_out`).
    pub tx_segs_count: Option<u64>,
    /// Segments received, of every kind (`segs_in`).
    pub rx_segs_count: Option<u64>,
    /// Segments sent again, SYNs included (`total_retrans`).
    pub retrans_count: Option<u64>,
    /// Smoothed round trip time in µs (`srtt_us >> 3`); `None` if never sampled.
    pub srtt_us: Option<u64>,
    /// Lowest round trip time of the kernel's window in µs (`rtt_min`); `None` if never sampled.
    pub min_rtt_us: Option<u64>,
    /// `sk_err`, or the soft error seen on the way.
    pub error: Option<Errno>,
    /// `error` is `sk_err_soft`: seen on the way (ICMP), not the reason that the kernel gave the owner.
    pub soft_error: bool,
    /// The state was handed over to a `TIME_WAIT` mini-socket.
    pub time_wait: bool,
    /// The owner gave up connecting: no error, left from `SYN_SENT`; ns since the first SYN.
    pub gave_up_after_ns: Option<u64>,
}

/// A UDP send or receive.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Datagram {
    /// UDP payload length; `None` when the operation failed.
    pub bytes: Option<u64>,
    /// Why the operation failed.
    pub error: Option<Errno>,
    /// Query sent to reply **read**, in ns (it includes the reader's own delay); only on a receive where
    /// exactly one query was outstanding on this socket and server.
    pub dns_rtt_ns: Option<u64>,
    /// `seq` of the query that `dns_rtt_ns` counts from.
    pub query_seq: Option<u64>,
    /// More than one query was outstanding, so which one this answers is not known.
    pub ambiguous: bool,
    /// Came after its query had been counted as unanswered.
    pub late: bool,
    /// Came when no query was outstanding.
    pub duplicate: bool,
    /// N, where this line stands for 1 in N flows; `None` without `--sample`.
    pub sample: Option<u64>,
    /// Of a send: address passed to it, or to `connect(2)` before, where the datagram went elsewhere (socket-level load
    /// balancing).
    pub asked: Option<Endpoint>,
}

/// A `connect(2)` on a TCP socket, as it returned.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Connect {
    /// Time inside the system call, in ns; includes time blocked.
    pub syscall_ns: u64,
    /// What it returned; `None` is success.
    pub error: Option<Errno>,
    /// The socket is `O_NONBLOCK`, so that `syscall_ns` says nothing about the handshake.
    pub nonblocking: bool,
    /// Address passed to the call, where it is not the socket's remote end (socket-level load balancing).
    pub asked: Option<Endpoint>,
}

/// What kind of segment was sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RetransmitKind {
    /// A data or FIN segment.
    Data,
    /// A SYN, by the client.
    Syn,
    /// A SYN-ACK, by the server.
    Synack,
    /// A tail loss probe (RFC 8985).
    Probe,
}

impl RetransmitKind {
    /// The name as it stands in a bundle.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Syn => "syn",
            Self::Synack => "synack",
            Self::Probe => "probe",
        }
    }
}

/// A TCP retransmit (`tcp_retransmit_skb`, `tcp_retransmit_synack`).
#[derive(Debug, Clone, PartialEq)]
pub struct Retransmit {
    /// What was sent again.
    pub kind: RetransmitKind,
    /// State of the socket at that moment; a SYN-ACK's is `SYN_RECV`.
    pub state: crate::tcp::TcpState,
    /// Retransmits of this socket so far, this one included.
    pub retrans_count: Option<u64>,
    /// Segments sent by this socket so far (`segs_out`).
    pub tx_segs_count: Option<u64>,
    /// Smoothed round trip time in µs; `None` if never sampled.
    pub srtt_us: Option<u64>,
}

/// A kernel error number with its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Errno(pub u16);
