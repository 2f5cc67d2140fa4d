//! Happy eyeballs (RFC 8305): a program tries several addresses of one name and keeps the first that connects.
//!
//! The others are cancelled or refused, and that is healthy. This index answers, for a failed attempt, whether the
//! same process got through to the same port by another address at the same moment.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ktrace_bundle::event::Endpoint;

use super::{Attempt, Capture, Connection, Failure, ProcId};
use crate::units::{MILLI, SECOND};

/// The winner was started at most this long before or after the loser.
const TOGETHER_NS: u64 = SECOND;
/// The loser is cancelled at most this long after the winner is established.
const CANCELLED_NS: u64 = 50 * MILLI;
/// A loser of the winner's address family gave up within this.
const SAME_FAMILY_NS: u64 = 300 * MILLI;
/// A loser of the other address family gave up within this.
const OTHER_FAMILY_NS: u64 = 2 * SECOND;

#[derive(Debug, Clone, Copy)]
struct Winner {
    begun_at: u64,
    established_at: u64,
    remote: Endpoint,
}

/// Established connections by process, namespace and port, in order of their start.
#[derive(Debug)]
pub struct Races(BTreeMap<(ProcId, u32, Option<u16>), Vec<Winner>>);

impl Races {
    /// The index of a capture.
    pub(super) fn new(capture: &Capture) -> Self {
        let mut index: BTreeMap<_, Vec<Winner>> = BTreeMap::new();
        for c in &capture.connections {
            let established = c.attempt(capture.window_end_ns) == Some(Attempt::Established);
            let times = c.begun_at().zip(c.established.map(|m| m.at));
            if let (true, Some(owner), Some((begun_at, established_at))) = (established, c.owner(), times) {
                let winner = Winner { begun_at, established_at, remote: c.remote };
                index.entry((owner, c.netns, c.remote.port)).or_default().push(winner);
            }
        }
        index.values_mut().for_each(|w| w.sort_by_key(|w| w.begun_at));
        Self(index)
    }

    /// The process got through by another address instead, so this failure cost it nothing.
    pub fn settled_elsewhere(&self, loser: &Connection, failure: Failure) -> bool {
        let Some((begun_at, failed_at)) = loser.begun_at().zip(loser.failed_at()) else { return false };
        self.rivals(loser, begun_at.min(failed_at), failed_at).any(|w| match failure {
            Failure::GaveUp(after) => cancelled(w, loser, after, failed_at),
            Failure::Refused | Failure::Unreachable(_) => true,
            Failure::TimedOut | Failure::StillTrying(_) => false,
        })
    }

    /// Winners to another address that were started about then.
    fn rivals(&self, loser: &Connection, from: u64, to: u64) -> impl Iterator<Item = &Winner> {
        let key = loser.owner().map(|owner| (owner, loser.netns, loser.remote.port));
        let winners = key.and_then(|k| self.0.get(&k)).map(Vec::as_slice).unwrap_or_default();
        let first = winners.partition_point(|w| w.begun_at < from.saturating_sub(TOGETHER_NS));
        let last = winners.partition_point(|w| w.begun_at <= to.saturating_add(TOGETHER_NS));
        let addr = loser.remote.addr;
        winners.get(first..last).unwrap_or_default().iter().filter(move |w| w.remote.addr != addr)
    }
}

fn cancelled(winner: &Winner, loser: &Connection, after: u64, failed_at: u64) -> bool {
    let family = |end: Endpoint| end.addr.map(|a: IpAddr| a.is_ipv6());
    let limit = if family(winner.remote) == family(loser.remote) { SAME_FAMILY_NS } else { OTHER_FAMILY_NS };
    let close_together = failed_at.abs_diff(winner.established_at) <= CANCELLED_NS;
    after <= limit && close_together
}
