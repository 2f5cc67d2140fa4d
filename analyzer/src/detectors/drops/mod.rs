//! Packets that the kernel threw away for a given kind of reason, and whose conversations they were: judged once for all rules
//! about drops.
//!
//! What hits a client of this node is about that client and its destination; what hits nobody whose sockets were seen is
//! added up by place. Packets of conversations that work all the same, such as a late one that connection tracking does
//! not know any more, are neither.

mod account;
pub(super) mod counter;
pub(super) mod neighbour;
pub(super) mod no_route;
pub(super) mod policy;
pub(super) mod rp_filter;
mod state;
mod told;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use ktrace_bundle::event::{Endpoint, PacketDir};
use serde::Deserialize;

use super::nat::{Kind, Socket};
use crate::capture::{Attempt, Capture, Connection, DropRow, Failure, Hit, Needs, Races, Target, UdpFlow};
use crate::finding::Finding;

use account::{Account, Outcome, Strangers};
use told::{found, found_strange};

/// What a rule that goes by packets alone, not by errors, needs.
const NEEDS: Needs = Needs { hooks: &["drop", "tcp_state", "udp"], lossless: true, ..Needs::NOTHING };
/// Most findings of one rule: each looks at its sockets, and somebody else may have made up the bundle.
const MAX_FINDINGS: usize = 256;

/// The same for each rule, with values of its own.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Thresholds {
    critical_share: f64,
    min_ailing: u64,
    min_strange: u64,
}

/// Where strangers' packets were dropped, and why.
type Place<'a> = (u32, PacketDir, &'a str);

/// All drops of a kind, by whom they hit.
#[derive(Debug, Default)]
struct Blame<'a> {
    /// Clients and destinations that were hit.
    accounts: BTreeMap<(Kind, Target), Account<'a>>,
    /// The others.
    strangers: BTreeMap<Place<'a>, Strangers<'a>>,
}

/// What is found of the drops for which `is` holds: about clients by `ours`, then about strangers by `theirs`.
fn findings(
    capture: &Capture,
    t: &Thresholds,
    is: impl Fn(&DropRow) -> bool,
    ours: fn(&Capture, &Thresholds, Kind, &Target, &Account<'_>) -> Option<Finding>,
    theirs: fn(&Capture, &Thresholds, &Strangers<'_>) -> Option<Finding>,
) -> Vec<Finding> {
    let Blame { accounts, strangers } = blame(capture, t, is);
    let ours = accounts.iter().filter_map(|((kind, target), account)| ours(capture, t, *kind, target, account));
    let theirs = strangers.values().filter_map(|them| theirs(capture, t, them));
    ours.chain(theirs).take(MAX_FINDINGS).collect()
}

/// The drops for which `is` holds, by whom they hit.
fn blame<'a>(capture: &'a Capture, t: &Thresholds, is: impl Fn(&DropRow) -> bool) -> Blame<'a> {
    if !capture.drops.rows().iter().any(&is) {
        return Blame::default();
    }
    let services = capture.services.as_ref();
    let races = capture.races();
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
        let outcome = |hits: &[Hit<'_>]| of_connection(capture, t, races, c, hits);
        add(Kind::Tcp, target_of(capture, c), Socket::Tcp(c), &outcome, hits);
    }
    for (kind, flows) in [(Kind::Dns, &capture.dns), (Kind::Udp, &capture.udp)] {
        for f in flows {
            let hits = capture.drops.of_udp(f, services);
            let comm = f.owner.and_then(|id| capture.processes.get(id)).map(|p| p.comm.clone());
            let target = Target { comm, netns: f.netns, remote: f.server };
            add(kind, target, Socket::Udp(f), &|hits| of_udp(f, kind, hits), hits);
        }
    }
    accounts.retain(|_, account| account.is_hit());
    Blame { accounts, strangers: strangers(capture, t, |place, row| is(row) && !known.contains(&place)) }
}

/// A server's connections go by the client's address: its ports differ.
fn target_of(capture: &Capture, c: &Connection) -> Target {
    let remote = if c.is_client() { c.remote } else { Endpoint { addr: c.remote.addr, port: None } };
    Target { comm: capture.owner(c).map(|p| p.comm.clone()), netns: c.netns, remote }
}

fn of_connection(capture: &Capture, t: &Thresholds, races: &Races, c: &Connection, hits: &[Hit<'_>]) -> Outcome {
    let of = |is: fn(&Hit<'_>) -> bool| {
        hits.iter().filter(|hit| is(hit)).fold(0_u64, |n, hit| n.saturating_add(hit.row.packets))
    };
    let (packets, unsent) = (of(|_| true), of(|hit| hit.is_own && hit.row.dir == PacketDir::Sent));
    let again = c.retransmits.data.total().saturating_add(c.retransmits.probe.total());
    let is_many = |n: u64| n >= t.min_ailing;
    let ailing = is_many(unsent) || (is_many(packets) && is_many(again));
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

/// A query whose packet was dropped need not grow old to be lost; no more are lost this way than packets were dropped.
fn of_udp(f: &UdpFlow, kind: Kind, hits: &[Hit<'_>]) -> Outcome {
    let pending = if f.is_heard() { 0 } else { f.pending };
    let failed = f.lost.saturating_add(f.refused).saturating_add(f.failed.n).saturating_add(pending);
    let packets = hits.iter().fold(0_u64, |n, hit| n.saturating_add(hit.row.packets));
    let (tried, failed) = match kind {
        Kind::Dns => (f.sent.saturating_sub(f.elsewhere), failed.min(packets)),
        Kind::Tcp | Kind::Udp => (1, u64::from(!f.is_heard() && failed > 0)),
    };
    Outcome { tried, failed, ..Outcome::default() }
}

fn strangers<'a>(
    capture: &'a Capture,
    t: &Thresholds,
    is: impl Fn(usize, &DropRow) -> bool,
) -> BTreeMap<Place<'a>, Strangers<'a>> {
    let mut strangers: BTreeMap<Place<'_>, Strangers<'_>> = BTreeMap::new();
    let rows = capture.drops.rows().iter().enumerate();
    for (_, row) in rows.filter(|(place, row)| is(*place, row) && !is_to_many(row.to)) {
        strangers.entry((row.netns, row.dir, row.reason())).or_default().rows.push(row);
    }
    strangers.retain(|_, them| them.packets() >= t.min_strange);
    strangers
}

/// What is sent to all is for nobody in particular.
fn is_to_many(end: Endpoint) -> bool {
    end.addr.is_some_and(|addr| match addr {
        std::net::IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast(),
        std::net::IpAddr::V6(v6) => v6.is_multicast(),
    })
}

#[cfg(test)]
mod tests;
