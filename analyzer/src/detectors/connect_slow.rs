//! `connect.slow`: handshakes that complete, but late, by process and remote end.
//!
//! Judged by the handshake (`SYN_SENT` to `ESTABLISHED`), never by the system call: a non-blocking `connect(2)`
//! returns at once.

use serde::Deserialize;

use super::{Rule, group, steps};
use crate::capture::{Attempt, Capture, Connection, Evidence, Needs, Target};
use crate::finding::{Finding, Severity, Signal, Step, Subject};
use crate::kb::Ms;
use crate::units::{MILLI, count, duration, percentile, share};

/// The percentile that must not be slow.
const PERCENTILE: usize = 95;

/// See the module.
pub(super) struct ConnectSlow;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Thresholds {
    slow_ms: Ms,
    min_handshakes: usize,
    waited_ms: Ms,
    lost_syn_share: f64,
}

impl Rule for ConnectSlow {
    const ID: &'static str = "connect.slow";
    const TEXT: &'static str = include_str!("../../kb/connect.slow.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        Needs { hooks: &["tcp_state"], lossless: true, ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        let mut found = Vec::new();
        for (target, members) in &capture.attempts() {
            let mut handshakes: Vec<(u64, &Connection)> = members
                .iter()
                .filter(|(_, a)| *a == Attempt::Established)
                .filter_map(|(c, _)| c.handshake_ns.map(|ns| (ns, *c)))
                .collect();
            handshakes.sort_by_key(|(ns, _)| *ns);
            found.extend(lost_syns(capture, t, target, &handshakes).or_else(|| slow(capture, t, target, &handshakes)));
        }
        found
    }
}

fn lost_syns(capture: &Capture, t: &Thresholds, target: &Target, handshakes: &[(u64, &Connection)]) -> Option<Finding> {
    let waited: Vec<(u64, &Connection)> =
        handshakes.iter().filter(|(ns, c)| *ns >= t.waited_ms.ns() && c.syns_sent_again() > 0).copied().collect();
    let (worst, _) = waited.last().copied()?;
    let share = share(waited.len() as u64, handshakes.len() as u64);
    let subject = group::of_connections(capture, target, waited.iter().map(|(_, c)| *c));
    let title = format!(
        "{} connects slowly to {}: {} of {} lost their first SYN and took up to {}",
        subject.who(),
        subject.whom(),
        waited.len(),
        count(handshakes.len() as u64, "handshake", "handshakes"),
        duration(worst)
    );
    let mut evidence = evidence(&waited);
    waited.iter().for_each(|(_, c)| evidence.merge(&c.retransmits.syn));
    Some(Finding {
        rule: "connect.slow",
        severity: if share >= t.lost_syn_share { Severity::Warning } else { Severity::Info },
        title,
        signal: Signal { name: "lost_syn_share", value: share * 100.0, unit: "percent", threshold: t.lost_syn_share * 100.0 },
        cause: "a SYN or its SYN-ACK was lost and sent again after 1 s, 3 s or 7 s: dropped on the way, or the server's accept queue was full"
            .to_owned(),
        impact: format!("the process waited up to {} to connect", duration(worst)),
        next_steps: next_steps(&subject),
        share,
        confidence: 0.95,
        evidence,
        symptoms: Vec::new(),
        covers: None,
        subject,
    })
}

fn slow(capture: &Capture, t: &Thresholds, target: &Target, handshakes: &[(u64, &Connection)]) -> Option<Finding> {
    let slow_ns = t.slow_ms.ns();
    let times: Vec<u64> = handshakes.iter().map(|(ns, _)| *ns).collect();
    let p = percentile(&times, PERCENTILE)?;
    if times.len() < t.min_handshakes || p < slow_ns {
        return None;
    }
    let slow: Vec<(u64, &Connection)> = handshakes.iter().filter(|(ns, _)| *ns >= slow_ns).copied().collect();
    let subject = group::of_connections(capture, target, slow.iter().map(|(_, c)| *c));
    let title = format!(
        "{} connects slowly to {}: {} of {} took {} or longer",
        subject.who(),
        subject.whom(),
        slow.len(),
        count(times.len() as u64, "handshake", "handshakes"),
        duration(slow_ns)
    );
    Some(Finding {
        rule: "connect.slow",
        severity: Severity::Warning,
        title,
        signal: Signal {
            name: "handshake_p95",
            value: p as f64 / MILLI as f64,
            unit: "ms",
            threshold: slow_ns as f64 / MILLI as f64,
        },
        cause: "no SYN had to be sent again, so the path is long or queues: a far away or overloaded link or host"
            .to_owned(),
        impact: format!("the process waits {} and more to connect", duration(slow_ns)),
        next_steps: next_steps(&subject),
        share: share(slow.len() as u64, times.len() as u64),
        confidence: 0.85,
        evidence: evidence(&slow),
        symptoms: Vec::new(),
        covers: None,
        subject,
    })
}

fn evidence(handshakes: &[(u64, &Connection)]) -> Evidence {
    Evidence::of(handshakes.iter().filter_map(|(_, c)| c.established.map(|m| m.seq)))
}

fn next_steps(subject: &Subject) -> Vec<Step> {
    let mut out: Vec<Step> = steps::route(subject).into_iter().collect();
    out.extend(steps::listeners(subject.answers_at(), "-ltn"));
    out.push(Step::run(
        "on the server: see overflows of accept queues",
        "nstat -az TcpExtListenOverflows TcpExtListenDrops",
    ));
    out.push(steps::filters(subject));
    out.extend(steps::watch(subject, "tcp"));
    out
}
