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
mod probe_failing;
mod races;
mod rank;
mod refused;
mod resolver_config;
mod retransmits;
mod rtt_high;
mod steps;
mod trouble;
mod unreachable;

use crate::capture::{Capture, Needs};
use crate::finding::{Explanation, Finding, Outcome};

/// A rule.
pub trait Detector: Sync {
    /// Its name, as in `dns.no_reply`.
    fn id(&self) -> &'static str;
    /// Rises when the same bundle may give another finding.
    fn version(&self) -> u32 {
        1
    }
    /// What must have been recorded before finding nothing means that there was nothing.
    fn needs(&self) -> Needs;
    /// The rule in words.
    fn explain(&self) -> Explanation;
    /// Everything that it finds, in any order.
    fn detect(&self, capture: &Capture) -> Vec<Finding>;
}

/// Every rule.
pub static DETECTORS: &[&dyn Detector] = &[
    &dns_no_reply::DnsNoReply,
    &dns_slow::DnsSlow,
    &connect_timeout::ConnectTimeout,
    &refused::Refused,
    &unreachable::Unreachable,
    &close_wait::CloseWaitLeak,
    &retransmits::Retransmits,
    &connect_slow::ConnectSlow,
    &rtt_high::RttHigh,
    &trouble::listen_overflow::ListenOverflow,
    &trouble::reset_by_peer::ResetByPeer,
    &trouble::slow_reader::SlowReader,
    &trouble::mtu_hole::MtuHole,
    &nat::backend_dead::BackendDead,
    &nat::backend_slow::BackendSlow,
    &nat::unreplied::Unreplied,
    &nat::hairpin::Hairpin,
    &nat::port_exhaustion::PortExhaustion,
    &nat::conntrack_race::ConntrackRace,
    &drops::policy::PolicyDrop,
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
    &lossy::Lossy,
    &incomplete::Incomplete,
];

/// The rule with this name.
pub fn by_id(id: &str) -> Option<&'static dyn Detector> {
    DETECTORS.iter().copied().find(|d| d.id() == id)
}

/// Runs every rule; outcomes stand in the order of [`DETECTORS`].
pub fn run(capture: &Capture) -> Vec<(&'static dyn Detector, Outcome)> {
    DETECTORS.iter().map(|d| (*d, judge(*d, capture))).collect()
}

/// Everything found, causes above symptoms, the worst first.
pub fn ranked(outcomes: &[(&'static dyn Detector, Outcome)]) -> Vec<Finding> {
    let found = outcomes.iter().filter_map(|(_, o)| match o {
        Outcome::Found(findings) => Some(findings.as_slice()),
        Outcome::Clear | Outcome::Inconclusive { .. } => None,
    });
    rank::rank(found.flatten().cloned().collect())
}

fn judge(detector: &'static dyn Detector, capture: &Capture) -> Outcome {
    let findings = detector.detect(capture);
    if !findings.is_empty() {
        return Outcome::Found(findings);
    }
    let needs = detector.needs();
    match capture.coverage.gap(&needs) {
        Some(why) => Outcome::Inconclusive { why, by_plan: capture.coverage.gap_is_by_plan(&needs) },
        None => Outcome::Clear,
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
