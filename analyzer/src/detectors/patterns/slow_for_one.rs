//! `dns.slow_for_one`: a DNS server that is slow for one client and fast for the others.

use std::collections::BTreeMap;

use ktrace_bundle::event::Endpoint;
use serde::Deserialize;

use super::most;
use crate::capture::{Capture, Evidence, Needs, Target, UdpFlow};
use crate::detectors::{Rule, group, steps};
use crate::finding::{Finding, Severity, Signal, Step};
use crate::units::{count, duration, percent, share};

/// See the module.
pub(in crate::detectors) struct SlowForOne;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::detectors) struct Thresholds {
    min_replies: u64,
    slow_share: f64,
    critical_share: f64,
    fast_share: f64,
}

/// A client of a server.
#[derive(Debug)]
struct Client<'a> {
    target: Target,
    flows: Vec<&'a UdpFlow>,
    tally: Tally,
}

/// Replies of one server to one client.
#[derive(Debug, Default)]
struct Tally {
    replies: u64,
    slow: u64,
    very_slow: u64,
    max_ns: u64,
    evidence: Evidence,
}

impl Tally {
    fn of(flows: &[&UdpFlow]) -> Self {
        let mut tally = Self::default();
        for r in flows.iter().map(|f| &f.rtts) {
            tally.replies = tally.replies.saturating_add(r.n);
            tally.slow = tally.slow.saturating_add(r.slow.total());
            tally.very_slow = tally.very_slow.saturating_add(r.very_slow.total());
            tally.max_ns = tally.max_ns.max(r.max_ns);
            tally.evidence.merge(&r.slow);
        }
        tally
    }
}

impl Rule for SlowForOne {
    const ID: &'static str = "dns.slow_for_one";
    const TEXT: &'static str = include_str!("../../../kb/dns.slow_for_one.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        Needs { hooks: &["udp"], lossless: true, dns: true, ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        let mut servers: BTreeMap<Endpoint, Vec<Client<'_>>> = BTreeMap::new();
        for (target, flows) in capture.dns_by_target() {
            let tally = Tally::of(&flows);
            if tally.replies >= t.min_replies {
                servers.entry(target.remote).or_default().push(Client { target, flows, tally });
            }
        }
        most(servers.values().filter_map(|clients| finding(capture, t, clients)).collect())
    }
}

fn finding(capture: &Capture, t: &Thresholds, clients: &[Client<'_>]) -> Option<Finding> {
    let slow_share = |tally: &Tally| share(tally.slow, tally.replies);
    let (slow, fast): (Vec<_>, Vec<_>) = clients.iter().partition(|c| slow_share(&c.tally) >= t.slow_share);
    let [Client { target, flows, tally }] = slow.as_slice() else { return None };
    if fast.is_empty() || fast.iter().any(|c| slow_share(&c.tally) > t.fast_share) {
        return None;
    }
    let subject = group::of_flows(capture, target, flows);
    let is_grave = share(tally.very_slow, tally.replies) >= t.critical_share;
    let title = format!(
        "{} alone waits long for the DNS server {}: {} of {} slow, up to {}; {}",
        subject.who(),
        subject.whom(),
        tally.slow,
        count(tally.replies, "reply", "replies"),
        duration(tally.max_ns),
        others(&fast),
    );
    let mut next_steps: Vec<Step> = steps::dig(&subject).into_iter().collect();
    if let Some(pid) = subject.pid() {
        next_steps.push(Step::run(
            "see whether it gets processor time",
            format!("cat /proc/{pid}/schedstat /proc/{pid}/status"),
        ));
    }
    next_steps.extend(steps::route(&subject));
    Some(Finding {
        rule: SlowForOne::ID,
        severity: if is_grave { Severity::Critical } else { Severity::Warning },
        signal: Signal {
            name: "slow_reply_share_of_one",
            value: slow_share(tally) * 100.0,
            unit: "percent",
            threshold: t.slow_share * 100.0,
        },
        title,
        cause:
            "the server answers others fast, so it is not the server: this client reads its replies late, or its way \
                to the server is slow, or it asks for names that the server must look up elsewhere"
                .to_owned(),
        impact: format!("lookups of this process take up to {}", duration(tally.max_ns)),
        next_steps,
        share: slow_share(tally),
        confidence: 0.8,
        evidence: tally.evidence.clone(),
        symptoms: Vec::new(),
        covers: None,
        subject,
    })
}

/// `of 40 replies to 3 other clients 0 (0 %)`.
fn others(fast: &[&Client<'_>]) -> String {
    let sum = |of: fn(&Tally) -> u64| fast.iter().map(|c| of(&c.tally)).fold(0_u64, u64::saturating_add);
    let (replies, slow) = (sum(|t| t.replies), sum(|t| t.slow));
    format!(
        "of {} to {} {slow} ({})",
        count(replies, "reply", "replies"),
        count(fast.len() as u64, "other client", "other clients"),
        percent(share(slow, replies))
    )
}
