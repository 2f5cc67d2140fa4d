//! What is unusual about what a machine has once: receive queues, pressure, pods that are held back, the clock.

use super::unusual::Note;
use crate::capture::{Capture, Waiting};
use crate::escape::shown;
use crate::units::{count, duration, percent, share};

/// From this share of the window on, waiting is told.
const WAITING_SHARE: f64 = 0.1;
/// From this share of the CPUs' time on, steal is told.
const STEAL_SHARE: f64 = 0.05;
/// From this share of periods on, a pod that is held back is told.
const THROTTLED_SHARE: f64 = 0.05;

pub(super) fn receive_queues(capture: &Capture) -> Vec<Note> {
    let rose = |counter: &str| capture.node.rose("softnet", counter).unwrap_or(0);
    let dropped = rose("dropped");
    let text = format!("receive queues dropped {dropped} of {} packets", rose("processed").saturating_add(dropped));
    if dropped > 0 { vec![Note::new("queue", None, dropped, text)] } else { Vec::new() }
}

pub(super) fn pressure(capture: &Capture) -> Vec<Note> {
    let node = &capture.node;
    let mut out = Vec::new();
    let mut note = |text: String| out.push(Note::new("pressure", None, 0, text));
    for resource in ["cpu", "memory", "io"] {
        if let Some(Waiting { some, full }) = node.waited(None, resource).filter(|w| w.some >= WAITING_SHARE) {
            let full = full.filter(|full| *full >= 0.001);
            let all = full.map_or_else(String::new, |full| format!(", all tasks for {}", part(full)));
            note(format!("pressure: some task waited for {resource} for {} of the window{all}", part(some)));
        }
    }
    if let Some(stolen) = node.cpu_share("steal").filter(|share| *share >= STEAL_SHARE) {
        note(format!("steal: the hypervisor gave {} of the CPUs' time to others", part(stolen)));
    }
    if let Some((load, cpus)) = node.load().filter(|(load, cpus)| *load > *cpus as f64 * 2.0) {
        note(format!("load {load:.2} on {}", count(cpus, "CPU", "CPUs")));
    }
    if let Some(kills) = node.rose("vmstat", "oom_kill").filter(|n| *n > 0) {
        note(format!("out of memory: the kernel ended {}", count(kills, "process", "processes")));
    }
    out
}

pub(super) fn pods(capture: &Capture) -> Vec<Note> {
    let cgroups = capture.node.cgroups.values().filter_map(|looks| looks.over_window());
    let notes = cgroups.filter_map(|cgroup| {
        let rose = |counter: &str| cgroup.rose.get(counter).copied().unwrap_or(0);
        let (periods, throttled) = (rose("cpu.nr_periods"), rose("cpu.nr_throttled"));
        let (is_held, kills) = (share(throttled, periods) >= THROTTLED_SHARE, rose("memory.oom_kill"));
        let mut parts = Vec::new();
        if is_held {
            parts.push(format!("held back in {throttled} of {periods} CPU periods"));
        }
        if kills > 0 {
            parts.push(format!("{} ended for lack of memory", count(kills, "process", "processes")));
        }
        let text = format!("{}: {}", name(capture, cgroup.cgroup_id, &cgroup.path), parts.join(", "));
        (!parts.is_empty()).then(|| Note::new("pod", None, throttled.max(kills), text))
    });
    notes.collect()
}

/// The pod behind a cgroup, or the cgroup's path; escaped.
fn name(capture: &Capture, cgroup_id: u64, path: &str) -> String {
    let homes = capture.processes.in_cgroup(cgroup_id).filter_map(|id| capture.processes.home(id));
    let subject = |home: &ktrace_bundle::workload::Home| crate::finding::Subject {
        home: Some(home.clone()),
        ..Default::default()
    };
    let pod = homes.filter_map(|home| subject(home).pod()).next();
    pod.unwrap_or_else(|| format!("cgroup `{}`", shown(path)))
}

pub(super) fn clock(capture: &Capture) -> Vec<Note> {
    let Some(clock) = capture.node.clock.latest().filter(|c| !c.synchronized) else { return Vec::new() };
    let error = duration(clock.max_error_us.saturating_mul(1000));
    vec![Note::new("clock", None, 0, format!("clock: not synchronized, off by up to {error}"))]
}

/// A share to a tenth of a percent.
pub(super) fn part(share: f64) -> String {
    percent((share * 1000.0).round() / 1000.0)
}
