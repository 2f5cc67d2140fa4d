//! Ports behind those that a filter names: a service's port is translated on the way, and its backend sees another one.
//!
//! The node's rules say which. They are read once, before anything is loaded, and not waited for longer than
//! [`LONGEST`]; what they do not tell in time is not admitted, and the bundle says so.

use std::collections::BTreeSet;
use std::time::Duration;

use ktrace_bundle::manifest::{PlanEntry, PlanSource};
use serde_json::json;

use super::{Plan, PortFilter, ports};
use crate::services::{self, Outcome, Rules, ports_behind};

/// So long the rules may take.
const LONGEST: Duration = Duration::from_millis(300);

/// What a filter by port admits besides the ports that it names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Behind {
    /// Ports to which rules translate those that are named; [`ports::MAX`] at most, with those.
    pub ports: BTreeSet<u16>,
    /// Those of them to which rules translate a port of DNS.
    pub dns_ports: BTreeSet<u16>,
    /// What a reader should know about that, a sentence each.
    pub notes: Vec<String>,
}

impl Plan {
    /// Lets a filter by port also admit what rules of this node translate its ports to. `with_nat`: the user wants that.
    pub fn look_behind_nat(&mut self, with_nat: bool) {
        if with_nat && self.named_ports().is_some() {
            self.admit_behind(&services::of_this_node(LONGEST));
        }
    }

    /// Every port on which UDP sends and receives are paired as DNS.
    pub fn all_dns_ports(&self) -> BTreeSet<u16> {
        self.dns_ports.union(&self.behind.dns_ports).copied().collect()
    }

    /// The ports that the filter wants, and those that it does not; `None` if it wants none in particular.
    fn named_ports(&self) -> Option<(&BTreeSet<u16>, BTreeSet<u16>)> {
        match &self.filter {
            PortFilter::All => None,
            PortFilter::Dns(ports) => Some((ports, BTreeSet::new())),
            PortFilter::Ports(listed) if listed.wanted.is_empty() => None,
            PortFilter::Ports(listed) => Some((&listed.wanted, listed.unwanted.clone())),
        }
    }

    fn admit_behind(&mut self, rules: &[Rules]) {
        let Some((wanted, unwanted)) = self.named_ports() else { return };
        let of = |ports: &BTreeSet<u16>| -> BTreeSet<u16> {
            rules.iter().flat_map(|it| ports_behind(&it.declared, ports)).collect()
        };
        let found: BTreeSet<u16> = of(wanted).difference(&unwanted).copied().collect();
        let room = ports::MAX.saturating_sub(wanted.len() + unwanted.len());
        let ports: BTreeSet<u16> = found.iter().take(room).copied().collect();
        let dns = of(&self.dns_ports);
        let dns_ports: BTreeSet<u16> = dns.into_iter().filter(|it| ports.contains(it) || wanted.contains(it)).collect();
        let left_out: Vec<_> = found.difference(&ports).map(u16::to_string).collect();
        let mut notes = Vec::new();
        if !ports.is_empty() {
            let list: Vec<_> = ports.iter().map(u16::to_string).collect();
            notes.push(format!("ports behind NAT are recorded, too, as rules of this node tell: {}", list.join(", ")));
        }
        if !left_out.is_empty() {
            notes.push(format!(
                "the filter has no room for {} ports behind NAT, as it holds {}: {}",
                left_out.len(),
                ports::MAX,
                left_out.join(", ")
            ));
        }
        notes.extend(unread(rules));
        self.entries.insert("ports-behind-nat".into(), PlanEntry { value: json!(ports), from: PlanSource::Nat });
        if !dns_ports.is_empty() {
            let entry = PlanEntry { value: json!(dns_ports), from: PlanSource::Nat };
            self.entries.insert("dns-ports-behind-nat".into(), entry);
        }
        self.behind = Behind { ports, dns_ports, notes };
    }
}

/// Rules that may be there and could not be read: one sentence for each reason.
fn unread(rules: &[Rules]) -> Vec<String> {
    let mut reasons: Vec<(String, Vec<&str>)> = Vec::new();
    for report in rules.iter().flat_map(|it| &it.reports) {
        let reason = match &report.outcome {
            Outcome::Failed { why } => why.clone(),
            Outcome::Answered if report.omitted > 0 => {
                format!("{} rules, services or backends are too many or not understood", report.omitted)
            }
            Outcome::Answered | Outcome::Absent { .. } => continue,
        };
        let source = report.source.as_str();
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, sources)) if sources.contains(&source) => {}
            Some((_, sources)) => sources.push(source),
            None => reasons.push((reason, vec![source])),
        }
    }
    let sentence = |(why, sources): (String, Vec<&str>)| {
        format!("ports behind NAT may be missing, as rules of {} could not be read: {why}", sources.join(", "))
    };
    reasons.into_iter().map(sentence).collect()
}

#[cfg(test)]
#[path = "behind_tests.rs"]
mod tests;
