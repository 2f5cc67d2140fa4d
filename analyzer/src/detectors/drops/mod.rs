//! Packets that the kernel threw away for a given kind of reason, and whose conversations they were: judged once for all rules
//! about drops.
//!
//! What hits a client of this node is about that client and its destination; what hits nobody whose sockets were seen is
//! added up by place. Packets of conversations that work all the same, such as a late one that connection tracking does
//! not know any more, are neither.

pub(super) mod policy;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use ktrace_bundle::event::{Endpoint, PacketDir};

use super::nat::{Kind, Socket, evidence_of, subject_of};
use super::races::Races;
use crate::capture::{Attempt, Capture, Connection, DropRow, Evidence, Failure, Hit, Target, UdpFlow};
use crate::finding::{Severity, Subject};
use crate::units::share;

/// From this share of failed uses on, nothing gets through.
const CRITICAL_SHARE: f64 = 0.9;
/// A connection that works suffers when so many of its packets are dropped, and as many segments are sent again.
const MIN_AILING: u64 = 3;
/// Fewer packets of strangers are not worth a word.
const MIN_STRANGE: u64 = 5;
/// Most findings of one rule: each looks at its sockets, and somebody else may have made up the bundle.
const MAX_FINDINGS: usize = 256;

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
    sockets: Vec<Socket<'a>>,
    rows: BTreeMap<usize, (&'a DropRow, bool)>,
}

/// What became of one socket.
#[derive(Debug, Clone, Copy, Default)]
struct Outcome {
    tried: u64,
    failed: u64,
    refused: bool,
    settled: bool,
    ailing: bool,
}

impl<'a> Account<'a> {
    fn add(&mut self, socket: Socket<'a>, outcome: Outcome, hits: &[Hit<'a>]) {
        self.tried = self.tried.saturating_add(outcome.tried);
        if hits.is_empty() || (outcome.failed == 0 && !outcome.ailing) {
            return;
        }
        self.hit = self.hit.saturating_add(outcome.failed);
        self.ailing += u64::from(outcome.ailing);
        self.refused += u64::from(outcome.refused);
        self.settled += u64::from(outcome.settled);
        self.sockets.push(socket);
        self.rows.extend(hits.iter().map(|hit| (hit.place, (hit.row, hit.is_own))));
    }

    /// Part of what was tried that came to nothing.
    pub(super) fn share(&self) -> f64 {
        share(self.hit, self.tried)
    }

    /// How bad it is: whether anything gets through, and whether that was missed.
    pub(super) fn severity(&self) -> Severity {
        if self.ailing == 0 && self.settled == self.sockets.len() as u64 {
            Severity::Info
        } else if self.share() >= CRITICAL_SHARE {
            Severity::Critical
        } else {
            Severity::Warning
        }
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

/// Where strangers' packets were dropped, and why.
pub(super) type Place<'a> = (u32, PacketDir, &'a str);

/// All drops of a kind, by whom they hit.
#[derive(Debug, Default)]
pub(super) struct Blame<'a> {
    /// Clients and destinations that were hit.
    pub(super) accounts: BTreeMap<(Kind, Target), Account<'a>>,
    /// The others.
    pub(super) strangers: BTreeMap<Place<'a>, Strangers<'a>>,
}

/// The drops for which `is` holds, by whom they hit.
pub(super) fn blame<'a>(capture: &'a Capture, is: impl Fn(&DropRow) -> bool) -> Blame<'a> {
    if !capture.drops.rows().iter().any(&is) {
        return Blame::default();
    }
    let services = capture.services.as_ref();
    let races = Races::new(capture);
    let mut accounts: BTreeMap<(Kind, Target), Account<'_>> = BTreeMap::new();
    let mut known = BTreeSet::new();
    let mut add = |kind, target, socket, outcome: &dyn Fn(&[Hit<'a>]) -> Outcome, mut hits: Vec<Hit<'a>>| {
        hits.retain(|hit| is(hit.row));
        known.extend(hits.iter().map(|hit| hit.place));
        accounts.entry((kind, target)).or_default().add(socket, outcome(&hits), &hits);
    };
    for c in &capture.connections {
        // told of by the client
        if !c.is_client() && capture.ends.client_of(c).is_some() {
            continue;
        }
        let hits = capture.drops.of_connection(c, services);
        add(Kind::Tcp, target_of(capture, c), Socket::Tcp(c), &|hits| of_connection(capture, &races, c, hits), hits);
    }
    for (kind, flows) in [(Kind::Dns, &capture.dns), (Kind::Udp, &capture.udp)] {
        for f in flows {
            let hits = capture.drops.of_udp(f, services);
            let comm = f.owner.and_then(|id| capture.processes.get(id)).map(|p| p.comm.clone());
            let target = Target { comm, netns: f.netns, remote: f.server };
            add(kind, target, Socket::Udp(f), &|_| of_udp(f, kind), hits);
        }
    }
    accounts.retain(|_, account| !account.sockets.is_empty());
    Blame { accounts, strangers: strangers(capture, |place, row| is(row) && !known.contains(&place)) }
}

/// A server's connections go by the client's address: its ports differ.
fn target_of(capture: &Capture, c: &Connection) -> Target {
    let remote = if c.is_client() { c.remote } else { Endpoint { addr: c.remote.addr, port: None } };
    Target { comm: capture.owner(c).map(|p| p.comm.clone()), netns: c.netns, remote }
}

fn of_connection(capture: &Capture, races: &Races, c: &Connection, hits: &[Hit<'_>]) -> Outcome {
    let packets = hits.iter().fold(0_u64, |n, hit| n.saturating_add(hit.row.packets));
    let again = c.retransmits.data.total().saturating_add(c.retransmits.probe.total());
    let ailing = packets >= MIN_AILING && again >= MIN_AILING;
    match c.attempt(capture.window_end_ns) {
        None => Outcome { ailing, ..Outcome::default() },
        Some(Attempt::Established) => Outcome { tried: 1, ailing, ..Outcome::default() },
        Some(Attempt::Failed(failure)) => Outcome {
            tried: 1,
            failed: 1,
            refused: matches!(failure, Failure::Refused | Failure::Unreachable(_)),
            settled: races.settled_elsewhere(c, failure),
            ailing: false,
        },
    }
}

/// A query whose packet was dropped need not grow old to be lost.
fn of_udp(f: &UdpFlow, kind: Kind) -> Outcome {
    let pending = if f.is_heard() { 0 } else { f.pending };
    let failed = f.lost.saturating_add(f.refused).saturating_add(f.failed.n).saturating_add(pending);
    let (tried, failed) = match kind {
        Kind::Dns => (f.sent.saturating_sub(f.elsewhere), failed),
        Kind::Tcp | Kind::Udp => (1, u64::from(!f.is_heard() && failed > 0)),
    };
    Outcome { tried, failed, ..Outcome::default() }
}

fn strangers<'a>(capture: &'a Capture, is: impl Fn(usize, &DropRow) -> bool) -> BTreeMap<Place<'a>, Strangers<'a>> {
    let mut strangers: BTreeMap<Place<'_>, Strangers<'_>> = BTreeMap::new();
    let rows = capture.drops.rows().iter().enumerate();
    for (_, row) in rows.filter(|(place, row)| is(*place, row) && !is_to_many(row.to)) {
        strangers.entry((row.netns, row.dir, row.reason())).or_default().rows.push(row);
    }
    strangers.retain(|_, them| them.packets() >= MIN_STRANGE);
    strangers
}

/// What is sent to all is for nobody in particular.
fn is_to_many(end: Endpoint) -> bool {
    end.addr.is_some_and(|addr| match addr {
        std::net::IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast(),
        std::net::IpAddr::V6(v6) => v6.is_multicast(),
    })
}
