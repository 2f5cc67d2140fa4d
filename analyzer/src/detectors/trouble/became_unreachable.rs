//! `tcp.became_unreachable`: an open connection sends again and again, and the network says that its peer cannot be reached.

use std::collections::BTreeMap;

use ktrace_bundle::event::Errno;
use serde::Deserialize;

use super::{MAX_FINDINGS, target_of};
use crate::capture::{Capture, Connection, Evidence, Needs, Target};
use crate::detectors::{Rule, group, steps};
use crate::finding::{Finding, Severity, Signal, Step, Subject};
use crate::kb::Ms;
use crate::units::{SECOND, count, duration, share};

/// See the module.
pub(in crate::detectors) struct BecameUnreachable;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::detectors) struct Thresholds {
    min_waited_ms: Ms,
    critical_share: f64,
}

/// Open connections of one target.
#[derive(Debug, Default)]
struct Account<'a> {
    all: u64,
    waiting: Vec<&'a Connection>,
    longest_ns: u64,
    error: Option<Errno>,
    evidence: Evidence,
}

impl Rule for BecameUnreachable {
    const ID: &'static str = "tcp.became_unreachable";
    const TEXT: &'static str = include_str!("../../../kb/tcp.became_unreachable.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        Needs { hooks: &["tcp_wait"], lossless: true, ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        let mut accounts: BTreeMap<Target, Account<'_>> = BTreeMap::new();
        for c in &capture.connections {
            accounts.entry(target_of(capture, c)).or_default().add(t, c);
        }
        accounts.retain(|_, account| !account.waiting.is_empty());
        accounts.iter().map(|(target, account)| finding(capture, t, target, account)).take(MAX_FINDINGS).collect()
    }
}

impl<'a> Account<'a> {
    fn add(&mut self, t: &Thresholds, c: &'a Connection) {
        self.all += 1;
        let Some(trouble) = c.trouble.as_deref().filter(|it| it.unreachable.total_ns >= t.min_waited_ms.ns()) else {
            return;
        };
        self.waiting.push(c);
        self.longest_ns = self.longest_ns.max(trouble.unreachable.total_ns);
        self.error = self.error.or(trouble.unreachable_error);
        self.evidence.merge(&trouble.unreachable.evidence);
    }
}

fn finding(capture: &Capture, t: &Thresholds, target: &Target, account: &Account<'_>) -> Finding {
    let subject = group::of_connections(capture, target, account.waiting.iter().copied());
    let n = account.waiting.len() as u64;
    let share = share(n, account.all);
    let with = account.error.map_or_else(String::new, |e| format!(" (`{e}`)"));
    let title = format!(
        "{} waits for {}, which the network says cannot be reached{with}: for up to {} in {n} of {} that were open",
        subject.who(),
        subject.whom(),
        duration(account.longest_ns),
        count(account.all, "connection", "connections")
    );
    Finding {
        rule: "tcp.became_unreachable",
        severity: if share >= t.critical_share { Severity::Critical } else { Severity::Warning },
        title,
        signal: Signal {
            name: "unreachable_time",
            value: account.longest_ns as f64 / SECOND as f64,
            unit: "s",
            threshold: t.min_waited_ms.ns() as f64 / SECOND as f64,
        },
        cause: cause(account.error).to_owned(),
        impact: "what is sent is sent again until the kernel gives up, some 15 minutes by default; the process waits as long".to_owned(),
        next_steps: next_steps(&subject),
        share,
        confidence: 0.9,
        evidence: account.evidence.clone(),
        symptoms: Vec::new(),
        covers: None,
        subject,
    }
}

fn cause(error: Option<Errno>) -> &'static str {
    match error.and_then(Errno::name) {
        Some("EHOSTUNREACH" | "EHOSTDOWN") => {
            "the machine that the connection led to is gone from its network, or a rule that came later rejects it (ICMP host unreachable)"
        }
        Some("ENETUNREACH" | "ENETDOWN") => "the route to that network went away, here or on a router on the way",
        _ => "a router or the peer's machine answers what is sent with an ICMP error",
    }
}

fn next_steps(subject: &Subject) -> Vec<Step> {
    let mut out: Vec<Step> = steps::route(subject).into_iter().collect();
    out.push(Step::run("see whether neighbours answer", steps::inside(subject, "ip neigh show")));
    out.push(steps::filters(subject));
    out.extend(steps::sockets(subject, "see what is sent again, and when next (timer:on)", "-tnoi"));
    out
}
