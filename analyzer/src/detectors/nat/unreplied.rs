//! `nat.unreplied`: sent to a VIP, translated, and nothing came back.

use std::collections::BTreeMap;

use ktrace_bundle::event::{Endpoint, EventKind};
use serde::Deserialize;

use super::{Kind, MAX_FINDINGS, Tally, Use, covered, uses, words};
use crate::capture::{Capture, Needs, TrackingNeed};
use crate::detectors::{Rule, steps};
use crate::finding::{Finding, Severity, Signal, Step, Subject};
use crate::units::{count, share};

/// See the module.
pub(in crate::detectors) struct Unreplied;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::detectors) struct Thresholds {
    warning_share: f64,
    critical_share: f64,
    min_flows: u64,
}

/// What became of what was sent to one VIP.
#[derive(Default)]
struct Account<'a> {
    all: u64,
    /// Uses whose entry says that nothing came back.
    unreplied: Tally<'a>,
    flows: u64,
    backends: BTreeMap<Endpoint, u64>,
}

impl Account<'_> {
    fn share(&self) -> f64 {
        share(self.unreplied.silent, self.all)
    }

    /// A protocol that nobody answers looks the same, but for TCP and DNS.
    fn severity(&self, t: &Thresholds, kind: Kind) -> Option<Severity> {
        if self.flows < t.min_flows || self.share() < t.warning_share {
            None
        } else if kind == Kind::Udp {
            Some(Severity::Info)
        } else if self.share() >= t.critical_share {
            Some(Severity::Critical)
        } else {
            Some(Severity::Warning)
        }
    }
}

impl Rule for Unreplied {
    const ID: &'static str = "nat.unreplied";
    const TEXT: &'static str = include_str!("../../../kb/nat.unreplied.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        let hooks = &["tcp_state", "udp"];
        Needs { hooks, lossless: true, tracking: TrackingNeed::Flows, ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        let all = uses(capture);
        let mut accounts = accounts(&all);
        let lost_replies = capture.coverage.lost(&[EventKind::UdpRecv]);
        let udp = accounts.iter_mut().filter(|((kind, _), _)| *kind != Kind::Tcp);
        udp.for_each(|(_, account)| account.unreplied.forgive(lost_replies));
        let judged = accounts.iter().filter_map(|((kind, vip), a)| Some((*kind, *vip, a, a.severity(t, *kind)?)));
        judged
            .take(MAX_FINDINGS)
            .map(|(kind, vip, account, severity)| finding(capture, t, &all, (kind, vip), account, severity))
            .collect()
    }
}

fn accounts<'a>(all: &[Use<'a>]) -> BTreeMap<(Kind, Endpoint), Account<'a>> {
    let mut accounts: BTreeMap<_, Account<'_>> = BTreeMap::new();
    for it in all.iter().filter(|it| !it.is_hairpin()) {
        let Some((vip, backend)) = it.route() else { continue };
        let account = accounts.entry((it.kind, vip)).or_default();
        account.all = account.all.saturating_add(it.tried);
        let way = it.socket.way();
        if it.silent > 0 && way.is_dnat() && way.is_unreplied() == Some(true) {
            account.unreplied.add(it);
            account.flows += 1;
            *account.backends.entry(backend).or_default() += it.silent;
        }
    }
    accounts
}

fn finding(
    capture: &Capture,
    t: &Thresholds,
    all: &[Use<'_>],
    (kind, vip): (Kind, Endpoint),
    account: &Account<'_>,
    severity: Severity,
) -> Finding {
    let (subject, more) = account.unreplied.subject(capture);
    let only = account.backends.keys().next().copied().filter(|_| account.backends.len() == 1);
    let subject = Subject { vip: Some(vip), backend: only, ..subject };
    let backends = account.backends.keys().map(ToString::to_string);
    let title = format!(
        "{} gets no answer from {}: {} of {} were translated to {} and nothing came back",
        words::clients(&subject, more),
        words::vip(capture, kind.proto(), vip),
        account.unreplied.silent,
        kind.count(account.all),
        words::listed(backends, ", "),
    );
    let threshold = 100.0 * if severity == Severity::Critical { t.critical_share } else { t.warning_share };
    Finding {
        rule: "nat.unreplied",
        severity,
        title,
        signal: Signal { name: "unreplied_share", value: account.share() * 100.0, unit: "percent", threshold },
        cause: cause(t, account, only, kind),
        impact: "whoever asks this VIP from here waits in vain".to_owned(),
        next_steps: next_steps(&subject, kind, vip),
        share: account.share(),
        confidence: if kind == Kind::Udp { 0.5 } else { 0.9 },
        evidence: account.unreplied.evidence(),
        symptoms: Vec::new(),
        covers: Some(covered(all, std::iter::once(&account.unreplied))),
        subject,
    }
}

fn cause(t: &Thresholds, account: &Account<'_>, only: Option<Endpoint>, kind: Kind) -> String {
    let perhaps = if kind == Kind::Udp { ", unless this protocol has no answers" } else { "" };
    let rest = match only {
        _ if account.share() < t.critical_share => "some packets, or answers to them, are lost behind it".to_owned(),
        Some(backend) => format!("its backend {backend} is down or cannot be reached, or its answers take another way"),
        None => format!(
            "none of {} answers: look for what they have in common, such as the network between them and this node",
            count(account.backends.len() as u64, "backend", "backends")
        ),
    };
    format!("the rules for this VIP work: {rest}{perhaps}")
}

fn next_steps(subject: &Subject, kind: Kind, vip: Endpoint) -> Vec<Step> {
    let proto = kind.proto();
    let direct = Subject { remote: subject.backend, ..subject.clone() };
    let mut out: Vec<Step> = words::entries(proto, vip).into_iter().collect();
    out.extend(steps::route(&direct));
    out.extend(if kind == Kind::Tcp { steps::try_connect(&direct) } else { None });
    out.extend(if kind == Kind::Dns { steps::dig(&direct) } else { None });
    out.push(Step::run("on the node: look for a rule that drops it after translation", "nft list ruleset"));
    out.extend(steps::watch(&direct, proto.as_str()));
    out
}
