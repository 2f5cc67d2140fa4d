//! `tcp.close_wait_leak`: connections that the peer has closed and the owner has not.

use std::collections::BTreeMap;

use ktrace_bundle::event::{Endpoint, EventKind};
use ktrace_bundle::tcp::TcpState;
use serde::Deserialize;

use super::{Rule, group, steps};
use crate::capture::{Capture, Connection, Evidence, Needs, Target};
use crate::finding::{Finding, Severity, Signal, Step, Subject};
use crate::kb::Ms;
use crate::units::{count, share};

/// See the module.
pub(super) struct CloseWaitLeak;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Thresholds {
    min_age_ms: Ms,
    min_server: u64,
    min_client: u64,
    min_critical: u64,
}

impl Rule for CloseWaitLeak {
    const ID: &'static str = "tcp.close_wait_leak";
    const TEXT: &'static str = include_str!("../../kb/tcp.close_wait_leak.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        Needs { hooks: &["tcp_state", "sockets"], lossless: true, ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        let mut groups: BTreeMap<(bool, Target), Vec<&Connection>> = BTreeMap::new();
        let mut open: BTreeMap<(bool, Target), u64> = BTreeMap::new();
        for c in &capture.connections {
            if c.end_state().is_none_or(|s| s == TcpState::Close) {
                continue;
            }
            let key = key(capture, c);
            if leaks(capture, t, c) {
                groups.entry(key.clone()).or_default().push(c);
            }
            *open.entry(key).or_default() += 1;
        }
        let of_all = |key: &(bool, Target)| open.get(key).copied().unwrap_or_default();
        groups.iter().map(|(key, members)| finding(capture, t, key, members, of_all(key))).collect()
    }
}

/// A client's connections go by remote end, a server's by its own port.
fn key(capture: &Capture, c: &Connection) -> (bool, Target) {
    let is_client = c.is_client();
    let remote = if is_client { c.remote } else { Endpoint { addr: None, port: c.local.port } };
    (is_client, Target { comm: capture.owner(c).map(|p| p.comm.clone()), netns: c.netns, remote })
}

fn leaks(capture: &Capture, t: &Thresholds, c: &Connection) -> bool {
    let proven = c.at_end.is_some() || capture.coverage.lost(&[EventKind::TcpState]) == 0;
    let age = match c.close_wait {
        Some(mark) => capture.window_end_ns.saturating_sub(mark.at),
        None if was_leaking(c) => capture.duration_ns,
        None => 0,
    };
    proven && c.end_state() == Some(TcpState::CloseWait) && age >= t.min_age_ms.ns()
}

fn was_leaking(c: &Connection) -> bool {
    c.at_start.as_ref().is_some_and(|s| s.state == Some(TcpState::CloseWait))
}

fn finding(capture: &Capture, t: &Thresholds, key: &(bool, Target), members: &[&Connection], open: u64) -> Finding {
    let (is_client, target) = key;
    let n = members.len() as u64;
    let threshold = if *is_client { t.min_client } else { t.min_server };
    let severity = match n {
        _ if n >= t.min_critical => Severity::Critical,
        _ if n >= threshold => Severity::Warning,
        _ => Severity::Info,
    };
    let mut subject = group::of_connections(capture, target, members.iter().copied());
    let mut place = format!("to {}", subject.whom());
    if !is_client {
        place = target.remote.port.map_or_else(String::new, |p| format!("on its port {p}"));
        (subject.local, subject.remote) = (Some(target.remote), None);
    }
    let before = members.iter().filter(|c| was_leaking(c)).count() as u64;
    let title = format!(
        "{} has not closed {} {place} that the other end has closed ({} more than when the window opened)",
        subject.who(),
        count(n, "connection", "connections"),
        n - before
    );
    Finding {
        rule: "tcp.close_wait_leak",
        severity,
        title,
        signal: Signal { name: "close_wait_count", value: n as f64, unit: "connections", threshold: threshold as f64 },
        next_steps: next_steps(&subject),
        subject,
        cause:
            "the process got the end of the stream and did not close its own end: it does not read, or forgets to close"
                .to_owned(),
        impact: "each one holds a file descriptor and memory until the process closes it or ends".to_owned(),
        share: share(n, open),
        confidence: if *is_client { 0.7 } else { 0.9 },
        evidence: Evidence::of(members.iter().filter_map(|c| c.close_wait.map(|m| m.seq))),
        symptoms: Vec::new(),
        covers: None,
    }
}

fn next_steps(subject: &Subject) -> Vec<Step> {
    let text = "list them with their owner and what they have not read";
    let options = "-tnpe state close-wait";
    let mut out: Vec<Step> = match subject.local.and_then(|l| l.port).filter(|_| subject.remote.is_none()) {
        Some(port) => {
            let command = steps::inside(subject, &format!("ss {options} 'sport = :{port}'"));
            vec![Step::run(text, command)]
        }
        None => steps::sockets(subject, text, options).into_iter().collect(),
    };
    if let Some(pid) = subject.pid() {
        out.push(Step::run("compare with its limit of open files", format!("grep 'open files' /proc/{pid}/limits")));
        out.push(Step::run("see where its threads wait", format!("cat /proc/{pid}/task/*/wchan")));
    }
    out.push(Step::think("in the program: close the connection when a read returns 0; as a stopgap restart it"));
    out
}
