//! `dns.slow`: answers that come, but too late, by process and server.

use super::{Detector, group, steps};
use crate::capture::{Capture, Needs, Rtts, SLOW_NS, Target, UdpFlow};
use crate::finding::{Explanation, Finding, Severity, Signal, Step};
use crate::units::{duration, percent, share};

/// From this share of slow replies on; the same as: the 95th percentile is slow.
const SLOW_SHARE: f64 = 0.05;
/// A share says nothing about fewer replies.
const MIN_REPLIES: u64 = 5;
/// So many very slow replies are enough, whatever their share.
const MIN_VERY_SLOW: u64 = 3;
/// From this share of very slow replies on, lookups do not work in practice.
const CRITICAL_SHARE: f64 = 0.5;

/// See the module.
pub(super) struct DnsSlow;

impl Detector for DnsSlow {
    fn id(&self) -> &'static str {
        "dns.slow"
    }

    fn needs(&self) -> Needs {
        Needs { hooks: &["udp"], lossless: true, dns: true, ..Needs::NOTHING }
    }

    fn explain(&self) -> Explanation {
        let [slow, very_slow] = SLOW_NS.map(duration);
        Explanation {
            question: "how long does a process wait for its DNS server?",
            decides: vec![
                "only replies whose query is certain are timed: one query was outstanding on that socket and server"
                    .into(),
                format!(
                    "warning: {} or more of at least {MIN_REPLIES} replies took {slow} or longer (the 95th percentile is slow), or {MIN_VERY_SLOW} took {very_slow} or longer",
                    percent(SLOW_SHARE)
                ),
                format!("critical: {} or more took {very_slow} or longer", percent(CRITICAL_SHARE)),
                "replies at about 5 s came after the resolver's own retry: its first query or reply was lost".into(),
            ],
            limits: vec![
                "the time runs until the process reads the reply, so a busy process makes its server look slow".into(),
                "replies to several queries at once are not timed".into(),
            ],
            next: vec!["ask the server once and compare; then look at its load and at its upstream servers".into()],
        }
    }

    fn detect(&self, capture: &Capture) -> Vec<Finding> {
        capture.dns_by_target().iter().filter_map(|(target, flows)| finding(capture, target, flows)).collect()
    }
}

fn finding(capture: &Capture, target: &Target, flows: &[&UdpFlow]) -> Option<Finding> {
    let rtts = sum(flows);
    let (slow, very_slow) = (share(rtts.slow.total(), rtts.n), share(rtts.very_slow.total(), rtts.n));
    let enough = rtts.n >= MIN_REPLIES;
    let severity = if enough && very_slow >= CRITICAL_SHARE {
        Severity::Critical
    } else if (enough && slow >= SLOW_SHARE) || rtts.very_slow.total() >= MIN_VERY_SLOW {
        Severity::Warning
    } else {
        return None;
    };
    let subject = group::of_flows(capture, target, flows);
    let [slow_ns, _] = SLOW_NS;
    let title = format!(
        "{} waits long for the DNS server {}: {} of {} replies took {} or longer, up to {}",
        subject.who(),
        subject.whom(),
        rtts.slow.total(),
        rtts.n,
        duration(slow_ns),
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
            threshold: 100.0 * if severity == Severity::Critical { CRITICAL_SHARE } else { SLOW_SHARE },
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
