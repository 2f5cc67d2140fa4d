//! `dns.slow`: answers that come, but too late, by process and server.

use serde::Deserialize;

use super::{Rule, group, steps};
use crate::capture::{Capture, Cutoffs, Needs, Rtts, Target, UdpFlow};
use crate::finding::{Finding, Severity, Signal, Step};
use crate::kb::{Kb, KbError, Ms};
use crate::units::{duration, share};

/// See the module.
pub(super) struct DnsSlow;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Thresholds {
    p95_ms: Ms,
    slow_share: f64,
    min_replies: u64,
    very_slow_ms: Ms,
    min_very_slow: u64,
    critical_share: f64,
}

/// Which replies the model keeps the lines of.
pub(super) fn cutoffs(kb: &Kb) -> Result<Cutoffs, KbError> {
    let t: Thresholds = kb.thresholds(DnsSlow::ID)?;
    Ok(Cutoffs { slow_reply_ns: t.p95_ms.ns(), very_slow_reply_ns: t.very_slow_ms.ns() })
}

impl Rule for DnsSlow {
    const ID: &'static str = "dns.slow";
    const TEXT: &'static str = include_str!("../../kb/dns.slow.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        Needs { hooks: &["udp"], lossless: true, dns: true, ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        capture.dns_by_target().iter().filter_map(|(target, flows)| finding(capture, t, target, flows)).collect()
    }
}

fn finding(capture: &Capture, t: &Thresholds, target: &Target, flows: &[&UdpFlow]) -> Option<Finding> {
    let rtts = sum(flows);
    let (slow, very_slow) = (share(rtts.slow.total(), rtts.n), share(rtts.very_slow.total(), rtts.n));
    let enough = rtts.n >= t.min_replies;
    let severity = if enough && very_slow >= t.critical_share {
        Severity::Critical
    } else if (enough && slow >= t.slow_share) || rtts.very_slow.total() >= t.min_very_slow {
        Severity::Warning
    } else {
        return None;
    };
    let subject = group::of_flows(capture, target, flows);
    let title = format!(
        "{} waits long for the DNS server {}: {} of {} replies took {} or longer, up to {}",
        subject.who(),
        subject.whom(),
        rtts.slow.total(),
        rtts.n,
        duration(t.p95_ms.ns()),
        duration(rtts.max_ns)
    );
    let mut next_steps: Vec<Step> = steps::route(&subject).into_iter().collect();
    next_steps.extend(steps::dig(&subject));
    next_steps.extend(steps::watch(&subject, "udp"));
    next_steps.push(Step::think("on the server: look at its load and at how fast its upstream servers answer"));
    Some(Finding {
        rule: "dns.slow",
        severity,
        title,
        signal: Signal {
            name: "slow_reply_share",
            value: slow * 100.0,
            unit: "percent",
            threshold: 100.0 * if severity == Severity::Critical { t.critical_share } else { t.slow_share },
        },
        subject,
        cause: cause(&rtts),
        impact: format!("lookups of this process take up to {}", duration(rtts.max_ns)),
        next_steps,
        share: slow,
        confidence: 0.9,
        evidence: rtts.slow,
        symptoms: Vec::new(),
        covers: None,
    })
}

fn sum(flows: &[&UdpFlow]) -> Rtts {
    let mut sum = Rtts::default();
    for r in flows.iter().map(|f| &f.rtts) {
        sum.n = sum.n.saturating_add(r.n);
        sum.slow.merge(&r.slow);
        sum.very_slow.merge(&r.very_slow);
        sum.near_5s = sum.near_5s.saturating_add(r.near_5s);
        sum.max_ns = sum.max_ns.max(r.max_ns);
    }
    sum
}

fn cause(rtts: &Rtts) -> String {
    if rtts.near_5s > 0 && rtts.near_5s.saturating_mul(2) >= rtts.slow.total() {
        return "the delays are the resolver's timeout of 5 s: a first query or its reply was lost, and the retry was answered".to_owned();
    }
    "the server, or one that it asks in turn, answers late; or this process reads its answers late".to_owned()
}
