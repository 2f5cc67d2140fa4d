//! `dns.server_dead`: a DNS server that answers nobody.

use std::collections::BTreeMap;

use ktrace_bundle::event::{Endpoint, EventKind};
use serde::Deserialize;

use super::{most, named};
use crate::capture::{Capture, Evidence, Needs, Target, UdpFlow};
use crate::detectors::{Rule, group, steps};
use crate::finding::{Finding, Key, Severity, Signal, Step};
use crate::units::{count, share};

/// See the module.
pub(in crate::detectors) struct ServerDead;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::detectors) struct Thresholds {
    min_clients: usize,
    min_failed: u64,
}

/// What one server was asked, and by whom.
#[derive(Debug, Default)]
struct Server<'a> {
    answered: u64,
    failed: u64,
    clients: BTreeMap<Target, Vec<&'a UdpFlow>>,
}

impl Rule for ServerDead {
    const ID: &'static str = "dns.server_dead";
    const TEXT: &'static str = include_str!("../../../kb/dns.server_dead.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        Needs { hooks: &["udp"], lossless: true, dns: true, ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        // as many queries may have been answered as replies are missing from the capture
        let missing = capture.coverage.lost(&[EventKind::UdpRecv]);
        let mut servers: BTreeMap<Endpoint, Server<'_>> = BTreeMap::new();
        for (target, flows) in capture.dns_by_target() {
            let server = servers.entry(target.remote).or_default();
            let mut failed = 0_u64;
            for f in &flows {
                server.answered = server.answered.saturating_add(f.answered).saturating_add(f.elsewhere);
                failed = failed.saturating_add(f.lost).saturating_add(f.refused);
            }
            server.failed = server.failed.saturating_add(failed);
            if failed > 0 {
                server.clients.insert(target, flows);
            }
        }
        let alive: Vec<(Endpoint, u64)> =
            servers.iter().filter(|(_, s)| s.answered > 0).map(|(end, s)| (*end, s.answered)).collect();
        let is_dead = |s: &Server<'_>| {
            s.answered == 0 && s.failed.saturating_sub(missing) >= t.min_failed && s.clients.len() >= t.min_clients
        };
        let dead = servers.iter().filter(|(_, s)| is_dead(s));
        most(dead.filter_map(|(end, server)| finding(capture, t, *end, server, &alive)).collect())
    }
}

fn weight(flows: &[&UdpFlow]) -> u64 {
    flows.iter().fold(0_u64, |n, f| n.saturating_add(f.lost).saturating_add(f.refused))
}

fn finding(
    capture: &Capture,
    t: &Thresholds,
    end: Endpoint,
    server: &Server<'_>,
    alive: &[(Endpoint, u64)],
) -> Option<Finding> {
    let (worst, flows) = server.clients.iter().rev().max_by_key(|(_, flows)| weight(flows))?;
    let subject = group::of_flows(capture, worst, flows);
    let others = server.clients.len() - 1;
    let answers = if alive.is_empty() {
        "no other server was asked".to_owned()
    } else {
        let told = alive.iter().map(|(end, n)| format!("{end} answered {n}"));
        named(told)
    };
    let title = format!(
        "the DNS server {end} answers nobody: {} of {} and {} unanswered; {answers}",
        count(server.failed, "query", "queries"),
        subject.who(),
        count(others as u64, "other client", "other clients"),
    );
    let refused = server.clients.values().flatten().map(|f| f.refused).sum::<u64>();
    let cause = if refused * 2 > server.failed {
        "its host answers that nothing listens on this port (ICMP port unreachable): the server is not running"
    } else {
        "nothing comes back to any client, not even an error: the server or its host is down, or everything to or from \
         it is dropped on the way"
    };
    let impact = if alive.is_empty() {
        "no name can be resolved by these clients"
    } else {
        "lookups wait for this server first, 5 s by default, and then go to another"
    };
    let mut next_steps: Vec<Step> = steps::dig(&subject).into_iter().collect();
    next_steps.extend(steps::listeners(subject.answers_at(), "-lunp"));
    next_steps.extend(steps::route(&subject));
    next_steps.extend(steps::watch(&subject, "udp"));
    let mut evidence = Evidence::default();
    server.clients.values().flatten().for_each(|f| evidence.merge(&f.evidence));
    Some(Finding {
        rule: ServerDead::ID,
        severity: Severity::Critical,
        title,
        signal: Signal {
            name: "unanswered_client_count",
            value: server.clients.len() as f64,
            unit: "clients",
            threshold: t.min_clients as f64,
        },
        cause: cause.to_owned(),
        impact: impact.to_owned(),
        next_steps,
        share: share(server.failed, server.failed),
        confidence: 0.95,
        evidence,
        symptoms: Vec::new(),
        covers: Some(server.clients.keys().map(Key::from).collect()),
        subject,
    })
}
