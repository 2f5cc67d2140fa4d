//! `tcp.reset_by_peer`: connections that stood and were cut off by a reset of the other end.

use std::collections::BTreeMap;

use ktrace_bundle::event::{Endpoint, Errno};
use ktrace_bundle::tcp::TcpState;

use super::{MAX_FINDINGS, target_of};
use crate::capture::{Capture, Connection, Evidence, Mark, Needs, Target};
use crate::detectors::{Rule, group, steps};
use crate::escape;
use crate::finding::{Finding, Severity, Signal, Step, Subject};
use crate::kb::NoThresholds;
use crate::units::{SECOND, count, duration, share};

/// From this share of the connections that ended on, resets are noticed.
const WARNING_SHARE: f64 = 0.05;
/// Fewer are an accident.
const MIN_RESETS: usize = 2;
/// From this share on, connections that are cut off within a moment are of no use.
const CRITICAL_SHARE: f64 = 0.9;
const MIN_CRITICAL: usize = 3;
const AT_ONCE_NS: u64 = SECOND;
/// A server's clients may leave as they like: so many, at this share, are worth a note.
const MIN_OF_SERVER: usize = 3;
const NOTE_SHARE: f64 = 0.2;
/// Lifetimes that differ less than by this part were measured out by somebody, if they are this long.
const ALIKE: f64 = 0.1;
const MIN_TIMEOUT_NS: u64 = 5 * SECOND;

/// See the module.
pub(in crate::detectors) struct ResetByPeer;

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
    type Thresholds = NoThresholds;

    fn needs(&self) -> Needs {
        let hooks = &["tcp_reset", "tcp_state"];
        Needs { hooks, lossless: true, ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, _: &NoThresholds) -> Vec<Finding> {
        let mut accounts: BTreeMap<(bool, Target), Account<'_>> = BTreeMap::new();
        let mut reasons = Reasons::new();
        for c in &capture.connections {
            let cut = cut(c);
            if c.closed.as_ref().is_some_and(|closed| closed.from != TcpState::SynSent) || cut.is_some() {
                let account = accounts.entry((c.is_client(), target_of(capture, c))).or_default();
                account.ended += 1;
                account.cut.extend(cut);
            }
            if let Some(reason) = c.trouble.as_deref().and_then(|t| t.sent_reason.as_deref()) {
                reasons.insert(c.remote, reason);
            }
        }
        let found = accounts.iter().filter(|(_, account)| !account.cut.is_empty());
        let found = found.filter_map(|((is_client, target), a)| finding(capture, &reasons, *is_client, target, a));
        found.take(MAX_FINDINGS).collect()
    }
}

/// How this connection was cut off, if it was.
fn cut(c: &Connection) -> Option<Cut<'_>> {
    let by_reset = c.trouble.as_deref().and_then(|t| t.reset_received).map(|r| (r.mark, r.state));
    let is_reset = |errno: Errno| errno.name() == Some("ECONNRESET");
    let by_error = c.closed.as_ref().filter(|x| x.account.error.is_some_and(is_reset) && !x.account.soft_error);
    let (mark, state) = by_reset.or_else(|| by_error.map(|closed| (closed.mark, closed.from)))?;
    let age_ns = c.established.or(c.opened).map(|begun| mark.at.saturating_sub(begun.at));
    let counts = match (c.is_client(), state) {
        (true, TcpState::Established | TcpState::CloseWait) => true,
        (false, TcpState::Established) => is_missed(c, mark),
        _ => false,
    };
    counts.then_some(Cut { c, mark, age_ns })
}

/// Whether a server's connection was more than a look whether anybody is there.
fn is_missed(c: &Connection, mark: Mark) -> bool {
    let moved = |account: &ktrace_bundle::event::TcpClose| account.rx_bytes.unwrap_or(0) > 0;
    let has_moved = c.closed.as_ref().is_none_or(|closed| moved(&closed.account));
    has_moved && mark.at.saturating_sub(c.span.from) >= AT_ONCE_NS
}

impl Account<'_> {
    fn share(&self) -> f64 {
        share(self.cut.len() as u64, self.ended)
    }

    fn severity(&self, is_client: bool) -> Option<Severity> {
        let (n, share) = (self.cut.len(), self.share());
        if !is_client {
            return (n >= MIN_OF_SERVER && share >= NOTE_SHARE).then_some(Severity::Info);
        }
        let at_once = self.cut.iter().filter(|cut| cut.age_ns.is_some_and(|age| age <= AT_ONCE_NS)).count();
        Some(if share >= CRITICAL_SHARE && n >= MIN_CRITICAL && at_once * 2 >= n {
            Severity::Critical
        } else if n >= MIN_RESETS && share >= WARNING_SHARE {
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
    fn timeout(&self) -> Option<u64> {
        let (min, max) = self.ages()?;
        let is_alike = (max - min) as f64 <= max as f64 * ALIKE;
        (self.cut.len() >= MIN_CRITICAL && min >= MIN_TIMEOUT_NS && is_alike).then_some(max)
    }
}

fn finding(
    capture: &Capture,
    reasons: &Reasons<'_>,
    is_client: bool,
    target: &Target,
    account: &Account<'_>,
) -> Option<Finding> {
    let severity = account.severity(is_client)?;
    let subject = group::of_connections(capture, target, account.cut.iter().map(|cut| cut.c));
    let each = if account.cut.len() > 1 { "each " } else { "" };
    let when = match (account.timeout(), account.ages()) {
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
    let threshold = 100.0 * if severity == Severity::Critical { CRITICAL_SHARE } else { WARNING_SHARE };
    Some(Finding {
        rule: "tcp.reset_by_peer",
        severity,
        title,
        signal: Signal { name: "reset_share", value: account.share() * 100.0, unit: "percent", threshold },
        cause: cause(account, reasons, &subject),
        impact: "what was under way on these connections is lost; the process has to connect again".to_owned(),
        next_steps: next_steps(&subject, account),
        share: account.share(),
        confidence: if is_client { 0.9 } else { 0.6 },
        evidence: Evidence::of(account.cut.iter().map(|cut| cut.mark.seq)),
        symptoms: Vec::new(),
        covers: None,
        subject,
    })
}

fn cause(account: &Account<'_>, reasons: &Reasons<'_>, subject: &Subject) -> String {
    let reason = subject.far.as_ref().and_then(|_| account.cut.iter().find_map(|cut| sent_reason(cut.c, reasons)));
    if let (Some(far), Some(reason)) = (&subject.far, reason) {
        return format!("the socket of {} sent it, for the reason `{}`", far.who(), escape::shown(reason));
    }
    if let Some(age) = account.timeout() {
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

fn next_steps(subject: &Subject, account: &Account<'_>) -> Vec<Step> {
    let mut out: Vec<Step> =
        steps::sockets(subject, "see the connections that stand, and their timers", "-tnoi").into_iter().collect();
    if account.timeout().is_some() {
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
