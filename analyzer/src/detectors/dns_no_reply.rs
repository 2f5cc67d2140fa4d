//! `dns.no_reply`: queries that no server answered, by process and server.

use ktrace_bundle::event::{Errno, EventKind};
use serde::Deserialize;

use super::{Rule, group, steps};
use crate::capture::{Capture, Evidence, Needs, RETRY_NS, Target, UdpFlow};
use crate::finding::{Finding, Severity, Signal, Step, Subject};
use crate::kb::Ms;
use crate::units::{count, duration, share};

/// See the module.
pub(super) struct DnsNoReply;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Thresholds {
    critical_share: f64,
    warning_share: f64,
    min_failed: u64,
    pending_age_ms: Ms,
}

/// The account of one process name and one server.
#[derive(Debug, Default)]
struct Account {
    sent: u64,
    answered: u64,
    lost: u64,
    refused: u64,
    not_sent: u64,
    errno: Option<Errno>,
    elsewhere: u64,
    pending: u64,
    pending_age_ns: u64,
    retries: u64,
    stalled_ns: u64,
    /// Nothing can be judged yet, and queries wait for long already.
    is_pending: bool,
    evidence: Evidence,
}

impl Account {
    /// `lost_replies` are receives that the capture itself lost: as many queries may have been answered.
    fn of(t: &Thresholds, flows: &[&UdpFlow], lost_replies: u64) -> Self {
        let mut a = Self::default();
        for f in flows {
            a.sent = a.sent.saturating_add(f.sent);
            a.answered = a.answered.saturating_add(f.answered);
            a.lost = a.lost.saturating_add(f.lost);
            a.refused = a.refused.saturating_add(f.refused);
            a.not_sent = a.not_sent.saturating_add(f.failed.n);
            a.errno = f.failed.errno.or(a.errno);
            a.elsewhere = a.elsewhere.saturating_add(f.elsewhere);
            a.pending = a.pending.saturating_add(f.pending);
            a.pending_age_ns = a.pending_age_ns.max(if f.pending > 0 { f.pending_age_ns } else { 0 });
            a.retries = a.retries.saturating_add(f.retries);
            a.stalled_ns = a.stalled_ns.max(f.stalled_ns);
            a.evidence.merge(&f.evidence);
        }
        if a.answered == 0 {
            a.give_up_on(flows);
        }
        a.lost = a.lost.saturating_sub(lost_replies);
        a.is_pending = a.judged() == 0
            && a.answered == 0
            && a.pending >= t.min_failed
            && a.pending_age_ns >= t.pending_age_ms.ns();
        a
    }

    /// A server that never answered is not waited for once it was asked again, from whatever socket.
    fn give_up_on(&mut self, flows: &[&UdpFlow]) {
        let newest = flows.iter().map(|f| f.last_sent_at()).max().unwrap_or(0);
        let asked_again = newest.saturating_sub(*RETRY_NS.start());
        for seq in flows.iter().flat_map(|f| f.waiting_since(asked_again)) {
            self.pending = self.pending.saturating_sub(1);
            self.lost = self.lost.saturating_add(1);
            self.evidence.add(seq);
        }
    }

    const fn failed(&self) -> u64 {
        self.lost.saturating_add(self.refused).saturating_add(self.not_sent)
    }

    const fn judged(&self) -> u64 {
        self.sent.saturating_sub(self.pending).saturating_sub(self.elsewhere)
    }

    fn share(&self) -> f64 {
        share(self.failed(), self.judged())
    }

    fn severity(&self, t: &Thresholds) -> Option<Severity> {
        let failed = self.failed();
        let proven =
            failed >= t.min_failed || (failed > 0 && self.retries > 0) || (self.refused > 0 && self.answered == 0);
        if proven && failed >= t.min_failed && self.share() >= t.critical_share {
            Some(Severity::Critical)
        } else if proven && self.share() >= t.warning_share {
            Some(Severity::Warning)
        } else if (failed > 0 && self.judged() == failed) || self.is_pending {
            Some(Severity::Info)
        } else {
            None
        }
    }
}

impl Rule for DnsNoReply {
    const ID: &'static str = "dns.no_reply";
    const TEXT: &'static str = include_str!("../../kb/dns.no_reply.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        Needs { hooks: &["udp"], lossless: true, dns: true, ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        let lost_replies = capture.coverage.lost(&[EventKind::UdpRecv]);
        let targets = capture.dns_by_target();
        let found = targets.iter().filter_map(|(target, flows)| {
            let account = Account::of(t, flows, lost_replies);
            let severity = account.severity(t)?;
            let others_answer = targets.iter().any(|(other, f)| {
                other != target
                    && other.comm == target.comm
                    && other.netns == target.netns
                    && f.iter().any(|f| f.answered > 0)
            });
            Some(finding(capture, t, target, flows, account, severity, others_answer))
        });
        found.collect()
    }
}

fn finding(
    capture: &Capture,
    t: &Thresholds,
    target: &Target,
    flows: &[&UdpFlow],
    account: Account,
    severity: Severity,
    others_answer: bool,
) -> Finding {
    let subject = group::of_flows(capture, target, flows);
    let (who, whom) = (subject.who(), subject.whom());
    let n = account.judged();
    let title = if account.is_pending {
        let age = duration(account.pending_age_ns);
        format!(
            "{who} was still waiting for {whom} when the window closed: {} unanswered for up to {age}",
            queries(account.pending)
        )
    } else if account.refused > account.lost {
        format!("{who} is refused by the DNS server {whom}: {} of {} failed", account.failed(), queries(n))
    } else if account.not_sent > account.lost {
        format!("{who} cannot send to the DNS server {whom}: {} of {} failed", account.failed(), queries(n))
    } else if account.answered == 0 {
        format!("{who} gets no reply from the DNS server {whom}: {} of {} unanswered", account.failed(), queries(n))
    } else {
        format!("{who} misses replies from the DNS server {whom}: {} of {} unanswered", account.failed(), queries(n))
    };
    let measured = capture.coverage.ledger.is_some();
    Finding {
        rule: "dns.no_reply",
        severity,
        title,
        signal: Signal {
            name: "unanswered_query_share",
            value: account.share() * 100.0,
            unit: "percent",
            threshold: 100.0 * if severity == Severity::Critical { t.critical_share } else { t.warning_share },
        },
        cause: cause(&account),
        impact: impact(&account, others_answer),
        next_steps: next_steps(&subject, &account),
        share: account.share(),
        confidence: if severity == Severity::Info || !measured { 0.6 } else { 0.95 },
        evidence: account.evidence,
        symptoms: Vec::new(),
        covers: None,
        subject,
    }
}

fn queries(n: u64) -> String {
    count(n, "query", "queries")
}

fn cause(account: &Account) -> String {
    if account.is_pending {
        return "the window closed before the usual 5 s were over, so this may still have been answered".to_owned();
    }
    if account.refused > account.lost {
        return "the server's host answers that nothing listens on this port (ICMP port unreachable)".to_owned();
    }
    if account.not_sent > account.lost {
        let errno = account.errno.map_or_else(String::new, |e| format!(" (`{e}`)"));
        return format!("the query did not leave this machine{errno}: no route, or a local rule that forbids it");
    }
    if account.answered == 0 {
        return "nothing comes back, not even an error: the server is down, or queries or replies are dropped on the way"
            .to_owned();
    }
    if account.retries > 0 {
        let wait = duration(account.stalled_ns);
        return format!(
            "the server answers, but single queries or replies get lost; the client waited {wait} and asked again"
        );
    }
    "the server answers, but single queries or replies get lost on the way, or the server is overloaded".to_owned()
}

fn impact(account: &Account, others_answer: bool) -> String {
    if account.is_pending {
        return "lookups of this process wait".to_owned();
    }
    if account.retries > 0 && account.answered > 0 {
        return format!("lookups of this process stall for {}", duration(account.stalled_ns));
    }
    if others_answer {
        return "its other servers answer: lookups work, after waiting for this one".to_owned();
    }
    if account.answered == 0 {
        return "this process can resolve no name by this server".to_owned();
    }
    "some lookups of this process wait for a retry, or fail".to_owned()
}

fn next_steps(subject: &Subject, account: &Account) -> Vec<Step> {
    let mut out = Vec::new();
    if account.refused <= account.lost {
        out.extend(steps::route(subject));
        out.push(steps::filters(subject));
    }
    out.extend(steps::dig(subject));
    out.extend(steps::listeners(subject.answers_at(), "-lunp"));
    out.extend(steps::watch(subject, "udp"));
    out
}
