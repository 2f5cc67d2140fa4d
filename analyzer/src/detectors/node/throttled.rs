//! `pod.cpu_throttled`: a pod that is not allowed to run because it has used up its CPU limit.

use std::collections::BTreeSet;

use ktrace_bundle::node::Cgroup;
use serde::Deserialize;

use super::{keys_of, of_cgroup, whose};
use crate::capture::{Capture, Evidence, Looks, Needs, NodePart, ProcId};
use crate::detectors::Rule;
use crate::finding::{Finding, Severity, Signal, Step};
use crate::units::{duration, percent, share};

/// See the module.
pub(in crate::detectors) struct CpuThrottled;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::detectors) struct Thresholds {
    warning_share: f64,
    critical_share: f64,
    min_periods: u64,
}

impl Rule for CpuThrottled {
    const ID: &'static str = "pod.cpu_throttled";
    const TEXT: &'static str = include_str!("../../../kb/pod.cpu_throttled.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        // whose cgroups are read is known by their events
        let hooks = &["tcp_state", "udp"];
        Needs { hooks, lossless: true, node: &[NodePart::Cgroups], ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        capture.node.cgroups.values().filter_map(|looks| finding(capture, t, looks)).collect()
    }
}

fn finding(capture: &Capture, t: &Thresholds, looks: &Looks<Cgroup>) -> Option<Finding> {
    let cgroup = looks.end.as_ref()?;
    let is_whole = looks.start.is_some();
    let counters = if is_whole { &cgroup.rose } else { &cgroup.counters };
    let gained = |counter: &str| counters.get(counter).copied().unwrap_or(0);
    let (periods, throttled) = (gained("cpu.nr_periods"), gained("cpu.nr_throttled"));
    let part = share(throttled, periods);
    if periods < t.min_periods || part < t.warning_share {
        return None;
    }
    let severity = if part >= t.critical_share && is_whole { Severity::Critical } else { Severity::Warning };
    let members: BTreeSet<ProcId> = capture.processes.in_cgroup(cgroup.cgroup_id).collect();
    let subject = of_cgroup(capture, &members);
    let title = format!(
        "{} was held back by its CPU limit{} in {throttled} of {periods} periods ({}){}",
        whose(&subject, cgroup),
        limit(cgroup),
        percent(part),
        if is_whole { "" } else { " since it began" }
    );
    let waited = duration(gained("cpu.throttled_usec").saturating_mul(1000));
    let next_steps = next_steps(subject.pid());
    Some(Finding {
        rule: "pod.cpu_throttled",
        severity,
        title,
        signal: Signal {
            name: "throttled_period_share",
            value: part * 100.0,
            unit: "percent",
            threshold: 100.0 * if severity == Severity::Critical { t.critical_share } else { t.warning_share },
        },
        cause: format!(
            "it used up what it may run in a period and had to wait for the next one, its threads {waited} in all; the node may have idle CPUs all the same"
        ),
        impact:
            "it answers late and reads late: clients, probes and DNS lookups wait for it, while the network is fine"
                .to_owned(),
        next_steps,
        share: part,
        confidence: if is_whole { 0.97 } else { 0.7 },
        evidence: Evidence::default(),
        symptoms: Vec::new(),
        covers: Some(keys_of(capture, &members)),
        subject,
    })
}

/// ` of 0.5 CPUs`, or nothing.
fn limit(cgroup: &Cgroup) -> String {
    match cgroup.quota_us.zip(cgroup.period_us.filter(|us| *us > 0)) {
        Some((quota, period)) => {
            let cpus = quota as f64 / period as f64;
            format!(" of {} CPUs", (cpus * 100.0).round() / 100.0)
        }
        None => String::new(),
    }
}

fn next_steps(pid: Option<u32>) -> Vec<Step> {
    let mut out = Vec::new();
    if let Some(pid) = pid {
        out.push(Step::run("see the cgroup of the process", format!("cat /proc/{pid}/cgroup")));
        out.push(Step::run("see how many threads share the limit", format!("grep Threads /proc/{pid}/status")));
    }
    out.push(Step::think("compare `nr_throttled` and `nr_periods` of `cpu.stat` in that cgroup over a minute"));
    out.push(Step::think("then raise or remove the pod's CPU limit, or make it use fewer threads"));
    out
}
