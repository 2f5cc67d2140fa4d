//! `net.qdisc_drops`: packets to be sent that a queueing discipline had no room for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ktrace_bundle::node::Qdisc;
use serde::Deserialize;

use super::thrown::{Thrown, is_at_qdisc, thrown_by};
use super::{MAX_COVERED, key_of, place};
use crate::capture::{Capture, Evidence, Looks, Needs, NodePart, Place, Target};
use crate::detectors::Rule;
use crate::escape::shown;
use crate::finding::{Finding, Key, Severity, Signal, Step, Subject};
use crate::units::{count, percent, share};

/// A smaller share reads as none.
const MIN_TOLD: f64 = 0.0005;

/// See the module.
pub(in crate::detectors) struct QdiscDrops;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::detectors) struct Thresholds {
    warning_share: f64,
    critical_share: f64,
    critical_loss_share: f64,
    min_drops: u64,
}

impl Rule for QdiscDrops {
    const ID: &'static str = "net.qdisc_drops";
    const TEXT: &'static str = include_str!("../../../kb/net.qdisc_drops.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        Needs { node: &[NodePart::Qdiscs], ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        let mut seen = thrown_by(capture, |row| {
            let dev = row.dev.as_deref().filter(|_| is_at_qdisc(row))?;
            Some((row.netns, dev.to_owned()))
        });
        let mut found = Vec::new();
        for (netns, place) in &capture.node.places {
            for q in worst(place) {
                let thrown = seen.remove(&(*netns, q.dev.clone()));
                found.extend(finding(capture, t, (*netns, place), q, thrown));
            }
        }
        found
            .extend(seen.into_iter().filter_map(|((netns, dev), thrown)| uncounted(capture, t, (netns, &dev), thrown)));
        found
    }

    fn unjudged(&self, capture: &Capture, _: &Thresholds) -> Option<String> {
        // with every dropped packet told, queues that nobody read hide nothing
        let why = capture.coverage.gap(&Needs { hooks: &["drop"], lossless: true, ..Needs::NOTHING })?;
        let flows = capture.dns.iter().chain(&capture.udp).map(|f| f.netns);
        let seen: BTreeSet<u32> = capture.connections.iter().map(|c| c.netns).chain(flows).collect();
        let unread = seen.into_iter().filter(|netns| !is_read(capture, *netns)).count() as u64;
        let places = count(unread, "network namespace", "network namespaces");
        (unread > 0).then(|| format!("the queues of {places} were not read at both looks, and {why}"))
    }
}

/// Whether it is known what the queues of a network namespace dropped.
fn is_read(capture: &Capture, netns: u32) -> bool {
    capture.node.place(netns).is_some_and(|at| at.qdiscs.values().any(|q| q.over_window().is_some()))
}

/// The discipline that dropped the most, for each interface.
fn worst(place: &Place) -> Vec<&Qdisc> {
    let mut by_dev: BTreeMap<&str, &Qdisc> = BTreeMap::new();
    for q in place.qdiscs.values().filter_map(Looks::over_window).filter(|q| rose(q, "drops") > 0) {
        let known = by_dev.entry(&q.dev).or_insert(q);
        let rank = |q: &Qdisc| (rose(q, "drops"), q.parent == "root");
        if rank(q) > rank(known) {
            *known = q;
        }
    }
    by_dev.into_values().collect()
}

fn rose(q: &Qdisc, counter: &str) -> u64 {
    q.rose.get(counter).copied().unwrap_or(0)
}

fn finding(
    capture: &Capture,
    t: &Thresholds,
    (netns, at): (u32, &Place),
    q: &Qdisc,
    thrown: Option<Thrown>,
) -> Option<Finding> {
    let drops = rose(q, "drops");
    let all = rose(q, "packets").saturating_add(drops);
    let part = share(drops, all);
    let is_felt = thrown.as_ref().is_some_and(|seen| seen.loss() >= t.critical_loss_share);
    let severity = if drops < t.min_drops {
        return None;
    } else if is_felt || part >= t.critical_share {
        Severity::Critical
    } else if part >= t.warning_share {
        Severity::Warning
    } else {
        Severity::Info
    };
    let title = format!(
        "the queue `{}` of interface `{}` of {} dropped {drops} of {all} packets{}",
        shown(&q.kind),
        shown(&q.dev),
        place(capture, netns),
        if part < MIN_TOLD { String::new() } else { format!(" ({})", percent(part)) }
    );
    let least = if severity == Severity::Critical { t.critical_share } else { t.warning_share };
    // who is known to have been hit is told, else who may have been
    let (evidence, keys) = match thrown {
        Some(thrown) => (thrown.evidence, thrown.keys.into_iter().collect()),
        None => (Evidence::default(), through(capture, netns, at, &q.dev)),
    };
    Some(Finding {
        rule: "net.qdisc_drops",
        severity,
        title,
        signal: Signal { name: "qdisc_drop_share", value: part * 100.0, unit: "percent", threshold: least * 100.0 },
        subject: Subject { netns: Some(netns), ..Subject::default() },
        cause: cause(&q.kind).to_owned(),
        impact: impact(severity).to_owned(),
        next_steps: next_steps(Some(at)),
        share: part,
        confidence: 0.95,
        evidence,
        symptoms: Vec::new(),
        covers: Some(keys),
    })
}

/// Drops at an interface whose queue was not counted at both looks.
fn uncounted(capture: &Capture, t: &Thresholds, (netns, dev): (u32, &str), thrown: Thrown) -> Option<Finding> {
    let (n, at) = (thrown.packets, capture.node.place(netns));
    if n < t.min_drops {
        return None;
    }
    let kind = at.and_then(|at| kind_of(at, dev)).unwrap_or_default();
    let queue = if kind.is_empty() { "a queue".to_owned() } else { format!("the queue `{}`", shown(kind)) };
    let severity = if thrown.loss() >= t.critical_loss_share { Severity::Critical } else { Severity::Warning };
    Some(Finding {
        rule: "net.qdisc_drops",
        severity,
        title: format!("{queue} of interface `{}` of {} dropped {n} packets", shown(dev), place(capture, netns)),
        signal: Signal { name: "qdisc_drop_count", value: n as f64, unit: "packets", threshold: t.min_drops as f64 },
        subject: Subject { netns: Some(netns), ..Subject::default() },
        cause: cause(kind).to_owned(),
        impact: impact(severity).to_owned(),
        next_steps: next_steps(at),
        share: thrown.loss().max(t.warning_share),
        confidence: 0.9,
        evidence: thrown.evidence,
        symptoms: Vec::new(),
        covers: Some(thrown.keys.into_iter().collect()),
    })
}

/// The discipline of an interface that has dropped the most so far.
fn kind_of<'a>(at: &'a Place, dev: &str) -> Option<&'a str> {
    let latest = at.qdiscs.values().filter_map(Looks::latest).filter(|q| q.dev == dev);
    let dropped = |q: &&Qdisc| (q.counters.get("drops").copied().unwrap_or(0), q.parent == "root");
    latest.max_by_key(dropped).map(|q| q.kind.as_str())
}

const fn impact(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "hardly any: TCP sends the few packets again, and slows down",
        _ => {
            "what was dropped has to be sent again, and throughput through this interface collapses; datagrams are just gone"
        }
    }
}

fn cause(kind: &str) -> &'static str {
    match kind {
        "tbf" | "htb" | "hfsc" | "cake" => {
            "more is sent than the rate that this shaper lets through, for longer than its queue lasts"
        }
        "netem" => "`netem` drops packets on purpose: somebody makes a bad network here, or has forgotten to stop",
        "ingress" | "clsact" => "a filter on this hook drops packets, or polices them to a rate",
        _ => "more is sent than the interface takes, for longer than its queue lasts",
    }
}

fn next_steps(at: Option<&Place>) -> Vec<Step> {
    let pid = at.filter(|at| !at.is_node()).and_then(|at| at.netns.latest()?.pid);
    let inside = |command: &str| pid.map_or_else(|| command.to_owned(), |pid| format!("nsenter -t {pid} -n {command}"));
    vec![
        Step::run("see the queues with their drops and their rates", inside("tc -s qdisc")),
        Step::run("see the classes of a shaper", inside("tc -s class")),
        Step::run("see what the interfaces send", inside("ip -s link")),
        Step::think("then compare the rate with what is sent, before making the queue longer"),
    ]
}

/// Subjects whose packets go out by this interface; by the node's also those of its pods.
fn through(capture: &Capture, netns: u32, at: &Place, dev: &str) -> Vec<Key> {
    let passes = |of: u32, to: Option<IpAddr>| {
        let is_theirs = of == netns || at.is_node();
        let route = to.filter(|to| is_theirs && !to.is_loopback()).and_then(|to| at.route_to(to));
        route.is_some_and(|r| r.dev.as_deref() == Some(dev))
    };
    let connections = capture.connections.iter().filter(|c| passes(c.netns, c.way.backend(c.remote).addr));
    let mut keys: BTreeSet<Key> = connections.map(|c| key_of(capture, c)).take(MAX_COVERED).collect();
    for flow in capture.dns.iter().filter(|f| passes(f.netns, f.way.backend(f.server).addr)).take(MAX_COVERED) {
        let comm = flow.owner.and_then(|id| capture.processes.get(id)).map(|p| p.comm.clone());
        keys.insert(Key::from(&Target { comm, netns: flow.netns, remote: flow.server }));
    }
    keys.into_iter().collect()
}
