//! `tcp.retransmits`: segments sent again, as a share of those sent, read by the state of the connection.
//!
//! A SYN sent again means that nothing answers, a SYN-ACK that the client's ACK does not come back, data that the
//! path loses packets: three findings, each with its own denominator.

use std::collections::BTreeMap;

use ktrace_bundle::event::Endpoint;
use ktrace_bundle::tcp::TcpState;
use serde::Deserialize;

use super::{Rule, group, steps};
use crate::capture::{Capture, Connection, Evidence, Needs, Target};
use crate::finding::{Finding, Severity, Signal, Step, Subject};
use crate::units::{count, percent, share};

/// From this share of segments sent again on, little gets through; for other rules.
const HEAVY_SHARE: f64 = 0.1;
/// Fewer of them are no heavy loss.
const MIN_HEAVY: u64 = 10;

/// See the module.
pub(super) struct Retransmits;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Thresholds {
    warning_share: f64,
    critical_share: f64,
    min_again: u64,
    min_critical: u64,
    handshake_share: f64,
}

/// What was sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    Syn,
    Synack,
    Data,
}

/// The account of one group.
#[derive(Debug, Default)]
struct Account<'a> {
    again: u64,
    of: u64,
    closing: u64,
    evidence: Evidence,
    members: Vec<&'a Connection>,
}

impl Rule for Retransmits {
    const ID: &'static str = "tcp.retransmits";
    const TEXT: &'static str = include_str!("../../kb/tcp.retransmits.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        Needs { hooks: &["tcp_retransmit", "tcp_state"], lossless: true, ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        let mut groups: BTreeMap<(Form, Target), Account<'_>> = BTreeMap::new();
        for c in &capture.connections {
            let target = target(capture, c);
            for form in [Form::Syn, Form::Synack, Form::Data] {
                if let Some((again, of)) = counts(c, form) {
                    groups.entry((form, target.clone())).or_default().add(c, form, again, of);
                }
            }
        }
        groups.iter().filter_map(|((form, target), account)| finding(capture, t, *form, target, account)).collect()
    }
}

impl<'a> Account<'a> {
    fn add(&mut self, c: &'a Connection, form: Form, again: u64, of: u64) {
        self.again = self.again.saturating_add(again);
        self.of = self.of.saturating_add(of);
        if again == 0 {
            return;
        }
        self.members.push(c);
        let closing = matches!(c.retransmits.state, Some(TcpState::FinWait1 | TcpState::LastAck | TcpState::Closing));
        self.closing += u64::from(closing);
        let r = &c.retransmits;
        match form {
            Form::Syn => self.evidence.merge(&r.syn),
            Form::Synack => self.evidence.merge(&r.synack),
            Form::Data => [&r.data, &r.probe].into_iter().for_each(|e| self.evidence.merge(e)),
        }
    }
}

/// (sent again, of how many) of this connection; SYNs and SYN-ACKs are counted against connections.
fn counts(c: &Connection, form: Form) -> Option<(u64, u64)> {
    match form {
        Form::Syn => c.opened.map(|_| (c.syns_sent_again(), 1)),
        Form::Synack => (!c.is_client()).then(|| (c.retransmits.synack.total(), 1)),
        Form::Data if c.closed.as_ref().is_some_and(|x| x.from == TcpState::SynSent) => None,
        Form::Data => c.segments().map(|(segs, again)| (again, segs)),
    }
}

/// Whether so many segments of data sent again, of so many, mean that little gets through: what other rules go by.
pub(super) fn is_heavy_loss(again: u64, of: u64) -> bool {
    share(again, of) >= HEAVY_SHARE && again >= MIN_HEAVY
}

/// A server's connections go by the client's address: its ports differ.
fn target(capture: &Capture, c: &Connection) -> Target {
    let remote = if c.is_client() { c.remote } else { Endpoint { addr: c.remote.addr, port: None } };
    Target { comm: capture.owner(c).map(|p| p.comm.clone()), netns: c.netns, remote }
}

fn finding(capture: &Capture, t: &Thresholds, form: Form, target: &Target, account: &Account<'_>) -> Option<Finding> {
    let again = account.again;
    let share = share(again, account.of);
    let least = if form == Form::Data { t.warning_share } else { t.handshake_share };
    if again < t.min_again || share < least {
        return None;
    }
    let is_critical = form == Form::Data && share >= t.critical_share && again >= t.min_critical;
    let severity = if is_critical { Severity::Critical } else { Severity::Warning };
    let subject = group::of_connections(capture, target, account.members.iter().copied());
    let (who, whom) = (subject.who(), subject.whom());
    let (name, unit) = match form {
        Form::Syn => ("syn_retransmit_count", "segments"),
        Form::Synack => ("synack_retransmit_count", "segments"),
        Form::Data => ("retransmit_share", "percent"),
    };
    let connections = count(account.of, "connection", "connections");
    let title = match form {
        Form::Syn => format!("{who} had to send {} again to {whom} for {connections}", count(again, "SYN", "SYNs")),
        Form::Synack => {
            format!("{who} had to send {} again to {whom} for {connections}", count(again, "SYN-ACK", "SYN-ACKs"))
        }
        Form::Data => format!(
            "{who} had to send {} of {} again to {whom} ({})",
            again,
            count(account.of, "segment", "segments"),
            percent(share)
        ),
    };
    let value = if form == Form::Data { share * 100.0 } else { again as f64 };
    let threshold = if form == Form::Data { least * 100.0 } else { t.min_again as f64 };
    Some(Finding {
        rule: "tcp.retransmits",
        severity,
        title,
        signal: Signal { name, value, unit, threshold },
        cause: cause(form, account).to_owned(),
        impact: impact(form).to_owned(),
        next_steps: next_steps(form, &subject),
        share,
        confidence: if account.evidence.total() > 0 { 0.9 } else { 0.7 },
        evidence: account.evidence.clone(),
        symptoms: Vec::new(),
        covers: None,
        subject,
    })
}

fn cause(form: Form, account: &Account<'_>) -> &'static str {
    match form {
        Form::Syn => {
            "the first SYNs, or the answers to them, get lost: dropped on the way, or the listener's queue is full"
        }
        Form::Synack => {
            "the client's ACK does not come back: SYN-ACKs or ACKs are dropped on the way back, or SYNs are forged"
        }
        Form::Data if account.closing.saturating_mul(2) > account.members.len() as u64 => {
            "the other end does not acknowledge the end of the connection: it is gone, or the path to it is"
        }
        Form::Data => {
            "the path to the other end loses packets (congestion, a bad link, a policer), or delays them a lot"
        }
    }
}

const fn impact(form: Form) -> &'static str {
    match form {
        Form::Syn => "connecting takes 1 s, 3 s or 7 s longer, or fails",
        Form::Synack => "clients take 1 s or longer to connect, or fail",
        Form::Data => "throughput collapses and single requests stall for 200 ms and more",
    }
}

fn next_steps(form: Form, subject: &Subject) -> Vec<Step> {
    let mut out: Vec<Step> = steps::route(subject).into_iter().collect();
    let addr = subject.remote.and_then(|r| r.addr);
    if let (Form::Data, Some(addr)) = (form, addr) {
        let command = steps::inside(subject, &format!("ss -tni dst {}", crate::escape::shell_word(&bracketed(addr))));
        out.push(Step::run("see loss and round trip time of connections that are open now", command));
    }
    out.push(Step::run("see interface drops", steps::inside(subject, "ip -s link")));
    out.push(Step::run("see queue drops", steps::inside(subject, "tc -s qdisc")));
    if form != Form::Data {
        out.push(steps::filters(subject));
    }
    out.extend(steps::watch(subject, "tcp"));
    out
}

fn bracketed(addr: std::net::IpAddr) -> String {
    if addr.is_ipv6() { format!("[{addr}]") } else { addr.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kb::release;

    #[test]
    fn loss_is_heavy_for_other_rules_from_where_it_is_critical_here() {
        let t: Thresholds = release().thresholds(Retransmits::ID).unwrap();
        assert_eq!((t.critical_share, t.min_critical), (HEAVY_SHARE, MIN_HEAVY));
    }
}
