//! Records of a bundle → the model that detectors judge.
//!
//! Streams: memory grows with connections and flows, not with events. A tgz delivers its manifest last, so nothing
//! is judged while records come in; every table is bounded, and what no longer fits becomes part of the
//! [`Coverage`], never a silent gap. Findings hold on to events by their `seq` ([`Evidence`]).

mod asked;
mod connection;
mod coverage;
mod drops;
mod ends;
mod evidence;
mod flows;
mod lookups;
mod losses;
mod node;
mod overflows;
mod peers;
mod process;
mod races;
mod rtts;
mod target;
mod tracking;
mod trouble;
mod udp;
mod way;
mod window;

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use chrono::{DateTime, Utc};
use ktrace_bundle::event::{Datagram, Endpoint, Errno, Event, EventKind, Identity, Payload, Proto, Role, SocketRecord};
use ktrace_bundle::manifest::{Manifest, PartialManifest};
use ktrace_bundle::reader::{ReadReport, Record};
use ktrace_bundle::summary::Summary;
use ktrace_bundle::tcp::TcpState;
use ktrace_bundle::tracking::ServicesReport;

pub use connection::{Attempt, Closed, Connection, Failure, Mark};
pub use coverage::{Coverage, Needs};
pub use drops::{DropRow, Drops, Hit};
pub use ends::{Ends, FarEnd, Span};
pub use evidence::Evidence;
pub use lookups::{Asked, Lookups, MIN_STEPS};
pub use losses::Losses;
pub use node::{FilterKey, Looks, Node, NodeGaps, NodePart, Place, Rising, Waiting};
pub use overflows::Overflow;
pub use peers::Peers;
pub use process::{ProcId, Process, Processes, Setting};
pub use races::Races;
pub use rtts::{Cutoffs, MAX_SAMPLES, RETRY_CLUSTER_NS, Rtts};
pub use target::Target;
pub use tracking::{TrackingCoverage, TrackingNeed};
pub use trouble::{ResetMark, Standstill, Trouble, Waited};
pub use udp::{PAIR_NS, PENDING_NS, RETRY_NS, UdpFlow};
pub use way::Way;

use drops::DropTable;
use ends::UdpServers;
use overflows::Overflows;
use udp::UdpFlows;

pub(crate) use connection::has_client_ports;
pub(crate) use drops::pairs;
pub(crate) use flows::is_same;

/// Most connections, and most UDP flows, that are told apart.
const MAX_FLOWS: usize = 400_000;
/// Most reasons for flows without an entry that are told apart.
const MAX_REASONS: usize = 32;

/// What makes a socket one and the same: its namespace, and its cookie or, in a line without one, its ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum FlowKey {
    /// By its cookie.
    Cookie(u32, u64),
    /// By its ends, own one first.
    Ends(u32, Endpoint, Endpoint),
}

impl FlowKey {
    /// The socket of a record.
    pub(crate) fn of(id: &Identity) -> Self {
        match id.socket {
            Some(cookie) => Self::Cookie(id.netns, cookie),
            None => Self::Ends(id.netns, id.local, id.remote),
        }
    }
}

/// A whole capture.
#[derive(Debug)]
pub struct Capture {
    /// Name of the node, hostile.
    pub node_name: Option<String>,
    /// Id of the capture, hostile.
    pub capture_id: Option<String>,
    /// When the window opened.
    pub start_at: Option<DateTime<Utc>>,
    /// When it closed.
    pub end_at: Option<DateTime<Utc>>,
    /// Length of the window, ns.
    pub duration_ns: u64,
    /// `boot_ns` at which the window closed; without a manifest, of the last event.
    pub window_end_ns: u64,
    /// Events by type.
    pub events: BTreeMap<EventKind, u64>,
    /// TCP connections, listeners left out.
    pub connections: Vec<Connection>,
    /// Sockets that listen.
    pub listeners: Vec<Connection>,
    /// UDP flows of clients to DNS servers.
    pub dns: Vec<UdpFlow>,
    /// Other UDP flows of clients.
    pub udp: Vec<UdpFlow>,
    /// Packets that the kernel threw away.
    pub drops: Drops,
    /// Listeners that turned connections away.
    pub overflows: Vec<Overflow>,
    /// Sockets at the other ends of these.
    pub ends: Ends,
    /// Who stands behind which address, where the collector told.
    pub services: Option<ServicesReport>,
    /// Names that were asked for under one search domain after the other.
    pub lookups: Lookups,
    /// Remote ends by name.
    pub peers: Peers,
    /// The machine, as it was when the window opened and when it closed.
    pub node: Node,
    /// Everybody who owned a socket.
    pub processes: Processes,
    /// What could have been seen.
    pub coverage: Coverage,
    attempts: OnceLock<BTreeMap<Target, Vec<(usize, Attempt)>>>,
    races: OnceLock<Races>,
}

/// Builds a [`Capture`] from records as they come.
#[derive(Debug)]
pub struct Builder {
    cutoffs: Cutoffs,
    max_flows: usize,
    is_without_flows: bool,
    events: BTreeMap<EventKind, u64>,
    first: Option<(DateTime<Utc>, u64)>,
    last: Option<(DateTime<Utc>, u64)>,
    node_name: Option<String>,
    node: Node,
    lookups: Lookups,
    peers: Peers,
    connections: Vec<Connection>,
    open: HashMap<FlowKey, usize>,
    connection_overflow: u64,
    udp: UdpFlows,
    udp_servers: UdpServers,
    drops: DropTable,
    overflows: Overflows,
    tracking: TrackingCoverage,
    services: Option<Box<ServicesReport>>,
    sends_to_unknown: u64,
    losses: Losses,
    processes: Processes,
    manifest: Option<Box<Manifest>>,
    partial: Option<Box<PartialManifest>>,
    summary: Option<Box<Summary>>,
}

impl Builder {
    /// A builder.
    pub fn new(cutoffs: Cutoffs) -> Self {
        Self::with_max_flows(cutoffs, MAX_FLOWS)
    }

    /// A builder that tells at most so many connections, and as many UDP flows, apart.
    pub fn with_max_flows(cutoffs: Cutoffs, max_flows: usize) -> Self {
        Self {
            cutoffs,
            max_flows,
            is_without_flows: false,
            events: BTreeMap::new(),
            first: None,
            last: None,
            node_name: None,
            node: Node::default(),
            lookups: Lookups::default(),
            peers: Peers::default(),
            connections: Vec::new(),
            open: HashMap::new(),
            connection_overflow: 0,
            udp: UdpFlows::default(),
            udp_servers: UdpServers::default(),
            drops: DropTable::default(),
            overflows: Overflows::default(),
            tracking: TrackingCoverage::default(),
            services: None,
            sends_to_unknown: 0,
            losses: Losses::default(),
            processes: Processes::default(),
            manifest: None,
            partial: None,
            summary: None,
        }
    }

    /// A builder for who looks at flows in another way: of these its capture has none.
    pub(crate) fn without_flows() -> Self {
        // no reply is timed
        let cutoffs = Cutoffs { slow_reply_ns: 0, very_slow_reply_ns: 0 };
        Self { is_without_flows: true, ..Self::new(cutoffs) }
    }

    /// The process behind a record, as [`Capture::processes`] will know it.
    pub(crate) fn process_of(&mut self, id: &Identity) -> Option<ProcId> {
        self.processes.of(id)
    }

    /// Adds a record.
    pub fn push(&mut self, record: Record) {
        match record {
            Record::Event(event) => self.event(&event),
            Record::Socket(socket) => self.socket(&socket),
            Record::Loss(loss) => self.losses.push(&loss),
            Record::Workload(workload) => self.processes.learn(workload),
            Record::Flow(flow) => self.flow(&flow),
            Record::Tracking(report) => self.tracking.report = Some(*report),
            Record::Services(mut report) => {
                report.services.sort_by_key(|s| (s.proto, s.vip));
                self.services = Some(report);
            }
            // what findings name is told by the events themselves
            Record::Process(_) => {}
            Record::Node(record) => self.node.push(*record),
            Record::Manifest(m) => self.manifest = Some(m),
            Record::Partial(p) => self.partial = Some(p),
            Record::Summary(s) => self.summary = Some(s),
        }
    }

    /// The model of all that was pushed.
    pub fn finish(mut self, report: &ReadReport) -> Capture {
        self.processes.join();
        let window = self.window();
        let (manifest, partial) = (self.manifest.as_deref(), self.partial.as_deref());
        let mut coverage = Coverage::new(report, manifest, partial, self.summary.as_deref());
        coverage.sends_to_unknown = self.sends_to_unknown;
        coverage.losses = self.losses.clone();
        coverage.add_overflow("connections", self.connection_overflow);
        coverage.add_overflow("UDP flows", self.udp.overflow);
        coverage.add_overflow("drops", self.drops.overflow);
        coverage.add_overflow("listeners", self.overflows.overflow);
        coverage.add_overflow("processes", self.processes.overflow());
        coverage.tracking = std::mem::take(&mut self.tracking);
        coverage.tracking.source = TrackingCoverage::source_of(self.head());
        coverage.node = NodeGaps::new(&self.node, self.head());
        coverage.not_measured.extend(node::without_pressure(&self.node));
        coverage.add_unnamed(self.udp_servers.overflow);
        let node_name = self.head().map(|h| h.node.clone()).or_else(|| self.node_name.clone());
        let capture_id = self.head().map(|h| h.capture_id.clone());
        let flows = self.udp.finish(window.end_ns);
        let is_dns = |f: &UdpFlow| {
            // who answers a multicast answers from its own address
            let is_group = f.server.addr.is_some_and(|a| a.is_multicast());
            let asked = [f.server.port, f.way.vip(f.server).and_then(|vip| vip.port)];
            !is_group && asked.iter().flatten().any(|p| coverage.dns_ports.contains(p))
        };
        // in place: there may be hundreds of thousands
        let mut dns = flows;
        let udp = dns.extract_if(.., |f| !is_dns(f)).collect();
        let mut connections = self.connections;
        let listeners = connections.extract_if(.., |c| c.role == Some(Role::Listener)).collect();
        Capture {
            node_name,
            capture_id,
            start_at: window.start_at,
            end_at: window.end_at,
            duration_ns: window.duration_ns,
            window_end_ns: window.end_ns,
            events: self.events,
            drops: Drops::new(self.drops),
            overflows: self.overflows.finish(),
            ends: Ends::new(&connections, self.udp_servers),
            connections,
            listeners,
            dns,
            udp,
            services: self.services.map(|report| *report),
            lookups: self.lookups.finish(),
            peers: self.peers,
            node: self.node,
            processes: self.processes,
            coverage,
            attempts: OnceLock::new(),
            races: OnceLock::new(),
        }
    }

    fn event(&mut self, event: &Event) {
        *self.events.entry(event.payload.kind()).or_default() += 1;
        let moment = (event.at, event.boot_ns);
        if self.first.is_none_or(|f| f.1 > moment.1) {
            self.first = Some(moment);
        }
        if self.last.is_none_or(|l| l.1 < moment.1) {
            self.last = Some(moment);
        }
        if self.node_name.is_none() && !event.id.node.is_empty() {
            self.node_name = Some(event.id.node.to_string());
        }
        self.sends_to_unknown += u64::from(is_sent_to_unknown(event));
        let proc = self.processes.of(&event.id);
        self.peers.learn(&event.id);
        if self.is_without_flows {
            return;
        }
        match event.payload.kind() {
            EventKind::UdpSend | EventKind::UdpRecv => {
                self.udp_servers.push(event, proc, self.max_flows);
                self.udp.push(event, proc, self.cutoffs, self.max_flows);
                self.lookups.push(event, proc);
            }
            EventKind::Drop => self.drops.push(event, proc, self.max_flows),
            EventKind::ListenOverflow => self.overflows.push(event, proc, self.max_flows),
            EventKind::TcpReset if !is_of_a_connection(event) => {}
            EventKind::TcpState
            | EventKind::Connect
            | EventKind::TcpRetransmit
            | EventKind::TcpReset
            | EventKind::TcpStall => {
                if let Some(connection) = self.connection(&event.id, event.boot_ns, |c| c.is_reopened_by(event)) {
                    connection.apply(event, proc);
                }
            }
        }
    }

    fn socket(&mut self, socket: &SocketRecord) {
        if socket.id.proto == Proto::Udp || self.is_without_flows {
            return;
        }
        let proc = self.processes.of(&socket.id);
        self.peers.learn(&socket.id);
        if let Some(connection) = self.connection(&socket.id, socket.boot_ns, |_| false) {
            connection.apply_socket(socket, proc);
        }
    }

    /// The connection on this socket; a new one if there is none yet, or `begins_another` says so.
    fn connection(
        &mut self,
        id: &Identity,
        at: u64,
        begins_another: impl Fn(&Connection) -> bool,
    ) -> Option<&mut Connection> {
        let key = FlowKey::of(id);
        let known =
            self.open.get(&key).copied().filter(|i| self.connections.get(*i).is_some_and(|c| !begins_another(c)));
        let index = match known {
            Some(index) => index,
            None if self.connections.len() >= self.max_flows => {
                self.connection_overflow += 1;
                return None;
            }
            None => {
                let index = self.connections.len();
                let before = self.open.insert(key, index);
                self.connections.push(Connection::new(id, at, before));
                index
            }
        };
        self.connections.get_mut(index)
    }
}

/// Whether this went somewhere, and the capture does not know where. Who sends without any destination gets
/// `EDESTADDRREQ`.
fn is_sent_to_unknown(event: &Event) -> bool {
    let Payload::UdpSend(Datagram { error, .. }) = &event.payload else { return false };
    event.id.remote.addr.is_none() && error.and_then(Errno::name) != Some("EDESTADDRREQ")
}

/// Whether this reset is about a connection: others answer a segment for which there is none, or which a listener got.
pub(crate) fn is_of_a_connection(event: &Event) -> bool {
    let Payload::TcpReset(reset) = &event.payload else { return false };
    let none = [TcpState::Listen, TcpState::NewSynRecv, TcpState::TimeWait];
    event.id.socket.is_some() && reset.state.is_some_and(|state| !none.contains(&state))
}

/// As the release judges.
#[cfg(test)]
#[path = "tests.rs"]
pub(crate) mod tests;

#[cfg(test)]
mod nat_tests;
