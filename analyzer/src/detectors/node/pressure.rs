//! `host.pressure`: tasks of the machine wait for a CPU, for the hypervisor, or for storage.

use serde::Deserialize;

use crate::capture::{Capture, Evidence, Needs, Node, NodePart, Waiting};
use crate::detectors::Rule;
use crate::finding::{Finding, Severity, Signal, Step, Subject};
use crate::units::percent;

/// See the module.
pub(in crate::detectors) struct HostPressure;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::detectors) struct Thresholds {
    cpu_warning_share: f64,
    cpu_critical_share: f64,
    idle_warning_share: f64,
    idle_critical_share: f64,
    steal_warning_share: f64,
    steal_critical_share: f64,
    io_warning_share: f64,
    io_critical_share: f64,
    io_full_warning_share: f64,
    io_full_critical_share: f64,
    load_warning: f64,
    load_critical: f64,
}

impl Thresholds {
    /// What must be left of the CPUs' time: for a warning, and for what is critical.
    const fn idle(&self) -> (f64, f64) {
        (self.idle_warning_share, self.idle_critical_share)
    }
}

/// What there is too little of.
struct Lack {
    signal: &'static str,
    part: f64,
    threshold: f64,
    severity: Severity,
    title: String,
    cause: &'static str,
    confidence: f64,
}

impl Rule for HostPressure {
    const ID: &'static str = "host.pressure";
    const TEXT: &'static str = include_str!("../../../kb/host.pressure.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        Needs { node: &[NodePart::Cpu], ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        let node = &capture.node;
        [cpu(node, t), io(node, t), steal(node, t)].into_iter().flatten().map(finding).collect()
    }
}

/// How much of a pair of thresholds is reached.
fn grade(is_at: impl Fn(f64) -> bool, pair: (f64, f64)) -> Option<Severity> {
    match (is_at(pair.0), is_at(pair.1)) {
        (_, true) => Some(Severity::Critical),
        (true, false) => Some(Severity::Warning),
        (false, false) => None,
    }
}

fn threshold(severity: Severity, pair: (f64, f64)) -> f64 {
    if severity == Severity::Critical { pair.1 } else { pair.0 }
}

fn cpu(node: &Node, t: &Thresholds) -> Option<Lack> {
    let idle = node.cpu_share("idle");
    let load = node.load();
    let words = load.map_or_else(String::new, |(load, cpus)| format!("; load {load:.1} on {cpus} CPUs"));
    let Some(Waiting { some, .. }) = node.waited(None, "cpu") else { return cpu_without_psi(t, idle?, load?) };
    let pair = (t.cpu_warning_share, t.cpu_critical_share);
    let by_idle = idle.map_or(Some(Severity::Critical), |idle| grade(|least| idle <= least, t.idle()))?;
    // CPUs that are busy all the time are what many machines are for: it is grave only if many tasks wait for each
    let is_crowded = load.is_none_or(|(load, cpus)| load / cpus as f64 >= t.load_critical);
    let worst = if is_crowded { Severity::Critical } else { Severity::Warning };
    let severity = grade(|least| some >= least, pair)?.min(by_idle).min(worst);
    Some(Lack {
        signal: "cpu_pressure_share",
        part: some,
        threshold: threshold(severity, pair),
        severity,
        title: format!(
            "the machine is short of CPU: some task waited for one for {} of the time{words}",
            percent(rounded(some))
        ),
        cause: "more tasks want to run than there are CPUs",
        confidence: 0.9,
    })
}

fn cpu_without_psi(t: &Thresholds, idle: f64, (load, cpus): (f64, u64)) -> Option<Lack> {
    let each = load / cpus as f64;
    let pair = (t.load_warning, t.load_critical);
    let by_load = grade(|least| each >= least, pair)?;
    let by_idle = grade(|least| idle <= least, t.idle())?;
    let severity = by_load.min(by_idle);
    Some(Lack {
        signal: "load_per_cpu",
        part: each,
        threshold: threshold(severity, pair),
        severity,
        title: format!(
            "the machine is short of CPU: load {load:.1} on {cpus} CPUs, idle for {} of their time (this kernel tells no pressure)",
            percent(rounded(idle))
        ),
        cause: "more tasks want to run than there are CPUs, or they wait for storage, which counts as load, too",
        confidence: 0.75,
    })
}

fn io(node: &Node, t: &Thresholds) -> Option<Lack> {
    let Waiting { some, full } = node.waited(None, "io")?;
    let (pair, of_all) =
        ((t.io_warning_share, t.io_critical_share), (t.io_full_warning_share, t.io_full_critical_share));
    let by_full = grade(|least| full.is_some_and(|full| full >= least), of_all)?;
    let severity = grade(|least| some >= least, pair)?.min(by_full);
    Some(Lack {
        signal: "io_pressure_share",
        part: some,
        threshold: threshold(severity, pair),
        severity,
        title: format!(
            "the machine waits for storage: some task for {} of the time, all for {}",
            percent(rounded(some)),
            percent(rounded(full.unwrap_or(0.0)))
        ),
        cause: "storage does not keep up with what is read and written: a slow or throttled disk, or memory that is written out",
        confidence: 0.85,
    })
}

fn steal(node: &Node, t: &Thresholds) -> Option<Lack> {
    let stolen = node.cpu_share("steal")?;
    let pair = (t.steal_warning_share, t.steal_critical_share);
    let severity = grade(|least| stolen >= least, pair)?;
    Some(Lack {
        signal: "steal_share",
        part: stolen,
        threshold: threshold(severity, pair),
        severity,
        title: format!("the hypervisor gave {} of this machine's CPU time to others (steal)", percent(rounded(stolen))),
        cause: "the host of this virtual machine is overcommitted, or its CPU credits are used up",
        confidence: 0.95,
    })
}

fn finding(lack: Lack) -> Finding {
    let is_share = lack.signal != "load_per_cpu";
    let (factor, unit) = if is_share { (100.0, "percent") } else { (1.0, "tasks per CPU") };
    Finding {
        rule: "host.pressure",
        severity: lack.severity,
        title: lack.title,
        signal: Signal { name: lack.signal, value: lack.part * factor, unit, threshold: lack.threshold * factor },
        subject: Subject::default(),
        cause: lack.cause.to_owned(),
        impact: "whatever runs here answers late: DNS, probes and requests wait, while the network is fine".to_owned(),
        next_steps: vec![
            Step::run("see pressure, where the kernel tells it", "grep . /proc/pressure/*"),
            Step::run("see run queue, steal (`st`) and waiting for storage (`wa`)", "vmstat 1 5"),
            Step::run("see what uses the CPUs", "top -b -n 1 -o %CPU | head -20"),
        ],
        share: lack.part.min(1.0),
        confidence: lack.confidence,
        evidence: Evidence::default(),
        symptoms: Vec::new(),
        covers: Some(Vec::new()),
    }
}

/// A share to a tenth of a percent.
pub(in crate::detectors) fn rounded(share: f64) -> f64 {
    (share * 1000.0).round() / 1000.0
}
