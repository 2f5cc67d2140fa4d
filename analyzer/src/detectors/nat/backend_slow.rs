//! `nat.backend_slow`: one backend of a VIP answers much later than the others.

use std::collections::BTreeMap;

use ktrace_bundle::event::Endpoint;
use serde::Deserialize;

use super::{Kind, MAX_COMPARED, MAX_FINDINGS, Socket, Use, subject_of, uses, words};
use crate::capture::{Capture, Evidence, Needs, Target, TrackingNeed};
use crate::detectors::{Rule, steps};
use crate::finding::{Finding, Key, Severity, Signal, Step, Subject};
use crate::kb::Ms;
use crate::units::{duration, percentile};

/// See the module.
pub(in crate::detectors) struct BackendSlow;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::detectors) struct Thresholds {
    factor: f64,
    longer_ms: Ms,
    min_samples: usize,
}

/// How long a backend took, and whom.
#[derive(Default)]
struct Times<'a> {
    /// ns, sorted.
    ns: Vec<u64>,
    by_target: BTreeMap<Target, Vec<(u64, Socket<'a>)>>,
}

impl Times<'_> {
    fn median(&self, t: &Thresholds) -> Option<u64> {
        percentile(&self.ns, 50).filter(|_| self.ns.len() >= t.min_samples)
    }
}

type ByBackend<'a> = BTreeMap<Endpoint, Times<'a>>;

impl Rule for BackendSlow {
    const ID: &'static str = "nat.backend_slow";
    const TEXT: &'static str = include_str!("../../../kb/nat.backend_slow.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        let hooks = &["tcp_state", "udp"];
        Needs { hooks, lossless: true, tracking: TrackingNeed::Flows, ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        let uses = uses(capture);
        let mut found = Vec::new();
        for ((kind, vip), backends) in &services(&uses) {
            let mut medians: Vec<(u64, Endpoint)> =
                backends.iter().filter_map(|(b, times)| Some((times.median(t)?, *b))).collect();
            medians.sort_unstable();
            medians.truncate(MAX_COMPARED);
            let told = backends
                .iter()
                .filter_map(|(b, times)| finding(capture, t, (*kind, *vip), (*b, times), backends, &medians));
            found.extend(told.take(MAX_FINDINGS));
        }
        found
    }
}

/// What each backend of each VIP took.
fn services<'a>(uses: &[Use<'a>]) -> BTreeMap<(Kind, Endpoint), ByBackend<'a>> {
    let mut services: BTreeMap<_, ByBackend<'_>> = BTreeMap::new();
    for it in uses {
        let Some((vip, backend)) = it.route() else { continue };
        let took: Vec<u64> = match it.socket {
            Socket::Tcp(c) => c.handshake_ns.filter(|_| it.failed == 0).into_iter().collect(),
            Socket::Udp(f) => f.rtts.samples.iter().map(|us| u64::from(*us) * 1000).collect(),
        };
        let times = services.entry((it.kind, vip)).or_default().entry(backend).or_default();
        for ns in took {
            times.ns.push(ns);
            times.by_target.entry(it.target.clone()).or_default().push((ns, it.socket));
        }
    }
    services.values_mut().flat_map(BTreeMap::values_mut).for_each(|times| times.ns.sort_unstable());
    services
}

/// `medians` are those of the fastest backends, rising.
fn finding(
    capture: &Capture,
    t: &Thresholds,
    (kind, vip): (Kind, Endpoint),
    (backend, times): (Endpoint, &Times<'_>),
    backends: &ByBackend<'_>,
    medians: &[(u64, Endpoint)],
) -> Option<Finding> {
    let own = times.median(t)?;
    let others = || medians.iter().filter(|(_, b)| *b != backend);
    let is_fast = |other: u64| other as f64 * t.factor <= own as f64 && own.saturating_sub(other) >= t.longer_ms.ns();
    let fastest = others().map(|(ns, _)| *ns).find(|ns| is_fast(*ns))?;
    let (target, samples) = times.by_target.iter().max_by(|(a, s), (b, t)| s.len().cmp(&t.len()).then(b.cmp(a)))?;
    let sockets: Vec<Socket<'_>> = samples.iter().map(|(_, socket)| *socket).collect();
    let subject = Subject { vip: Some(vip), backend: Some(backend), ..subject_of(capture, target, &sockets) };
    let mut listed: Vec<(Endpoint, u64)> = others().map(|(ns, b)| (*b, *ns)).collect();
    listed.sort_unstable();
    let title = format!(
        "{} waits {} for backend {backend} of {} (median of {}); {}",
        words::clients(&subject, times.by_target.len() - 1),
        duration(own),
        words::vip(capture, kind.proto(), vip),
        if kind == Kind::Tcp {
            format!("{} handshakes", times.ns.len())
        } else {
            format!("{} replies", times.ns.len())
        },
        words::listed(listed.into_iter().map(|(b, ns)| format!("{b}: {}", duration(ns))), ", "),
    );
    let ratio = own as f64 / fastest.max(1) as f64;
    Some(Finding {
        rule: "nat.backend_slow",
        severity: Severity::Warning,
        title,
        signal: Signal { name: "median_ratio", value: ratio, unit: "times", threshold: t.factor },
        cause: "the backend, or the way to it, is slower than the others of the same VIP: it is overloaded, or the network there queues".to_owned(),
        impact: format!("whoever is given this backend waits {} longer than at another one", duration(own.saturating_sub(fastest))),
        next_steps: next_steps(&subject, kind, backend),
        share: crate::units::share(times.ns.len() as u64, backends.values().map(|t| t.ns.len() as u64).sum()),
        confidence: 0.9,
        evidence: evidence(times, own),
        symptoms: Vec::new(),
        covers: Some(covers(backend, times, backends, own / 2)),
        subject,
    })
}

/// The slower half.
fn evidence(times: &Times<'_>, own: u64) -> Evidence {
    let slow = times.by_target.values().flatten().filter(|(ns, _)| *ns >= own);
    Evidence::of(slow.filter_map(|(_, socket)| match socket {
        Socket::Tcp(c) => c.established.map(|m| m.seq),
        Socket::Udp(f) => f.rtts.slowest,
    }))
}

/// Clients whose slow answers are those of this backend, but for a tenth.
fn covers(backend: Endpoint, times: &Times<'_>, backends: &ByBackend<'_>, slow_ns: u64) -> Vec<Key> {
    let slow = |samples: &[(u64, Socket<'_>)]| samples.iter().filter(|(ns, _)| *ns >= slow_ns).count();
    let elsewhere = |target: &Target| -> usize {
        let others = backends.iter().filter(|(b, _)| **b != backend);
        others.filter_map(|(_, t)| t.by_target.get(target)).map(|samples| slow(samples)).sum()
    };
    let theirs = times.by_target.iter().filter(|(target, samples)| elsewhere(target) * 9 < slow(samples));
    theirs.map(|(target, _)| Key::from(target)).collect()
}

fn next_steps(subject: &Subject, kind: Kind, backend: Endpoint) -> Vec<Step> {
    let direct = Subject { remote: Some(backend), ..subject.clone() };
    let mut out: Vec<Step> = steps::route(&direct).into_iter().collect();
    out.extend(if kind == Kind::Dns { steps::dig(&direct) } else { steps::try_connect(&direct) });
    out.extend(steps::watch(&direct, kind.proto().as_str()));
    out.push(Step::think("on the backend's node: look at its load, and at how full its links are"));
    out
}
