//! `net.softnet_drops`: received packets that found no room in the queue between interface and network stack.

use serde::Deserialize;

use super::thrown::{is_at_backlog, thrown_by};
use crate::capture::{Capture, Needs, NodePart};
use crate::detectors::Rule;
use crate::finding::{Finding, Severity, Signal, Step, Subject};
use crate::units::share;

/// See the module.
pub(in crate::detectors) struct SoftnetDrops;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::detectors) struct Thresholds {
    critical_share: f64,
    min_warning: u64,
}

impl Rule for SoftnetDrops {
    const ID: &'static str = "net.softnet_drops";
    const TEXT: &'static str = include_str!("../../../kb/net.softnet_drops.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        Needs { node: &[NodePart::Softnet], ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        finding(capture, t).into_iter().collect()
    }
}

fn finding(capture: &Capture, t: &Thresholds) -> Option<Finding> {
    let node = &capture.node;
    let seen = thrown_by(capture, |row| is_at_backlog(row).then_some(())).remove(&());
    let counted = node.rose("softnet", "dropped").filter(|n| *n > 0);
    let dropped = counted.or(seen.as_ref().map(|seen| seen.packets))?;
    let all = node.rose("softnet", "processed").unwrap_or(0).saturating_add(dropped);
    let part = share(dropped, all);
    let severity = if dropped < t.min_warning {
        Severity::Info
    } else if part >= t.critical_share && counted.is_some() {
        Severity::Critical
    } else {
        Severity::Warning
    };
    let of_all = if counted.is_some() { format!(" of {all}") } else { String::new() };
    let title = format!(
        "the node dropped {dropped}{of_all} packets that it took in: a receive queue was full{}",
        worst_cpu(capture)
    );
    Some(Finding {
        rule: "net.softnet_drops",
        severity,
        title,
        signal: Signal { name: "softnet_drop_share", value: part * 100.0, unit: "percent", threshold: 0.0 },
        subject: Subject::default(),
        cause: "packets come faster than the CPU that takes them in handles them: one CPU gets most of the interrupts, or it is busy with something else".to_owned(),
        impact: "whoever they were for misses them: TCP sends again, UDP and DNS wait for their timeouts".to_owned(),
        next_steps: vec![
            Step::run("see drops (2nd column) and exhausted budgets (3rd) by CPU", "cat /proc/net/softnet_stat"),
            Step::run(
                "see the length of the queue and the budget",
                "sysctl net.core.netdev_max_backlog net.core.netdev_budget net.core.netdev_budget_usecs",
            ),
            Step::run("see which CPUs take packets in", "grep -E 'CPU|NET_RX' /proc/softirqs"),
            Step::think("then spread interrupts or receive packet steering over more CPUs"),
        ],
        share: part,
        confidence: 0.95,
        evidence: seen.as_ref().map(|seen| seen.evidence.clone()).unwrap_or_default(),
        symptoms: Vec::new(),
        covers: Some(seen.into_iter().flat_map(|seen| seen.keys).collect()),
    })
}

/// ` (most on CPU 3: 400)`, or nothing.
fn worst_cpu(capture: &Capture) -> String {
    let cpus = capture.node.groups("softnet.cpu").filter_map(|(cpu, looks)| {
        let n = looks.rose("dropped").filter(|n| *n > 0)?;
        Some((n, cpu.parse::<u32>().ok()?))
    });
    cpus.max_by_key(|(n, cpu)| (*n, u32::MAX - cpu))
        .map_or_else(String::new, |(n, cpu)| format!(" (most on CPU {cpu}: {n})"))
}
