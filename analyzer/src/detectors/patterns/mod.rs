//! Rules that compare: one end with the others, one client with the others, one attempt with the next.
//!
//! A rule about a single target says that something fails; these say that it is only this one, or all of them, which is
//! where to look.

pub(super) mod bad_path;
pub(super) mod bad_peer;
pub(super) mod churn;
pub(super) mod half_open;
pub(super) mod keepalive_race;
pub(super) mod retry_5s;
pub(super) mod retry_storm;
pub(super) mod server_dead;
pub(super) mod slow_accept;
pub(super) mod slow_for_one;
pub(super) mod top_talkers;

use super::connect_timeout::{IMPATIENT_NS, hangs};
use crate::capture::{Attempt, Capture, Connection, Failure, Races};
use crate::finding::Finding;

/// Most findings of one rule.
const MAX_FINDINGS: usize = 64;
/// Most names in one sentence.
const MAX_NAMED: usize = 3;

/// Whether an attempt came to nothing; `None` where that says nothing about the other end: another address was faster,
/// its owner did not wait, or the window closed too early.
fn is_failed(capture: &Capture, races: &Races, c: &Connection, attempt: Attempt) -> Option<bool> {
    match attempt {
        Attempt::Established => Some(false),
        Attempt::Failed(failure) if races.settled_elsewhere(c, failure) => None,
        Attempt::Failed(Failure::GaveUp(after)) if after < IMPATIENT_NS && c.syns_sent_again() == 0 => None,
        Attempt::Failed(Failure::StillTrying(since)) => hangs(capture, c, since).then_some(true),
        Attempt::Failed(_) => Some(true),
    }
}

/// `a, b, c and 4 more`.
fn named(names: impl Iterator<Item = String>) -> String {
    let mut names: Vec<String> = names.collect();
    let rest = names.len().saturating_sub(MAX_NAMED);
    names.truncate(MAX_NAMED);
    let listed = names.join(", ");
    if rest > 0 { format!("{listed} and {rest} more") } else { listed }
}

/// At most so many, the gravest first by share and weight of evidence, in an order that does not depend on the input's.
fn most(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort_by(|a, b| {
        b.severity.cmp(&a.severity).then(b.share.total_cmp(&a.share)).then_with(|| a.title.cmp(&b.title))
    });
    findings.truncate(MAX_FINDINGS);
    findings
}

#[cfg(test)]
mod tests;
