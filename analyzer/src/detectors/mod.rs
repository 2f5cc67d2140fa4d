//! The rules: one file each, one line each in [`DETECTORS`].
//!
//! A detector says what it found in a [`Capture`] and what it needed for that; the runner here, not the detector,
//! decides what finding nothing means, ranks what was found, and puts causes above their symptoms.

mod close_wait;
mod connect_slow;
mod connect_timeout;
mod conntrack;
mod dns_no_reply;
mod dns_slow;
mod drops;
mod group;
mod incomplete;
mod lossy;
mod nat;
mod node;
mod patterns;
mod probe_failing;
mod rank;
mod refused;
mod resolver_config;
mod retransmits;
mod rtt_high;
mod steps;
mod trouble;
mod unreachable;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde::de::DeserializeOwned;

use crate::capture::{Capture, Cutoffs, Needs};
use crate::finding::{Finding, Outcome};
use crate::kb::{Kb, KbError};

/// A rule, as its file writes it.
pub(crate) trait Rule: Sync {
    /// Its name, as in `dns.no_reply`.
    const ID: &'static str;
    /// What it knows: its file in `analyzer/kb/`.
    const TEXT: &'static str;
    /// Rises when the same bundle may give another finding.
    const VERSION: u32 = 1;
    /// What it decides by.
    type Thresholds: DeserializeOwned;
    /// What must have been recorded before finding nothing means that there was nothing.
    fn needs(&self) -> Needs;
    /// Everything that it finds, in any order.
    fn detect(&self, capture: &Capture, thresholds: &Self::Thresholds) -> Vec<Finding>;
    /// Why finding nothing does not mean that there was nothing, although all that it needs was recorded.
    fn unjudged(&self, _capture: &Capture, _thresholds: &Self::Thresholds) -> Option<String> {
        None
    }
}

/// A rule, as the others see it.
pub trait Detector: Sync {
    /// Its name, as in `dns.no_reply`.
    fn id(&self) -> &'static str;
    /// Its file in `analyzer/kb/`.
    fn text(&self) -> &'static str;
    /// Rises when the same bundle may give another finding.
    fn version(&self) -> u32;
    /// What must have been recorded before finding nothing means that there was nothing.
    fn needs(&self) -> Needs;
    /// Whether it can read its thresholds.
    ///
    /// # Errors
    /// [`KbError::Entry`] if not.
    fn check(&self, kb: &Kb) -> Result<(), KbError>;
    /// Everything that it finds, in any order.
    ///
    /// # Errors
    /// [`KbError::Entry`] if it cannot read its thresholds.
    fn detect(&self, capture: &Capture, kb: &Kb) -> Result<Vec<Finding>, KbError>;
    /// Why finding nothing does not mean that there was nothing, although all that it needs was recorded.
    ///
    /// # Errors
    /// [`KbError::Entry`] if it cannot read its thresholds.
    fn unjudged(&self, capture: &Capture, kb: &Kb) -> Result<Option<String>, KbError>;
}

impl<R: Rule> Detector for R {
    fn id(&self) -> &'static str {
        R::ID
    }

    fn text(&self) -> &'static str {
        R::TEXT
    }

    fn version(&self) -> u32 {
        R::VERSION
    }

    fn needs(&self) -> Needs {
        Rule::needs(self)
    }

    fn check(&self, kb: &Kb) -> Result<(), KbError> {
        kb.thresholds::<R::Thresholds>(R::ID).map(drop)
    }

    fn detect(&self, capture: &Capture, kb: &Kb) -> Result<Vec<Finding>, KbError> {
        Ok(Rule::detect(self, capture, &kb.thresholds(R::ID)?))
    }

    fn unjudged(&self, capture: &Capture, kb: &Kb) -> Result<Option<String>, KbError> {
        Ok(Rule::unjudged(self, capture, &kb.thresholds(R::ID)?))
    }
}

/// Every rule.
pub static DETECTORS: &[&dyn Detector] = &[
    &dns_no_reply::DnsNoReply,
    &dns_slow::DnsSlow,
    &patterns::server_dead::ServerDead,
    &patterns::slow_for_one::SlowForOne,
    &patterns::retry_5s::Retry5s,
    &connect_timeout::ConnectTimeout,
    &refused::Refused,
    &unreachable::Unreachable,
    &close_wait::CloseWaitLeak,
    &retransmits::Retransmits,
    &connect_slow::ConnectSlow,
    &rtt_high::RttHigh,
    &patterns::bad_peer::BadPeer,
    &patterns::bad_path::BadPath,
    &patterns::retry_storm::RetryStorm,
    &patterns::half_open::HalfOpen,
    &patterns::keepalive_race::KeepaliveRace,
    &patterns::churn::Churn,
    &patterns::slow_accept::SlowAccept,
    &trouble::listen_overflow::ListenOverflow,
    &trouble::reset_by_peer::ResetByPeer,
    &trouble::slow_reader::SlowReader,
    &trouble::became_unreachable::BecameUnreachable,
    &trouble::mtu_hole::MtuHole,
    &nat::backend_dead::BackendDead,
    &nat::backend_slow::BackendSlow,
    &nat::unreplied::Unreplied,
    &nat::hairpin::Hairpin,
    &nat::port_exhaustion::PortExhaustion,
    &nat::conntrack_race::ConntrackRace,
    &drops::policy::PolicyDrop,
    &drops::counter::PolicyCounter,
    &drops::rp_filter::RpFilter,
    &drops::no_route::NoRoute,
    &drops::neighbour::NeighbourFailed,
    &conntrack::full::Full,
    &conntrack::insert_failed::InsertFailed,
    &probe_failing::ProbeFailing,
    &resolver_config::ResolverConfig,
    &node::ports::PortsExhausted,
    &node::softnet::SoftnetDrops,
    &node::qdisc::QdiscDrops,
    &node::throttled::CpuThrottled,
    &node::pressure::HostPressure,
    &node::memory::MemoryPressure,
    &patterns::top_talkers::TopTalkers,
    &lossy::Lossy,
    &incomplete::Incomplete,
];

/// The rule with this name.
pub fn by_id(id: &str) -> Option<&'static dyn Detector> {
    DETECTORS.iter().copied().find(|d| d.id() == id)
}

/// Each holds tables of its own, some 30 MB of a bundle of a million events.
const MAX_THREADS: usize = 2;

/// Runs every rule, several at once; outcomes stand in the order of [`DETECTORS`].
///
/// # Errors
/// [`KbError::Entry`] if one cannot read its thresholds.
pub fn run(capture: &Capture, kb: &Kb) -> Result<Vec<(&'static dyn Detector, Outcome)>, KbError> {
    let threads = thread::available_parallelism().map_or(1, |n| n.get().min(MAX_THREADS));
    let next = AtomicUsize::new(0);
    let work = || {
        let rules = std::iter::from_fn(|| {
            let place = next.fetch_add(1, Ordering::Relaxed);
            Some((place, *DETECTORS.get(place)?))
        });
        rules.map(|(place, rule)| (place, rule, judge(rule, capture, kb))).collect::<Vec<_>>()
    };
    let mut judged = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut judged = work();
        for other in others {
            judged.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        judged
    });
    judged.sort_unstable_by_key(|(place, ..)| *place);
    judged.into_iter().map(|(_, rule, outcome)| Ok((rule, outcome?))).collect()
}

/// What the model needs of the rules' thresholds while records come in.
pub(crate) fn cutoffs(kb: &Kb) -> Result<Cutoffs, KbError> {
    dns_slow::cutoffs(kb)
}

/// Everything found, causes above symptoms, the worst first.
pub fn ranked(outcomes: &[(&'static dyn Detector, Outcome)]) -> Vec<Finding> {
    let found = outcomes.iter().filter_map(|(_, o)| match o {
        Outcome::Found(findings) => Some(findings.as_slice()),
        Outcome::Clear | Outcome::Inconclusive { .. } => None,
    });
    rank::rank(found.flatten().cloned().collect())
}

fn judge(detector: &'static dyn Detector, capture: &Capture, kb: &Kb) -> Result<Outcome, KbError> {
    let findings = detector.detect(capture, kb)?;
    if !findings.is_empty() {
        return Ok(Outcome::Found(findings));
    }
    let needs = detector.needs();
    if let Some(why) = capture.coverage.gap(&needs) {
        return Ok(Outcome::Inconclusive { why, by_plan: capture.coverage.gap_is_by_plan(&needs) });
    }
    Ok(match detector.unjudged(capture, kb)? {
        Some(why) => Outcome::Inconclusive { why, by_plan: false },
        None => Outcome::Clear,
    })
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
