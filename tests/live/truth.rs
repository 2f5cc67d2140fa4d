//! What traffic said about itself and what a bundle says about it, brought into the same shape so that a test can
//! `assert_eq!` all of it: nothing missing, nothing added, nothing attributed to somebody else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ktrace_bundle::attribution::{Owner, OwnerSource};
use ktrace_bundle::event::{Datagram as Recorded, Endpoint, Event, Payload, RetransmitKind, TcpClose};
use ktrace_bundle::tcp::TcpState;
use ktrace_traffic::{Conn, Datagram, Dir, Truth};

/// One UDP operation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Operation {
    /// Own port.
    pub lport: u16,
    /// `None` for a wildcard bind.
    pub laddr: Option<IpAddr>,
    /// The other end, when the operation tells.
    pub remote: Option<SocketAddr>,
    /// Whether it is a send.
    pub send: bool,
    /// Payload bytes, unless it failed.
    pub bytes: Option<u64>,
    /// Why it failed.
    pub errno: Option<u16>,
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
}

impl Operation {
    /// As the program told it.
    pub fn told(d: &Datagram) -> Self {
        Self {
            lport: d.local.port(),
            laddr: Some(d.local.ip()).filter(|a| !a.is_unspecified()),
            remote: d.remote,
            send: d.dir == Dir::Send,
            bytes: d.bytes,
            errno: d.errno.map(|e| e.try_into().unwrap()),
            pid: d.pid,
            tid: d.tid,
        }
    }

    fn recorded(event: &Event) -> Option<Self> {
        let (send, d) = datagram(event)?;
        let owner = owner(event);
        assert_eq!(owner.source, OwnerSource::Current, "a system call is its own proof: {event:?}");
        Some(Self {
            lport: event.id.local.port.unwrap(),
            laddr: event.id.local.addr,
            remote: socket_addr(event.id.remote),
            send,
            bytes: d.bytes,
            errno: d.error.map(|e| e.0),
            pid: owner.pid,
            tid: owner.tid.unwrap(),
        })
    }
}

/// The UDP part of an event: whether it is a send, and what it carried.
pub fn datagram(event: &Event) -> Option<(bool, &Recorded)> {
    match &event.payload {
        Payload::UdpSend(d) => Some((true, d)),
        Payload::UdpRecv(d) => Some((false, d)),
        _ => None,
    }
}

/// The owner, or a panic with the event that has none.
pub fn owner(event: &Event) -> &Owner {
    event.id.owner.value().unwrap_or_else(|| panic!("no owner: {event:?}"))
}

fn socket_addr(end: Endpoint) -> Option<SocketAddr> {
    Some(SocketAddr::new(end.addr?, end.port?))
}

/// The datagrams among a program's lines.
pub fn datagrams(truths: Vec<Truth>) -> Vec<Datagram> {
    truths
        .into_iter()
        .filter_map(|t| match t {
            Truth::Datagram(d) => Some(d),
            _ => None,
        })
        .collect()
}

/// Receives that do not tell their peer, with the one that their socket sent to before.
pub fn with_peers(mut told: Vec<Datagram>) -> Vec<Datagram> {
    let mut peers = BTreeMap::new();
    for d in &mut told {
        match d.remote {
            Some(remote) => _ = peers.insert(d.local.port(), remote),
            None => d.remote = peers.get(&d.local.port()).copied(),
        }
    }
    told
}

/// The connections among a program's lines.
pub fn conns(truths: Vec<Truth>) -> Vec<Conn> {
    truths
        .into_iter()
        .filter_map(|t| match t {
            Truth::Conn(c) => Some(c),
            _ => None,
        })
        .collect()
}

/// All UDP operations of a namespace, by kernel time.
pub fn udp_events(events: &[Event], netns: u32) -> Vec<&Event> {
    let mut mine: Vec<_> = events.iter().filter(|e| e.id.netns == netns && datagram(e).is_some()).collect();
    mine.sort_by_key(|e| e.boot_ns);
    mine
}

/// Asserts that a namespace's UDP events are exactly what its programs told, whatever the order.
pub fn assert_same_operations(events: &[Event], netns: u32, told: &[Datagram]) {
    let mut expected: Vec<_> = told.iter().map(Operation::told).collect();
    let mut recorded: Vec<_> = udp_events(events, netns).into_iter().filter_map(Operation::recorded).collect();
    expected.sort();
    recorded.sort();
    assert_eq!(recorded, expected, "recorded is not what was told");
}

/// A TCP socket from its first state change to `CLOSE`, from the events with its cookie.
#[derive(Debug)]
pub struct Life<'a> {
    /// States in kernel order, the first being the one that it left first.
    pub states: Vec<TcpState>,
    /// The account at `CLOSE`.
    pub close: Option<&'a TcpClose>,
    /// Own end and other end, as of the last event.
    pub ends: (Option<SocketAddr>, Option<SocketAddr>),
    /// The last owner that was proven in a process's own context.
    pub owner: Option<&'a Owner>,
}

/// Whether a program's own account can tell of it. The rest tells why: what is thrown away and reset in passing is the kernel's
/// affair, and what is added up depends on where a second ends.
pub const fn is_of_a_program(event: &Event) -> bool {
    match &event.payload {
        Payload::TcpReset(_) | Payload::TcpStall(_) | Payload::ListenOverflow(_) | Payload::Drop(_) => false,
        Payload::TcpState(_)
        | Payload::UdpSend(_)
        | Payload::UdpRecv(_)
        | Payload::Connect(_)
        | Payload::TcpRetransmit(_) => true,
    }
}

/// The lives of all TCP sockets of a namespace that have a connection, keyed by cookie. Listeners are left out, and
/// so are twins: when two segments complete one handshake on two CPUs, the kernel makes two children and closes
/// one of them, a microsecond old and never seen by a process. A SYN-ACK that is sent again is of a request, which has
/// no socket yet.
pub fn lives(events: &[Event], netns: u32) -> BTreeMap<u64, Life<'_>> {
    let is_request = |e: &Event| matches!(&e.payload, Payload::TcpRetransmit(r) if r.kind == RetransmitKind::Synack);
    let is_part = |e: &Event| is_of_a_program(e) && datagram(e).is_none() && !is_request(e);
    let mut by_socket: BTreeMap<u64, Vec<&Event>> = BTreeMap::new();
    for event in events.iter().filter(|e| e.id.netns == netns && is_part(e)) {
        let socket = event.id.socket.unwrap_or_else(|| panic!("it has no socket: {event:?}"));
        by_socket.entry(socket).or_default().push(event);
    }
    by_socket
        .into_iter()
        .map(|(cookie, mut events)| {
            events.sort_by_key(|e| e.boot_ns);
            (cookie, life(&events))
        })
        .filter(|(_, life)| !life.is_listener() && !life.is_twin())
        .collect()
}

impl Life<'_> {
    fn is_listener(&self) -> bool {
        self.states.len() <= 2 && self.states.contains(&TcpState::Listen)
    }

    fn is_twin(&self) -> bool {
        self.states == [TcpState::Listen, TcpState::SynRecv, TcpState::Close]
            && self.close.is_some_and(|c| c.rx_bytes == Some(0) && c.tx_segs_count == Some(0) && c.error.is_none())
    }

    /// Whether this is the socket of one of these connections, told by the client's port.
    fn has_port(&self, ports: &BTreeSet<u16>) -> bool {
        [self.ends.0, self.ends.1].into_iter().flatten().any(|end| ports.contains(&end.port()))
    }
}

fn life<'a>(events: &[&'a Event]) -> Life<'a> {
    let mut life = Life { states: Vec::new(), close: None, ends: (None, None), owner: None };
    for event in events {
        life.ends = (socket_addr(event.id.local), socket_addr(event.id.remote));
        if let Some(owner) = event.id.owner.value().filter(|o| proven(o.source)) {
            life.owner = Some(owner);
        }
        if let Payload::TcpState(change) = &event.payload {
            // where a change is missing, both ends of the gap stand side by side, and no expectation fits
            if life.states.last() != Some(&change.old) {
                life.states.push(change.old);
            }
            life.states.push(change.new);
            life.close = change.close.as_ref().or(life.close);
        }
    }
    life
}

/// Whether the owner was found in its own context. An `inherited` one is the listener's.
fn proven(source: OwnerSource) -> bool {
    !matches!(source, OwnerSource::Inherited | OwnerSource::Kernel | OwnerSource::FdTable | OwnerSource::Unstated)
}

/// What both sides must agree on about a connection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Account {
    local: SocketAddr,
    remote: SocketAddr,
    tx_bytes: u64,
    rx_bytes: u64,
    pid: u32,
}

/// Asserts that the closed connections of a namespace are exactly those that its programs told, with their bytes
/// and owners, and that each went through exactly `states`. Connections with one of the ports `unseen` are left out
/// on both sides.
pub fn assert_same_connections(
    events: &[Event],
    netns: u32,
    told: &[Conn],
    states: &[TcpState],
    unseen: &BTreeSet<u16>,
) {
    let mut lives = lives(events, netns);
    lives.retain(|_, life| !life.has_port(unseen));
    let odd: Vec<_> = lives.iter().filter(|(_, life)| life.states != states).collect();
    assert!(odd.is_empty(), "{} of {} did not go through {states:?}, such as {:#?}", odd.len(), lives.len(), odd[0]);
    let mut recorded: Vec<_> = lives.values().map(recorded_account).collect();
    let mut expected: Vec<_> = told
        .iter()
        .filter(|c| !unseen.contains(&c.local.port()) && !unseen.contains(&c.remote.port()))
        .map(|c| Account { local: c.local, remote: c.remote, tx_bytes: c.tx_bytes, rx_bytes: c.rx_bytes, pid: c.pid })
        .collect();
    recorded.sort();
    expected.sort();
    assert_eq!(recorded.len(), expected.len(), "connections recorded and told");
    let different: Vec<_> = recorded.iter().zip(&expected).filter(|(r, e)| r != e).take(5).collect();
    assert!(different.is_empty(), "recorded and told differ, the first of them: {different:#?}");
}

fn recorded_account(life: &Life<'_>) -> Account {
    let close = life.close.unwrap_or_else(|| panic!("never closed: {life:?}"));
    Account {
        local: life.ends.0.unwrap(),
        remote: life.ends.1.unwrap(),
        tx_bytes: close.tx_bytes.unwrap(),
        rx_bytes: close.rx_bytes.unwrap(),
        pid: life.owner.unwrap_or_else(|| panic!("no proven owner: {life:?}")).pid,
    }
}
