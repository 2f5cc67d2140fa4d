//! The records of a running capture → [`Summary`], in bounded memory.
//!
//! Rows are per process and per flow. A TCP connection is added to its rows when it closes, or at the end
//! of the window, with its **last** process-context owner; until then it is held by socket cookie. A table
//! that is full goes on in one `other` row, so that rows and `other` always make up the total.

mod connections;
mod keys;
mod pods;
mod refused;
mod sampling;
mod table;

use std::collections::{BTreeMap, HashSet};

use crate::dns::DnsPairs;
use crate::event::{Connect, Datagram, Event, EventKind, Payload, Proto, SocketRecord, TcpStateChange, When};
use crate::histogram::Histogram;
use crate::ledger::Ledger;
use crate::manifest::{HookOutcome, Manifest, Schema};
use crate::summary::{
    CloseWaitRow, ConnectSummary, MAX_ROWS, RetransmitTables, SUMMARY_SCHEMA, Summary, TcpStates, TopTalkers, TypeTotal,
};
use crate::tcp::TcpState;
use crate::workload::Workload;

use connections::Connections;
use keys::{Flow, Names, Who};
use pods::Homes;
use sampling::Sampling;
use table::{Table, Tables};

pub use refused::{Refused, RefusedFlow, RefusedProcess};
pub use table::Numbers;

/// Version of the summary's schema.
pub const SUMMARY_VERSION: u32 = 1;

/// UDP sockets of which it is remembered that they were counted, and groups of `CLOSE_WAIT` sockets.
const MAX_KEYS: usize = 1 << 16;

/// Longest sentence and longest list of sentences that a summary takes over.
const MAX_SENTENCE: usize = 300;
const MAX_SENTENCES: usize = 32;

/// Different errors that are counted by name; more are counted as `other`.
const MAX_ERRORS: usize = 32;

/// Adds up the records of a capture; see the module.
#[derive(Debug, Default)]
pub struct SummaryBuilder {
    events: BTreeMap<EventKind, u64>,
    types: BTreeMap<EventKind, TypeTotal>,
    states: TcpStates,
    tables: Tables,
    names: Names,
    homes: Homes,
    connections: Connections,
    udp_sockets: HashSet<(u32, u64)>,
    connect: ConnectSummary,
    handshake: Histogram,
    syscall: Histogram,
    srtt: Histogram,
    close_wait: Table<(Who, Flow), CloseWait>,
    sampling: Sampling,
}

#[derive(Debug, Clone, Copy, Default)]
struct CloseWait {
    start: u64,
    end: u64,
}

impl SummaryBuilder {
    /// Nothing seen yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an event that was written.
    pub fn push_event(&mut self, event: &Event) {
        *self.events.entry(event.payload.kind()).or_default() += 1;
        self.push(event, 1);
    }

    /// Adds an event that was seen and is no line.
    pub fn push_refused(&mut self, event: &Event) {
        self.push(event, 0);
    }

    fn push(&mut self, event: &Event, written: u64) {
        let total = self.types.entry(event.payload.kind()).or_default();
        total.add(1, written, payload_bytes(event));
        self.homes.note(&event.id);
        match &event.payload {
            Payload::UdpSend(d) => self.datagram(event, d, true, written),
            Payload::UdpRecv(d) => self.datagram(event, d, false, written),
            Payload::TcpState(s) => {
                self.state_change(s);
                self.connections.state_change(&event.id, s, written, &mut self.tables);
            }
            Payload::Connect(c) => {
                self.connect_call(c);
                self.connections.event(&event.id, None, written, &mut self.tables);
            }
            Payload::TcpRetransmit(r) => self.connections.event(&event.id, Some(r), written, &mut self.tables),
            Payload::TcpReset(_) | Payload::TcpStall(_) | Payload::ListenOverflow(_) | Payload::Drop(_) => {
                self.connections.event(&event.id, None, written, &mut self.tables);
            }
        }
    }

    /// Adds a socket that existed at the start or the end of the window. Those of the start must come
    /// before the first event, those of the end after the last.
    pub fn push_socket(&mut self, socket: &SocketRecord) {
        let Some(state) = socket.state.filter(|_| socket.id.proto == Proto::Tcp) else { return };
        let states = match socket.when {
            When::Start => &mut self.states.at_start,
            When::End => &mut self.states.at_end,
        };
        *states.entry(state).or_default() += 1;
        self.homes.note(&socket.id);
        let who = match socket.when {
            When::Start => self.connections.start(socket),
            When::End => self.connections.end(socket, &mut self.tables),
        };
        if state == TcpState::CloseWait {
            let group = self.close_wait.row((who.clone(), Flow::of(&socket.id)));
            match socket.when {
                When::Start => group.start += 1,
                When::End => group.end += 1,
            }
        }
    }

    /// Takes over what a pod is called, where that came after the events of its processes.
    pub fn learn(&mut self, workload: &Workload) {
        self.homes.learn(workload);
    }

    /// The summary of a capture that ended as this manifest says.
    pub fn build(mut self, manifest: &Manifest, dns: &DnsPairs) -> Summary {
        self.connections.drain(&mut self.tables);
        let end_boot_ns = manifest.head.clocks.end_boot_ns.unwrap_or(u64::MAX);
        let pods = self.homes.sums(&self.tables.processes);
        let mut omitted = BTreeMap::new();
        let mut keep = Keep { omitted: &mut omitted };
        let mut connect = self.connect;
        connect.handshake_us = self.handshake.quantiles_us();
        connect.syscall_us = self.syscall.quantiles_us();
        connect.srtt_us = self.srtt.quantiles_us();
        Summary {
            schema: Schema { name: SUMMARY_SCHEMA.into(), version: SUMMARY_VERSION },
            capture_id: manifest.head.capture_id.clone(),
            node: manifest.head.node.clone(),
            start_at: manifest.head.start_at,
            end_at: manifest.end_at,
            duration_ns: manifest.duration_ns,
            complete: manifest.complete,
            degraded: manifest.degraded.iter().take(MAX_SENTENCES).map(|s| keys::clip(s, MAX_SENTENCE)).collect(),
            events: self.events,
            totals: self.types,
            ledger: manifest.ledger.clone(),
            top_talkers: TopTalkers {
                total: self.tables.total.talkers_total(),
                by_process: keep.rows("top_talkers.by_process", self.tables.processes.talkers(&self.tables.total)),
                by_pod: keep.rows("top_talkers.by_pod", pods.talkers(&self.tables.total)),
                by_flow: keep.rows("top_talkers.by_flow", self.tables.flows.talkers(&self.tables.total)),
            },
            tcp_states: self.states,
            dns: dns.summary(end_boot_ns),
            dns_suspects: keep.rows("dns_suspects", dns_suspects(dns, end_boot_ns)),
            connect,
            retransmits: RetransmitTables {
                by_flow: keep.rows("retransmits.by_flow", self.tables.flows.retransmits(&self.tables.total)),
                by_process: keep.rows("retransmits.by_process", self.tables.processes.retransmits(&self.tables.total)),
            },
            close_wait: keep.rows("close_wait", close_wait_rows(&self.close_wait)),
            sampling: self.sampling.summary(),
            not_measured: not_measured(manifest, dns),
            omitted_count: omitted,
        }
    }

    fn datagram(&mut self, event: &Event, d: &Datagram, is_sent: bool, written: u64) {
        self.sampling.push(event, d, is_sent);
        let bytes = d.bytes.unwrap_or(0);
        let (tx_bytes, rx_bytes) = if is_sent { (bytes, 0) } else { (0, bytes) };
        let is_new = match event.id.socket {
            Some(cookie) if self.udp_sockets.len() < MAX_KEYS => self.udp_sockets.insert((event.id.netns, cookie)),
            _ => false,
        };
        let connections = u64::from(is_new);
        let numbers = Numbers { tx_bytes, rx_bytes, events: 1, written, connections, ..Numbers::default() };
        let who = event.id.owner.value().map_or_else(Who::default, |owner| self.names.owner(owner));
        self.tables.add(&who, Flow::of(&event.id), &numbers);
    }

    fn state_change(&mut self, s: &TcpStateChange) {
        self.connect.attempts += u64::from(s.new == TcpState::SynSent);
        if let Some(ns) = s.handshake_ns {
            self.handshake.add(ns);
        }
        if let Some(us) = s.close.as_ref().and_then(|c| c.srtt_us).filter(|us| *us > 0) {
            self.srtt.add(us.saturating_mul(1000));
        }
        let Some(close) = s.close.as_ref().filter(|_| s.old == TcpState::SynSent) else { return };
        match close.error {
            Some(error) => bump(&mut self.connect.errors, error.to_string()),
            None => self.connect.gave_up += 1,
        }
    }

    fn connect_call(&mut self, c: &Connect) {
        match c.error {
            Some(error) => bump(&mut self.connect.syscall_errors, error.to_string()),
            None if !c.nonblocking => self.syscall.add(c.syscall_ns),
            None => {}
        }
    }
}

fn bump(counts: &mut BTreeMap<String, u64>, name: String) {
    let is_room = counts.len() < MAX_ERRORS || counts.contains_key(&name);
    *counts.entry(if is_room { name } else { "other".to_owned() }).or_default() += 1;
}

/// Cuts lists to their bound and notes what was left out.
struct Keep<'a> {
    omitted: &'a mut BTreeMap<String, u64>,
}

impl Keep<'_> {
    fn rows<T>(&mut self, name: &str, listed: table::Listed<T>) -> Vec<T> {
        let table::Listed { mut rows, other, folded } = listed;
        let room = MAX_ROWS - usize::from(other.is_some());
        self.omitted.insert(name.to_owned(), folded + rows.len().saturating_sub(room) as u64);
        rows.truncate(room);
        rows.extend(other);
        rows
    }
}

fn dns_suspects(dns: &DnsPairs, end_boot_ns: u64) -> table::Listed<crate::summary::DnsSuspect> {
    let mut rows = dns.suspects(end_boot_ns);
    for row in &mut rows {
        row.comm = row.comm.take().map(|c| keys::clip_comm(&c));
    }
    table::Listed { rows, other: None, folded: 0 }
}

fn close_wait_rows(groups: &Table<(Who, Flow), CloseWait>) -> table::Listed<CloseWaitRow> {
    let row = |((who, flow), n): (&(Who, Flow), &CloseWait)| CloseWaitRow {
        comm: who.comm(),
        pid: who.pid(),
        netns: flow.netns,
        flow: flow.ends(),
        start_count: n.start,
        end_count: n.end,
    };
    let mut rows: Vec<_> = groups.iter().filter(|(_, n)| n.end > 0).map(row).collect();
    rows.sort_by(|a, b| (b.end_count, &a.flow, a.pid, a.netns).cmp(&(a.end_count, &b.flow, b.pid, b.netns)));
    let beyond = groups.other();
    let other = (beyond.end > 0).then(|| CloseWaitRow {
        flow: keys::OTHER.to_owned(),
        start_count: beyond.start,
        end_count: beyond.end,
        ..CloseWaitRow::default()
    });
    table::Listed { rows, other, folded: 0 }
}

/// What each hook would have told.
const HOOKS: [(&str, &str); 8] = [
    ("tcp_state", "TCP states, handshakes and the errors of connections"),
    ("udp", "UDP traffic and DNS over UDP"),
    ("connect", "the duration and result of `connect(2)`"),
    ("tcp_retransmit", "TCP retransmits"),
    ("tcp_reset", "who resets connections, and why"),
    ("tcp_wait", "connections that wait for somebody to read, and listeners without room"),
    ("drop", "packets that the kernel throws away, and why"),
    ("sockets", "sockets that moved nothing in the window, and the bytes of connections that stayed open"),
];

/// The payload of a datagram; `None` for events that carry none.
fn payload_bytes(event: &Event) -> Option<u64> {
    match &event.payload {
        Payload::UdpSend(d) | Payload::UdpRecv(d) => Some(d.bytes.unwrap_or(0)),
        Payload::TcpState(_)
        | Payload::Connect(_)
        | Payload::TcpRetransmit(_)
        | Payload::TcpReset(_)
        | Payload::TcpStall(_)
        | Payload::ListenOverflow(_)
        | Payload::Drop(_) => None,
    }
}

/// Of an event that is no line, its number, owner, flow and bytes are known, and nothing else.
fn counted_only(ledger: &Ledger) -> impl Iterator<Item = String> {
    let what = |kind: EventKind| match kind {
        EventKind::UdpSend | EventKind::UdpRecv => "the DNS queries and replies among",
        EventKind::TcpState => "the states and errors of",
        EventKind::Connect => "the result of",
        EventKind::TcpRetransmit => "the connections' state at",
        EventKind::TcpReset => "the direction and reason of",
        EventKind::TcpStall => "what was waited for, and how long, at",
        EventKind::ListenOverflow => "the queues at",
        EventKind::Drop => "the reasons of",
    };
    ledger.by_type.iter().filter_map(move |(kind, account)| {
        let n = account.dropped.values().fold(0_u64, |sum, n| sum.saturating_add(*n));
        (n > 0).then(|| format!("{} {n} `{}` events that were only counted", what(*kind), kind.as_str()))
    })
}

/// N of `--sample`, if it left anything out.
fn one_in(manifest: &Manifest) -> Option<u64> {
    manifest.head.plan.get("sample").and_then(|entry| entry.value.as_u64()).filter(|n| *n > 1)
}

fn not_measured(manifest: &Manifest, dns: &DnsPairs) -> Vec<String> {
    let mut out = Vec::new();
    for (name, what) in HOOKS {
        let report = manifest.head.hooks.iter().find(|h| h.name == name);
        let reason = match report.map(|h| h.outcome) {
            Some(HookOutcome::Attached) => continue,
            Some(HookOutcome::NotRequested) => "not requested",
            Some(HookOutcome::Unsupported) => "not offered by this kernel",
            Some(HookOutcome::Failed) => "failed",
            None => "not reported",
        };
        out.push(format!("{what} (hook `{name}`: {reason})"));
    }
    for hook in manifest.head.hooks.iter().filter(|h| h.outcome == HookOutcome::Attached) {
        out.extend(
            hook.limits.iter().map(|limit| keys::clip(&format!("{limit} (hook `{}`)", hook.name), MAX_SENTENCE)),
        );
    }
    if let Some(n) = one_in(manifest) {
        out.push(format!("UDP flows outside the sample: 1 in {n} was recorded, so DNS counts are about those"));
    }
    out.extend(counted_only(&manifest.ledger));
    if dns.unlisted() > 0 {
        out.push(format!("the clients of {} DNS queries: more clients than the table holds", dns.unlisted()));
    }
    out.truncate(MAX_SENTENCES - 2);
    out.push("DNS answer codes (payload is never read)".to_owned());
    out
}

#[cfg(test)]
#[path = "totals/tests.rs"]
mod tests;
