//! `dns.conntrack_race`: two queries at once through a VIP, one of which connection tracking drops (kubernetes#56903).

use std::collections::BTreeSet;

use ktrace_bundle::event::Proto;
use ktrace_bundle::tracking::Table;
use serde::Deserialize;

use super::words;
use crate::capture::{Capture, Evidence, Needs, Target, TrackingNeed, UdpFlow};
use crate::detectors::conntrack::{full::is_full, gained};
use crate::detectors::{Rule, group, steps};
use crate::finding::{Finding, Key, Severity, Signal, Step, Subject};
use crate::units::{count, duration, share};

/// See the module.
pub(in crate::detectors) struct ConntrackRace;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::detectors) struct Thresholds {
    full_share: f64,
    max_lost_per_stall: u64,
}

impl Rule for ConntrackRace {
    const ID: &'static str = "dns.conntrack_race";
    const TEXT: &'static str = include_str!("../../../kb/dns.conntrack_race.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        let tracking = TrackingNeed::FlowsAndCounters;
        Needs { hooks: &["udp"], lossless: true, dns: true, tracking, ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        let targets = capture.dns_by_target();
        targets.iter().filter_map(|(target, flows)| finding(capture, t, target, flows)).collect()
    }
}

/// Tables through which these flows pass, and which lost packets without being full.
fn losing<'c>(capture: &'c Capture, t: &Thresholds, flows: &[&UdpFlow]) -> Vec<&'c Table> {
    let said = flows.iter().filter_map(|f| f.way.nat.as_ref().map(|nat| nat.netns));
    let theirs: BTreeSet<u32> = flows.iter().map(|f| f.netns).chain(said).collect();
    let tables = capture.coverage.tracking.tables().filter(|it| it.is_node || theirs.contains(&it.netns));
    tables.filter(|it| is_full(it, t.full_share).is_none() && gained(it, "insert_failed") > 0).collect()
}

fn finding(capture: &Capture, t: &Thresholds, target: &Target, flows: &[&UdpFlow]) -> Option<Finding> {
    let stalled: Vec<&UdpFlow> =
        flows.iter().copied().filter(|f| f.way.is_dnat() && f.pair_retries.total() > 0).collect();
    let stalls = stalled.iter().fold(0_u64, |n, f| n.saturating_add(f.pair_retries.total()));
    if stalls == 0 || !flows.iter().any(|f| f.answered > 0) {
        return None;
    }
    let tables = losing(capture, t, &stalled);
    let lost = tables.iter().fold(0_u64, |n, table| n.saturating_add(gained(table, "insert_failed")));
    if lost == 0 {
        return None;
    }
    let subject = group::of_flows(capture, target, &stalled);
    let vip = stalled.iter().find_map(|f| f.way.vip(f.server))?;
    let subject = Subject { vip: Some(vip), ..subject };
    let waited = stalled.iter().map(|f| f.stalled_ns).max().unwrap_or(0);
    let mut evidence = Evidence::default();
    stalled.iter().for_each(|f| {
        evidence.merge(&f.evidence);
        evidence.merge(&f.pair_retries);
    });
    Some(Finding {
        rule: "dns.conntrack_race",
        severity: Severity::Warning,
        title: format!(
            "{} waits {} in {} at {}: one of two queries sent at once is dropped by connection tracking, whose `insert_failed` rose by {lost}",
            subject.who(),
            duration(waited),
            count(stalls, "lookup", "lookups"),
            words::vip(capture, Proto::Udp, vip),
        ),
        signal: Signal { name: "stalled_lookup_count", value: stalls as f64, unit: "lookups", threshold: 1.0 },
        cause: "both queries begin the same flow, each on its own processor: the entry of one is made first, and the other packet is dropped (kubernetes#56903)".to_owned(),
        impact: format!("these lookups stall for {} until the resolver asks again", duration(waited)),
        next_steps: next_steps(&subject),
        share: share(stalls, flows.iter().fold(0, |n, f| n.saturating_add(f.sent))),
        confidence: if lost >= stalls { 0.9 } else { 0.7 },
        evidence,
        symptoms: Vec::new(),
        covers: Some(covers(target, &tables, lost <= stalls.saturating_mul(t.max_lost_per_stall))),
        subject,
    })
}

/// `is_all`: these lookups account for what the tables lost.
fn covers(target: &Target, tables: &[&Table], is_all: bool) -> Vec<Key> {
    let tables = tables.iter().filter(|_| is_all).map(|t| Key { netns: Some(t.netns), ..Key::default() });
    tables.chain([Key::from(target)]).collect()
}

fn next_steps(subject: &Subject) -> Vec<Step> {
    let mut out = vec![
        Step::run("on the node: see the counters, by CPU", "conntrack -S"),
        Step::run("see how the resolver of the process is set up", resolv_conf(subject)),
    ];
    out.extend(steps::watch(subject, "udp"));
    out.push(Step::think(
        "a DNS cache on the node, or `options single-request-reopen` for glibc, keeps the two queries apart",
    ));
    out
}

fn resolv_conf(subject: &Subject) -> String {
    subject
        .pid()
        .map_or_else(|| "cat /etc/resolv.conf".to_owned(), |pid| format!("cat /proc/{pid}/root/etc/resolv.conf"))
}
