//! `nat.hairpin`: a client asks a VIP and is given itself as the backend.

use std::collections::BTreeMap;

use ktrace_bundle::event::Endpoint;
use serde::Deserialize;

use super::{Kind, MAX_FINDINGS, Tally, Use, covered, uses, words};
use crate::capture::{Capture, Needs, Target, TrackingNeed};
use crate::detectors::{Rule, steps};
use crate::finding::{Finding, Severity, Signal, Step, Subject};

/// See the module.
pub(in crate::detectors) struct Hairpin;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::detectors) struct Thresholds {
    failed_share: f64,
    min_critical: u64,
}

impl Rule for Hairpin {
    const ID: &'static str = "nat.hairpin";
    const TEXT: &'static str = include_str!("../../../kb/nat.hairpin.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        let hooks = &["tcp_state", "udp"];
        Needs { hooks, lossless: true, tracking: TrackingNeed::Flows, ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        let all = uses(capture);
        let mut groups: BTreeMap<(Kind, Target, Endpoint, Endpoint), Tally<'_>> = BTreeMap::new();
        for it in all.iter().filter(|it| it.is_hairpin()) {
            if let Some((vip, backend)) = it.route() {
                groups.entry((it.kind, it.target.clone(), vip, backend)).or_default().add(it);
            }
        }
        let groups = groups.iter().filter(|(_, tally)| tally.silent > 0 && tally.share() >= t.failed_share);
        groups
            .take(MAX_FINDINGS)
            .map(|((kind, _, vip, backend), tally)| finding(capture, t, &all, (*kind, *vip, *backend), tally))
            .collect()
    }
}

fn finding(
    capture: &Capture,
    t: &Thresholds,
    all: &[Use<'_>],
    (kind, vip, backend): (Kind, Endpoint, Endpoint),
    tally: &Tally<'_>,
) -> Finding {
    let (subject, _) = tally.subject(capture);
    let subject = Subject { vip: Some(vip), backend: Some(backend), ..subject };
    let title = format!(
        "{} gets no answer from {} when it is given itself as the backend {backend}: {} of {} answered",
        subject.who(),
        words::vip(capture, kind.proto(), vip),
        tally.worked(),
        kind.count(tally.tried),
    );
    let mut next_steps: Vec<Step> = words::entries(kind.proto(), vip).into_iter().collect();
    next_steps.push(Step::run("on the node: see which ports of bridges send packets back", "bridge -d link show"));
    next_steps.push(Step::run("on the node: look for the rule that masquerades such flows", "nft list ruleset"));
    next_steps.extend(steps::watch(&Subject { remote: Some(backend), ..subject.clone() }, kind.proto().as_str()));
    Finding {
        rule: "nat.hairpin",
        severity: if tally.silent >= t.min_critical { Severity::Critical } else { Severity::Warning },
        title,
        signal: Signal {
            name: "hairpin_failed_share",
            value: tally.share() * 100.0,
            unit: "percent",
            threshold: t.failed_share * 100.0,
        },
        cause: "the packet comes back to its sender with the sender's own address as its source, for lack of a masquerade, and is dropped on the way or there".to_owned(),
        impact: "the process cannot reach its own service when the VIP gives it itself; other backends work".to_owned(),
        next_steps,
        share: tally.share(),
        confidence: if tally.silent >= t.min_critical { 0.95 } else { 0.8 },
        evidence: tally.evidence(),
        symptoms: Vec::new(),
        covers: Some(covered(all, std::iter::once(tally))),
        subject,
    }
}
