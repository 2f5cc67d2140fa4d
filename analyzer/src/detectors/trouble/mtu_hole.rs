//! `net.mtu_hole`: small packets get through, large ones never do, and nobody tells the sender.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{MAX_FINDINGS, target_of};
use crate::capture::{Capture, Connection, DropRow, Evidence, Needs, Target};
use crate::detectors::{Rule, group, steps};
use crate::escape;
use crate::finding::{Finding, Severity, Signal, Step, Subject};
use crate::kb::Ms;
use crate::units::{count, duration, share};

/// The kernel's name for a packet that is larger than the next link takes.
const REASON: &str = "PKT_TOO_BIG";

/// See the module.
pub(in crate::detectors) struct MtuHole;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::detectors) struct Thresholds {
    min_again: u64,
    min_still_ms: Ms,
    max_fresh_segments: u64,
    max_later_segments: u64,
    min_standing: usize,
    critical_share: f64,
}

/// Connections of one target.
#[derive(Debug, Default)]
struct Account<'a> {
    made: u64,
    still: Vec<&'a Connection>,
    too_big: Option<&'a DropRow>,
    evidence: Evidence,
    longest_ns: u64,
    since: u64,
    last_made_at: u64,
}

/// How sure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    /// A packet that was too large was dropped on this node.
    Seen,
    /// Handshakes go on to work while large segments do not.
    SmallOnesPass,
    /// Several connections stand still.
    Alike,
}

impl Rule for MtuHole {
    const ID: &'static str = "net.mtu_hole";
    const TEXT: &'static str = include_str!("../../../kb/net.mtu_hole.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        let hooks = &["tcp_retransmit", "tcp_state", "drop"];
        Needs { hooks, lossless: true, ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        let mut accounts: BTreeMap<Target, Account<'_>> = BTreeMap::new();
        for c in capture.connections.iter().filter(|c| is_made(c)) {
            let is_hit = still(t, c).is_some();
            let hits = if is_hit { capture.drops.of_connection(c, capture.services.as_ref()) } else { Vec::new() };
            let account = accounts.entry(target_of(capture, c)).or_default();
            account.made += 1;
            account.last_made_at = account.last_made_at.max(c.established.map_or(0, |m| m.at));
            let too_big = hits.iter().find(|hit| hit.is_own && hit.row.reason() == REASON).map(|hit| hit.row);
            // another rule tells of other drops, and of a reader without room
            let is_ours = too_big.is_some() || (hits.is_empty() && is_young(t, c) && !waits_for_reader(c));
            if is_hit && is_ours {
                account.add(c, too_big);
            }
        }
        let found = accounts.iter().filter_map(|(target, account)| finding(capture, t, target, account));
        found.take(MAX_FINDINGS).collect()
    }
}

/// Whether its handshake was completed.
fn is_made(c: &Connection) -> bool {
    c.established.is_some() || (c.opened.is_none() && c.connect.is_none())
}

/// For how long it stood still, ns, if it did and did not recover.
fn still(t: &Thresholds, c: &Connection) -> Option<u64> {
    let s = &c.trouble.as_deref()?.standstill;
    let for_ns = s.to.saturating_sub(s.from);
    let counts = c.closed.as_ref().and_then(|closed| closed.account.tx_segs_count.zip(closed.account.retrans_count));
    let later = counts.map_or(0, |(sent, again)| sent.saturating_sub(again).saturating_sub(s.fresh_segs));
    (s.count >= t.min_again && for_ns >= t.min_still_ms.ns() && later <= t.max_later_segments).then_some(for_ns)
}

fn is_young(t: &Thresholds, c: &Connection) -> bool {
    c.trouble.as_deref().is_some_and(|trouble| trouble.standstill.fresh_segs <= t.max_fresh_segments)
}

fn waits_for_reader(c: &Connection) -> bool {
    c.trouble.as_deref().is_some_and(|t| t.zero_window.total_ns > 0)
}

impl<'a> Account<'a> {
    fn add(&mut self, c: &'a Connection, too_big: Option<&'a DropRow>) {
        let Some(trouble) = c.trouble.as_deref() else { return };
        let s = &trouble.standstill;
        self.since = if self.still.is_empty() { s.from } else { self.since.min(s.from) };
        self.longest_ns = self.longest_ns.max(s.to.saturating_sub(s.from));
        self.evidence.merge(&s.evidence);
        if let Some(row) = too_big {
            self.evidence.merge(&row.evidence);
            self.too_big.get_or_insert(row);
        }
        self.still.push(c);
    }

    fn proof(&self, t: &Thresholds) -> Option<Proof> {
        if self.still.is_empty() {
            None
        } else if self.too_big.is_some() {
            Some(Proof::Seen)
        } else if self.last_made_at > self.since {
            Some(Proof::SmallOnesPass)
        } else {
            (self.still.len() >= t.min_standing).then_some(Proof::Alike)
        }
    }

    fn share(&self) -> f64 {
        share(self.still.len() as u64, self.made)
    }
}

fn finding(capture: &Capture, t: &Thresholds, target: &Target, account: &Account<'_>) -> Option<Finding> {
    let proof = account.proof(t)?;
    let subject = group::of_connections(capture, target, account.still.iter().copied());
    let (severity, confidence) = match proof {
        Proof::Seen if account.share() >= t.critical_share => (Severity::Critical, 0.97),
        Proof::Seen => (Severity::Warning, 0.97),
        Proof::SmallOnesPass => (Severity::Warning, 0.5),
        Proof::Alike => (Severity::Info, 0.3),
    };
    let (verb, because) = match account.too_big {
        Some(row) => (
            "gets no large packet through to",
            format!(", and a packet of them was too large in network namespace {}", row.netns),
        ),
        None => ("seems to get no large packet through to", String::new()),
    };
    let title = format!(
        "{} {verb} {}: {} of {} stood still for up to {}{because}",
        subject.who(),
        subject.whom(),
        account.still.len(),
        count(account.made, "connection", "connections"),
        duration(account.longest_ns),
    );
    Some(Finding {
        rule: "net.mtu_hole",
        severity,
        title,
        signal: Signal {
            name: "standing_connection_share",
            value: account.share() * 100.0,
            unit: "percent",
            threshold: if severity == Severity::Critical { t.critical_share * 100.0 } else { 0.0 },
        },
        cause: cause(account),
        impact: "connections are made, and the first large request or answer never arrives: it hangs until somebody gives up"
            .to_owned(),
        next_steps: next_steps(&subject),
        share: account.share(),
        confidence,
        evidence: account.evidence.clone(),
        symptoms: Vec::new(),
        covers: None,
        subject,
    })
}

fn cause(account: &Account<'_>) -> String {
    match account.too_big {
        Some(row) => {
            let dev = row.dev.as_deref().map_or_else(String::new, |dev| format!(" at interface `{}`", escape::shown(dev)));
            format!(
                "a link on the way takes less than the sender believes: its packets were dropped{dev} (`{REASON}`), and the \
                 ICMP message that would tell it does not arrive, or is not heeded"
            )
        }
        None => "the handshake works and data does not: a link on the way may take less than the sender believes (an overlay, a \
                 tunnel, a VPN), with the ICMP message that tells of it filtered; or the other end went away"
            .to_owned(),
    }
}

fn next_steps(subject: &Subject) -> Vec<Step> {
    let mut out = Vec::new();
    if let Some(addr) = subject.remote.and_then(|r| r.addr) {
        let large = if addr.is_ipv6() { 1452 } else { 1472 };
        let ping = format!("ping -n -c 2 -W 1 -M do -s {large} {addr}");
        out.push(Step::run("see whether a packet of 1500 bytes gets through whole", steps::inside(subject, &ping)));
        out.push(Step::run("find the link that takes less", steps::inside(subject, &format!("tracepath -n {addr}"))));
    }
    out.extend(steps::sockets(subject, "see `mss`, `pmtu` and `unacked` of connections that stand still", "-tnoi"));
    out.push(Step::run("see the MTU of each interface", steps::inside(subject, "ip -o link")));
    out.push(Step::think("then lower the MTU there, or let the ICMP messages pass; as a stopgap `net.ipv4.tcp_mtu_probing=1` at the sender"));
    out
}
