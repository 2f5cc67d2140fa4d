//! What a user names → which flows are meant.
//!
//! Every condition must hold, for a flow as a whole: its ends may stand on one line and its owner on another. Ends are
//! compared with both sides of a flow as each of its ends sees them, so that a Service's address, a backend's and the one
//! that a masqueraded client is seen with all find it.

use std::net::IpAddr;
use std::str::FromStr;

use ktrace_bundle::event::{Endpoint, Proto};
use ktrace_bundle::line::parse_endpoint;
use ktrace_bundle::nat::Nat;
use ktrace_bundle::peer::Peer;
use ktrace_bundle::workload::{Home, Workload};

use crate::capture::{ProcId, Processes};
use crate::error::Error;

/// What community ids of version 1 begin with.
const COMMUNITY_PREFIX: &str = "1:";

/// Ends of a flow, or its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlowQuery {
    /// Its community id, as `flows.jsonl` has it.
    Community(String),
    /// One or both of its ends, in either order.
    Ends {
        /// Transport protocol; `None`: both.
        proto: Option<Proto>,
        /// An end, or the address or port of one.
        one: Endpoint,
        /// The other one.
        other: Option<Endpoint>,
    },
}

impl FromStr for FlowQuery {
    type Err = Error;

    /// `[tcp|udp] END[->END]`, where an end is `ADDR`, `ADDR:PORT` or `*:PORT`; or a community id.
    fn from_str(text: &str) -> Result<Self, Error> {
        if text.starts_with(COMMUNITY_PREFIX) && text.parse::<IpAddr>().is_err() {
            return Ok(Self::Community(text.to_owned()));
        }
        let (proto, rest) = match text.trim().split_once(' ') {
            Some(("tcp", rest)) => (Some(Proto::Tcp), rest),
            Some(("udp", rest)) => (Some(Proto::Udp), rest),
            _ => (None, text),
        };
        let ends = match rest.split_once("->") {
            Some((one, other)) => end(one).zip(end(other).map(Some)),
            None => end(rest).map(|one| (one, None)),
        };
        let (one, other) = ends.ok_or_else(|| Error::Flow(text.to_owned()))?;
        Ok(Self::Ends { proto, one, other })
    }
}

/// One end; v6 addresses also without brackets.
fn end(text: &str) -> Option<Endpoint> {
    let text = text.trim();
    let addr = text.parse::<IpAddr>().ok().map(|addr| Endpoint { addr: Some(addr), port: None });
    let end = addr.or_else(|| parse_endpoint(text))?;
    let end = Endpoint { addr: end.addr.map(|a| a.to_canonical()), port: end.port };
    (end != Endpoint::default()).then_some(end)
}

/// Whether what is asked for is all true of this end.
fn is_at(asked: Endpoint, end: Endpoint) -> bool {
    asked.addr.is_none_or(|a| end.addr == Some(a)) && asked.port.is_none_or(|p| end.port == Some(p))
}

/// A pod by name, by namespace and name, or by uid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodQuery {
    namespace: Option<String>,
    name: String,
}

impl FromStr for PodQuery {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (namespace, name) = text.split_once('/').map_or((None, text), |(ns, name)| (Some(ns.to_owned()), name));
        if name.is_empty() || name.contains('/') || namespace.as_deref() == Some("") {
            return Err(Error::Pod(text.to_owned()));
        }
        Ok(Self { namespace, name: name.to_owned() })
    }
}

impl PodQuery {
    fn is_in(&self, namespace: Option<&str>) -> bool {
        self.namespace.as_deref().is_none_or(|wanted| namespace == Some(wanted))
    }

    fn is(&self, workload: &Workload) -> bool {
        let is_named = workload.pod.as_ref() == Some(&self.name) || workload.pod_uid == self.name;
        is_named && self.is_in(workload.namespace.as_deref())
    }

    /// Whether the pod is at the other end.
    pub(super) fn is_peer(&self, peer: &Peer) -> bool {
        matches!(peer, Peer::Pod { namespace, pod, .. } if *pod == self.name && self.is_in(Some(namespace)))
    }
}

/// Which flows are meant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector {
    /// Of which this is a line.
    pub seq: Option<u64>,
    /// With these ends.
    pub flow: Option<FlowQuery>,
    /// Of this pod, or to it.
    pub pod: Option<PodQuery>,
    /// Of processes with this name.
    pub comm: Option<String>,
    /// Of this process.
    pub pid: Option<u32>,
}

/// What a record says of where its packets come from and go to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Course<'a> {
    pub(super) proto: Proto,
    pub(super) local: Endpoint,
    pub(super) remote: Endpoint,
    pub(super) nat: Option<&'a Nat>,
    pub(super) asked: Option<Endpoint>,
}

impl Course<'_> {
    /// Every name of the own side, then of the other one.
    fn sides(&self) -> [Vec<Endpoint>; 2] {
        let (mut own, mut other) = (vec![self.local], vec![self.remote]);
        other.extend(self.asked);
        let Some(nat) = self.nat else { return [own, other] };
        let mut client = vec![nat.reply.to];
        let mut server = vec![nat.reply.from];
        if let Some(original) = nat.original {
            client.push(original.from);
            server.push(original.to);
        }
        let is_server = server.contains(&self.local) || client.contains(&self.remote);
        let (own_names, other_names) = if is_server { (server, client) } else { (client, server) };
        own.extend(own_names);
        other.extend(other_names);
        [own, other]
    }
}

impl Selector {
    /// Whether the ends of this record are those of the flow that is asked for.
    pub(super) fn is_on(&self, course: &Course<'_>) -> bool {
        let Some(FlowQuery::Ends { proto, one, other }) = &self.flow else { return false };
        if proto.is_some_and(|p| p != course.proto) {
            return false;
        }
        let [own, far] = course.sides();
        let has = |side: &[Endpoint], asked: Endpoint| side.iter().any(|end| is_at(asked, *end));
        match other {
            None => has(&own, *one) || has(&far, *one),
            Some(other) => (has(&own, *one) && has(&far, *other)) || (has(&far, *one) && has(&own, *other)),
        }
    }

    /// Whether this is the community id that is asked for.
    pub(super) fn is_community(&self, id: Option<&str>) -> bool {
        matches!((&self.flow, id), (Some(FlowQuery::Community(wanted)), Some(id)) if wanted == id)
    }

    /// Whether a flow with these owners, or with the pod at its other end, is meant.
    pub(super) fn is_owned(&self, owners: &[ProcId], is_peer: bool, processes: &Processes) -> bool {
        let of_process = self.comm.is_some() || self.pid.is_some();
        let is_process = |id: ProcId| {
            processes.get(id).is_some_and(|p| {
                self.comm.as_ref().is_none_or(|c| *c == p.comm) && self.pid.is_none_or(|pid| pid == p.pid)
            })
        };
        let is_pod = |id: ProcId| match (&self.pod, processes.home(id)) {
            (None, _) => true,
            (Some(pod), Some(Home::Pod(workload))) => pod.is(workload),
            (Some(_), _) => false,
        };
        match (of_process, self.pod.is_some()) {
            (false, false) => true,
            (false, true) => is_peer || owners.iter().any(|id| is_pod(*id)),
            (true, _) => owners.iter().any(|id| is_process(*id) && (is_peer || is_pod(*id))),
        }
    }
}

#[cfg(test)]
#[path = "select_tests.rs"]
mod tests;
