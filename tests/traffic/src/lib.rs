//! The truth about a piece of traffic, as the program that made it saw it.
//!
//! `traffic` prints one [`Truth`] per line on stdout; the live tests read it back with [`Truth::parse`]
//! and hold it against what ktrace recorded. Nothing here knows about ktrace or its bundles.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// One line of a traffic program's stdout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Truth {
    /// The program listens, or its sockets are open.
    Ready(Ready),
    /// A TCP connection is over for this program, or will never be (`hold`).
    Conn(Conn),
    /// A connect ended, one way or the other.
    Connect(Connect),
    /// A datagram was sent or received, or could not be.
    Datagram(Datagram),
    /// What a program that does not print each operation did altogether.
    Total(Total),
}

/// See [`Truth::Ready`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Process id.
    pub pid: u32,
    /// Address of the first socket.
    pub local: SocketAddr,
}

/// See [`Truth::Conn`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Conn {
    /// Process that used the connection.
    pub pid: u32,
    /// Thread that used it last.
    pub tid: u32,
    /// This program's end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// Payload bytes that `write` took.
    pub tx_bytes: u64,
    /// Payload bytes that `read` gave.
    pub rx_bytes: u64,
}

/// How a connect ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The connection stands.
    Established,
    /// The kernel reported `errno`.
    Failed,
    /// The program's own timeout was over first.
    GaveUp,
}

/// See [`Truth::Connect`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connect {
    /// Process id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Own end; unknown when the kernel chose no port.
    pub local: Option<SocketAddr>,
    /// Address asked for.
    pub remote: SocketAddr,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it failed.
    pub errno: Option<i32>,
    /// Time inside `connect(2)`, ns.
    pub syscall_ns: u64,
    /// From before `connect(2)` to the outcome, ns.
    pub elapsed_ns: u64,
}

/// Direction of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dir {
    /// Handed to the kernel.
    Send,
    /// Read from the kernel.
    Recv,
}

/// See [`Truth::Datagram`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Datagram {
    /// Direction.
    pub dir: Dir,
    /// System call, or `io_uring`.
    pub call: String,
    /// Process id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Own end by `getsockname(2)`; the unspecified address for a wildcard bind.
    pub local: SocketAddr,
    /// The other end; `None` when the call does not tell.
    pub remote: Option<SocketAddr>,
    /// Payload bytes; `None` when it failed.
    pub bytes: Option<u64>,
    /// Why it failed.
    pub errno: Option<i32>,
    /// `CLOCK_BOOTTIME` before the call, ns.
    pub begin_ns: u64,
    /// `CLOCK_BOOTTIME` after the call, ns.
    pub end_ns: u64,
}

/// See [`Truth::Total`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Total {
    /// Process id.
    pub pid: u32,
    /// Successful sends.
    pub send_count: u64,
    /// Payload bytes of them.
    pub tx_bytes: u64,
    /// Successful receives; 0 for programs that only send.
    #[serde(default)]
    pub recv_count: u64,
    /// Payload bytes of them.
    #[serde(default)]
    pub rx_bytes: u64,
    /// From the first operation to the last, ns; 0 if not measured.
    #[serde(default)]
    pub elapsed_ns: u64,
}

impl Truth {
    /// Reads one line.
    ///
    /// # Errors
    /// What `serde_json` says about a line that is not a [`Truth`].
    pub fn parse(line: &str) -> serde_json::Result<Self> {
        serde_json::from_str(line)
    }
}
