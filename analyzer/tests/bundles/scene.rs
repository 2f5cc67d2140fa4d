//! A capture built event by event, and written as an unpacked bundle.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use ktrace_bundle::dns::DnsPairs;
use ktrace_bundle::event::{Event, EventKind, PacketDir, Proto, RetransmitKind, Role, SocketRecord, TcpClose};
use ktrace_bundle::flow::FlowRecord;
use ktrace_bundle::ledger::DropReason;
use ktrace_bundle::line;
use ktrace_bundle::manifest::{Manifest, Member, SourceReport};
use ktrace_bundle::node::NodeRecord;
use ktrace_bundle::tcp::TcpState;
use ktrace_bundle::testing::{EventBuilder, a_manifest, a_tracking_report, an_event};
use ktrace_bundle::tracking::{ServicesReport, TrackingReport};

/// Something that the manifest says differently.
type Change = Box<dyn Fn(&mut Manifest)>;

/// What a story is told with.
pub struct Scene {
    comm: &'static str,
    pid: u32,
    remote: String,
    next_socket: u64,
    events: Vec<Event>,
    sockets: Vec<SocketRecord>,
    changes: Vec<Change>,
    flows: Vec<FlowRecord>,
    tracking: TrackingReport,
    services: ServicesReport,
    pub node: Vec<NodeRecord>,
}

impl Scene {
    /// One process that talks to one remote end, unless a step says otherwise.
    pub fn of(comm: &'static str, pid: u32, remote: &str) -> Self {
        Self {
            comm,
            pid,
            remote: remote.to_owned(),
            next_socket: 1000,
            events: Vec::new(),
            sockets: Vec::new(),
            changes: Vec::new(),
            flows: Vec::new(),
            tracking: a_tracking_report(),
            services: ServicesReport::default(),
            node: Vec::new(),
        }
    }

    /// An event of this process on this socket, `us` µs into the window.
    pub fn event(&self, us: u64, socket: u64) -> EventBuilder {
        an_event().by(self.comm, self.pid).from(&self.local(socket)).to(&self.remote).socket(socket).at_us(us)
    }

    /// Own end of this socket.
    pub fn local(&self, socket: u64) -> String {
        format!("10.42.1.15:{}", 40_000 + socket % 20_000)
    }

    /// Whom the process talks to.
    pub fn remote(&self) -> &str {
        &self.remote
    }

    /// From here on the process talks to another remote end.
    pub fn now_to(&mut self, remote: &str) -> &mut Self {
        self.remote = remote.to_owned();
        self
    }

    /// From here on another process talks.
    pub fn now_by(&mut self, comm: &'static str, pid: u32) -> &mut Self {
        (self.comm, self.pid) = (comm, pid);
        self
    }

    /// A socket that was not used before.
    pub fn socket(&mut self) -> u64 {
        self.next_socket += 1;
        self.next_socket
    }

    /// The one that was made last.
    pub fn last_socket(&self) -> u64 {
        self.next_socket
    }

    pub fn push(&mut self, event: Event) -> &mut Self {
        self.events.push(event);
        self
    }

    pub fn push_socket(&mut self, socket: SocketRecord) -> &mut Self {
        self.sockets.push(socket);
        self
    }

    pub fn query(&mut self, ms: u64, socket: u64) -> &mut Self {
        let event = self.event(ms * 1000, socket).udp_send().build();
        self.push(event)
    }

    pub fn reply(&mut self, ms: u64, socket: u64) -> &mut Self {
        let event = self.event(ms * 1000 + 900, socket).udp_recv().build();
        self.push(event)
    }

    /// A query on a socket of its own, answered `after_ms` later.
    pub fn lookup(&mut self, ms: u64, after_ms: u64) -> &mut Self {
        let socket = self.socket();
        self.query(ms, socket).reply(ms + after_ms, socket)
    }

    pub fn syn(&mut self, ms: u64, socket: u64) -> &mut Self {
        let event = self.event(ms * 1000, socket).tcp_state(TcpState::Close, TcpState::SynSent).build();
        self.push(event)
    }

    pub fn syn_again(&mut self, ms: u64, socket: u64) -> &mut Self {
        let event = self.event(ms * 1000, socket).tcp_retransmit(RetransmitKind::Syn, TcpState::SynSent).build();
        self.push(event)
    }

    /// The attempt fails: `SYN_SENT` to `CLOSE` with this account.
    pub fn fails(&mut self, ms: u64, socket: u64, account: TcpClose) -> &mut Self {
        let event = self.event(ms * 1000, socket).closed(TcpState::SynSent, account).build();
        self.push(event)
    }

    pub fn fails_with(&mut self, ms: u64, socket: u64, error: &str) -> &mut Self {
        let event = self.event(ms * 1000, socket).closed(TcpState::SynSent, TcpClose::default()).error(error).build();
        self.push(event)
    }

    pub fn gives_up(&mut self, ms: u64, socket: u64, after_ms: u64) -> &mut Self {
        let account = TcpClose { gave_up_after_ns: Some(after_ms * 1_000_000), ..TcpClose::default() };
        self.fails(ms, socket, account)
    }

    pub fn established(&mut self, ms: u64, socket: u64, handshake_ms: u64) -> &mut Self {
        let event = self.event(ms * 1000, socket).established_after_ms(handshake_ms).build();
        self.push(event)
    }

    /// The connection ends after `segs` segments, `again` of them sent twice.
    pub fn closes(&mut self, ms: u64, socket: u64, segs: u64, again: u64, srtt_us: u64) -> &mut Self {
        let account = TcpClose {
            tx_segs_count: Some(segs),
            rx_segs_count: Some(segs),
            retrans_count: Some(again),
            srtt_us: Some(srtt_us),
            tx_bytes: Some(segs * 1000),
            rx_bytes: Some(2000),
            ..TcpClose::default()
        };
        let event = self.event(ms * 1000, socket).closed(TcpState::LastAck, account).build();
        self.push(event)
    }

    /// A connection from SYN to end that nobody could complain about.
    pub fn healthy_connection(&mut self, ms: u64) -> &mut Self {
        let socket = self.socket();
        self.syn(ms, socket).established(ms + 1, socket, 1).closes(ms + 30, socket, 12, 0, 900)
    }

    /// A client's connection to this process, as a server on `port`, whose peer has closed at `ms`.
    pub fn left_in_close_wait(&mut self, ms: u64, port: u16, client: &str) -> &mut Self {
        let socket = self.socket();
        let change = |us, old, new| {
            let local = format!("10.42.1.15:{port}");
            self.event(us, socket).from(&local).to(client).role(Role::Server).tcp_state(old, new).build()
        };
        let accepted = change(ms * 1000 - 5000, TcpState::SynRecv, TcpState::Established);
        let ended = change(ms * 1000, TcpState::Established, TcpState::CloseWait);
        self.push(accepted).push(ended)
    }

    /// The process closes what [`Self::left_in_close_wait`] made last.
    pub fn closed_at_last(&mut self, ms: u64) -> &mut Self {
        let socket = self.next_socket;
        let last = self.events.iter().rev().find(|e| e.id.socket == Some(socket)).expect("a connection").clone();
        let event = self.event(ms * 1000, socket).closed(TcpState::LastAck, TcpClose::default()).build();
        self.push(Event { id: last.id, ..event })
    }

    /// Packets of this socket are thrown away.
    pub fn drops(&mut self, ms: u64, socket: u64, proto: Proto, dir: PacketDir, reason: &str, count: u64) -> &mut Self {
        let event = self.event(ms * 1000, socket).dropped(proto, dir, reason, count).build();
        self.push(event)
    }

    /// A line of `flows.jsonl`.
    pub fn push_flow(&mut self, flow: FlowRecord) -> &mut Self {
        self.flows.push(flow);
        self
    }

    /// Changes what the tables of connection tracking say.
    pub fn tracking(&mut self, change: impl FnOnce(&mut TrackingReport)) -> &mut Self {
        change(&mut self.tracking);
        self
    }

    /// What `services.json` says.
    pub fn services(&mut self, services: ServicesReport) -> &mut Self {
        self.services = services;
        self
    }

    /// Changes every event so far.
    pub fn for_each_event(&mut self, change: impl Fn(Event) -> Event) -> &mut Self {
        self.events = std::mem::take(&mut self.events).into_iter().map(change).collect();
        self
    }

    /// What was seen of the node; the sources of it answered then.
    pub fn node(&mut self, records: impl IntoIterator<Item = NodeRecord>) -> &mut Self {
        self.node.extend(records);
        self
    }

    /// Changes the manifest.
    pub fn manifest(&mut self, change: impl Fn(&mut Manifest) + 'static) -> &mut Self {
        self.changes.push(Box::new(change));
        self
    }

    /// The same capture, had it lost every event for which `lost` holds because the ring was full.
    pub fn losing(mut self, lost: impl Fn(&Event) -> bool) -> Self {
        let gone: Vec<EventKind> = self.events.iter().filter(|e| lost(e)).map(|e| e.payload.kind()).collect();
        assert!(!gone.is_empty(), "a lossy twin has lost something");
        self.events.retain(|e| !lost(e));
        self.manifest(move |m| {
            for kind in &gone {
                let t = m.ledger.by_type.entry(*kind).or_default();
                t.seen += 1;
                *t.dropped.entry(DropReason::RingFull).or_default() += 1;
            }
            m.ledger.total_from_types();
            m.ledger.observed = m.ledger.seen;
            m.complete = false;
            m.degraded = vec!["the ring was full for a while".to_owned()];
        });
        self
    }

    /// Events in the order of the kernel, numbered and paired as the collector does it.
    pub fn events(&self) -> Vec<Event> {
        let mut events = self.events.clone();
        events.sort_by_key(|e| e.boot_ns);
        let mut pairs = DnsPairs::new(BTreeSet::from([53]), 10_000);
        for (seq, event) in (1..).zip(&mut events) {
            pairs.annotate(event, seq);
            event.seq = seq;
        }
        events
    }

    /// The manifest of the bundle.
    pub fn manifest_of(&self, events: &[Event]) -> Manifest {
        let mut manifest = a_manifest(events);
        if !self.node.is_empty() {
            manifest.head.sources.extend(["node_network", "node_host", "node_filters"].map(answered));
        }
        self.changes.iter().for_each(|change| change(&mut manifest));
        manifest
    }

    /// The members of the bundle by name; the manifest is the last.
    pub fn members(&self) -> Vec<(&'static str, Vec<u8>)> {
        let events = self.events();
        let (mut lines, mut sockets, mut flows) = (Vec::new(), Vec::new(), Vec::new());
        for event in &events {
            line::write_event(&mut lines, event);
            lines.push(b'\n');
        }
        for socket in &self.sockets {
            line::write_socket(&mut sockets, socket);
            sockets.push(b'\n');
        }
        for flow in &self.flows {
            flows.extend(serde_json::to_vec(flow).unwrap());
            flows.push(b'\n');
        }
        let mut out = vec![("events.jsonl", lines), ("sockets.jsonl", sockets)];
        out.extend(self.node_members());
        if !self.flows.is_empty() {
            out.push(("flows.jsonl", flows));
        }
        out.push(("conntrack.json", document(&self.tracking)));
        if !self.services.services.is_empty() {
            out.push(("services.json", document(&self.services)));
        }
        let mut manifest = self.manifest_of(&events);
        manifest.members = out.iter().map(|(name, bytes)| member(name, bytes)).collect();
        out.push(("manifest.json", document(&manifest)));
        out
    }

    fn node_members(&self) -> impl Iterator<Item = (&'static str, Vec<u8>)> {
        let (mut network, mut host) = (Vec::new(), Vec::new());
        for record in &self.node {
            let member = if record.netns.is_some() { &mut network } else { &mut host };
            member.extend(serde_json::to_vec(record).unwrap());
            member.push(b'\n');
        }
        let members = [("node/network.jsonl", network), ("node/host.jsonl", host)];
        members.into_iter().filter(|(_, lines)| !lines.is_empty())
    }

    /// Socket records.
    pub fn sockets(&self) -> &[SocketRecord] {
        &self.sockets
    }

    /// Writes the bundle as loose files.
    pub fn write(&self, dir: &Path) {
        fs::create_dir_all(dir).unwrap();
        for (name, bytes) in self.members() {
            write_member(dir, name, &bytes);
        }
    }
}

/// Whether it tells of packets that were thrown away.
pub fn is_drop(event: &Event) -> bool {
    event.payload.kind() == EventKind::Drop
}

/// Writes a member as a loose file, in its folder.
pub fn write_member(dir: &Path, name: &str, bytes: &[u8]) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// A source that answered.
fn answered(name: &str) -> SourceReport {
    SourceReport { name: name.to_owned(), outcome: "answered".to_owned(), ..SourceReport::default() }
}

/// What the manifest says of a member.
fn member(name: &str, bytes: &[u8]) -> Member {
    let is_lines = name.ends_with(".jsonl");
    let records = is_lines.then(|| bytes.iter().filter(|b| **b == b'\n').count() as u64);
    Member { name: name.to_owned(), bytes: bytes.len() as u64, records, omitted_count: None }
}

fn document(value: &impl serde::Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).unwrap();
    text.push(b'\n');
    text
}
