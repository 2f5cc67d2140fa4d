//! `dns.resolver_config`: a resolver that asks for each name under all its search domains first.

use std::collections::{BTreeMap, BTreeSet};

use ktrace_bundle::event::Endpoint;
use ktrace_bundle::node::Resolver;
use serde::Deserialize;

use super::Rule;
use crate::capture::{Asked, Capture, Needs, NodePart, ProcId, Target};
use crate::finding::{Finding, Severity, Signal, Step, Subject};
use crate::units::{SECOND, count, share};

/// See the module.
pub(super) struct ResolverConfig;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Thresholds {
    warning_rate: f64,
    note_rate: f64,
    warning_share: f64,
    min_rows: u64,
    min_ndots: u64,
}

/// One process name that asks one server by one kind of configuration.
#[derive(Default)]
struct Account<'a> {
    asked: Asked,
    members: Vec<ProcId>,
    resolver: Option<&'a Resolver>,
}

impl Rule for ResolverConfig {
    const ID: &'static str = "dns.resolver_config";
    const TEXT: &'static str = include_str!("../../kb/dns.resolver_config.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        Needs { hooks: &["udp"], lossless: true, dns: true, node: &[NodePart::Resolvers], ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        let mut accounts: BTreeMap<(Target, u32), Account<'_>> = BTreeMap::new();
        let netns = netns_by_asker(capture);
        for ((proc, server), asked) in &capture.lookups.by_asker {
            let Some(netns) = netns.get(&(*proc, *server)) else { continue };
            let Some(resolver) = resolver_of(capture, *proc).filter(|r| multiplies(t, r)) else { continue };
            let comm = capture.processes.get(*proc).map(|p| p.comm.clone());
            let target = Target { comm, netns: *netns, remote: *server };
            let account = accounts.entry((target, resolver.mnt_ns)).or_default();
            account.resolver = Some(resolver);
            account.members.push(*proc);
            account.asked.merge(asked);
        }
        accounts.iter().filter_map(|((target, _), account)| finding(capture, t, target, account)).collect()
    }

    fn unjudged(&self, capture: &Capture, t: &Thresholds) -> Option<String> {
        let asked = capture.lookups.by_asker.iter().filter(|(_, asked)| asked.rows >= t.min_rows);
        let unread: BTreeSet<ProcId> =
            asked.map(|((proc, _), _)| *proc).filter(|proc| resolver_of(capture, *proc).is_none()).collect();
        let n = unread.len() as u64;
        let who = count(
            n,
            "process that asks for one name in several ways",
            "processes that ask for one name in several ways",
        );
        (n > 0).then(|| format!("`resolv.conf` of {who} was not read"))
    }
}

/// The network namespaces of clients of DNS servers.
fn netns_by_asker(capture: &Capture) -> BTreeMap<(ProcId, Endpoint), u32> {
    capture.dns.iter().filter_map(|f| Some(((f.owner?, f.server), f.netns))).collect()
}

/// What a process resolves by: the file of its mount namespace.
fn resolver_of(capture: &Capture, proc: ProcId) -> Option<&Resolver> {
    capture.node.resolvers.get(&capture.processes.setting(proc).mnt_ns?)?.latest()
}

const fn multiplies(t: &Thresholds, resolver: &Resolver) -> bool {
    resolver.search_count > 0 && resolver.ndots >= t.min_ndots
}

fn finding(capture: &Capture, t: &Thresholds, target: &Target, account: &Account<'_>) -> Option<Finding> {
    let (asked, resolver) = (&account.asked, account.resolver?);
    if asked.rows < t.min_rows {
        return None;
    }
    let rate = asked.wasted as f64 / (capture.duration_ns.max(SECOND) as f64 / SECOND as f64);
    if rate < t.note_rate {
        return None;
    }
    let part = share(asked.wasted, asked.queries);
    let severity = if rate >= t.warning_rate && part >= t.warning_share { Severity::Warning } else { Severity::Info };
    let subject = subject(capture, target, account);
    let domains = count(resolver.search_count, "search domain", "search domains");
    let title = format!(
        "{} asks {} {} times for a name: {} of {} queries were for names under {domains} (`ndots:{}`)",
        subject.who(),
        subject.whom(),
        asked.longest,
        asked.wasted,
        asked.queries,
        resolver.ndots
    );
    let pid = subject.pid();
    Some(Finding {
        rule: "dns.resolver_config",
        severity,
        title,
        signal: Signal { name: "search_query_rate", value: rate, unit: "queries/s", threshold: t.warning_rate },
        cause: format!(
            "a name with fewer than {} dots is asked for under each search domain first, for A and for AAAA; only the last question is about the name itself",
            resolver.ndots
        ),
        impact: format!(
            "a lookup takes {} round trips instead of one, and waits for any of them that is lost; the DNS servers get {:.1} times the queries",
            asked.longest,
            factor(asked)
        ),
        next_steps: next_steps(pid),
        share: part,
        confidence: 0.8,
        evidence: asked.evidence.clone(),
        symptoms: Vec::new(),
        covers: None,
        subject,
    })
}

fn subject(capture: &Capture, target: &Target, account: &Account<'_>) -> Subject {
    let mut pids: Vec<u32> =
        account.members.iter().filter_map(|id| capture.processes.get(*id)).map(|p| p.pid).collect();
    pids.sort_unstable();
    pids.dedup();
    let mut homes: Vec<_> = account.members.iter().map(|id| capture.processes.home(*id)).collect();
    homes.dedup();
    Subject {
        comm: target.comm.clone(),
        pids,
        home: homes.pop().filter(|_| homes.is_empty()).flatten().cloned(),
        remote: Some(target.remote),
        netns: Some(target.netns),
        ..Subject::default()
    }
}

fn factor(asked: &Asked) -> f64 {
    let needed = asked.queries.saturating_sub(asked.wasted).max(1);
    asked.queries as f64 / needed as f64
}

fn next_steps(pid: Option<u32>) -> Vec<Step> {
    let mut out = Vec::new();
    if let Some(pid) = pid {
        out.push(Step::run("see the configuration that it has", format!("cat /proc/{pid}/root/etc/resolv.conf")));
    }
    out.push(Step::think("write names outside the cluster with a dot at their end, or set `ndots:1` or `ndots:2` in the pod's `dnsConfig`"));
    out.push(Step::think(
        "a DNS cache on the node takes the load off the servers, not the round trips off the lookups",
    ));
    out
}
