//! `tcp.slow_accept`: connections that wait, established, until their server accepts them.

use std::collections::BTreeMap;

use ktrace_bundle::event::Endpoint;
use ktrace_bundle::node::Listener;
use serde::Deserialize;

use super::most;
use crate::capture::{Capture, Connection, Evidence, Needs, NodePart, Target};
use crate::detectors::{Rule, group, steps};
use crate::finding::{Finding, Severity, Signal, Step};
use crate::units::{count, percent, share};

/// See the module.
pub(in crate::detectors) struct SlowAccept;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::detectors) struct Thresholds {
    queue_share: f64,
    min_waiting: u64,
    note_share: f64,
}

impl Rule for SlowAccept {
    const ID: &'static str = "tcp.slow_accept";
    const TEXT: &'static str = include_str!("../../../kb/tcp.slow_accept.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        Needs { node: &[NodePart::Listeners], ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        let mut servers: BTreeMap<(u32, Option<u16>), Vec<&Connection>> = BTreeMap::new();
        for c in capture.connections.iter().filter(|c| !c.is_client()) {
            servers.entry((c.netns, c.local.port)).or_default().push(c);
        }
        let mut found = Vec::new();
        for (netns, place) in &capture.node.places {
            for ((_, local), looks) in &place.listeners {
                let Some(local) = local else { continue };
                let of = servers.get(&(*netns, local.port)).map(Vec::as_slice).unwrap_or_default();
                found.extend(finding(capture, t, *netns, *local, [looks.start.as_ref(), looks.end.as_ref()], of));
            }
        }
        most(found)
    }
}

fn finding(
    capture: &Capture,
    t: &Thresholds,
    netns: u32,
    local: Endpoint,
    looks: [Option<&Listener>; 2],
    connections: &[&Connection],
) -> Option<Finding> {
    let used = |l: &Listener| share(l.accept_queue, l.backlog.max(1));
    let fullest = looks.into_iter().flatten().max_by(|a, b| used(a).total_cmp(&used(b)))?;
    let share = used(fullest);
    if fullest.accept_queue < t.min_waiting || share < t.note_share {
        return None;
    }
    // one look in the middle of a burst is no proof that it stays so
    let is_lasting =
        looks.iter().all(|l| l.is_some_and(|l| used(l) >= t.queue_share && l.accept_queue >= t.min_waiting));
    // who listens, or else who accepted a connection there
    let is_it = |c: &&Connection| c.netns == netns && c.local == local && capture.owner(c).is_some();
    let listener: Vec<&Connection> = capture.listeners.iter().filter(is_it).collect();
    let members = if listener.is_empty() { connections } else { &listener };
    let comm = members.iter().find_map(|c| capture.owner(c)).map(|p| p.comm.clone());
    let target = Target { comm, netns, remote: Endpoint::default() };
    let mut subject = group::of_connections(capture, &target, members.iter().copied());
    subject.local = Some(local);
    let when = if is_lasting { "when the window opened and when it closed" } else { "at one of two looks" };
    let title = format!(
        "{} is slow to accept connections on {local}: {} of {} that may waited {when} ({})",
        subject.who(),
        fullest.accept_queue,
        fullest.backlog,
        percent(share)
    );
    let port = local.port.map_or_else(String::new, |p| format!(" 'sport = :{p}'"));
    let mut next_steps =
        vec![Step::run("see how many wait now (Recv-Q)", steps::inside(&subject, &format!("ss -ltn{port}")))];
    if let Some(pid) = subject.pid() {
        next_steps.push(Step::run("see what its threads do", format!("cat /proc/{pid}/task/*/wchan")));
    }
    next_steps.push(Step::think(
        "in the program: accept in a thread of its own, or in more of them; a larger backlog only hides it",
    ));
    Some(Finding {
        rule: SlowAccept::ID,
        severity: if is_lasting { Severity::Warning } else { Severity::Info },
        title,
        signal: Signal { name: "accept_queue_share", value: share * 100.0, unit: "percent", threshold: t.queue_share * 100.0 },
        cause: "the process calls `accept(2)` less often than connections come: it is busy, blocked, or has no processor time"
            .to_owned(),
        impact: format!(
            "{} to nobody: clients are connected, send their request and wait",
            count(fullest.accept_queue, "connection talks", "connections talk")
        ),
        next_steps,
        share,
        confidence: if is_lasting { 0.9 } else { 0.6 },
        evidence: Evidence::default(),
        symptoms: Vec::new(),
        covers: None,
        subject,
    })
}
