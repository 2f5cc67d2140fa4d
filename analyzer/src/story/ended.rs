//! How a connection ended, in a few words that follow a sentence's colon.

use ktrace_bundle::tcp::TcpState;

use super::closer::{ClosedFirst, Closer};
use crate::capture::{Attempt, Capture, Connection, Failure, Needs};
use crate::units::{count, duration};

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// One word for a program.
    pub kind: &'static str,
    /// In words, with the time that it took.
    pub text: String,
}

impl Outcome {
    pub(super) fn new(kind: &'static str, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }
}

/// What must be there for the last state change that was seen to be the last one that was.
pub(super) const STATES: Needs = Needs { hooks: &["tcp_state"], lossless: true, ..Needs::NOTHING };

/// How a connection ended; `closed` says who closed it.
pub(super) fn of(c: &Connection, closed: Option<&ClosedFirst>, capture: &Capture) -> Outcome {
    let end = capture.window_end_ns;
    let is_certain = c.closed.is_some() || c.at_end.is_some() || capture.coverage.gap(&STATES).is_none();
    match c.attempt(end) {
        Some(Attempt::Failed(Failure::StillTrying(_))) if !is_certain => last_seen(c, capture),
        Some(Attempt::Failed(failure)) => failed(c, failure),
        _ => match (&c.closed, closed) {
            (Some(done), closed) => ended(c, done.mark.at, done.from, closed),
            (None, _) if !is_certain => last_seen(c, capture),
            (None, closed) => open(c, closed, end),
        },
    }
}

fn failed(c: &Connection, failure: Failure) -> Outcome {
    let after = c.failed_at().zip(c.begun_at()).map(|(end, start)| end.saturating_sub(start));
    let after = after.map_or_else(String::new, |ns| format!(" after {}", duration(ns)));
    match failure {
        Failure::Refused => Outcome::new("refused", format!("refused{after}")),
        Failure::TimedOut => Outcome::new("timed_out", format!("timed out{after}, {}", again(c))),
        Failure::Unreachable(errno) => Outcome::new("unreachable", format!("failed{after} with {errno}")),
        Failure::GaveUp(ns) => {
            Outcome::new("gave_up", format!("given up after {} without an answer, {}", duration(ns), again(c)))
        }
        Failure::StillTrying(ns) => {
            let text = format!("not answered {} later, when the window closed, {}", duration(ns), again(c));
            Outcome::new("still_trying", text)
        }
    }
}

fn again(c: &Connection) -> String {
    match c.syns_sent_again() {
        0 => "no SYN sent again".to_owned(),
        n => format!("{} sent again", count(n, "SYN", "SYNs")),
    }
}

/// Since the handshake, or since it was first seen, of one that is older than the window.
fn age(c: &Connection, at: u64) -> String {
    match c.established {
        Some(mark) => format!(" {} after its handshake", duration(at.saturating_sub(mark.at))),
        None => format!(" {} after it was first seen", duration(at.saturating_sub(c.span.from))),
    }
}

fn ended(c: &Connection, at: u64, from: TcpState, closed: Option<&ClosedFirst>) -> Outcome {
    let age = age(c, at);
    if from == TcpState::SynRecv {
        return Outcome::new("not_established", format!("its handshake was not completed, closed{age}"));
    }
    let Some(closed) = closed else { return Outcome::new("closed", format!("closed{age}")) };
    match (closed.by, closed.is_reset) {
        (Closer::Local, false) => Outcome::new("closed", format!("closed, by this end first,{age}")),
        (Closer::Remote, false) => Outcome::new("closed", format!("closed, by the other end first,{age}")),
        (Closer::Both, _) => Outcome::new("closed", format!("closed by both ends at once{age}")),
        (Closer::Local, true) => Outcome::new("reset", format!("reset by this end{age}")),
        (Closer::Remote, true) => Outcome::new("reset", format!("reset by the other end{age}")),
        (Closer::Nobody, _) => Outcome::new("broken", format!("given up by the kernel{age}")),
        (Closer::Unknown, _) => Outcome::new("closed", format!("closed{age}")),
    }
}

fn open(c: &Connection, closed: Option<&ClosedFirst>, end: u64) -> Outcome {
    let Some(state) = c.end_state() else {
        return Outcome::new("unknown", "how it ended is not known: no line tells of its state");
    };
    let since = c.latest.filter(|(_, latest)| *latest == state).map(|(mark, _)| end.saturating_sub(mark.at));
    let since = since.map_or_else(String::new, |ns| format!(" for {}", duration(ns)));
    let name = state.as_str();
    match (state, closed) {
        (TcpState::CloseWait, _) => Outcome::new(
            "close_wait",
            format!("closed by the other end, and in {name}{since} when the window closed: not closed here"),
        ),
        (_, Some(closed)) if closed.is_reset => {
            Outcome::new("reset", format!("reset, and in {name}{since} when the window closed"))
        }
        _ => Outcome::new("open", format!("in {name}{since} when the window closed")),
    }
}

/// Where state changes can be missing, the last one that was seen need not be the last.
fn last_seen(c: &Connection, capture: &Capture) -> Outcome {
    let why = capture.coverage.gap(&STATES).unwrap_or_default();
    let state = c.latest.map_or_else(|| "no state".to_owned(), |(_, state)| state.as_str().to_owned());
    Outcome::new("unknown", format!("how it ended is not known, last seen in {state}: {why}"))
}
