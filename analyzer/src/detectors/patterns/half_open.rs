//! `tcp.half_open`: connections whose other end is no longer there, without a word.

use std::collections::BTreeMap;

use ktrace_bundle::event::{Endpoint, Errno};
use ktrace_bundle::tcp::TcpState;
use serde::Deserialize;

use super::most;
use crate::capture::{Capture, Connection, Evidence, Needs, Target};
use crate::detectors::{Rule, group, steps};
use crate::finding::{Finding, Severity, Signal, Step};
use crate::units::{count, share};

/// See the module.
pub(in crate::detectors) struct HalfOpen;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::detectors) struct Thresholds {
    min_lost: usize,
    min_critical: usize,
    critical_share: f64,
    server_share: f64,
}

/// Connections of one target that ended.
#[derive(Debug, Default)]
struct Account<'a> {
    ended: u64,
    lost: Vec<&'a Connection>,
}

impl Rule for HalfOpen {
    const ID: &'static str = "tcp.half_open";
    const TEXT: &'static str = include_str!("../../../kb/tcp.half_open.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        Needs { hooks: &["tcp_state"], lossless: true, ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        let mut accounts: BTreeMap<(bool, Target), Account<'_>> = BTreeMap::new();
        for c in &capture.connections {
            let Some(closed) = c.closed.as_ref().filter(|x| x.from != TcpState::SynSent) else { continue };
            let account = accounts.entry((c.is_client(), target_of(capture, c))).or_default();
            account.ended += 1;
            let is_standing = matches!(closed.from, TcpState::Established | TcpState::CloseWait);
            if is_standing && !closed.account.soft_error && closed.account.error.is_some_and(is_silence) {
                account.lost.push(c);
            }
        }
        most(
            accounts.iter().filter_map(|((is_client, target), a)| finding(capture, t, *is_client, target, a)).collect(),
        )
    }
}

/// What the kernel gives up with when nothing comes back.
fn is_silence(errno: Errno) -> bool {
    matches!(errno.name(), Some("ETIMEDOUT" | "EHOSTUNREACH"))
}

/// A server's connections go by the client's address: its ports differ.
fn target_of(capture: &Capture, c: &Connection) -> Target {
    let remote = if c.is_client() { c.remote } else { Endpoint { addr: c.remote.addr, port: None } };
    Target { comm: capture.owner(c).map(|p| p.comm.clone()), netns: c.netns, remote }
}

fn finding(
    capture: &Capture,
    t: &Thresholds,
    is_client: bool,
    target: &Target,
    account: &Account<'_>,
) -> Option<Finding> {
    let n = account.lost.len();
    if n == 0 {
        return None;
    }
    let share = share(n as u64, account.ended);
    let severity = if n < t.min_lost || (!is_client && share < t.server_share) {
        Severity::Info
    } else if n >= t.min_critical && share >= t.critical_share {
        Severity::Critical
    } else {
        Severity::Warning
    };
    let subject = group::of_connections(capture, target, account.lost.iter().copied());
    let sent_again = account.lost.iter().filter(|c| c.segments().is_some_and(|(_, again)| again > 0)).count();
    let title = format!(
        "{} lost {} with {}, which stopped answering: {n} of {} that ended timed out after they had been made",
        subject.who(),
        count(n as u64, "connection", "connections"),
        subject.whom(),
        account.ended
    );
    let how =
        if sent_again * 2 >= n { "what was sent was never acknowledged" } else { "keepalive probes were not answered" };
    let mut next_steps: Vec<Step> =
        steps::sockets(&subject, "see connections that wait now: `timer:(on` or `keepalive`", "-tnope")
            .into_iter()
            .collect();
    next_steps.extend(steps::route(&subject));
    next_steps.extend(steps::watch(&subject, "tcp"));
    Some(Finding {
        rule: HalfOpen::ID,
        severity,
        title,
        signal: Signal {
            name: "timed_out_connection_count",
            value: n as f64,
            unit: "connections",
            threshold: t.min_lost as f64,
        },
        cause: format!(
            "{how}, and no reset came: the other end is gone without closing (crashed, moved, suspended), or something \
             on the way forgot the connection and drops it in silence (NAT, firewall, load balancer)"
        ),
        impact: "requests on these connections hung until the timeout, minutes by default, and then failed".to_owned(),
        next_steps,
        share,
        confidence: 0.9,
        evidence: Evidence::of(account.lost.iter().filter_map(|c| c.closed.as_ref().map(|x| x.mark.seq))),
        symptoms: Vec::new(),
        covers: None,
        subject,
    })
}
