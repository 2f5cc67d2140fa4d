//! What is asked of connection tracking, and what it answers.

use std::net::SocketAddr;
use std::sync::Arc;

use ktrace_bundle::event::{Endpoint, Proto};
use ktrace_bundle::nat::{Direction, Nat};
use ktrace_bundle::why::Reason;

use super::entry::{Entry, Tuple};

/// A flow as its socket sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey {
    /// Inode number of the socket's network namespace.
    pub netns: u32,
    /// The socket's cookie; 0: it has none.
    pub socket: u64,
    /// Transport protocol.
    pub proto: Proto,
    /// The other end, address and port.
    pub remote: SocketAddr,
}

/// A question: which entry is this flow's?
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// Whose.
    pub key: FlowKey,
    /// The socket's own end. Of a socket that is bound to no address only the port is known.
    pub local: Endpoint,
    /// A process in the socket's network namespace, or one that was.
    pub pid: Option<u32>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The question.
    pub ask: Ask,
    /// What the table says, or why it says nothing.
    pub outcome: Result<Arc<Nat>, Reason>,
    /// Cookie of the network namespace, where it is known.
    pub netns_cookie: Option<u64>,
}

/// The addresses that a socket writes on its packets, or answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ends {
    /// Both are known: one look-up tells.
    Both(Tuple),
    /// The own address is not known, only its port.
    Port(Proto, u16, SocketAddr),
}

impl Ask {
    /// The ends to look for; `None`: not even the own port is known.
    pub fn ends(&self) -> Option<Ends> {
        let port = self.local.port?;
        let FlowKey { proto, remote, .. } = self.key;
        Some(match self.local.addr {
            Some(addr) => Ends::Both(Tuple { proto, src: SocketAddr::new(addr, port), dst: remote }),
            None => Ends::Port(proto, port, remote),
        })
    }
}

impl Ends {
    /// Port of the own end.
    pub const fn own_port(&self) -> u16 {
        match self {
            Self::Both(tuple) => tuple.src.port(),
            Self::Port(_, port, _) => *port,
        }
    }

    /// What the packets of this direction could be of.
    pub fn of(tuple: Tuple) -> [Self; 2] {
        [Self::Both(tuple), Self::Port(tuple.proto, tuple.src.port(), tuple.dst)]
    }
}

const fn endpoint(end: SocketAddr) -> Endpoint {
    Endpoint::new(end.ip(), end.port())
}

const fn direction(tuple: Tuple) -> Direction {
    Direction { from: endpoint(tuple.src), to: endpoint(tuple.dst) }
}

/// As a bundle has it. `netns`: the namespace of the table.
pub fn nat(entry: &Entry, netns: u32) -> Nat {
    let (status, zone, mark) = (entry.status, entry.zone, entry.mark.unwrap_or(0));
    let state = entry.state().unwrap_or("NONE");
    Nat { status, zone, mark, ..Nat::new(state, direction(entry.original), direction(entry.reply), netns) }
}
