//! `net.ephemeral_ports_exhausted`: no local port is left for another connection to the same destination.

use std::collections::BTreeMap;

use ktrace_bundle::event::{Endpoint, Errno};
use ktrace_bundle::node::Ports;
use serde::Deserialize;

use super::place;
use crate::capture::{Attempt, Capture, Connection, Evidence, Failure, Needs, NodePart, Target, UdpFlow};
use crate::detectors::{Rule, group, refused, steps};
use crate::finding::{Finding, Severity, Signal, Step, Subject};
use crate::units::{count, share};

/// See the module.
pub(in crate::detectors) struct PortsExhausted;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::detectors) struct Thresholds {
    critical_share: f64,
    min_critical: u64,
    full_share: f64,
}

/// What failed for one process and destination.
struct Failed<'a> {
    target: Target,
    subject: Subject,
    failed: u64,
    attempts: u64,
    evidence: Evidence,
    usage: Option<Usage<'a>>,
    is_udp: bool,
}

/// How much of the range is taken, and how much of it towards one destination.
#[derive(Clone, Copy)]
struct Usage<'a> {
    ports: &'a Ports,
    used: u64,
    of: u64,
}

impl Usage<'_> {
    fn share(&self) -> f64 {
        share(self.used, self.of)
    }
}

impl Rule for PortsExhausted {
    const ID: &'static str = "net.ephemeral_ports_exhausted";
    const TEXT: &'static str = include_str!("../../../kb/net.ephemeral_ports_exhausted.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        let hooks = &["tcp_state", "connect"];
        Needs { hooks, lossless: true, node: &[NodePart::Ports], ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        let found: Vec<Finding> =
            failed_connects(capture, t).chain(failed_sends(capture, t)).map(|f| finding(capture, t, f)).collect();
        // that nothing failed is said only where that would have been seen
        if !found.is_empty() || capture.coverage.gap(&self.needs()).is_some() {
            return found;
        }
        capture.node.places.keys().filter_map(|netns| nearly(capture, t, *netns)).collect()
    }
}

/// Ports of the range that may be chosen.
fn usable(ports: &Ports) -> u64 {
    let all = u64::from(ports.high).saturating_sub(u64::from(ports.low)) + 1;
    all.saturating_sub(ports.reserved_count)
}

/// The fuller one of both looks: of TCP, where it says so, towards this destination.
fn usage(capture: &Capture, netns: u32, towards: Option<Endpoint>) -> Option<Usage<'_>> {
    let looks = &capture.node.place(netns)?.ports;
    let seen = [&looks.start, &looks.end].into_iter().flatten().map(|ports| {
        let used = match towards {
            Some(end) if ports.busiest.is_some_and(|busiest| busiest == end) => {
                ports.busiest_count.max(ports.tcp_used_count)
            }
            Some(_) => ports.tcp_used_count,
            None => ports.udp_used_count,
        };
        Usage { ports, used, of: usable(ports) }
    });
    seen.max_by(|a, b| a.share().total_cmp(&b.share()))
}

fn failed_connects<'a>(capture: &'a Capture, t: &Thresholds) -> impl Iterator<Item = Failed<'a>> {
    capture.attempts().into_iter().filter_map(|(target, members)| {
        let is_full = |a: &Attempt| matches!(a, Attempt::Failed(Failure::Unreachable(errno)) if is_no_port(*errno));
        let failed: Vec<&Connection> = members.iter().filter(|(_, a)| is_full(a)).map(|(c, _)| *c).collect();
        let usage = usage(capture, target.netns, Some(target.remote));
        let is_v6 = target.remote.addr.is_some_and(|a| a.is_ipv6());
        let is_measured = usage.is_some_and(|u| u.share() >= t.full_share);
        if failed.is_empty() || (is_v6 && !is_measured) {
            return None;
        }
        Some(Failed {
            subject: group::of_connections(capture, &target, failed.iter().copied()),
            failed: failed.len() as u64,
            attempts: members.len() as u64,
            evidence: refused::evidence(&failed),
            usage,
            is_udp: false,
            target,
        })
    })
}

fn failed_sends<'a>(capture: &'a Capture, t: &Thresholds) -> impl Iterator<Item = Failed<'a>> {
    let mut by_target: BTreeMap<Target, Vec<&UdpFlow>> = BTreeMap::new();
    let failing = |f: &&UdpFlow| f.failed.errno.is_some_and(|e| e.name() == Some("EAGAIN") || is_no_port(e));
    for flow in capture.dns.iter().chain(&capture.udp).filter(failing) {
        let comm = flow.owner.and_then(|id| capture.processes.get(id)).map(|p| p.comm.clone());
        by_target.entry(Target { comm, netns: flow.netns, remote: flow.server }).or_default().push(flow);
    }
    by_target.into_iter().filter_map(|(target, flows)| {
        let usage = usage(capture, target.netns, None).filter(|u| u.share() >= t.full_share)?;
        let mut evidence = Evidence::default();
        flows.iter().for_each(|f| evidence.merge(&f.evidence));
        let sum = |of: fn(&UdpFlow) -> u64| flows.iter().fold(0_u64, |sum, f| sum.saturating_add(of(f)));
        Some(Failed {
            subject: group::of_flows(capture, &target, &flows),
            failed: sum(|f| f.failed.n),
            attempts: sum(|f| f.sent),
            evidence,
            usage: Some(usage),
            is_udp: true,
            target,
        })
    })
}

fn is_no_port(errno: Errno) -> bool {
    errno.name() == Some("EADDRNOTAVAIL")
}

fn finding(capture: &Capture, t: &Thresholds, f: Failed<'_>) -> Finding {
    let part = share(f.failed, f.attempts);
    let severity =
        if part >= t.critical_share && f.failed >= t.min_critical { Severity::Critical } else { Severity::Warning };
    let is_full = f.usage.is_some_and(|u| u.share() >= t.full_share);
    let (what, verb) = if f.is_udp {
        (count(f.attempts, "datagram", "datagrams"), "send to")
    } else {
        (count(f.attempts, "attempt", "attempts"), "connect to")
    };
    let title = format!(
        "{} finds no local port to {verb} {}: {} of {what} failed{}",
        f.subject.who(),
        f.subject.whom(),
        f.failed,
        f.usage.map_or_else(String::new, |u| format!("; {}", in_words(&u, f.is_udp)))
    );
    Finding {
        rule: "net.ephemeral_ports_exhausted",
        severity,
        title,
        signal: Signal { name: "no_port_share", value: part * 100.0, unit: "percent", threshold: 0.0 },
        cause: cause(capture, &f, is_full),
        impact: "these attempts fail at once, until connections end or their time in `TIME_WAIT` (60 s) is over"
            .to_owned(),
        next_steps: next_steps(&f.subject),
        share: part,
        confidence: match (is_full, f.usage) {
            (true, _) => 0.97,
            (false, Some(_)) => 0.7,
            (false, None) => 0.85,
        },
        evidence: f.evidence,
        symptoms: Vec::new(),
        covers: None,
        subject: f.subject,
    }
}

fn cause(capture: &Capture, f: &Failed<'_>, is_full: bool) -> String {
    let waiting = capture.node.place(f.target.netns).and_then(|p| p.sockets.latest()?.tcp.get("TIME_WAIT").copied());
    let waiting = waiting.filter(|n| *n > 0 && !f.is_udp).map_or_else(String::new, |n| {
        format!(
            "; {} there had ended and held theirs for another minute (`TIME_WAIT`)",
            count(n, "connection", "connections")
        )
    });
    match (is_full, f.usage) {
        (true, _) => format!("the ports of {} are taken{waiting}", place(capture, f.target.netns)),
        (false, Some(_)) => "the kernel said that no port is free (`EADDRNOTAVAIL`); the range was not full when it was looked at, so it was for a moment, or the socket was bound to an address or port of its own".to_owned(),
        (false, None) => "the kernel said that no port is free (`EADDRNOTAVAIL`); how full the range was is not known".to_owned(),
    }
}

fn in_words(usage: &Usage<'_>, is_udp: bool) -> String {
    let Ports { low, high, .. } = usage.ports;
    let proto = if is_udp { "UDP" } else { "TCP" };
    format!("{} of {} ports of the range {low} to {high} were taken ({proto})", usage.used, usage.of)
}

/// A range that is all but full towards one destination, and nothing failed.
fn nearly(capture: &Capture, t: &Thresholds, netns: u32) -> Option<Finding> {
    let looks = &capture.node.place(netns)?.ports;
    let seen = [&looks.start, &looks.end].into_iter().flatten().filter(|p| p.busiest.is_some());
    let ports = seen.max_by_key(|p| p.busiest_count)?;
    let (part, busiest) = (share(ports.busiest_count, usable(ports)), ports.busiest?);
    if part < t.full_share {
        return None;
    }
    let subject = Subject { netns: Some(netns), remote: Some(busiest), ..Subject::default() };
    let pid = capture.node.place(netns).filter(|p| !p.is_node()).and_then(|p| p.netns.latest()?.pid);
    let inside = Subject { pids: pid.into_iter().collect(), ..subject.clone() };
    Some(Finding {
        rule: "net.ephemeral_ports_exhausted",
        severity: Severity::Info,
        title: format!(
            "{} of {} local ports of {} are taken towards {busiest}, and no connect failed in the window",
            ports.busiest_count,
            usable(ports),
            place(capture, netns)
        ),
        signal: Signal {
            name: "used_port_share",
            value: part * 100.0,
            unit: "percent",
            threshold: t.full_share * 100.0,
        },
        cause: "so many connections to one destination are open, or ended within the last minute (`TIME_WAIT`)"
            .to_owned(),
        impact: "once none is left, connects to this destination fail".to_owned(),
        next_steps: next_steps(&inside),
        share: part,
        confidence: 0.9,
        evidence: Evidence::default(),
        symptoms: Vec::new(),
        covers: Some(Vec::new()),
        subject,
    })
}

fn next_steps(subject: &Subject) -> Vec<Step> {
    let mut out: Vec<Step> =
        steps::sockets(subject, "see the sockets that hold the ports, by state", "-tan").into_iter().collect();
    out.push(Step::run(
        "see the range, and what it leaves out",
        steps::inside(
            subject,
            "sysctl net.ipv4.ip_local_port_range net.ipv4.ip_local_reserved_ports net.ipv4.tcp_tw_reuse",
        ),
    ));
    out.push(Step::run("see how many sockets are in `TIME_WAIT`", steps::inside(subject, "ss -s")));
    out.push(Step::think(
        "then make the client keep connections and use them again; a wider range only moves the limit",
    ));
    out
}
