//! What clients of this node asked of addresses that somebody else answers for: each use of a backend, judged once for all
//! rules about translation.

pub(super) mod backend_dead;
pub(super) mod backend_slow;
pub(super) mod conntrack_race;
pub(super) mod hairpin;
pub(super) mod port_exhaustion;
pub(super) mod unreplied;
pub(super) mod words;

use std::collections::BTreeMap;

use ktrace_bundle::event::{Endpoint, EventKind};

use super::connect_timeout::{IMPATIENT_NS, hangs};
use super::{group, refused};
use crate::capture::{Attempt, Capture, Connection, Evidence, Failure, Races, Target, UdpFlow, Way};
use crate::finding::{Key, Subject};

/// Most findings of one rule: each looks at all flows, and somebody else may have made up the bundle.
const MAX_FINDINGS: usize = 256;
/// Most backends of a VIP that another one is compared with.
const MAX_COMPARED: usize = 64;

/// What a backend is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// TCP: attempts to connect.
    Tcp,
    /// DNS over UDP: queries.
    Dns,
    /// Other UDP: flows, of which it is only known whether anything came back.
    Udp,
}

/// The socket behind a use.
#[derive(Debug, Clone, Copy)]
pub(super) enum Socket<'a> {
    Tcp(&'a Connection),
    Udp(&'a UdpFlow),
}

impl Socket<'_> {
    pub(super) fn way(&self) -> &Way {
        match self {
            Self::Tcp(c) => &c.way,
            Self::Udp(f) => &f.way,
        }
    }

    /// Own end and other end.
    pub(super) fn ends(&self) -> (Endpoint, Endpoint) {
        match self {
            Self::Tcp(c) => (c.local, c.remote),
            Self::Udp(f) => (f.local, f.server),
        }
    }
}

/// What one socket wanted of a remote end, and what came of it.
#[derive(Debug, Clone)]
pub(super) struct Use<'a> {
    pub(super) kind: Kind,
    pub(super) socket: Socket<'a>,
    pub(super) target: Target,
    /// Attempts, queries or flows whose outcome is known.
    pub(super) tried: u64,
    /// Of these, failed.
    pub(super) failed: u64,
    /// Of the failed, without any answer.
    pub(super) silent: u64,
}

impl Use<'_> {
    /// The address that was asked, if somebody else got it, and who did; `None` if that is not known for all of it.
    pub(super) fn route(&self) -> Option<(Endpoint, Endpoint)> {
        let (way, (_, remote)) = (self.socket.way(), self.socket.ends());
        way.vip(remote).filter(|_| !way.is_moved).map(|vip| (vip, way.backend(remote)))
    }

    /// The backend is the client itself, so this says nothing about the backend.
    pub(super) fn is_hairpin(&self) -> bool {
        let (local, remote) = self.socket.ends();
        self.socket.way().is_hairpin(local, remote)
    }
}

/// Every attempt, query and flow of this node's clients.
pub(super) fn uses(capture: &Capture) -> Vec<Use<'_>> {
    let races = capture.races();
    let connections = capture.connections.iter().filter_map(|c| of_connection(capture, races, c));
    let dns = capture.dns.iter().filter_map(|f| of_queries(capture, f));
    let udp = capture.udp.iter().filter_map(|f| of_flow(capture, f));
    connections.chain(dns).chain(udp).collect()
}

fn of_connection<'a>(capture: &Capture, races: &Races, c: &'a Connection) -> Option<Use<'a>> {
    let (failed, silent) = match c.attempt(capture.window_end_ns)? {
        Attempt::Established => (false, false),
        Attempt::Failed(Failure::Refused | Failure::Unreachable(_)) => (true, false),
        Attempt::Failed(Failure::TimedOut) => (true, true),
        Attempt::Failed(failure @ Failure::GaveUp(after)) => {
            let impatient = after < IMPATIENT_NS && c.syns_sent_again() == 0;
            if impatient || races.settled_elsewhere(c, failure) {
                return None;
            }
            (true, true)
        }
        Attempt::Failed(Failure::StillTrying(since)) if hangs(capture, c, since) => (true, true),
        Attempt::Failed(Failure::StillTrying(_)) => return None,
    };
    let comm = capture.owner(c).map(|p| p.comm.clone());
    let target = Target { comm, netns: c.netns, remote: c.remote };
    Some(Use {
        kind: Kind::Tcp,
        socket: Socket::Tcp(c),
        target,
        tried: 1,
        failed: failed.into(),
        silent: silent.into(),
    })
}

fn target_of(capture: &Capture, f: &UdpFlow) -> Target {
    let comm = f.owner.and_then(|id| capture.processes.get(id)).map(|p| p.comm.clone());
    Target { comm, netns: f.netns, remote: f.server }
}

fn of_queries<'a>(capture: &Capture, f: &'a UdpFlow) -> Option<Use<'a>> {
    let tried = f.sent.saturating_sub(f.pending).saturating_sub(f.elsewhere);
    let failed = f.lost.saturating_add(f.refused).saturating_add(f.failed.n);
    let target = target_of(capture, f);
    (tried > 0).then_some(Use { kind: Kind::Dns, socket: Socket::Udp(f), target, tried, failed, silent: f.lost })
}

/// A flow that is too young to have been answered is not judged.
fn of_flow<'a>(capture: &Capture, f: &'a UdpFlow) -> Option<Use<'a>> {
    let silent = !f.is_heard() && f.lost > 0;
    let failed = silent || (!f.is_heard() && f.refused > 0);
    let target = target_of(capture, f);
    let it =
        Use { kind: Kind::Udp, socket: Socket::Udp(f), target, tried: 1, failed: failed.into(), silent: silent.into() };
    (failed || f.is_heard()).then_some(it)
}

/// What became of all uses of something.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally<'a> {
    /// Attempts, queries or flows.
    pub(super) tried: u64,
    /// Of these, failed.
    pub(super) failed: u64,
    /// Of the failed, without any answer.
    pub(super) silent: u64,
    /// Failures by who tried what.
    pub(super) failures: BTreeMap<Target, (u64, Vec<Socket<'a>>)>,
}

impl<'a> Tally<'a> {
    pub(super) fn add(&mut self, it: &Use<'a>) {
        self.tried = self.tried.saturating_add(it.tried);
        self.failed = self.failed.saturating_add(it.failed);
        self.silent = self.silent.saturating_add(it.silent);
        if it.failed > 0 {
            let failures = self.failures.entry(it.target.clone()).or_default();
            failures.0 = failures.0.saturating_add(it.failed);
            failures.1.push(it.socket);
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.tried = self.tried.saturating_add(other.tried);
        self.failed = self.failed.saturating_add(other.failed);
        self.silent = self.silent.saturating_add(other.silent);
        for (target, (n, sockets)) in &other.failures {
            let failures = self.failures.entry(target.clone()).or_default();
            failures.0 = failures.0.saturating_add(*n);
            failures.1.extend(sockets);
        }
    }

    /// Replies that the capture itself lost may have answered as many.
    pub(super) fn forgive(&mut self, n: u64) {
        (self.failed, self.silent) = (self.failed.saturating_sub(n), self.silent.saturating_sub(n));
    }

    pub(super) const fn worked(&self) -> u64 {
        self.tried.saturating_sub(self.failed)
    }

    pub(super) fn share(&self) -> f64 {
        crate::units::share(self.failed, self.tried)
    }

    /// The client that failed most, and how many more there are.
    pub(super) fn subject(&self, capture: &Capture) -> (Subject, usize) {
        let worst = self.failures.iter().max_by(|(a, (n, _)), (b, (m, _))| n.cmp(m).then(b.cmp(a)));
        let Some((target, (_, sockets))) = worst else { return (Subject::default(), 0) };
        (subject_of(capture, target, sockets), self.failures.len() - 1)
    }

    pub(super) fn evidence(&self) -> Evidence {
        let mut evidence = Evidence::default();
        self.failures.values().for_each(|(_, sockets)| evidence.merge(&evidence_of(sockets)));
        evidence
    }
}

/// The subject of sockets of one target.
pub(super) fn subject_of(capture: &Capture, target: &Target, sockets: &[Socket<'_>]) -> Subject {
    let tcp = || sockets.iter().filter_map(|s| if let Socket::Tcp(c) = s { Some(*c) } else { None });
    let udp: Vec<&UdpFlow> =
        sockets.iter().filter_map(|s| if let Socket::Udp(f) = s { Some(*f) } else { None }).collect();
    if udp.is_empty() { group::of_connections(capture, target, tcp()) } else { group::of_flows(capture, target, &udp) }
}

/// The events that tell of failures on these sockets.
pub(super) fn evidence_of(sockets: &[Socket<'_>]) -> Evidence {
    let mut evidence = Evidence::default();
    for socket in sockets {
        match socket {
            Socket::Tcp(c) => {
                evidence.merge(&refused::evidence(&[*c]));
                if c.closed.is_none() {
                    evidence.merge(&Evidence::of(c.opened.map(|m| m.seq)));
                }
            }
            Socket::Udp(f) => evidence.merge(&f.evidence),
        }
    }
    evidence
}

/// Uses of VIPs by VIP and by backend; those in which the backend is the client itself are not about the backend.
pub(super) type Services<'a> = BTreeMap<(Kind, Endpoint), BTreeMap<Endpoint, Tally<'a>>>;

/// See [`Services`].
pub(super) fn services<'a>(capture: &Capture, uses: &[Use<'a>]) -> Services<'a> {
    let mut services = Services::new();
    for it in uses.iter().filter(|it| !it.is_hairpin()) {
        if let Some((vip, backend)) = it.route() {
            services.entry((it.kind, vip)).or_default().entry(backend).or_default().add(it);
        }
    }
    let lost_replies = capture.coverage.lost(&[EventKind::UdpRecv]);
    for ((kind, _), backends) in &mut services {
        if *kind != Kind::Tcp {
            backends.values_mut().for_each(|tally| tally.forgive(lost_replies));
        }
    }
    services
}

/// Whose failures as a whole are those told by these tallies: what other rules say of them is explained.
///
/// A client's failures are of `all` uses; if a tenth or more of them have another reason, its finding stands by itself.
pub(super) fn covered<'t>(all: &[Use<'_>], tallies: impl Iterator<Item = &'t Tally<'t>>) -> Vec<Key> {
    let mut told: BTreeMap<&Target, u64> = BTreeMap::new();
    for (target, (n, _)) in tallies.flat_map(|t| &t.failures) {
        *told.entry(target).or_default() += n;
    }
    let mut failed: BTreeMap<&Target, u64> = BTreeMap::new();
    for it in all.iter().filter(|it| told.contains_key(&it.target)) {
        *failed.entry(&it.target).or_default() += it.failed;
    }
    let is_whole = |(target, n): &(&&Target, &u64)| {
        let all = failed.get(**target).copied().unwrap_or(0);
        n.saturating_mul(10) > all.saturating_mul(9)
    };
    told.iter().filter(is_whole).map(|(target, _)| Key::from(*target)).collect()
}

#[cfg(test)]
mod tests;
