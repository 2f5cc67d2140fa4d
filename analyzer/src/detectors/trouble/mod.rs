//! Connections in trouble: turned away, cut off, standing still, or waiting for a reader.

pub(super) mod became_unreachable;
pub(super) mod listen_overflow;
pub(super) mod mtu_hole;
pub(super) mod reset_by_peer;
pub(super) mod slow_reader;

use ktrace_bundle::event::Endpoint;

use crate::capture::{Capture, Connection, Target};

/// Most findings of one rule: each looks at its sockets, and somebody else may have made up the bundle.
const MAX_FINDINGS: usize = 256;

/// Who talks to whom; a server's connections go by the client's address: its ports differ.
fn target_of(capture: &Capture, c: &Connection) -> Target {
    let remote = if c.is_client() { c.remote } else { Endpoint { addr: c.remote.addr, port: None } };
    Target { comm: capture.owner(c).map(|p| p.comm.clone()), netns: c.netns, remote }
}

/// How long the connection stood within the window, ns.
fn lifetime(capture: &Capture, c: &Connection) -> u64 {
    let window_start = capture.window_end_ns.saturating_sub(capture.duration_ns);
    let begun = c.established.or(c.opened).map_or(if c.role.is_none() { window_start } else { c.span.from }, |m| m.at);
    let from = if c.at_start.is_some() { window_start } else { begun };
    let to = c.closed.as_ref().map_or(capture.window_end_ns, |closed| closed.mark.at);
    to.saturating_sub(from)
}

#[cfg(test)]
mod tests;
