//! What a story cannot tell, and why: hooks that were not attached, events that were lost, translation that nobody told.

use std::collections::BTreeMap;

use ktrace_bundle::event::{Event, Identity, Payload, RetransmitKind};
use ktrace_bundle::flow::FlowRecord;
use ktrace_bundle::tcp::TcpState;

use super::collect::Line;
use crate::capture::{Capture, Connection, Needs, Way};
use crate::escape::shown;

/// The hooks behind a connection's steps, and what each tells.
const TCP: [(&[&str], &str); 6] = [
    (&["tcp_state"], "state changes"),
    (&["connect"], "what connect(2) returned"),
    (&["tcp_retransmit"], "segments sent again"),
    (&["tcp_reset"], "resets"),
    (&["tcp_wait"], "stalls and full listeners"),
    (&["drop"], "dropped packets"),
];
/// The same of datagrams.
const UDP: [(&[&str], &str); 2] = [(&["udp"], "datagrams"), (&["drop"], "dropped packets")];

/// Of the hooks that see datagrams.
pub(super) fn of_udp(capture: &Capture) -> Vec<String> {
    of_hooks(&UDP, capture)
}

/// Of a connection whose first line is this.
pub(super) fn of_tcp(c: &Connection, first: Option<&Line>, capture: &Capture) -> Vec<String> {
    let mut gaps = Vec::new();
    if c.at_start.is_some() {
        gaps.push("its beginning: it is older than the window".to_owned());
    } else if !first.and_then(Line::event).is_some_and(is_beginning) {
        gaps.push("its beginning: it is older than the window, or its first lines are missing".to_owned());
    }
    gaps.extend(of_hooks(&TCP, capture));
    gaps
}

/// Whether a connection can begin with this.
fn is_beginning(event: &Event) -> bool {
    match &event.payload {
        Payload::TcpState(change) => {
            matches!(change.old, TcpState::Close | TcpState::Listen | TcpState::SynRecv | TcpState::NewSynRecv)
        }
        Payload::TcpRetransmit(again) => matches!(again.kind, RetransmitKind::Synack),
        Payload::Connect(_) => true,
        _ => false,
    }
}

/// Each reason once, with all that it hides.
fn of_hooks(hooks: &'static [(&'static [&'static str], &'static str)], capture: &Capture) -> Vec<String> {
    let coverage = &capture.coverage;
    let mut by_why: BTreeMap<(bool, String), Vec<&str>> = BTreeMap::new();
    for (hooks, what) in hooks {
        let unseen = coverage.gap(&Needs { hooks, ..Needs::NOTHING }).map(|why| (false, why));
        let lost = || coverage.gap(&Needs { hooks, lossless: true, ..Needs::NOTHING }).map(|why| (true, why));
        if let Some(why) = unseen.or_else(lost) {
            by_why.entry(why).or_default().push(what);
        }
    }
    let sentence = |((is_partly, why), what): ((bool, String), Vec<&str>)| {
        let some = if is_partly { "some of the " } else { "" };
        format!("{some}{}: {why}", what.join(", "))
    };
    by_why.into_iter().map(sentence).collect()
}

/// Why it is not known whether a flow is translated, if it is not.
pub(super) fn tracking(way: &Way, id: Option<&Identity>, records: &[FlowRecord], capture: &Capture) -> Option<String> {
    if way.nat.is_some() {
        return None;
    }
    let by_record = records.iter().rev().find_map(|record| record.why.get("conntrack").map(|why| shown(why)));
    let by_event = || id.and_then(|id| id.why.get("conntrack")).map(|why| shown(&why.text()));
    let by_source = || capture.coverage.tracking.unanswered();
    let why = by_record.or_else(by_event).or_else(by_source)?;
    Some(format!("whether and how it is translated: {why}"))
}
