//! Places and packets in sentences.

use ktrace_bundle::event::PacketDir;

use super::{Account, state};
use crate::capture::{Capture, DropRow};
use crate::detectors::nat::Kind;
use crate::escape;
use crate::finding::{Step, Subject};
use crate::units::count;

/// Most destinations that a sentence lists.
const MAX_LISTED: usize = 3;

/// `12 packets of 6 of 6 attempts`, `12 packets of 2 connections`.
pub(super) fn extent(account: &Account<'_>, kind: Kind) -> String {
    let packets = packets(account.packets());
    match account.hit {
        0 => format!("{packets} of {}", count(account.ailing, "connection", "connections")),
        hit => format!("{packets} of {hit} of {}", kind.count(account.tried)),
    }
}

/// `1 packet`, `2 packets`.
pub(super) fn packets(n: u64) -> String {
    count(n, "packet", "packets")
}

/// What of a conversation was dropped.
pub(super) const fn what(is_own: bool) -> &'static str {
    if is_own { "its packets" } else { "the answers" }
}

/// `the node's network namespace`, `its network namespace`, `network namespace 4026532110`; 0 is none.
pub(super) fn netns(capture: &Capture, netns: u32, subject: &Subject) -> String {
    if state::is_own(capture, netns) {
        "the node's network namespace".to_owned()
    } else if netns == 0 {
        "a network namespace that is not known".to_owned()
    } else if subject.netns == Some(netns) {
        "its network namespace".to_owned()
    } else {
        format!("network namespace {netns}")
    }
}

/// Which way packets were going.
pub(super) const fn way(dir: PacketDir) -> &'static str {
    match dir {
        PacketDir::Sent => "on their way out",
        PacketDir::Received => "on their way in",
        // the kernel may not have known yet whom they are for
        PacketDir::Forwarded => "on their way through, or in",
    }
}

/// The same before a noun.
pub(super) const fn adjective(dir: PacketDir) -> &'static str {
    match dir {
        PacketDir::Sent => "outgoing",
        PacketDir::Received => "incoming",
        PacketDir::Forwarded => "passing",
    }
}

/// `, at interface `eth0`, in `nf_hook_slow``, as far as it is known; escaped.
pub(super) fn spot(row: &DropRow) -> String {
    let dev = row.dev.as_deref().map(|dev| format!(", at interface `{}`", escape::shown(dev)));
    let symbol = row.symbol.as_deref().map(|symbol| format!(", in `{}`", escape::shown(symbol)));
    [dev, symbol].into_iter().flatten().collect()
}

/// `10.0.0.5:80 (12 packets), 10.0.0.6:80 (3 packets) and 2 more`.
pub(super) fn destinations(strangers: &super::Strangers<'_>) -> String {
    let ends = strangers.destinations();
    let listed: Vec<String> = ends.iter().take(MAX_LISTED).map(|(end, n)| format!("{end} ({})", packets(*n))).collect();
    match ends.len().saturating_sub(MAX_LISTED) {
        0 => listed.join(", "),
        more => format!("{} and {more} more", listed.join(", ")),
    }
}

/// A command in the namespace where the packets were dropped.
pub(super) fn there(capture: &Capture, row: &DropRow, subject: &Subject, text: &str, command: &str) -> Step {
    if subject.netns == Some(row.netns) || row.netns == 0 {
        Step::run(text, crate::detectors::steps::inside(subject, command))
    } else if state::is_own(capture, row.netns) {
        Step::run(format!("on the node: {text}"), command)
    } else if let Some(pid) = state::pid_in(capture, row.netns) {
        let text = format!("in network namespace {}: {text}", row.netns);
        Step::run(text, format!("nsenter -t {pid} -n {command}"))
    } else {
        Step::run(format!("in network namespace {}, by a process that `lsns -t net` names: {text}", row.netns), command)
    }
}
