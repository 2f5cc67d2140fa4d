//! `tcp.connect_timeout`: SYNs that nothing answers, whoever loses patience first.

use ktrace_bundle::event::EventKind;
use serde::Deserialize;

use super::{Rule, group, steps};
use crate::capture::{Attempt, Capture, Connection, Evidence, Failure, Needs, Races, Target};
use crate::finding::{Finding, Severity, Signal, Step, Subject};
use crate::units::{MILLI, SECOND, count, duration, share};

/// An owner that leaves sooner, before any SYN was sent again, may have had its reasons; other rules say so, too.
pub(super) const IMPATIENT_NS: u64 = 250 * MILLI;
/// An attempt that hangs this long when the window closes counts; for other rules, too.
const HANGING_NS: u64 = SECOND;

/// See the module.
pub(super) struct ConnectTimeout;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Thresholds {
    critical_share: f64,
    warning_share: f64,
    min_warning: u64,
    min_impatient: usize,
}

/// What became of the attempts of one process name to one remote end.
#[derive(Debug, Default)]
struct Account<'a> {
    attempts: u64,
    timed_out: Vec<&'a Connection>,
    gave_up: Vec<(&'a Connection, u64)>,
    hanging: Vec<(&'a Connection, u64)>,
}

impl<'a> Account<'a> {
    fn of(capture: &Capture, t: &Thresholds, races: &Races, members: &[(&'a Connection, Attempt)]) -> Self {
        let mut a = Self::default();
        let mut impatient = Vec::new();
        for (c, attempt) in members.iter().copied() {
            match attempt {
                Attempt::Failed(failure) if races.settled_elsewhere(c, failure) => continue,
                Attempt::Failed(Failure::TimedOut) => a.timed_out.push(c),
                Attempt::Failed(Failure::GaveUp(after)) if after < IMPATIENT_NS && c.syns_sent_again() == 0 => {
                    impatient.push((c, after));
                }
                Attempt::Failed(Failure::GaveUp(after)) => a.gave_up.push((c, after)),
                Attempt::Failed(Failure::StillTrying(since)) if hangs(capture, c, since) => a.hanging.push((c, since)),
                Attempt::Failed(Failure::StillTrying(_)) => continue,
                Attempt::Established | Attempt::Failed(Failure::Refused | Failure::Unreachable(_)) => {}
            }
            a.attempts += 1;
        }
        if impatient.len() >= t.min_impatient {
            a.gave_up.append(&mut impatient);
        }
        a
    }

    fn failed(&self) -> u64 {
        (self.timed_out.len() + self.gave_up.len() + self.hanging.len()) as u64
    }

    fn severity(&self, t: &Thresholds) -> Option<Severity> {
        let (failed, share) = (self.failed(), share(self.failed(), self.attempts));
        if failed == 0 {
            return None;
        }
        Some(if share >= t.critical_share && (failed > 1 || !self.timed_out.is_empty()) {
            Severity::Critical
        } else if failed >= t.min_warning || share >= t.warning_share {
            Severity::Warning
        } else {
            Severity::Info
        })
    }

    fn members(&self) -> impl Iterator<Item = &'a Connection> {
        let gave_up = self.gave_up.iter().chain(&self.hanging).map(|(c, _)| *c);
        self.timed_out.iter().copied().chain(gave_up)
    }

    fn patience(&self) -> Option<u64> {
        self.gave_up.iter().map(|(_, after)| *after).max()
    }

    fn evidence(&self) -> Evidence {
        let mut evidence = Evidence::default();
        for c in self.members() {
            let marks = [c.opened.map(|m| m.seq), c.closed.as_ref().map(|x| x.mark.seq)];
            marks.into_iter().flatten().for_each(|s| evidence.add(s));
            evidence.merge(&c.retransmits.syn);
        }
        evidence
    }

    fn confidence(&self) -> f64 {
        let sent_again = self.members().any(|c| c.syns_sent_again() > 0);
        match (self.timed_out.is_empty(), sent_again) {
            (false, _) => 0.95,
            (true, true) => 0.9,
            (true, false) => 0.75,
        }
    }
}

/// Still in `SYN_SENT` when the window closed: proven by the socket table, or by events of which none is missing.
pub(super) fn hangs(capture: &Capture, c: &Connection, since: u64) -> bool {
    let coverage = &capture.coverage;
    let told = coverage.is_in_plan(c.local, c.remote) && coverage.lost(&[EventKind::TcpState]) == 0;
    (c.at_end.is_some() || told) && (since >= HANGING_NS || c.syns_sent_again() > 0)
}

impl Rule for ConnectTimeout {
    const ID: &'static str = "tcp.connect_timeout";
    const TEXT: &'static str = include_str!("../../kb/tcp.connect_timeout.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        Needs { hooks: &["tcp_state"], lossless: true, ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        let races = capture.races();
        let attempts = capture.attempts();
        attempts.iter().filter_map(|(target, members)| finding(capture, t, races, target, members)).collect()
    }
}

fn finding(
    capture: &Capture,
    t: &Thresholds,
    races: &Races,
    target: &Target,
    members: &[(&Connection, Attempt)],
) -> Option<Finding> {
    let account = Account::of(capture, t, races, members);
    let severity = account.severity(t)?;
    let subject = group::of_connections(capture, target, account.members());
    let failed = account.failed();
    let share = share(failed, account.attempts);
    let title = format!(
        "{} gets no answer when it connects to {}: {failed} of {}{}",
        subject.who(),
        subject.whom(),
        count(account.attempts, "attempt", "attempts"),
        manner(&account),
    );
    Some(Finding {
        rule: "tcp.connect_timeout",
        severity,
        title,
        signal: Signal {
            name: "unanswered_connect_share",
            value: share * 100.0,
            unit: "percent",
            threshold: 100.0 * if severity == Severity::Critical { t.critical_share } else { t.warning_share },
        },
        cause: cause(&account),
        impact: impact(&account),
        next_steps: next_steps(&subject),
        share,
        confidence: account.confidence(),
        evidence: account.evidence(),
        symptoms: Vec::new(),
        covers: None,
        subject,
    })
}

fn manner(account: &Account<'_>) -> String {
    let mut parts = Vec::new();
    if !account.timed_out.is_empty() {
        parts.push(format!("{} timed out in the kernel", account.timed_out.len()));
    }
    if let Some(after) = account.patience() {
        parts.push(format!("{} given up by the process after up to {}", account.gave_up.len(), duration(after)));
    }
    if !account.hanging.is_empty() {
        parts.push(format!("{} still hanging when the window closed", account.hanging.len()));
    }
    format!(" ({})", parts.join(", "))
}

fn cause(account: &Account<'_>) -> String {
    let again = account.members().fold(0_u64, |n, c| n.saturating_add(c.syns_sent_again()));
    let sent = if again > 0 { format!("; {} sent again", count(again, "SYN was", "SYNs were")) } else { String::new() };
    format!(
        "no SYN-ACK, no reset and no ICMP error came back{sent}: SYNs or SYN-ACKs are dropped on the way \
         (firewall, network policy, security group), or the host is down"
    )
}

fn impact(account: &Account<'_>) -> String {
    match account.patience() {
        Some(after) => format!("the process loses up to {} on each attempt and then goes without", duration(after)),
        None => "the process waits until the kernel stops trying, about 2 min by default".to_owned(),
    }
}

fn next_steps(subject: &Subject) -> Vec<Step> {
    let mut out: Vec<Step> = steps::route(subject).into_iter().collect();
    out.extend(steps::sockets(subject, "see attempts that hang now", "-tnpo state syn-sent"));
    out.push(steps::filters(subject));
    out.extend(steps::try_connect(subject));
    out.extend(steps::watch(subject, "tcp"));
    out.extend(steps::listeners(subject.answers_at(), "-ltnp"));
    out
}
