//! `dns.conntrack_race`: two queries at once through a VIP, one of which connection tracking drops (kubernetes#56903).

use std::collections::BTreeSet;

use super::words;
use crate::capture::{Capture, Evidence, Needs, Target, TrackingNeed, UdpFlow};
use crate::detectors::conntrack::{full::is_full, gained};
use crate::detectors::{Rule, group, steps};
use crate::finding::{Finding, Key, Severity, Signal, Step, Subject};
use crate::kb::NoThresholds;
use crate::units::{count, duration, share};
use ktrace_bundle::event::Proto;
use ktrace_bundle::tracking::Table;

/// A table that lost more than so many packets for each lookup that stalled lost most of them for another reason.
const MAX_LOST_PER_STALL: u64 = 10;

/// See the module.
pub(in crate::detectors) struct ConntrackRace;

impl Rule for ConntrackRace {
    const ID: &'static str = "dns.conntrack_race";
    const TEXT: &'static str = include_str!("../../../kb/dns.conntrack_race.toml");
    type Thresholds = NoThresholds;

    fn needs(&self) -> Needs {
        let tracking = TrackingNeed::FlowsAndCounters;
        Needs { hooks: &["udp"], lossless: true, dns: true, tracking, ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, _: &NoThresholds) -> Vec<Finding> {
        let targets = capture.dns_by_target();
        targets.iter().filter_map(|(target, flows)| finding(capture, target, flows)).collect()
    }
}

/// Tables through which these flows pass, and which lost packets without being full.
fn losing<'c>(capture: &'c Capture, flows: &[&UdpFlow]) -> Vec<&'c Table> {
    let said = flows.iter().filter_map(|f| f.way.nat.as_ref().map(|nat| nat.netns));
    let theirs: BTreeSet<u32> = flows.iter().map(|f| f.netns).chain(said).collect();
    let tables = capture.coverage.tracking.tables().filter(|t| t.is_node || theirs.contains(&t.netns));
    tables.filter(|t| is_full(t).is_none() && gained(t, "insert_failed") > 0).collect()
}

fn finding(capture: &Capture, target: &Target, flows: &[&UdpFlow]) -> Option<Finding> {
    let stalled: Vec<&UdpFlow> =
        flows.iter().copied().filter(|f| f.way.is_dnat() && f.pair_retries.total() > 0).collect();
    let stalls = stalled.iter().fold(0_u64, |n, f| n.saturating_add(f.pair_retries.total()));
    if stalls == 0 || !flows.iter().any(|f| f.answered > 0) {
        return None;
    }
    let tables = losing(capture, &stalled);
    let lost = tables.iter().fold(0_u64, |n, t| n.saturating_add(gained(t, "insert_failed")));
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
        covers: Some(covers(target, &tables, stalls, lost)),
        subject,
    })
}

fn covers(target: &Target, tables: &[&Table], stalls: u64, lost: u64) -> Vec<Key> {
    let is_all = lost <= stalls.saturating_mul(MAX_LOST_PER_STALL);
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
