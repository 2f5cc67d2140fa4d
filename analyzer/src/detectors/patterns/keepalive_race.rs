//! `tcp.keepalive_race`: requests on connections that the server has just closed.

use serde::Deserialize;
use std::collections::BTreeMap;

use ktrace_bundle::tcp::TcpState;

use super::most;
use crate::capture::{Capture, Connection, Evidence, Needs, Target};
use crate::detectors::{Rule, group, steps};
use crate::finding::{Finding, Severity, Signal, Step};
use crate::units::{count, duration, share};

/// See the module.
pub(in crate::detectors) struct KeepaliveRace;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::detectors) struct Thresholds {
    min_cut: usize,
    warning_share: f64,
}

/// Connections of one target that ended.
#[derive(Debug, Default)]
struct Account<'a> {
    ended: u64,
    cut: Vec<&'a Connection>,
}

impl Rule for KeepaliveRace {
    const ID: &'static str = "tcp.keepalive_race";
    const TEXT: &'static str = include_str!("../../../kb/tcp.keepalive_race.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        Needs { hooks: &["tcp_reset", "tcp_state"], lossless: true, ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        let mut accounts: BTreeMap<Target, Account<'_>> = BTreeMap::new();
        for c in capture.connections.iter().filter(|c| c.is_client() && c.closed.is_some() && c.established.is_some()) {
            let comm = capture.owner(c).map(|p| p.comm.clone());
            let account = accounts.entry(Target { comm, netns: c.netns, remote: c.remote }).or_default();
            account.ended += 1;
            if was_closed_before(c) {
                account.cut.push(c);
            }
        }
        most(accounts.iter().filter_map(|(target, a)| finding(capture, t, target, a)).collect())
    }
}

/// The server had closed, and answered what came after that with a reset.
fn was_closed_before(c: &Connection) -> bool {
    let reset = c.trouble.as_deref().and_then(|t| t.reset_received);
    c.close_wait.zip(reset).is_some_and(|(end, reset)| reset.state == TcpState::CloseWait && end.at <= reset.mark.at)
}

/// The age at which the server closed them, if it is one and the same, within a tenth.
fn idle_timeout(cut: &[&Connection]) -> Option<u64> {
    let age = |c: &&Connection| Some(c.close_wait?.at.saturating_sub(c.established?.at));
    let ages: Vec<u64> = cut.iter().filter_map(age).collect();
    let (least, most) = (ages.iter().min()?, ages.iter().max()?);
    (most - least <= most / 10).then_some(*most)
}

fn finding(capture: &Capture, t: &Thresholds, target: &Target, account: &Account<'_>) -> Option<Finding> {
    let n = account.cut.len();
    if n == 0 {
        return None;
    }
    let share = share(n as u64, account.ended);
    let severity = if n >= t.min_cut && share >= t.warning_share { Severity::Warning } else { Severity::Info };
    let subject = group::of_connections(capture, target, account.cut.iter().copied());
    let age = idle_timeout(&account.cut)
        .map_or_else(String::new, |ns| format!(", each about {} after it was made", duration(ns)));
    let title = format!(
        "{} sends on connections that {} has already closed: {n} of {} were reset{age}",
        subject.who(),
        subject.whom(),
        count(account.ended, "connection", "connections"),
    );
    let mut next_steps: Vec<Step> =
        steps::sockets(&subject, "see connections that the server has closed", "-tnpo state close-wait")
            .into_iter()
            .collect();
    next_steps.push(Step::think("make the client's idle timeout shorter than the server's, or the server's longer"));
    Some(Finding {
        rule: KeepaliveRace::ID,
        severity,
        title,
        signal: Signal {
            name: "late_request_count",
            value: n as f64,
            unit: "connections",
            threshold: t.min_cut as f64,
        },
        cause:
            "the server closes idle connections sooner than the client stops using them, and the client does not look \
                whether one is closed before it sends"
                .to_owned(),
        impact: "single requests fail with `ECONNRESET` or `EPIPE`, as a rule after a pause; the next one works"
            .to_owned(),
        next_steps,
        share,
        confidence: 0.9,
        evidence: Evidence::of(
            account.cut.iter().filter_map(|c| c.trouble.as_deref().and_then(|t| t.reset_received).map(|r| r.mark.seq)),
        ),
        symptoms: Vec::new(),
        covers: None,
        subject,
    })
}
