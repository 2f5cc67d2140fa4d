//! `host.memory_pressure`: the machine, or a pod, is short of memory.

use std::collections::BTreeSet;

use ktrace_bundle::node::Cgroup;
use serde::Deserialize;

use super::pressure::rounded;
use super::{keys_of, of_cgroup, whose};
use crate::capture::{Capture, Evidence, Needs, Node, NodePart, ProcId, Waiting};
use crate::detectors::Rule;
use crate::finding::{Finding, Severity, Signal, Step, Subject};
use crate::units::{SECOND, count, percent, share};

/// See the module.
pub(in crate::detectors) struct MemoryPressure;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::detectors) struct Thresholds {
    warning_share: f64,
    critical_full_share: f64,
    stall_rate: f64,
    available_share: f64,
}

/// How short it is.
struct Lack {
    severity: Severity,
    signal: Signal,
    what: String,
    confidence: f64,
}

impl Rule for MemoryPressure {
    const ID: &'static str = "host.memory_pressure";
    const TEXT: &'static str = include_str!("../../../kb/host.memory_pressure.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        // whose cgroups are read is known by their events
        let hooks = &["tcp_state", "udp"];
        Needs { hooks, lossless: true, node: &[NodePart::Memory, NodePart::Cgroups], ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        let host = of_host(&capture.node, t, capture.duration_ns)
            .map(|lack| finding("the machine", Subject::default(), lack, Vec::new()));
        let cgroups = capture.node.cgroups.values().filter_map(|looks| looks.over_window());
        let pods = cgroups.filter_map(|cgroup| {
            let lack = of_pod(&capture.node, t, cgroup)?;
            let members: BTreeSet<ProcId> = capture.processes.in_cgroup(cgroup.cgroup_id).collect();
            let subject = of_cgroup(capture, &members);
            let covers = if lack.severity > Severity::Info { keys_of(capture, &members) } else { Vec::new() };
            Some(finding(&whose(&subject, cgroup), subject, lack, covers))
        });
        host.into_iter().chain(pods).collect()
    }
}

fn oom(kills: u64) -> Lack {
    Lack {
        severity: Severity::Critical,
        signal: Signal { name: "oom_kill_count", value: kills as f64, unit: "processes", threshold: 1.0 },
        what: format!("ran out of memory: the kernel ended {}", count(kills, "process", "processes")),
        confidence: 0.97,
    }
}

/// By PSI: `None` where there is none, or it says that all is well.
fn by_pressure(node: &Node, t: &Thresholds, cgroup: Option<u64>) -> Option<Lack> {
    let Waiting { some, full } = node.waited(cgroup, "memory")?;
    let full = full.filter(|full| *full >= t.critical_full_share);
    let (severity, name, value, threshold) = match full {
        Some(full) => (Severity::Critical, "memory_full_share", full, t.critical_full_share),
        None if some >= t.warning_share => (Severity::Warning, "memory_pressure_share", some, t.warning_share),
        None => return None,
    };
    let who = if full.is_some() { "all tasks" } else { "some task" };
    Some(Lack {
        severity,
        signal: Signal { name, value: value * 100.0, unit: "percent", threshold: threshold * 100.0 },
        what: format!("is short of memory: {who} waited for it for {} of the time", percent(rounded(value))),
        confidence: 0.9,
    })
}

fn of_host(node: &Node, t: &Thresholds, window_ns: u64) -> Option<Lack> {
    // it counts those of each cgroup's limit, too
    let of_pods = node.cgroups.values().filter_map(|looks| looks.over_window());
    let of_pods = of_pods.filter_map(|cgroup| cgroup.rose.get("memory.oom_kill")).sum::<u64>();
    let kills = node.rose("vmstat", "oom_kill").unwrap_or(0).saturating_sub(of_pods);
    if kills > 0 {
        let what = format!(
            "ended {} for lack of memory: of its own, or of what a cgroup may have",
            count(kills, "process", "processes")
        );
        return Some(Lack { what, confidence: 0.9, ..oom(kills) });
    }
    let has_psi = node.waited(None, "memory").is_some();
    by_pressure(node, t, None)
        .or_else(|| if has_psi { None } else { stalls(node, t, window_ns) })
        .or_else(|| scarce(node, t))
}

fn stalls(node: &Node, t: &Thresholds, window_ns: u64) -> Option<Lack> {
    let risen = node.host().counters.get("vmstat").into_iter().flat_map(|vmstat| vmstat.risen());
    let n = risen.filter(|(name, _)| name.starts_with("allocstall")).fold(0_u64, |sum, (_, n)| sum.saturating_add(n));
    let rate = n as f64 / (window_ns.max(SECOND) as f64 / SECOND as f64);
    (rate >= t.stall_rate).then(|| Lack {
        severity: Severity::Warning,
        signal: Signal { name: "allocation_stall_rate", value: rate, unit: "allocations/s", threshold: t.stall_rate },
        what: format!(
            "is short of memory: {n} allocations had to wait until some was freed (this kernel tells no pressure)"
        ),
        confidence: 0.8,
    })
}

fn scarce(node: &Node, t: &Thresholds) -> Option<Lack> {
    let value = |name: &str| node.value("meminfo", name);
    let (available, total) = (value("MemAvailable")?, value("MemTotal").filter(|n| *n > 0)?);
    let part = share(available, total);
    (part < t.available_share).then(|| Lack {
        severity: Severity::Warning,
        signal: Signal {
            name: "available_memory_share",
            value: part * 100.0,
            unit: "percent",
            threshold: t.available_share * 100.0,
        },
        what: format!("has nearly no memory left: {} MiB of {} MiB are available", available >> 20, total >> 20),
        confidence: 0.85,
    })
}

fn of_pod(node: &Node, t: &Thresholds, cgroup: &Cgroup) -> Option<Lack> {
    let rose = |counter: &str| cgroup.rose.get(counter).copied().unwrap_or(0);
    let kills = rose("memory.oom_kill");
    if kills > 0 {
        return Some(oom(kills));
    }
    let at_limit = rose("memory.max").saturating_add(rose("memory.high"));
    by_pressure(node, t, Some(cgroup.cgroup_id)).or_else(|| {
        (at_limit > 0).then(|| Lack {
            severity: Severity::Info,
            signal: Signal { name: "memory_limit_count", value: at_limit as f64, unit: "times", threshold: 1.0 },
            what: format!("was at its memory limit {}, which caches alone can do", count(at_limit, "time", "times")),
            confidence: 0.8,
        })
    })
}

fn finding(whose: &str, subject: Subject, lack: Lack, covers: Vec<crate::finding::Key>) -> Finding {
    let mut next_steps = vec![
        Step::run("see what is available", "free -m"),
        Step::run("see whom the kernel has ended", "dmesg -T | grep -i 'out of memory' | tail"),
        Step::run("see who uses the memory", "top -b -n 1 -o %MEM | head -20"),
    ];
    if let Some(pid) = subject.pid() {
        next_steps.push(Step::run("see the cgroup whose limit it is", format!("cat /proc/{pid}/cgroup")));
    }
    let is_share = lack.signal.unit == "percent";
    Finding {
        rule: "host.memory_pressure",
        severity: lack.severity,
        title: format!("{whose} {}", lack.what),
        cause: match lack.severity {
            Severity::Info => {
                "what was read and written stays in memory until the limit is reached, and is let go then"
            }
            _ => "more memory is wanted than there is, or than the pod may have",
        }
        .to_owned(),
        impact: match lack.severity {
            Severity::Info => "none was seen: nobody waited for memory for long",
            _ => "tasks wait while memory is freed, or are ended: connections break, answers come late",
        }
        .to_owned(),
        next_steps,
        share: if is_share { (lack.signal.value / 100.0).min(1.0) } else { 1.0 },
        signal: lack.signal,
        confidence: lack.confidence,
        evidence: Evidence::default(),
        symptoms: Vec::new(),
        covers: Some(covers),
        subject,
    }
}
