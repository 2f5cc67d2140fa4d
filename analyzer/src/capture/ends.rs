//! Both ends of a flow, where both sockets are on this node: a client's packets, as they arrive after translation, are
//! what the server's socket sees.
//!
//! An end is found by the client's address and the server's port as the server sees them, by the server's address where
//! its socket tells it (a wildcard bind does not), and by time, since ports are used again.

use std::collections::BTreeMap;

use ktrace_bundle::event::{Endpoint, Event, Proto, Role};

use super::process::ProcId;
use super::{Connection, UdpFlow};
use crate::units::SECOND;

/// Ends of one key that are compared; more use the same ports one after the other.
const MAX_SAME: usize = 8;
/// What one end does can be seen this much later at the other one, ns.
const SLACK_NS: u64 = SECOND;

/// From the first to the last that was seen of something, `boot_ns`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// First.
    pub from: u64,
    /// Last.
    pub to: u64,
}

impl Span {
    /// A moment.
    pub const fn at(at: u64) -> Self {
        Self { from: at, to: at }
    }

    /// Takes another moment in.
    pub(crate) fn extend(&mut self, at: u64) {
        (self.from, self.to) = (self.from.min(at), self.to.max(at));
    }

    /// Whether both can be about the same: they overlap, give or take a second.
    pub(crate) const fn meets(self, other: Self) -> bool {
        self.from <= other.to.saturating_add(SLACK_NS) && other.from <= self.to.saturating_add(SLACK_NS)
    }
}

/// The socket at the other end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FarEnd {
    /// Its network namespace.
    pub netns: u32,
    /// Its own address, as far as it tells.
    pub local: Endpoint,
    /// Who owns it.
    pub owner: Option<ProcId>,
    /// When it was seen.
    pub span: Span,
}

/// The client, and the server's port, as the server sees both.
type Key = (Proto, Endpoint, u16);

/// UDP sockets of servers by whom they talked to.
#[derive(Debug, Default)]
pub(super) struct UdpServers {
    by_key: BTreeMap<(Key, u32), FarEnd>,
    pub(super) overflow: u64,
}

impl UdpServers {
    /// Adds a datagram of a server, or of a socket older than the window, which may be one; at most `max` ends are kept.
    pub(super) fn push(&mut self, event: &Event, owner: Option<ProcId>, max: usize) {
        let id = &event.id;
        let Some(port) = id.local.port.filter(|_| id.role != Some(Role::Client) && id.remote.addr.is_some()) else {
            return;
        };
        let key = ((Proto::Udp, id.remote, port), id.netns);
        if self.by_key.len() >= max && !self.by_key.contains_key(&key) {
            self.overflow += 1;
            return;
        }
        let (local, span) = (id.local, Span::at(event.boot_ns));
        let end = self.by_key.entry(key).or_insert(FarEnd { netns: id.netns, local, owner, span });
        end.span.extend(event.boot_ns);
        end.owner = owner.or(end.owner);
        end.local.addr = end.local.addr.or(local.addr);
    }
}

/// Every end that another one can be joined with.
#[derive(Debug, Default)]
pub struct Ends {
    servers: BTreeMap<Key, Vec<FarEnd>>,
    clients: BTreeMap<Key, Vec<FarEnd>>,
}

impl Ends {
    pub(super) fn new(connections: &[Connection], udp: UdpServers) -> Self {
        let mut ends = Self::default();
        let key = |client: Endpoint, server: Endpoint| {
            client.addr.and(client.port)?;
            Some((Proto::Tcp, client, server.port?))
        };
        let end = |c: &Connection| FarEnd { netns: c.netns, local: c.local, owner: c.owner(), span: c.span };
        for c in connections.iter().filter(|c| !c.is_client()) {
            if let Some(key) = key(c.remote, c.local) {
                add(&mut ends.servers, key, end(c));
            }
        }
        // most clients talk to servers elsewhere: nobody asks for these
        for c in connections.iter().filter(|c| c.is_client()) {
            let (client, server) = c.way.at_the_server(c.local, c.remote);
            if let Some(key) = key(client, server).filter(|key| ends.servers.contains_key(key)) {
                add(&mut ends.clients, key, end(c));
            }
        }
        for ((key, _), end) in udp.by_key {
            add(&mut ends.servers, key, end);
        }
        ends
    }

    /// The server's socket at the other end of a client's connection.
    pub fn server_of(&self, c: &Connection) -> Option<&FarEnd> {
        self.server(Proto::Tcp, c.way.at_the_server(c.local, c.remote), c.span).filter(|_| c.is_client())
    }

    /// The server's socket at the other end of a client's UDP flow.
    pub fn server_of_flow(&self, f: &UdpFlow) -> Option<&FarEnd> {
        self.server(Proto::Udp, f.way.at_the_server(f.local, f.server), f.span)
    }

    /// The client's socket at the other end of a server's connection.
    pub fn client_of(&self, c: &Connection) -> Option<&FarEnd> {
        let port = c.local.port.filter(|_| !c.is_client())?;
        let ends = self.clients.get(&(Proto::Tcp, c.remote, port))?;
        ends.iter().rfind(|end| end.span.meets(c.span))
    }

    fn server(&self, proto: Proto, (client, server): (Endpoint, Endpoint), span: Span) -> Option<&FarEnd> {
        client.addr?;
        let ends = self.servers.get(&(proto, client, server.port?))?;
        let is_it = |end: &&FarEnd| end.local.addr.is_none_or(|a| Some(a) == server.addr) && end.span.meets(span);
        ends.iter().rfind(is_it)
    }
}

fn add(map: &mut BTreeMap<Key, Vec<FarEnd>>, key: Key, end: FarEnd) {
    let ends = map.entry(key).or_insert_with(|| Vec::with_capacity(1));
    if ends.len() >= MAX_SAME {
        ends.remove(0);
    }
    ends.push(end);
}
