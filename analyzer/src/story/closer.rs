//! Who closed a connection first: by the path of its own states, else by the collector's word, else by the states of the socket
//! at the other end. What none of them tells is not known.

use ktrace_bundle::event::{Errno, Event, PacketDir, Payload};
use ktrace_bundle::flow::ClosedBy;
use ktrace_bundle::tcp::TcpState;

/// Who ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closer {
    /// This end.
    Local,
    /// The other end.
    Remote,
    /// Both sent their FIN before they had the other's.
    Both,
    /// Neither: the kernel gave up on it.
    Nobody,
    /// It ended, and no line tells by whom.
    Unknown,
}

impl Closer {
    /// The name as it stands in a story.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Remote => "remote",
            Self::Both => "both",
            Self::Nobody => "nobody",
            Self::Unknown => "unknown",
        }
    }

    /// The same from the other end.
    const fn mirrored(self) -> Self {
        match self {
            Self::Local => Self::Remote,
            Self::Remote => Self::Local,
            Self::Both | Self::Nobody | Self::Unknown => self,
        }
    }
}

/// Who closed first, and what tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedFirst {
    /// Who.
    pub by: Closer,
    /// By a reset, not by a FIN.
    pub is_reset: bool,
    /// What tells it, or why nothing does.
    pub why: String,
}

impl ClosedFirst {
    fn new(by: Closer, is_reset: bool, why: impl Into<String>) -> Self {
        Self { by, is_reset, why: why.into() }
    }

    /// What nobody tells, for this reason.
    pub(super) fn unknown(why: String) -> Self {
        Self::new(Closer::Unknown, false, why)
    }
}

/// By the events of this end in the order of the kernel.
pub(super) fn by_path<'a>(events: impl Iterator<Item = &'a Event> + Clone) -> Option<ClosedFirst> {
    let is_crossed = || {
        events.clone().any(
            |e| matches!(&e.payload, Payload::TcpState(c) if c.old == TcpState::Closing || c.new == TcpState::Closing),
        )
    };
    let first = events.clone().find_map(one)?;
    if first.by == Closer::Local && !first.is_reset && is_crossed() {
        return Some(ClosedFirst::new(Closer::Both, false, "CLOSING: the FINs of both crossed"));
    }
    Some(first)
}

/// What one event tells.
fn one(event: &Event) -> Option<ClosedFirst> {
    match &event.payload {
        Payload::TcpReset(reset) if reset.state.is_some_and(is_open) => Some(match reset.dir {
            PacketDir::Received => ClosedFirst::new(Closer::Remote, true, "it sent an RST"),
            PacketDir::Sent | PacketDir::Forwarded => ClosedFirst::new(Closer::Local, true, "it sent an RST"),
        }),
        Payload::TcpState(change) => {
            let close = change.close.as_ref();
            let error = close.filter(|c| !c.soft_error).and_then(|c| c.error);
            by_states(change.old, change.new, error)
        }
        _ => None,
    }
}

/// States in which a reset ends a connection that nobody has closed yet.
const fn is_open(state: TcpState) -> bool {
    matches!(state, TcpState::Established | TcpState::SynRecv)
}

fn by_states(old: TcpState, new: TcpState, error: Option<Errno>) -> Option<ClosedFirst> {
    use TcpState::{Close, CloseWait, Closing, Established, FinWait1, FinWait2, LastAck, TimeWait};
    match (old, new) {
        (Closing, _) | (_, Closing) => Some(ClosedFirst::new(Closer::Both, false, "CLOSING: the FINs of both crossed")),
        (FinWait1 | FinWait2, _) | (_, FinWait1) => Some(ClosedFirst::new(
            Closer::Local,
            false,
            if old == FinWait2 { "FIN_WAIT2: its FIN was sent first" } else { "FIN_WAIT1: its FIN was sent first" },
        )),
        (CloseWait, _) | (_, CloseWait) => {
            Some(ClosedFirst::new(Closer::Remote, false, "CLOSE_WAIT: its FIN came first"))
        }
        (LastAck, _) => Some(ClosedFirst::new(Closer::Remote, false, "LAST_ACK: its FIN came first")),
        (Established, Close) => Some(aborted(error)),
        (TimeWait, _) => None,
        _ => None,
    }
}

/// `ESTABLISHED` to `CLOSE`, without a FIN: a reset that came sets an error, as does the kernel that gives up; what is left
/// is `close(2)` with data that was not read, or `SO_LINGER` of 0, which send a reset and set none.
fn aborted(error: Option<Errno>) -> ClosedFirst {
    let Some(error) = error else {
        return ClosedFirst::new(
            Closer::Local,
            true,
            "from ESTABLISHED to CLOSE without an error: this end aborted it",
        );
    };
    match error.name() {
        Some("ECONNRESET" | "EPIPE") => ClosedFirst::new(Closer::Remote, true, format!("{error}: it sent an RST")),
        Some("ECONNABORTED") => {
            ClosedFirst::new(Closer::Local, true, format!("{error}: somebody on this machine ended it"))
        }
        _ => ClosedFirst::new(Closer::Nobody, false, format!("{error}: the kernel gave up")),
    }
}

/// By what `flows.jsonl` says.
pub(super) fn by_record(closed_by: ClosedBy) -> ClosedFirst {
    let by = match closed_by {
        ClosedBy::Local => Closer::Local,
        ClosedBy::Remote => Closer::Remote,
    };
    ClosedFirst::new(by, false, "`closed_by` in flows.jsonl")
}

/// By what the socket at the other end went through.
pub(super) fn by_other_end(theirs: ClosedFirst) -> ClosedFirst {
    let why = format!("by the states of the other end: {}", theirs.why);
    ClosedFirst { by: theirs.by.mirrored(), why, ..theirs }
}

#[cfg(test)]
#[path = "closer_tests.rs"]
mod tests;
