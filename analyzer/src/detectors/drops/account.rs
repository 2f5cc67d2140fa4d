//! What was dropped of one client's conversations with one destination, or at one place of nobody's.

use std::collections::BTreeMap;

use ktrace_bundle::event::Endpoint;

use super::Thresholds;
use crate::capture::{Capture, DropRow, Evidence, Hit, Target};
use crate::detectors::nat::{Socket, evidence_of, subject_of};
use crate::detectors::retransmits::is_heavy_loss;
use crate::finding::{Severity, Subject};
use crate::units::share;

/// What one process name wanted of one remote end, and what of it was thrown away.
#[derive(Debug, Default)]
pub(super) struct Account<'a> {
    /// Attempts, queries or flows.
    pub(super) tried: u64,
    /// Of these, failed, and packets of them were dropped.
    pub(super) hit: u64,
    /// Connections that stand, and whose packets are dropped over and over.
    pub(super) ailing: u64,
    /// Of the failed, those that the peer, or a rule in its name, turned down.
    pub(super) refused: u64,
    /// Failures that cost nothing, since another address of the same port worked at once.
    pub(super) settled: u64,
    /// Segments of these, and those of them that were sent again.
    segments: (u64, u64),
    sockets: Vec<Socket<'a>>,
    rows: BTreeMap<usize, (&'a DropRow, bool)>,
}

/// What became of one socket.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Outcome {
    pub(super) tried: u64,
    pub(super) failed: u64,
    pub(super) refused: bool,
    pub(super) settled: bool,
    pub(super) ailing: bool,
}

impl<'a> Account<'a> {
    pub(super) fn add(&mut self, socket: Socket<'a>, outcome: Outcome, hits: &[Hit<'a>]) {
        if hits.is_empty() {
            self.tried = self.tried.saturating_add(outcome.tried);
            return;
        }
        self.fail(socket, outcome);
        if outcome.failed > 0 || outcome.ailing {
            self.rows.extend(hits.iter().map(|hit| (hit.place, (hit.row, hit.is_own))));
        }
    }

    /// The same of one of which it is not a drop that tells.
    pub(super) fn fail(&mut self, socket: Socket<'a>, outcome: Outcome) {
        self.tried = self.tried.saturating_add(outcome.tried);
        if outcome.failed == 0 && !outcome.ailing {
            return;
        }
        self.hit = self.hit.saturating_add(outcome.failed);
        self.ailing += u64::from(outcome.ailing);
        self.refused += u64::from(outcome.refused);
        self.settled += u64::from(outcome.settled);
        if let Socket::Tcp(c) = socket
            && let Some((sent, again)) = c.segments().filter(|_| outcome.ailing)
        {
            self.segments = (self.segments.0.saturating_add(sent), self.segments.1.saturating_add(again));
        }
        self.sockets.push(socket);
    }

    /// Whether any drop mattered.
    pub(super) fn is_hit(&self) -> bool {
        !self.rows.is_empty()
    }

    /// Part of what was tried that came to nothing.
    pub(super) fn share(&self) -> f64 {
        share(self.hit, self.tried)
    }

    /// How bad it is: whether anything gets through, and whether that was missed.
    pub(super) fn severity(&self, t: &Thresholds) -> Severity {
        if self.ailing == 0 && self.settled == self.sockets.len() as u64 {
            Severity::Info
        } else if self.share() >= t.critical_share || self.is_choked() {
            Severity::Critical
        } else {
            Severity::Warning
        }
    }

    /// Whether little gets through on connections that stand, and the drops account for most of that.
    fn is_choked(&self) -> bool {
        let (sent, again) = self.segments;
        let dropped = self.rows.values().fold(0_u64, |n, (row, _)| n.saturating_add(row.segments()));
        is_heavy_loss(again, sent) && dropped.saturating_mul(2) >= again
    }

    /// Packets that were dropped.
    pub(super) fn packets(&self) -> u64 {
        self.rows.values().fold(0, |n, (row, _)| n.saturating_add(row.packets))
    }

    /// The place where most of them were, and whether they came from the subject's own end.
    pub(super) fn worst(&self) -> Option<(&'a DropRow, bool)> {
        let mut by_place: BTreeMap<_, (u64, usize)> = BTreeMap::new();
        for (place, (row, is_own)) in &self.rows {
            let n = by_place.entry((row.netns, row.dir, row.reason(), *is_own)).or_insert((0, *place));
            n.0 = n.0.saturating_add(row.packets);
        }
        let (_, place) = by_place.into_values().max_by_key(|(n, place)| (*n, std::cmp::Reverse(*place)))?;
        self.rows.get(&place).copied()
    }

    /// Whose packets they are, and who they were for.
    pub(super) fn subject(&self, capture: &Capture, target: &Target) -> Subject {
        subject_of(capture, target, &self.sockets)
    }

    /// The drops, and what became of the sockets.
    pub(super) fn evidence(&self) -> Evidence {
        let mut evidence = drops_evidence(self.rows.values().map(|(row, _)| *row));
        evidence.merge(&evidence_of(&self.sockets));
        evidence
    }
}

/// The events of these drops.
fn drops_evidence<'a>(rows: impl Iterator<Item = &'a DropRow>) -> Evidence {
    let mut evidence = Evidence::default();
    rows.for_each(|row| evidence.merge(&row.evidence));
    evidence
}

/// Packets of nobody whose sockets were seen, at one place.
#[derive(Debug, Default)]
pub(super) struct Strangers<'a> {
    /// What was dropped.
    pub(super) rows: Vec<&'a DropRow>,
}

impl Strangers<'_> {
    /// How many packets.
    pub(super) fn packets(&self) -> u64 {
        self.rows.iter().fold(0, |n, row| n.saturating_add(row.packets))
    }

    /// Where they were going to, most of them first.
    pub(super) fn destinations(&self) -> Vec<(Endpoint, u64)> {
        let mut by_end: BTreeMap<Endpoint, u64> = BTreeMap::new();
        for row in &self.rows {
            let n = by_end.entry(row.to).or_default();
            *n = n.saturating_add(row.packets);
        }
        let mut ends: Vec<_> = by_end.into_iter().collect();
        ends.sort_by_key(|(end, n)| (std::cmp::Reverse(*n), *end));
        ends
    }

    /// The events that tell of them.
    pub(super) fn evidence(&self) -> Evidence {
        drops_evidence(self.rows.iter().copied())
    }
}
