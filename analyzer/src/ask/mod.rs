//! A question in plain words → the rules, flows and findings of a bundle that are about it.
//!
//! Nothing is guessed from meaning: words are looked up in what the rules know ([`crate::kb`]), in a table of services and
//! their ports, and among the names and addresses of the bundle. The same question about the same bundle gets the same
//! answer.

mod answer;
mod ports;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ktrace_bundle::event::Endpoint;

pub use answer::{Answer, Traffic};

use crate::capture::Capture;
use crate::finding::{Finding, Subject};
use crate::kb::{Kb, telling};

/// Rules that an answer is about at most.
const MAX_RULES: usize = 8;
/// A word of a question this long may be a part of a name.
const MIN_PART: usize = 4;
/// Lowest port that no standard reserves (RFC 6335 section 6).
const FIRST_FREE_PORT: u16 = 1024;
/// Most names of the bundle that one question is about.
const MAX_NAMES: usize = 16;

/// What a question is about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Topic {
    /// Ports that it names, as numbers or by their service.
    pub ports: BTreeSet<u16>,
    /// Services that it names.
    pub services: BTreeSet<&'static str>,
    /// Addresses that it names.
    pub addresses: BTreeSet<IpAddr>,
    /// Names of processes and pods in the bundle that it names: hostile.
    pub names: BTreeSet<String>,
    /// Rules that its words are about, the best first.
    pub rules: Vec<&'static str>,
}

impl Topic {
    /// What a question is about, as far as it tells without a bundle.
    pub fn new(kb: &Kb, question: &str) -> Self {
        let addresses = question.split_whitespace().filter_map(address).collect();
        let mut topic = Self { addresses, ..Self::default() };
        let rest: Vec<&str> = question.split_whitespace().filter(|word| address(word).is_none()).collect();
        let mut words = telling(&rest.join(" "));
        let mut is_port = false;
        for word in &words {
            if let Ok(port) = word.parse::<u16>() {
                // a small number counts or measures something, as a rule
                if is_port || port >= FIRST_FREE_PORT || ports::is_known(port) {
                    topic.ports.insert(port);
                }
            } else if let Some((service, ports)) = ports::of(word) {
                topic.services.insert(service);
                topic.ports.extend(ports);
            }
            is_port = matches!(word.as_str(), "port" | "ports");
        }
        words.retain(|word| ports::of(word).is_none() || word == "dns");
        topic.rules = kb.search(&words).iter().take(MAX_RULES).map(|m| m.detector.id()).collect();
        topic
    }

    /// Adds the names of the bundle that the question names.
    pub fn find_names(&mut self, capture: &Capture, question: &str) {
        let words = telling(question);
        let names = capture.processes.names().chain(capture.processes.pods());
        let is_named = |name: &&str| {
            let name = name.to_lowercase();
            words.iter().any(|w| name == *w || (w.chars().count() >= MIN_PART && name.contains(w.as_str())))
        };
        self.names.extend(names.filter(is_named).take(MAX_NAMES).map(str::to_owned));
    }

    /// Whether it is about something in particular, and not about everything.
    pub fn is_particular(&self) -> bool {
        !(self.ports.is_empty() && self.addresses.is_empty() && self.names.is_empty())
    }

    /// Whether an end is one that the question names.
    pub fn is_about_end(&self, end: Endpoint) -> bool {
        end.port.is_some_and(|port| self.ports.contains(&port))
            || end.addr.is_some_and(|addr| self.addresses.contains(&addr))
    }

    /// Whether a process, or the pod that it runs in, is one that the question names.
    pub fn is_about_name(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Whether a finding is about what the question names.
    pub fn is_about(&self, finding: &Finding) -> bool {
        let s: &Subject = &finding.subject;
        let far = s.far.as_ref();
        let ends = [s.local, s.remote, s.vip, s.backend, far.map(|far| far.end)];
        let pods = [s.home.as_ref(), far.and_then(|far| far.home.as_ref())];
        let names = [s.comm.as_deref(), far.map(|far| far.comm.as_str())];
        ends.into_iter().flatten().any(|end| self.is_about_end(end))
            || names.into_iter().flatten().any(|name| self.is_about_name(name))
            || pods.into_iter().flatten().filter_map(crate::finding::pod_name).any(|pod| self.is_about_name(pod))
    }
}

fn address(word: &str) -> Option<IpAddr> {
    word.trim_matches(|c: char| matches!(c, '?' | ',' | '[' | ']' | '"' | '\'')).parse().ok()
}

#[cfg(test)]
mod tests;
