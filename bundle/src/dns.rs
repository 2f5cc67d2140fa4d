//! UDP sends and receives on a DNS port → queries with their replies, and who waits in vain.
//!
//! Annotates each event before it is written, in arrival order. A round trip is stated only where exactly
//! one query was outstanding on that socket and server: first-in-first-out pairing of the A and AAAA
//! queries that glibc sends on one socket would invent one. Payload is never read, so nothing here knows
//! names or answer codes. DNS over TCP is not looked at.

use std::collections::{BTreeSet, HashMap, VecDeque};

use chrono::{DateTime, Utc};

use crate::event::{Datagram, Endpoint, Event, Identity, Payload};
use crate::histogram::Histogram;
use crate::summary::{DnsCounts, DnsSummary, DnsSuspect};

/// Time after which a query counts as unanswered, and a reply as late: the resolvers' own default timeout.
pub const PATIENCE_NS: u64 = 5_000_000_000;

/// Pairs queries with replies per network namespace, socket cookie and server.
#[derive(Debug)]
pub struct DnsPairs {
    ports: BTreeSet<u16>,
    max: usize,
    sockets: HashMap<SocketKey, Vec<Asked>>,
    outstanding: usize,
    clients: Vec<Client>,
    index: HashMap<ClientKey, usize>,
    totals: DnsCounts,
    duplicate: u64,
    unlisted: u64,
    rtt: Histogram,
}

type SocketKey = (u32, u64);

/// The queries that one socket has outstanding at one server, oldest first; never empty.
#[derive(Debug)]
struct Asked {
    server: Endpoint,
    queries: VecDeque<Query>,
}

#[derive(Debug, Clone, Copy)]
struct Query {
    boot_ns: u64,
    seq: u64,
    /// Its place in `clients`, unless that table was full.
    client: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct ClientKey {
    owner: Option<(u32, Option<u64>)>,
    netns: u32,
    server: Endpoint,
}

#[derive(Debug)]
struct Client {
    comm: Option<String>,
    key: ClientKey,
    counts: DnsCounts,
    first_at: DateTime<Utc>,
    last_at: DateTime<Utc>,
}

/// What a receive turned out to be.
enum Reply {
    Exact(Query),
    Ambiguous(Option<Query>),
    Duplicate,
    Unknown,
}

impl DnsPairs {
    /// Looks at these server ports and remembers at most `max_sockets` outstanding queries, and as many
    /// clients; what is beyond is counted as `untracked` and by [`DnsPairs::unlisted`].
    pub fn new(dns_ports: BTreeSet<u16>, max_sockets: usize) -> Self {
        Self {
            ports: dns_ports,
            max: max_sockets,
            sockets: HashMap::new(),
            outstanding: 0,
            clients: Vec::new(),
            index: HashMap::new(),
            totals: DnsCounts::default(),
            duplicate: 0,
            unlisted: 0,
            rtt: Histogram::default(),
        }
    }

    /// Takes note of an event that is about to become line `seq`, and annotates a reply. To be called for
    /// every event, in the order in which they are written.
    ///
    /// A receive that failed is no reply. One without a known remote end (`recv` on an unconnected socket)
    /// proves nothing: with outstanding queries at exactly one server it counts as an ambiguous reply and
    /// takes one of them off; at several servers it is marked ambiguous and takes nothing off.
    pub fn annotate(&mut self, event: &mut Event, seq: u64) {
        match &mut event.payload {
            Payload::UdpSend(d) if d.error.is_none() && self.is_query(d, event.id.remote) => {
                self.query(&event.id, event.at, event.boot_ns, seq);
            }
            Payload::UdpRecv(d) if d.error.is_none() => self.reply(&event.id, d, event.boot_ns),
            _ => {}
        }
    }

    /// The counts as of `now_boot_ns`.
    pub fn counts(&self, now_boot_ns: u64) -> DnsCounts {
        let mut counts = self.totals;
        for query in self.open_queries() {
            query.count_open(now_boot_ns, &mut counts);
        }
        counts
    }

    /// Totals for a window that ended at `end_boot_ns`.
    pub fn summary(&self, end_boot_ns: u64) -> DnsSummary {
        DnsSummary { counts: self.counts(end_boot_ns), duplicate: self.duplicate, rtt_us: self.rtt.quantiles_us() }
    }

    /// Clients with unanswered queries, most unanswered first.
    pub fn suspects(&self, end_boot_ns: u64) -> Vec<DnsSuspect> {
        let mut counts: Vec<DnsCounts> = self.clients.iter().map(|c| c.counts).collect();
        for query in self.open_queries() {
            if let Some(of_client) = query.client.and_then(|at| counts.get_mut(at)) {
                query.count_open(end_boot_ns, of_client);
            }
        }
        let mut suspects: Vec<_> = self.clients.iter().zip(counts).filter(|(_, c)| c.unanswered > 0).collect();
        suspects.sort_by_key(|(client, c)| (std::cmp::Reverse(c.unanswered), client.first_at, client.key.owner));
        suspects.into_iter().map(|(client, counts)| client.suspect(counts)).collect()
    }

    /// Queries that are in the totals but in no client's row, because that table was full.
    pub const fn unlisted(&self) -> u64 {
        self.unlisted
    }

    /// A load balancer at sockets may have sent it to another port than the one that was asked for.
    fn is_query(&self, d: &Datagram, remote: Endpoint) -> bool {
        self.is_server(remote) || (remote.addr.is_some() && d.asked.is_some_and(|asked| self.is_server(asked)))
    }

    fn is_server(&self, remote: Endpoint) -> bool {
        remote.addr.is_some() && remote.port.is_some_and(|p| self.ports.contains(&p))
    }

    fn open_queries(&self) -> impl Iterator<Item = &Query> {
        self.sockets.values().flatten().flat_map(|asked| &asked.queries)
    }

    fn query(&mut self, id: &Identity, at: DateTime<Utc>, boot_ns: u64, seq: u64) {
        let client = self.client(id, at);
        self.count(client, |c| c.sent += 1);
        let Some(cookie) = id.socket.filter(|_| self.outstanding < self.max) else {
            return self.count(client, |c| c.untracked += 1);
        };
        self.outstanding += 1;
        let query = Query { boot_ns, seq, client };
        let asked = self.sockets.entry((id.netns, cookie)).or_default();
        match asked.iter_mut().find(|a| a.server == id.remote) {
            Some(a) => a.queries.push_back(query),
            None => asked.push(Asked { server: id.remote, queries: VecDeque::from([query]) }),
        }
    }

    fn client(&mut self, id: &Identity, at: DateTime<Utc>) -> Option<usize> {
        let owner = id.owner.value();
        let owner_key = owner.map(|o| (o.pid, o.proc_start_ns));
        let key = ClientKey { owner: owner_key, netns: id.netns, server: id.remote };
        if let Some(place) = self.index.get(&key) {
            if let Some(client) = self.clients.get_mut(*place) {
                client.last_at = client.last_at.max(at);
            }
            return Some(*place);
        }
        if self.clients.len() >= self.max {
            self.unlisted += 1;
            return None;
        }
        let comm = owner.map(|o| o.comm.clone());
        self.clients.push(Client { comm, key, counts: DnsCounts::default(), first_at: at, last_at: at });
        let place = self.clients.len() - 1;
        self.index.insert(key, place);
        Some(place)
    }

    fn count(&mut self, client: Option<usize>, change: impl Fn(&mut DnsCounts)) {
        change(&mut self.totals);
        if let Some(client) = client.and_then(|place| self.clients.get_mut(place)) {
            change(&mut client.counts);
        }
    }

    fn reply(&mut self, id: &Identity, d: &mut Datagram, boot_ns: u64) {
        match self.classify(id, boot_ns) {
            Reply::Exact(query) => {
                let rtt_ns = boot_ns.saturating_sub(query.boot_ns);
                d.dns_rtt_ns = Some(rtt_ns);
                d.query_seq = Some(query.seq);
                d.late = rtt_ns > PATIENCE_NS;
                self.rtt.add(rtt_ns);
                self.count(query.client, |c| {
                    c.answered += 1;
                    c.late += u64::from(rtt_ns > PATIENCE_NS);
                });
            }
            Reply::Ambiguous(query) => {
                d.ambiguous = true;
                if let Some(query) = query {
                    self.count(query.client, |c| (c.answered, c.ambiguous) = (c.answered + 1, c.ambiguous + 1));
                }
            }
            Reply::Duplicate => {
                d.duplicate = true;
                self.duplicate += 1;
            }
            Reply::Unknown => {}
        }
    }

    fn classify(&mut self, id: &Identity, boot_ns: u64) -> Reply {
        let is_server = self.is_server(id.remote);
        let key = id.socket.map(|cookie| (id.netns, cookie));
        let asked = key.and_then(|key| self.sockets.get_mut(&key));
        // a backend is known by the queries that wait for it
        let is_proven = is_server || asked.as_ref().is_some_and(|all| all.iter().any(|a| a.server == id.remote));
        if !is_proven && (id.remote.addr.is_some() || id.remote.port.is_some()) {
            return Reply::Unknown;
        }
        let (servers, waiting) = match asked {
            Some(asked) => (asked.len(), asked.iter_mut().find(|a| !is_proven || a.server == id.remote)),
            None => (0, None),
        };
        let Some(waiting) = waiting.filter(|a| a.queries.front().is_some_and(|q| q.boot_ns <= boot_ns)) else {
            // where queries went untracked, this may be the reply to one of them
            let is_duplicate = is_proven && self.totals.untracked == 0;
            return if is_duplicate { Reply::Duplicate } else { Reply::Unknown };
        };
        if !is_proven && servers > 1 {
            return Reply::Ambiguous(None);
        }
        let is_only_one = waiting.queries.len() == 1;
        let oldest = waiting.queries.pop_front();
        self.outstanding = self.outstanding.saturating_sub(usize::from(oldest.is_some()));
        self.forget_answered(key);
        match oldest {
            Some(query) if is_proven && is_only_one => Reply::Exact(query),
            query => Reply::Ambiguous(query),
        }
    }

    fn forget_answered(&mut self, key: Option<SocketKey>) {
        let Some(key) = key else { return };
        if let Some(asked) = self.sockets.get_mut(&key) {
            asked.retain(|a| !a.queries.is_empty());
            if asked.is_empty() {
                self.sockets.remove(&key);
            }
        }
    }
}

impl Query {
    /// Counts a query that has no reply as of `now_boot_ns`.
    const fn count_open(&self, now_boot_ns: u64, counts: &mut DnsCounts) {
        if now_boot_ns.saturating_sub(self.boot_ns) < PATIENCE_NS {
            counts.pending += 1;
        } else {
            counts.unanswered += 1;
        }
    }
}

impl Client {
    fn suspect(&self, counts: DnsCounts) -> DnsSuspect {
        DnsSuspect {
            comm: self.comm.clone(),
            pid: self.key.owner.map(|(pid, _)| pid),
            netns: self.key.netns,
            server: self.key.server.to_string(),
            counts,
            first_at: self.first_at,
            last_at: self.last_at,
        }
    }
}

#[cfg(test)]
#[path = "dns_tests.rs"]
mod tests;
