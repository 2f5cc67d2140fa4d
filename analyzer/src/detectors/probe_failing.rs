//! `kubelet.probe_failing`: the kubelet cannot reach a pod, or gets no answer from it in time.

use std::collections::BTreeMap;

use ktrace_bundle::tcp::TcpState;
use ktrace_bundle::workload::Home;
use serde::Deserialize;

use super::connect_timeout::hangs;
use super::{Rule, group, steps};
use crate::capture::{Attempt, Capture, Connection, Evidence, Failure, Needs, Target};
use crate::escape::shown;
use crate::finding::{Finding, Severity, Signal, Step, Subject};
use crate::kb::Ms;
use crate::units::{count, share};

/// Who probes.
const KUBELET: &str = "kubelet";

/// What that means.
const STARTING: &str = "the pod was starting, and did not listen on that port yet";

/// See the module.
pub(super) struct ProbeFailing;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Thresholds {
    critical_share: f64,
    min_critical: u64,
    warning_share: f64,
    timeout_ms: Ms,
    slow_ms: Ms,
    starting_ms: Ms,
}

/// How a probe failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum How {
    Refused,
    Unanswered,
    Unreachable,
    NoReply,
    Slow,
}

impl Rule for ProbeFailing {
    const ID: &'static str = "kubelet.probe_failing";
    const TEXT: &'static str = include_str!("../../kb/kubelet.probe_failing.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        Needs { hooks: &["tcp_state", "connect"], lossless: true, ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        let mut groups: BTreeMap<Target, Vec<(&Connection, Option<How>)>> = BTreeMap::new();
        for c in &capture.connections {
            if let Some(owner) = capture.owner(c).filter(|p| p.comm == KUBELET)
                && let Some(how) = judge(capture, t, c)
            {
                let target = Target { comm: Some(owner.comm.clone()), netns: c.netns, remote: c.remote };
                groups.entry(target).or_default().push((c, how));
            }
        }
        groups.iter().filter_map(|(target, probes)| finding(capture, t, target, probes)).collect()
    }
}

/// What became of a probe: `Some(None)` if it worked, `None` if that is not known.
fn judge(capture: &Capture, t: &Thresholds, c: &Connection) -> Option<Option<How>> {
    Some(match c.attempt(capture.window_end_ns)? {
        Attempt::Failed(Failure::Refused) => Some(How::Refused),
        Attempt::Failed(Failure::StillTrying(ns)) if !hangs(capture, c, ns) => return None,
        Attempt::Failed(Failure::TimedOut | Failure::GaveUp(_) | Failure::StillTrying(_)) => Some(How::Unanswered),
        Attempt::Failed(Failure::Unreachable(_)) => Some(How::Unreachable),
        Attempt::Established if c.handshake_ns.is_some_and(|ns| ns >= t.slow_ms.ns()) => Some(How::Slow),
        Attempt::Established => is_without_reply(t, c).then_some(How::NoReply),
    })
}

/// It asked, and ended it without having heard anything.
fn is_without_reply(t: &Thresholds, c: &Connection) -> bool {
    let (Some(begun), Some(closed)) = (c.established, &c.closed) else { return false };
    let account = &closed.account;
    let took = closed.mark.at.saturating_sub(begun.at);
    account.rx_bytes == Some(0)
        && account.tx_bytes.is_some_and(|n| n > 0)
        && took >= t.timeout_ms.ns()
        && closed.from != TcpState::LastAck
}

fn finding(
    capture: &Capture,
    t: &Thresholds,
    target: &Target,
    probes: &[(&Connection, Option<How>)],
) -> Option<Finding> {
    let failed: Vec<(&Connection, How)> = probes.iter().filter_map(|(c, how)| Some((*c, (*how)?))).collect();
    let pod = pod_of(capture, target, probes)?;
    let (n, all) = (failed.len() as u64, probes.len() as u64);
    let part = share(n, all);
    let was_starting = was_starting(t, probes);
    let severity = match part {
        _ if n == 0 => return None,
        _ if was_starting => Severity::Info,
        _ if part >= t.critical_share && n >= t.min_critical => Severity::Critical,
        _ if part >= t.warning_share => Severity::Warning,
        _ => Severity::Info,
    };
    let how = most(&failed)?;
    let subject = group::of_connections(capture, target, failed.iter().map(|(c, _)| *c));
    let title = format!(
        "{} {} {pod} at {}: {n} of {} failed",
        subject.who(),
        verb(how),
        subject.whom(),
        count(all, "probe", "probes")
    );
    Some(Finding {
        rule: "kubelet.probe_failing",
        severity,
        title,
        signal: Signal {
            name: "failed_probe_share",
            value: part * 100.0,
            unit: "percent",
            threshold: 100.0 * if severity == Severity::Critical { t.critical_share } else { t.warning_share },
        },
        cause: if was_starting { STARTING } else { cause(how) }.to_owned(),
        impact: "after 3 failures in a row, by default, the pod gets no more traffic (readiness), or is restarted (liveness)"
            .to_owned(),
        next_steps: next_steps(&subject),
        share: part,
        confidence: if how == How::NoReply { 0.8 } else { 0.9 },
        evidence: evidence(&failed),
        symptoms: Vec::new(),
        covers: None,
        subject,
    })
}

/// The pod behind the address; escaped. `None` if it is none, as far as is known.
fn pod_of(capture: &Capture, target: &Target, probes: &[(&Connection, Option<How>)]) -> Option<String> {
    let addr = target.remote.addr?;
    if let Some((namespace, pod)) = capture.peers.pod(target.netns, addr) {
        return Some(format!("{}/{}", shown(namespace), shown(pod)));
    }
    // a pod in the node's own network is not told from the rest of the node
    let far = probes.iter().filter_map(|(c, _)| capture.ends.server_of(c)).filter(|far| far.netns != target.netns);
    let servers = far.filter_map(|far| far.owner);
    let homes = servers.filter_map(|id| capture.processes.home(id));
    let by_socket = homes
        .filter(|home| matches!(home, Home::Pod(_)))
        .map(|home| Subject { home: Some(home.clone()), ..Subject::default() }.pod());
    let by_address = capture.node.netns_of(addr).filter(|netns| *netns != target.netns);
    by_socket.flatten().next().or_else(|| by_address.map(|netns| format!("the pod in network namespace {netns}")))
}

/// All that failed came before all that worked, and within the time that a start takes.
fn was_starting(t: &Thresholds, probes: &[(&Connection, Option<How>)]) -> bool {
    let at = |c: &Connection| c.begun_at().unwrap_or(c.span.from);
    let bad = || probes.iter().filter(|(_, how)| how.is_some()).map(|(c, _)| at(c));
    let good = probes.iter().filter(|(_, how)| how.is_none()).map(|(c, _)| at(c)).min();
    let is_refused = probes.iter().all(|(_, how)| matches!(how, None | Some(How::Refused)));
    match (bad().min(), bad().max(), good) {
        (Some(first), Some(last), Some(good)) => is_refused && last < good && last - first <= t.starting_ms.ns(),
        _ => false,
    }
}

/// How most of them failed.
fn most(failed: &[(&Connection, How)]) -> Option<How> {
    let mut counts: BTreeMap<How, usize> = BTreeMap::new();
    for (_, how) in failed {
        *counts.entry(*how).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(how, n)| (*n, std::cmp::Reverse(*how))).map(|(how, _)| how)
}

const fn verb(how: How) -> &'static str {
    match how {
        How::Refused => "is refused by",
        How::Unanswered => "gets no answer from",
        How::Unreachable => "cannot reach",
        How::NoReply => "gets no reply in time from",
        How::Slow => "connects slowly to",
    }
}

const fn cause(how: How) -> &'static str {
    match how {
        How::Refused => {
            "nothing listens on that port in the pod: the process is not up, has crashed, or listens on its loopback address only"
        }
        How::Unanswered => {
            "SYNs to the pod are lost: a policy or a filter drops them, its listener has no room, or its interface is gone"
        }
        How::Unreachable => "the node has no way to the pod: its interface, its route or its neighbour entry is gone",
        How::NoReply => {
            "the pod takes the connection and does not answer in time: it is busy, held back by its CPU limit, or waits for something itself"
        }
        How::Slow => {
            "the handshake takes long: its first packet was lost, or the pod's namespace is slow to take packets in"
        }
    }
}

fn evidence(failed: &[(&Connection, How)]) -> Evidence {
    let seq = |c: &Connection| {
        c.closed
            .as_ref()
            .map(|x| x.mark.seq)
            .or_else(|| c.connect.as_ref().map(|(m, _)| m.seq))
            .or(c.opened.map(|m| m.seq))
    };
    Evidence::of(failed.iter().filter_map(|(c, _)| seq(c)))
}

fn next_steps(subject: &Subject) -> Vec<Step> {
    let mut out: Vec<Step> = Vec::new();
    if let Some((addr, port)) = subject.remote.and_then(|r| r.addr.zip(r.port)) {
        out.push(Step::run("try the pod's port from the node", format!("nc -vz -w 2 {addr} {port}")));
    }
    out.extend(steps::route(subject));
    out.extend(steps::watch(subject, "tcp"));
    out.push(Step::think("then see the pod's events and whether its process runs, is throttled, or waits"));
    out
}
