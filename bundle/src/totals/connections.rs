//! Open TCP connections by socket cookie, until they are added to the rows of their owner and flow.

use std::collections::HashMap;

use super::keys::{Ends, Names, Who, rank};
use super::table::{Numbers, Tables};
use crate::event::{Identity, Retransmit, RetransmitKind, SocketRecord, TcpClose, TcpStateChange};
use crate::tcp::TcpState;

/// Connections that are held at the same time; the events of more are added to their rows at once,
/// with the owner that the event names.
const MAX_OPEN: usize = 65_536;

/// The connections that are open, or were when their last event came.
#[derive(Debug, Default)]
pub(super) struct Connections {
    /// Each in a place of its own: a table that doubles holds everything twice for a moment.
    open: HashMap<(u32, u64), Box<Connection>>,
    names: Names,
}

#[derive(Debug, Clone)]
struct Connection {
    who: Who,
    rank: u8,
    ends: Ends,
    /// Counters when the window opened; 0 if the connection is younger.
    start: Counters,
    counts: Counts,
}

/// Events of one connection: small, since there may be [`MAX_OPEN`] of them.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    events: u32,
    written: u32,
    data: u32,
    syn: u32,
    synack: u32,
    probe: u32,
}

impl Counts {
    fn numbers(self) -> Numbers {
        let Self { events, written, data, syn, synack, probe } = self;
        let [events, written, data, syn, synack, probe] = [events, written, data, syn, synack, probe].map(u64::from);
        Numbers { events, written, data, syn, synack, probe, ..Numbers::default() }
    }

    /// Adds an event of which so many are lines.
    fn add(&mut self, written: u64, retransmit: Option<RetransmitKind>) {
        let more = |n: &mut u32, by: u64| *n = n.saturating_add(u32::try_from(by).unwrap_or(u32::MAX));
        more(&mut self.events, 1);
        more(&mut self.written, written);
        match retransmit {
            Some(RetransmitKind::Data) => more(&mut self.data, 1),
            Some(RetransmitKind::Syn) => more(&mut self.syn, 1),
            Some(RetransmitKind::Synack) => more(&mut self.synack, 1),
            Some(RetransmitKind::Probe) => more(&mut self.probe, 1),
            None => {}
        }
    }
}

/// A socket's own counters; what is not known counts as 0.
#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    tx_bytes: u64,
    rx_bytes: u64,
    tx_segs: u64,
}

impl Counters {
    fn of_close(c: &TcpClose) -> Self {
        Self::new(c.tx_bytes, c.rx_bytes, c.tx_segs_count)
    }

    fn of_socket(s: &SocketRecord) -> Self {
        Self::new(s.tx_bytes, s.rx_bytes, s.tx_segs_count)
    }

    fn new(tx_bytes: Option<u64>, rx_bytes: Option<u64>, tx_segs: Option<u64>) -> Self {
        Self { tx_bytes: tx_bytes.unwrap_or(0), rx_bytes: rx_bytes.unwrap_or(0), tx_segs: tx_segs.unwrap_or(0) }
    }
}

impl Connection {
    fn new(id: &Identity) -> Self {
        Self { who: Who::default(), rank: 0, ends: Ends::of(id), start: Counters::default(), counts: Counts::default() }
    }

    /// Takes over what the event knows; the last process-context owner stands.
    fn learn(&mut self, id: &Identity, names: &mut Names) {
        self.ends.learn(id);
        if let Some(owner) = id.owner.value()
            && rank(owner.source) >= self.rank
        {
            self.rank = rank(owner.source);
            self.who = names.owner(owner);
        }
    }

    /// Adds the connection to its rows, with what it moved since the window opened.
    fn settle(self, total: Counters, tables: &mut Tables) -> Who {
        let numbers = Numbers {
            connections: 1,
            tx_bytes: total.tx_bytes.saturating_sub(self.start.tx_bytes),
            rx_bytes: total.rx_bytes.saturating_sub(self.start.rx_bytes),
            tx_segs: total.tx_segs.saturating_sub(self.start.tx_segs),
            ..self.counts.numbers()
        };
        tables.add(&self.who, self.ends.flow(), &numbers);
        self.who
    }

    fn add_to(self, tables: &mut Tables) -> Who {
        tables.add(&self.who, self.ends.flow(), &self.counts.numbers());
        self.who
    }
}

impl Connections {
    /// A socket that existed when the window opened; its owner as known then.
    pub(super) fn start(&mut self, socket: &SocketRecord) -> Who {
        let mut connection = Box::new(Connection::new(&socket.id));
        connection.learn(&socket.id, &mut self.names);
        connection.start = Counters::of_socket(socket);
        let who = connection.who.clone();
        if let Some(key) = key(&socket.id).filter(|_| self.open.len() < MAX_OPEN && is_connection(socket.state)) {
            self.open.insert(key, connection);
        }
        who
    }

    /// A socket that still exists as the window has closed; its owner by everything that was seen.
    pub(super) fn end(&mut self, socket: &SocketRecord, tables: &mut Tables) -> Who {
        let connection = self.take(&socket.id);
        if is_connection(socket.state) {
            return connection.settle(Counters::of_socket(socket), tables);
        }
        connection.add_to(tables)
    }

    /// A state change; one into `CLOSE` ends the connection.
    pub(super) fn state_change(&mut self, id: &Identity, s: &TcpStateChange, written: u64, tables: &mut Tables) {
        let mut connection = self.take(id);
        connection.counts.add(written, None);
        match &s.close {
            Some(_) if matches!(s.old, TcpState::Listen | TcpState::Close) => drop(connection.add_to(tables)),
            Some(close) => drop(connection.settle(Counters::of_close(close), tables)),
            None => self.hold(id, connection, tables),
        }
    }

    /// Any other event on a TCP socket.
    pub(super) fn event(&mut self, id: &Identity, retransmit: Option<&Retransmit>, written: u64, tables: &mut Tables) {
        let mut connection = self.take(id);
        connection.counts.add(written, retransmit.map(|r| r.kind));
        self.hold(id, connection, tables);
    }

    /// Adds what is left: connections whose end was not seen.
    pub(super) fn drain(&mut self, tables: &mut Tables) {
        // in an order that does not change from run to run: the first ones get the rows
        let mut open: Vec<_> = std::mem::take(&mut self.open).into_iter().collect();
        open.sort_unstable_by_key(|(key, _)| *key);
        for (_, connection) in open {
            connection.add_to(tables);
        }
    }

    fn take(&mut self, id: &Identity) -> Box<Connection> {
        let known = key(id).and_then(|k| self.open.remove(&k));
        let mut connection = known.unwrap_or_else(|| Connection::new(id).into());
        connection.learn(id, &mut self.names);
        connection
    }

    fn hold(&mut self, id: &Identity, connection: Box<Connection>, tables: &mut Tables) {
        match key(id).filter(|_| self.open.len() < MAX_OPEN) {
            Some(key) => drop(self.open.insert(key, connection)),
            None => drop(connection.add_to(tables)),
        }
    }
}

fn key(id: &Identity) -> Option<(u32, u64)> {
    Some((id.netns, id.socket?))
}

/// Whether a socket in this state is a connection of its own: not a listener, nor what is left of one that was counted.
const fn is_connection(state: Option<TcpState>) -> bool {
    !matches!(state, None | Some(TcpState::Listen | TcpState::Close | TcpState::TimeWait | TcpState::NewSynRecv))
}
