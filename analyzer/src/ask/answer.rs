//! What a bundle says about a topic.

use std::collections::BTreeMap;

use super::Topic;
use crate::capture::{Attempt, Capture, Target, UdpFlow};
use crate::finding::Finding;
use crate::report::{Report, Unjudged};
use crate::units::percentile;

/// Targets whose traffic is told.
const MAX_TRAFFIC: usize = 5;

/// What one process did with one end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traffic {
    /// Who, and with whom.
    pub target: Target,
    /// Attempts to connect, or queries.
    pub count: u64,
    /// Those that came to nothing.
    pub failed: u64,
    /// Handshakes, or replies: half of them were faster, ns.
    pub median_ns: Option<u64>,
    /// And the slowest, ns.
    pub max_ns: Option<u64>,
    /// Whether these are datagrams.
    pub is_udp: bool,
}

/// The answer to a question.
#[derive(Debug)]
pub struct Answer<'a> {
    /// What was found about the topic, worst first.
    pub findings: Vec<&'a Finding>,
    /// What was found besides, of which the question says nothing.
    pub others: usize,
    /// Rules about the question that found nothing, and would have.
    pub clear: Vec<&'static str>,
    /// Rules about the question that could not judge.
    pub inconclusive: Vec<&'a Unjudged>,
    /// The traffic in question, the most first.
    pub traffic: Vec<Traffic>,
    /// Targets that are not told.
    pub more_traffic: usize,
}

impl<'a> Answer<'a> {
    /// What a report says about a topic.
    pub fn new(report: &'a Report<'a>, topic: &Topic) -> Self {
        let by_rule = |rule: &str| topic.rules.contains(&rule);
        let is_told = |f: &&Finding| if topic.is_particular() { topic.is_about(f) } else { by_rule(f.rule) };
        let findings: Vec<&Finding> = report.findings.iter().filter(is_told).collect();
        let mut traffic = if topic.is_particular() { traffic(report.capture, topic) } else { Vec::new() };
        let more_traffic = traffic.len().saturating_sub(MAX_TRAFFIC);
        traffic.truncate(MAX_TRAFFIC);
        Self {
            others: report.findings.len() - findings.len(),
            findings,
            clear: report.clear.iter().copied().filter(|rule| by_rule(rule)).collect(),
            inconclusive: report.inconclusive.iter().filter(|u| by_rule(u.rule)).collect(),
            traffic,
            more_traffic,
        }
    }
}

/// Numbers of one target while they are added up.
#[derive(Debug, Default)]
struct Sum {
    count: u64,
    failed: u64,
    times: Vec<u64>,
    max_ns: Option<u64>,
}

fn traffic(capture: &Capture, topic: &Topic) -> Vec<Traffic> {
    let mut sums: BTreeMap<(bool, Target), Sum> = BTreeMap::new();
    for (target, members) in capture.attempts() {
        let is_asked = |end| topic.is_about_end(end);
        let by_name = target.comm.as_deref().is_some_and(|comm| topic.is_about_name(comm));
        let members = members.iter().filter(|(c, _)| {
            let way = [Some(c.remote), c.way.vip(c.remote), Some(c.way.backend(c.remote))];
            by_name || way.into_iter().flatten().any(is_asked)
        });
        for (c, attempt) in members {
            let sum = sums.entry((false, target.clone())).or_default();
            sum.count += 1;
            sum.failed += u64::from(matches!(attempt, Attempt::Failed(_)));
            sum.times.extend(c.handshake_ns);
            sum.max_ns = sum.max_ns.max(c.handshake_ns);
        }
    }
    for f in capture.dns.iter().chain(&capture.udp) {
        let comm = f.owner.and_then(|id| capture.processes.get(id)).map(|p| p.comm.clone());
        let by_name = comm.as_deref().is_some_and(|comm| topic.is_about_name(comm));
        if by_name || topic.is_about_end(f.server) {
            let target = Target { comm, netns: f.netns, remote: f.server };
            sums.entry((true, target)).or_default().add(f);
        }
    }
    let mut out: Vec<Traffic> = sums.into_iter().map(|((is_udp, target), sum)| sum.traffic(is_udp, target)).collect();
    out.sort_by(|a, b| b.failed.cmp(&a.failed).then(b.count.cmp(&a.count)).then_with(|| a.target.cmp(&b.target)));
    out
}

impl Sum {
    fn add(&mut self, f: &UdpFlow) {
        self.count = self.count.saturating_add(f.sent);
        self.failed = self.failed.saturating_add(f.lost).saturating_add(f.refused).saturating_add(f.failed.n);
        self.times.extend(f.rtts.samples.iter().map(|us| u64::from(*us) * 1000));
        self.max_ns = self.max_ns.max((f.rtts.n > 0).then_some(f.rtts.max_ns));
    }

    fn traffic(mut self, is_udp: bool, target: Target) -> Traffic {
        self.times.sort_unstable();
        let median_ns = percentile(&self.times, 50);
        Traffic { target, count: self.count, failed: self.failed, median_ns, max_ns: self.max_ns, is_udp }
    }
}
