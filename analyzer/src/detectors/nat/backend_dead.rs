//! `nat.backend_dead`: one backend of a VIP fails, and the others do not.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use ktrace_bundle::event::{Endpoint, Proto};
use ktrace_bundle::tracking::{Backend, MAX_BACKENDS, Service};
use serde::Deserialize;

use super::{Kind, MAX_COMPARED, MAX_FINDINGS, Services, Tally, Use, covered, services, uses, words};
use crate::capture::{Capture, Evidence, Needs, TrackingNeed};
use crate::detectors::{Rule, steps};
use crate::finding::{Finding, Severity, Signal, Step, Subject};
use crate::units::share;

/// See the module.
pub(in crate::detectors) struct BackendDead;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::detectors) struct Thresholds {
    min_failed: u64,
    dead_share: f64,
    ill_share: f64,
    min_ill: u64,
    factor: f64,
    min_unreplied: u64,
}

impl Rule for BackendDead {
    const ID: &'static str = "nat.backend_dead";
    const TEXT: &'static str = include_str!("../../../kb/nat.backend_dead.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        let hooks = &["tcp_state", "udp"];
        Needs { hooks, lossless: true, tracking: TrackingNeed::Flows, ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        let all = uses(capture);
        let services = services(capture, &all);
        let dead = judge(t, &services);
        let mut found: Vec<Finding> = dead
            .iter()
            .map(|((kind, backend), vips)| finding(capture, t, (&all, &services, &dead), (*kind, *backend), vips))
            .collect();
        found.extend(passing(capture, t, &services));
        found
    }
}

/// Backends that fail, each with the VIPs of which it is one.
type Dead = BTreeMap<(Kind, Endpoint), BTreeSet<Endpoint>>;

fn judge(t: &Thresholds, services: &Services<'_>) -> Dead {
    let mut dead = Dead::new();
    for ((kind, vip), backends) in services {
        let mut best: Vec<(Endpoint, u64, u64)> = backends.iter().map(|(b, t)| (*b, t.tried, t.failed)).collect();
        best.sort_by_key(|(b, tried, failed)| (Reverse(tried.saturating_sub(*failed)), *b));
        best.truncate(MAX_COMPARED);
        for (backend, tally) in backends.iter().filter(|(_, tally)| tally.failed >= t.min_failed) {
            let others = best.iter().filter(|(b, ..)| b != backend).map(|(_, tried, failed)| (*tried, *failed));
            let is_told = dead.contains_key(&(*kind, *backend)) || dead.len() < MAX_FINDINGS;
            if is_told && severity(t, (tally.tried, tally.failed), others, t.min_failed).is_some() {
                dead.entry((*kind, *backend)).or_default().insert(*vip);
            }
        }
    }
    dead
}

/// How bad a backend's failures are beside those of the healthy ones among the others, as (tried, failed).
///
/// Others that fail as it does are no comparison: of four backends two can be dead.
fn severity(
    t: &Thresholds,
    own: (u64, u64),
    others: impl Iterator<Item = (u64, u64)>,
    min_failed: u64,
) -> Option<Severity> {
    let (tried, failed) = own;
    let own_share = share(failed, tried);
    let healthy = others.filter(|(all, f)| *all > 0 && share(*f, *all) * t.factor <= own_share);
    let worked = healthy.fold(0_u64, |n, (all, f)| n.saturating_add(all.saturating_sub(f)));
    if worked == 0 || failed < min_failed {
        None
    } else if own_share >= t.dead_share {
        Some(Severity::Critical)
    } else if own_share >= t.ill_share && failed >= t.min_ill {
        Some(Severity::Warning)
    } else {
        None
    }
}

/// `10.244.1.6:8080: 22 of 22`, of every other backend of these VIPs.
fn others(services: &Services<'_>, kind: Kind, backend: Endpoint, vips: &BTreeSet<Endpoint>) -> String {
    let mut by_backend: BTreeMap<Endpoint, (u64, u64)> = BTreeMap::new();
    for backends in vips.iter().filter_map(|vip| services.get(&(kind, *vip))) {
        for (other, tally) in backends.iter().filter(|(b, _)| **b != backend) {
            let n = by_backend.entry(*other).or_default();
            *n = (n.0.saturating_add(tally.worked()), n.1.saturating_add(tally.tried));
        }
    }
    words::listed(by_backend.into_iter().map(|(end, (worked, tried))| format!("{end}: {worked} of {tried}")), ", ")
}

fn finding(
    capture: &Capture,
    t: &Thresholds,
    (all, services, dead): (&[Use<'_>], &Services<'_>, &Dead),
    (kind, backend): (Kind, Endpoint),
    vips: &BTreeSet<Endpoint>,
) -> Finding {
    let of = |b: &Endpoint, vip: &Endpoint| services.get(&(kind, *vip)).and_then(|backends| backends.get(b));
    let mut tally = Tally::default();
    vips.iter().filter_map(|vip| of(&backend, vip)).for_each(|its| tally.merge(its));
    // what a client does not get from two dead backends is explained by both
    let of_these = dead.iter().filter(|((k, _), theirs)| *k == kind && !theirs.is_disjoint(vips));
    let covers = covered(all, of_these.flat_map(|((_, b), theirs)| theirs.iter().filter_map(move |vip| of(b, vip))));
    let severity = if tally.share() >= t.dead_share { Severity::Critical } else { Severity::Warning };
    let (subject, more) = tally.subject(capture);
    let listed: Vec<Endpoint> = vips.iter().copied().collect();
    let subject = Subject { vip: vips.first().copied(), backend: Some(backend), ..subject };
    let title = format!(
        "{} {} {backend} of {}: {} of {} answered; {}",
        words::clients(&subject, more),
        verb(&tally),
        words::vips(capture, kind.proto(), &listed),
        tally.worked(),
        kind.count(tally.tried),
        others(services, kind, backend, vips),
    );
    Finding {
        rule: "nat.backend_dead",
        severity,
        title,
        signal: signal(t, tally.share(), severity),
        cause: cause(&tally),
        impact:
            "what is sent to the VIP and given to this backend fails; the next attempt may get another one and work"
                .to_owned(),
        next_steps: next_steps(&subject, kind.proto(), backend),
        share: tally.share(),
        confidence: if tally.tried >= t.min_ill { 0.97 } else { 0.85 },
        evidence: tally.evidence(),
        symptoms: Vec::new(),
        covers: Some(covers),
        subject,
    }
}

fn signal(t: &Thresholds, share: f64, severity: Severity) -> Signal {
    let threshold = 100.0 * if severity == Severity::Critical { t.dead_share } else { t.ill_share };
    Signal { name: "failed_use_share", value: share * 100.0, unit: "percent", threshold }
}

fn verb(tally: &Tally<'_>) -> &'static str {
    match (tally.silent * 2 >= tally.failed, tally.worked()) {
        (true, 0) => "gets no answer from backend",
        (true, _) => "often gets no answer from backend",
        (false, 0) => "is turned down by backend",
        (false, _) => "is often turned down by backend",
    }
}

fn cause(tally: &Tally<'_>) -> String {
    let what = if tally.silent * 2 >= tally.failed {
        "nothing comes back from this backend, while others of the same VIP answer: it is down, or cannot be reached from here"
    } else {
        "this backend answers with a reset or an error, while others of the same VIP answer: nothing listens there, or a rule rejects"
    };
    format!("{what}; it is still among those that the VIP stands for")
}

fn next_steps(subject: &Subject, proto: Proto, backend: Endpoint) -> Vec<Step> {
    let direct = Subject { remote: Some(backend), ..subject.clone() };
    let mut out: Vec<Step> = match proto {
        Proto::Tcp => steps::try_connect(&direct).into_iter().collect(),
        Proto::Udp => steps::dig(&direct).into_iter().filter(|_| backend.port.is_some()).collect(),
    };
    out.extend(steps::route(&direct));
    out.extend(subject.vip.and_then(|vip| words::entries(proto, vip)));
    out.extend(steps::listeners(Some(backend), if proto == Proto::Tcp { "-ltnp" } else { "-lunp" }));
    out.push(Step::think("ask Kubernetes whether the backend's pod is ready: `kubectl get endpointslices -A -o wide`"));
    out.extend(steps::watch(&direct, proto.as_str()));
    out
}

/// Backends of VIPs that only others than this node's sockets asked, by what connection tracking saw pass.
fn passing(capture: &Capture, t: &Thresholds, own: &Services<'_>) -> Vec<Finding> {
    let asked = |s: &Service| {
        let kinds = [Kind::Tcp, Kind::Dns, Kind::Udp];
        kinds.iter().any(|k| k.proto() == s.proto && own.contains_key(&(*k, s.vip)))
    };
    let services = capture.services.iter().flat_map(|s| &s.services).filter(|s| !asked(s));
    services.flat_map(|s| silent_backends(capture, t, s)).take(MAX_FINDINGS).collect()
}

/// Flows that passed to a backend, and those of them without an answer.
fn passed(b: &Backend) -> (u64, u64) {
    (b.tracked_count, b.unreplied_count.min(b.tracked_count))
}

fn silent_backends(capture: &Capture, t: &Thresholds, service: &Service) -> impl Iterator<Item = Finding> {
    let backends = || service.backends.iter().take(MAX_BACKENDS);
    let dead = backends().filter(move |b| {
        let others = backends().filter(|o| o.end != b.end).map(passed);
        severity(t, passed(b), others, t.min_unreplied) == Some(Severity::Critical)
    });
    dead.map(move |b| {
        let (tracked, unreplied) = passed(b);
        let others: Vec<String> = backends()
            .filter(|o| o.end != b.end && o.tracked_count > 0)
            .map(|o| format!("{}: {} of {}", o.end, o.tracked_count.saturating_sub(passed(o).1), o.tracked_count))
            .collect();
        let title = format!(
            "backend {} of {} does not answer what passes this node: {} of {} answered; {}",
            b.end,
            words::vip(capture, service.proto, service.vip),
            tracked.saturating_sub(unreplied),
            Kind::Udp.count(tracked),
            words::listed(others.into_iter(), ", "),
        );
        of_passing(t, (service.proto, service.vip, b.end), share(unreplied, tracked), title)
    })
}

fn of_passing(
    t: &Thresholds,
    (proto, vip, backend): (Proto, Endpoint, Endpoint),
    share: f64,
    title: String,
) -> Finding {
    let subject = Subject { remote: Some(vip), vip: Some(vip), backend: Some(backend), ..Subject::default() };
    Finding {
        rule: "nat.backend_dead",
        severity: Severity::Critical,
        title,
        signal: signal(t, share, Severity::Critical),
        cause: "connection tracking saw no packet come back from this backend, while others of the same VIP answer"
            .to_owned(),
        impact: "clients whose packets pass this node get no answer when they are given this backend".to_owned(),
        next_steps: next_steps(&subject, proto, backend),
        share,
        confidence: 0.7,
        evidence: Evidence::default(),
        symptoms: Vec::new(),
        covers: Some(Vec::new()),
        subject,
    }
}
