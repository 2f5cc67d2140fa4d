//! `tcp.reset_by_peer`: connections that stood and were cut off by a reset of the other end.

use std::collections::BTreeMap;

use ktrace_bundle::event::{Endpoint, Errno};
use ktrace_bundle::tcp::TcpState;
use serde::Deserialize;

use super::{MAX_FINDINGS, target_of};
use crate::capture::{Capture, Connection, Evidence, Mark, Needs, Target};
use crate::detectors::{Rule, group, steps};
use crate::escape;
use crate::finding::{Finding, Severity, Signal, Step, Subject};
use crate::kb::Ms;
use crate::units::{count, duration, share};

/// See the module.
pub(in crate::detectors) struct ResetByPeer;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::detectors) struct Thresholds {
    warning_share: f64,
    min_resets: usize,
    critical_share: f64,
    min_critical: usize,
    at_once_ms: Ms,
    min_of_server: usize,
    note_share: f64,
    min_alike: usize,
    alike_share: f64,
    min_timeout_ms: Ms,
}

/// A connection that was cut off, when, and how old it was.
#[derive(Debug, Clone, Copy)]
struct Cut<'a> {
    c: &'a Connection,
    mark: Mark,
    age_ns: Option<u64>,
}

/// Connections of one target that ended.
#[derive(Debug, Default)]
struct Account<'a> {
    ended: u64,
    cut: Vec<Cut<'a>>,
}

/// Why sockets of this node sent a reset, by the other end as they see it.
type Reasons<'a> = BTreeMap<Endpoint, &'a str>;

impl Rule for ResetByPeer {
    const ID: &'static str = "tcp.reset_by_peer";
    const TEXT: &'static str = include_str!("../../../kb/tcp.reset_by_peer.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        let hooks = &["tcp_reset", "tcp_state"];
        Needs { hooks, lossless: true, ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        let mut accounts: BTreeMap<(bool, Target), Account<'_>> = BTreeMap::new();
        let mut reasons = Reasons::new();
        for c in &capture.connections {
            let cut = cut(t, c);
            if c.closed.as_ref().is_some_and(|closed| closed.from != TcpState::SynSent) || cut.is_some() {
                let account = accounts.entry((c.is_client(), target_of(capture, c))).or_default();
                account.ended += 1;
                account.cut.extend(cut);
            }
            if let Some(reason) = c.trouble.as_deref().and_then(|trouble| trouble.sent_reason.as_deref()) {
                reasons.insert(c.remote, reason);
            }
        }
        let found = accounts.iter().filter(|(_, account)| !account.cut.is_empty());
        let found = found.filter_map(|((is_client, target), a)| finding(capture, t, &reasons, (*is_client, target), a));
        found.take(MAX_FINDINGS).collect()
    }
}

/// How this connection was cut off, if it was.
fn cut<'a>(t: &Thresholds, c: &'a Connection) -> Option<Cut<'a>> {
    let by_reset = c.trouble.as_deref().and_then(|trouble| trouble.reset_received).map(|r| (r.mark, r.state));
    let is_reset = |errno: Errno| errno.name() == Some("ECONNRESET");
    let by_error = c.closed.as_ref().filter(|x| x.account.error.is_some_and(is_reset) && !x.account.soft_error);
    let (mark, state) = by_reset.or_else(|| by_error.map(|closed| (closed.mark, closed.from)))?;
    let age_ns = c.established.or(c.opened).map(|begun| mark.at.saturating_sub(begun.at));
    let counts = match (c.is_client(), state) {
        (true, TcpState::Established | TcpState::CloseWait) => true,
        (false, TcpState::Established) => is_missed(t, c, mark),
        _ => false,
    };
    counts.then_some(Cut { c, mark, age_ns })
}

/// Whether a server's connection was more than a look whether anybody is there.
fn is_missed(t: &Thresholds, c: &Connection, mark: Mark) -> bool {
    let moved = |account: &ktrace_bundle::event::TcpClose| account.rx_bytes.unwrap_or(0) > 0;
    let has_moved = c.closed.as_ref().is_none_or(|closed| moved(&closed.account));
    has_moved && mark.at.saturating_sub(c.span.from) >= t.at_once_ms.ns()
}

impl Account<'_> {
    fn share(&self) -> f64 {
        share(self.cut.len() as u64, self.ended)
    }

    fn severity(&self, t: &Thresholds, is_client: bool) -> Option<Severity> {
        let (n, share) = (self.cut.len(), self.share());
        if !is_client {
            return (n >= t.min_of_server && share >= t.note_share).then_some(Severity::Info);
        }
        let at_once = self.cut.iter().filter(|cut| cut.age_ns.is_some_and(|age| age <= t.at_once_ms.ns())).count();
        Some(if share >= t.critical_share && n >= t.min_critical && at_once * 2 >= n {
            Severity::Critical
        } else if n >= t.min_resets && share >= t.warning_share {
            Severity::Warning
        } else {
            Severity::Info
        })
    }

    /// Shortest and longest lifetime.
    fn ages(&self) -> Option<(u64, u64)> {
        let ages = || self.cut.iter().filter_map(|cut| cut.age_ns);
        ages().min().zip(ages().max())
    }

    /// The lifetime after which all of them were cut off, if it is one.
    fn timeout(&self, t: &Thresholds) -> Option<u64> {
        let (min, max) = self.ages()?;
        let is_alike = (max - min) as f64 <= max as f64 * t.alike_share;
        (self.cut.len() >= t.min_alike && min >= t.min_timeout_ms.ns() && is_alike).then_some(max)
    }
}

fn finding(
    capture: &Capture,
    t: &Thresholds,
    reasons: &Reasons<'_>,
    (is_client, target): (bool, &Target),
    account: &Account<'_>,
) -> Option<Finding> {
    let severity = account.severity(t, is_client)?;
    let subject = group::of_connections(capture, target, account.cut.iter().map(|cut| cut.c));
    let timeout = account.timeout(t);
    let each = if account.cut.len() > 1 { "each " } else { "" };
    let when = match (timeout, account.ages()) {
        (Some(age), _) => format!(", each about {} after it was made", duration(age)),
        (None, Some((min, max))) if duration(min) != duration(max) => {
            format!(", {} to {} after they were made", duration(min), duration(max))
        }
        (None, Some((age, _))) => format!(", {each}{} after it was made", duration(age)),
        (None, None) => String::new(),
    };
    let title = format!(
        "{} is cut off by {}: {} of {} ended with a reset of the other end{when}",
        subject.who(),
        subject.whom(),
        account.cut.len(),
        count(account.ended, "connection", "connections"),
    );
    let threshold = 100.0 * if severity == Severity::Critical { t.critical_share } else { t.warning_share };
    Some(Finding {
        rule: "tcp.reset_by_peer",
        severity,
        title,
        signal: Signal { name: "reset_share", value: account.share() * 100.0, unit: "percent", threshold },
        cause: cause(account, timeout, reasons, &subject),
        impact: "what was under way on these connections is lost; the process has to connect again".to_owned(),
        next_steps: next_steps(&subject, timeout.is_some()),
        share: account.share(),
        confidence: if is_client { 0.9 } else { 0.6 },
        evidence: Evidence::of(account.cut.iter().map(|cut| cut.mark.seq)),
        symptoms: Vec::new(),
        covers: None,
        subject,
    })
}

fn cause(account: &Account<'_>, timeout: Option<u64>, reasons: &Reasons<'_>, subject: &Subject) -> String {
    let reason = subject.far.as_ref().and_then(|_| account.cut.iter().find_map(|cut| sent_reason(cut.c, reasons)));
    if let (Some(far), Some(reason)) = (&subject.far, reason) {
        return format!("the socket of {} sent it, for the reason `{}`", far.who(), escape::shown(reason));
    }
    if let Some(age) = timeout {
        return format!(
            "all of them were cut off at the same age, {}: an idle timeout of the other end, or of a load balancer, NAT or \
             firewall on the way, which forgets the connection",
            duration(age)
        );
    }
    let after_close = account.cut.iter().filter(|cut| cut.c.close_wait.is_some()).count();
    if after_close * 2 > account.cut.len() {
        return "the other end had closed before, and answers what was sent after that with a reset: the process uses \
                connections again that the other end gives up"
            .to_owned();
    }
    "the other end's process aborts the connection (it crashes, restarts, or closes without reading), or something on the way \
     does in its name"
        .to_owned()
}

/// Why the server's socket sent its reset, if it is on this node and its kernel tells (Linux 6.10).
fn sent_reason<'a>(c: &Connection, reasons: &Reasons<'a>) -> Option<&'a str> {
    let (client, _) = c.way.at_the_server(c.local, c.remote);
    reasons.get(&client).copied()
}

fn next_steps(subject: &Subject, is_timeout: bool) -> Vec<Step> {
    let mut out: Vec<Step> =
        steps::sockets(subject, "see the connections that stand, and their timers", "-tnoi").into_iter().collect();
    if is_timeout {
        let command = "sysctl net.ipv4.tcp_keepalive_time net.netfilter.nf_conntrack_tcp_timeout_established";
        out.push(Step::run("compare with the timeouts of this machine", steps::inside(subject, command)));
        out.push(Step::think("then let the client's own idle timeout, or its keep-alives, be shorter than that age"));
    }
    if let Some(far) = &subject.far {
        let command = format!("cat /proc/{}/limits /proc/{}/status", far.pid, far.pid);
        out.push(Step::run("see whether the process at the other end is well, and since when it runs", command));
    }
    out.extend(steps::watch(subject, "tcp"));
    out.push(Step::think("look at the log of the other end for that time"));
    out
}
