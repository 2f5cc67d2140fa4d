//! The rules by which a node translates addresses → the services that they declare: which address and port stands for
//! which backends.
//!
//! Read where they can be read: nftables by `nft`, iptables by `iptables-save` of either kind, IPVS by procfs. Nothing is
//! asked that would load a module or make a table, no tool is waited for longer than asked, and nothing that it prints is
//! trusted: everything that is kept is bounded, and what finds no room is counted. Rules that nobody can read are told by
//! the reports.

mod behind;
mod iptables;
mod ipvs;
mod names;
pub mod nft;
pub mod presence;
mod ruleset;
mod scope;
pub mod sources;
pub mod tool;

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use ktrace_bundle::event::Proto;

pub use behind::ports_behind;

/// After the time is over, so long a tool may take to be killed.
const GRACE: Duration = Duration::from_millis(20);

/// What rules are for: an address and a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Vip {
    /// `None`: any address, or not one particular: a prefix, or the node's own as for a `NodePort`.
    pub addr: Option<IpAddr>,
    /// The port, or the first of a range; `None`: any port.
    pub port: Option<u16>,
    /// The last port of a range.
    pub last_port: Option<u16>,
}

impl Vip {
    /// Whether a packet to this port is meant.
    pub fn has_port(&self, port: u16) -> bool {
        self.port.is_none_or(|first| (first..=self.last_port.unwrap_or(first)).contains(&port))
    }
}

/// Where rules send what is for a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Backend {
    /// `None`: the one that the packet has; the node itself (`redirect`); one of a large range.
    pub addr: Option<IpAddr>,
    /// `None`: the one that the packet has; one of a large range.
    pub port: Option<u16>,
}

impl Backend {
    /// Whether it says nothing.
    fn is_nothing(self) -> bool {
        self.addr.is_none() && self.port.is_none()
    }
}

/// Who keeps the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RuleSource {
    /// nftables, by `nft -j list ruleset`.
    Nftables,
    /// iptables, by `iptables-save`.
    Iptables,
    /// ip6tables, by `ip6tables-save`.
    Ip6tables,
    /// IPVS, by `/proc/net/ip_vs`.
    Ipvs,
}

impl RuleSource {
    /// All, in the order in which they are asked.
    pub const ALL: [Self; 4] = [Self::Ipvs, Self::Nftables, Self::Iptables, Self::Ip6tables];

    /// Name as it stands in a bundle.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
            Self::Ip6tables => "ip6tables",
            Self::Ipvs => "ipvs",
        }
    }
}

/// A service that rules declare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// Protocol; rules for any protocol declare two services.
    pub proto: Proto,
    /// What clients ask for.
    pub vip: Vip,
    /// What they may get, in order; empty where rules drop a service that has none, or leave the destination as it is.
    pub backends: Vec<Backend>,
    /// Who says so.
    pub source: RuleSource,
    /// Kubernetes name, such as `shop/api:http`, where rules of kube-proxy tell it. 256 bytes at most, letters, digits and
    /// `-._/:`; who may name services in the cluster chose it.
    pub name: Option<String>,
}

/// What came of asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All that there is was read, less what was omitted.
    Answered,
    /// There is nothing that could be asked, or nothing to be read.
    Absent {
        /// Why, in words.
        why: String,
    },
    /// There may be rules, and nobody could tell.
    Failed {
        /// Why, in words.
        why: String,
    },
}

/// How one source did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleReport {
    /// Which.
    pub source: RuleSource,
    /// What came of it.
    pub outcome: Outcome,
    /// How long it took.
    pub latency: Duration,
    /// Services that it declares.
    pub entries: u64,
    /// Rules, services and backends that were left out, because there are too many or because they were not understood.
    pub omitted: u64,
}

/// What all sources say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Services: 16,384 of each source at most, with 65,536 backends.
    pub declared: Vec<Declared>,
    /// One for each source.
    pub reports: Vec<RuleReport>,
}

/// Answers that are on their way.
pub struct Reading {
    answers: Option<Receiver<(RuleReport, Vec<Declared>)>>,
    begin: Instant,
    longest: Duration,
}

/// Begins to read the rules of a network namespace, or of the caller's own one, on a thread of its own.
pub fn begin(netns: Option<BorrowedFd<'_>>, longest: Duration) -> Reading {
    begin_in(netns.map(|fd| fd.try_clone_to_owned()), longest)
}

fn begin_in(netns: Option<io::Result<OwnedFd>>, longest: Duration) -> Reading {
    let begin = Instant::now();
    let (sender, answers) = channel();
    let inside = move || {
        // nobody listens any more when the time is over
        sources::read(netns, begin + longest, |answer| sender.send(answer).is_ok());
    };
    let thread = std::thread::Builder::new().name("rules".into()).spawn(inside);
    Reading { answers: thread.ok().map(|_| answers), begin, longest }
}

/// The same, with its end.
#[cfg(test)]
pub fn read(netns: Option<BorrowedFd<'_>>, longest: Duration) -> Rules {
    begin(netns, longest).finish()
}

/// Begins to read the rules of this network namespace, and of the host's if that is another one: that of process 1, or where
/// that is out of reach of process 2, a thread of the kernel.
pub fn begin_on_this_node(longest: Duration) -> Vec<Reading> {
    let own = begin(None, longest);
    let place = |file: &File| file.metadata().ok().map(|it| (it.dev(), it.ino()));
    let here = File::open("/proc/self/ns/net").ok().as_ref().and_then(place);
    let opened = File::open("/proc/1/ns/net").or_else(|_| File::open("/proc/2/ns/net"));
    let is_own = opened.as_ref().is_ok_and(|file| place(file) == here);
    let host = (!is_own).then(|| begin_in(Some(opened.map(OwnedFd::from)), longest));
    [Some(own), host].into_iter().flatten().collect()
}

/// The same, with their end.
pub fn of_this_node(longest: Duration) -> Vec<Rules> {
    begin_on_this_node(longest).into_iter().map(Reading::finish).collect()
}

impl Reading {
    /// What was answered in time. Waits no longer than until then.
    pub fn finish(self) -> Rules {
        let end = self.begin + self.longest + GRACE;
        let mut rules = Rules::default();
        for source in RuleSource::ALL {
            let left = end.saturating_duration_since(Instant::now());
            // a source without an answer leaves none to those behind it, either
            let answer = self.answers.as_ref().and_then(|answers| answers.recv_timeout(left).ok());
            let (report, declared) = answer.unwrap_or_else(|| (self.silent(source), Vec::new()));
            let known: HashSet<_> = rules.declared.iter().map(|it| (it.proto, it.vip)).collect();
            let is_new = |new: &Declared| {
                let same = |old: &&Declared| (old.proto, old.vip) == (new.proto, new.vip);
                !known.contains(&(new.proto, new.vip))
                    || rules.declared.iter().filter(same).all(|old| old.backends != new.backends)
            };
            let declared: Vec<_> = declared.into_iter().filter(is_new).collect();
            rules.declared.extend(declared);
            rules.reports.push(report);
        }
        rules
    }

    fn silent(&self, source: RuleSource) -> RuleReport {
        let why = match self.answers {
            Some(_) => format!("no answer within {} ms", self.longest.as_millis()),
            None => "no thread could be started".into(),
        };
        let latency = self.begin.elapsed();
        RuleReport { source, outcome: Outcome::Failed { why }, latency, entries: 0, omitted: 0 }
    }
}

#[cfg(test)]
#[path = "services/services_tests.rs"]
mod tests;
