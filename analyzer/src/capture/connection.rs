//! One TCP connection, as its events and socket records tell it.
//!
//! Every fact keeps the `seq` that proves it. Order is by `boot_ns`, because lines stand in arrival order; what a
//! connect attempt came to is decided here once, for every rule that asks.

use ktrace_bundle::event::{
    Connect, Endpoint, Errno, Event, Identity, Payload, Retransmit, RetransmitKind, Role, SocketRecord, TcpClose,
    TcpStateChange, When,
};
use ktrace_bundle::tcp::TcpState;

use super::ends::Span;
use super::evidence::Evidence;
use super::process::{OwnerSoFar, ProcId};
use super::trouble::Trouble;
use super::way::Way;

/// Lowest port that Linux chooses for a client by default.
const EPHEMERAL_PORT: u16 = 32_768;

/// A moment, and the line that tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// `boot_ns` of the event.
    pub at: u64,
    /// Its line.
    pub seq: u64,
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Closed {
    /// When.
    pub mark: Mark,
    /// State before.
    pub from: TcpState,
    /// The kernel's account.
    pub account: TcpClose,
}

/// A connection in one of the socket tables.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// `boot_ns` at which it was read.
    pub at: u64,
    /// State at that moment.
    pub state: Option<TcpState>,
    /// Segments sent so far.
    pub tx_segs_count: Option<u64>,
    /// Segments sent again so far.
    pub retrans_count: Option<u64>,
    /// Smoothed round trip time in µs.
    pub srtt_us: Option<u64>,
}

/// Segments sent again, by what they were.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Retransmits {
    /// SYNs of a client.
    pub syn: Evidence,
    /// SYN-ACKs of a server.
    pub synack: Evidence,
    /// Data and FIN segments.
    pub data: Evidence,
    /// Tail loss probes.
    pub probe: Evidence,
    /// Highest counters that came with them: (segments sent, sent again).
    pub counters: Option<(u64, u64)>,
    /// State at the latest of them.
    pub state: Option<TcpState>,
}

/// Why a connect attempt came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The peer answered with a reset.
    Refused,
    /// The kernel stopped trying.
    TimedOut,
    /// The network, or this machine, said that it cannot be reached.
    Unreachable(Errno),
    /// The owner stopped trying after this many ns, without having heard anything.
    GaveUp(u64),
    /// Still unanswered when the window closed, after this many ns.
    StillTrying(u64),
}

/// What a connect attempt came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// The handshake completed.
    Established,
    /// It did not.
    Failed(Failure),
}

/// A TCP connection.
#[derive(Debug, Clone, PartialEq)]
pub struct Connection {
    /// Network namespace of the socket.
    pub netns: u32,
    /// Own end.
    pub local: Endpoint,
    /// Other end.
    pub remote: Endpoint,
    /// Part that the socket plays, where known.
    pub role: Option<Role>,
    /// Entry into `SYN_SENT`.
    pub opened: Option<Mark>,
    /// `SYN_SENT` to `ESTABLISHED`.
    pub established: Option<Mark>,
    /// Entry into `CLOSE_WAIT`.
    pub close_wait: Option<Mark>,
    /// Entry into `CLOSE`.
    pub closed: Option<Closed>,
    /// Newest state change: when, and into what.
    pub latest: Option<(Mark, TcpState)>,
    /// Duration of the handshake, ns.
    pub handshake_ns: Option<u64>,
    /// SYNs sent again before the handshake completed.
    pub syn_retrans_count: u64,
    /// `connect(2)` as it returned.
    pub connect: Option<(Mark, Connect)>,
    /// Segments sent again.
    pub retransmits: Retransmits,
    /// In the socket table before the window.
    pub at_start: Option<Box<Snapshot>>,
    /// In the socket table after the window.
    pub at_end: Option<Box<Snapshot>>,
    /// What went wrong on it.
    pub trouble: Option<Box<Trouble>>,
    /// Where its packets go.
    pub way: Way,
    /// When it was seen.
    pub span: Span,
    /// Place of the connection before it on the same socket.
    pub(super) before: Option<usize>,
    owner: OwnerSoFar,
}

impl Connection {
    /// A connection of which nothing but its identity is known yet.
    pub(crate) fn new(id: &Identity, at: u64, before: Option<usize>) -> Self {
        Self {
            netns: id.netns,
            local: id.local,
            remote: id.remote,
            role: id.role,
            opened: None,
            established: None,
            close_wait: None,
            closed: None,
            latest: None,
            handshake_ns: None,
            syn_retrans_count: 0,
            connect: None,
            retransmits: Retransmits::default(),
            at_start: None,
            at_end: None,
            trouble: None,
            way: Way::default(),
            span: Span::at(at),
            before,
            owner: OwnerSoFar::default(),
        }
    }

    /// Whether this event begins another connection on the same socket, or is of another socket of which neither says which.
    pub(crate) fn is_reopened_by(&self, event: &Event) -> bool {
        if matches!(event.payload, Payload::Connect(_)) && event.id.socket.is_none() && event.id.local.port.is_none() {
            return self.connect.is_some();
        }
        let Payload::TcpState(change) = &event.payload else { return false };
        change.old == TcpState::Close
            && change.new == TcpState::SynSent
            && self.closed.as_ref().is_some_and(|c| c.mark.at <= event.boot_ns)
    }

    /// Adds what an event says.
    pub(crate) fn apply(&mut self, event: &Event, proc: Option<ProcId>) {
        self.learn(&event.id, proc, event.boot_ns);
        let mark = Mark { at: event.boot_ns, seq: event.seq };
        match &event.payload {
            Payload::TcpState(change) => self.change(mark, change),
            Payload::Connect(connect) => self.connected(mark, connect),
            Payload::TcpRetransmit(r) => self.retransmitted(mark, r),
            Payload::TcpReset(r) => self.trouble.get_or_insert_default().reset(mark, r),
            Payload::TcpStall(s) => self.trouble.get_or_insert_default().stalled(mark, s),
            Payload::UdpSend(_) | Payload::UdpRecv(_) | Payload::ListenOverflow(_) | Payload::Drop(_) => {}
        }
    }

    /// Adds what a socket table says.
    pub(crate) fn apply_socket(&mut self, record: &SocketRecord, proc: Option<ProcId>) {
        self.learn(&record.id, proc, record.boot_ns);
        let snapshot = Box::new(Snapshot {
            at: record.boot_ns,
            state: record.state,
            tx_segs_count: record.tx_segs_count,
            retrans_count: record.retrans_count,
            srtt_us: record.srtt_us,
        });
        match record.when {
            When::Start => self.at_start = Some(snapshot),
            When::End => self.at_end = Some(snapshot),
        }
    }

    /// The process that owns it.
    pub const fn owner(&self) -> Option<ProcId> {
        self.owner.get()
    }

    /// Whether this end was the one that connected.
    pub fn is_client(&self) -> bool {
        match self.role {
            Some(Role::Client) => true,
            Some(Role::Server | Role::Listener) => false,
            None => self.opened.is_some() || self.established.is_some() || has_client_ports(self.local, self.remote),
        }
    }

    /// What the attempt to connect came to; `None` if there was none in the window, or its outcome is not known.
    pub fn attempt(&self, window_end_ns: u64) -> Option<Attempt> {
        if !self.is_client() {
            return None;
        }
        if self.established.is_some() {
            return Some(Attempt::Established);
        }
        if let Some(closed) = &self.closed {
            return (closed.from == TcpState::SynSent).then(|| Attempt::Failed(self.failure(closed)));
        }
        if let Some(errno) = self.immediate_error() {
            return Some(Attempt::Failed(of_errno(errno)));
        }
        (self.end_state() == Some(TcpState::SynSent)).then(|| {
            let since = self.begun_at().map_or(0, |at| window_end_ns.saturating_sub(at));
            Attempt::Failed(Failure::StillTrying(since))
        })
    }

    /// State when the window closed, by the socket table first, else by the newest event.
    pub fn end_state(&self) -> Option<TcpState> {
        match &self.at_end {
            Some(end) => end.state,
            None => self.latest.map(|(_, state)| state),
        }
    }

    /// When the attempt began, or was first seen.
    pub fn begun_at(&self) -> Option<u64> {
        let in_table = self.at_start.as_ref().filter(|s| s.state == Some(TcpState::SynSent)).map(|s| s.at);
        self.opened.map(|o| o.at).or(in_table).or_else(|| self.connect.as_ref().map(|(m, _)| m.at))
    }

    /// When the attempt failed.
    pub fn failed_at(&self) -> Option<u64> {
        self.closed.as_ref().map(|c| c.mark.at).or_else(|| self.connect.as_ref().map(|(m, _)| m.at))
    }

    /// SYNs sent again, by the best witness.
    pub fn syns_sent_again(&self) -> u64 {
        let by_account = match &self.closed {
            Some(c) if c.from == TcpState::SynSent => c.account.retrans_count.unwrap_or(0),
            _ => 0,
        };
        self.syn_retrans_count.max(self.retransmits.syn.total()).max(by_account)
    }

    /// Segments sent and sent again within the window, handshakes not counted as sent again.
    pub fn segments(&self) -> Option<(u64, u64)> {
        let last = match (&self.closed, &self.at_end) {
            (Some(c), _) => c.account.tx_segs_count.zip(c.account.retrans_count),
            (None, Some(end)) => end.tx_segs_count.zip(end.retrans_count),
            (None, None) => self.retransmits.counters,
        };
        let (segs, again) = last?;
        let before = self.at_start.as_ref().and_then(|s| s.tx_segs_count.zip(s.retrans_count)).unwrap_or((0, 0));
        let handshake = self.syns_sent_again().max(self.retransmits.synack.total());
        let again = again.saturating_sub(before.1).saturating_sub(handshake);
        let seen = self.retransmits.data.total().saturating_add(self.retransmits.probe.total());
        Some((segs.saturating_sub(before.0), again.max(seen)))
    }

    /// Last smoothed round trip time in µs.
    pub fn srtt_us(&self) -> Option<u64> {
        match (&self.closed, &self.at_end) {
            (Some(c), _) => c.account.srtt_us,
            (None, end) => end.as_ref().and_then(|e| e.srtt_us),
        }
    }

    fn learn(&mut self, id: &Identity, proc: Option<ProcId>, boot_ns: u64) {
        self.owner.weigh(proc, &id.owner, boot_ns);
        self.span.extend(boot_ns);
        self.way.learn(id.nat.as_ref(), None);
        for (known, said) in [(&mut self.local, id.local), (&mut self.remote, id.remote)] {
            known.addr = known.addr.or(said.addr);
            known.port = known.port.or(said.port);
        }
        self.role = self.role.or(id.role);
    }

    fn change(&mut self, mark: Mark, change: &TcpStateChange) {
        match (change.old, change.new) {
            (_, TcpState::SynSent) => self.opened = Some(mark),
            (TcpState::SynSent, TcpState::Established) => self.established = Some(mark),
            (_, TcpState::CloseWait) => self.close_wait = Some(mark),
            (from, TcpState::Close) => {
                self.closed = Some(Closed { mark, from, account: change.close.clone().unwrap_or_default() });
            }
            _ => {}
        }
        self.handshake_ns = self.handshake_ns.or(change.handshake_ns);
        self.syn_retrans_count = self.syn_retrans_count.max(change.syn_retrans_count.unwrap_or(0));
        if self.latest.is_none_or(|(m, _)| m.at <= mark.at) {
            self.latest = Some((mark, change.new));
        }
    }

    /// `asked` stands in for a remote end that the socket never got.
    fn connected(&mut self, mark: Mark, connect: &Connect) {
        self.role = self.role.or(Some(Role::Client));
        if let (None, Some(asked)) = (self.remote.addr, connect.asked) {
            self.remote = asked;
        }
        self.way.learn(None, connect.asked);
        self.connect = Some((mark, connect.clone()));
    }

    fn retransmitted(&mut self, mark: Mark, r: &Retransmit) {
        let list = match r.kind {
            RetransmitKind::Syn => &mut self.retransmits.syn,
            RetransmitKind::Synack => &mut self.retransmits.synack,
            RetransmitKind::Data => &mut self.retransmits.data,
            RetransmitKind::Probe => &mut self.retransmits.probe,
        };
        list.add(mark.seq);
        if matches!(r.kind, RetransmitKind::Data | RetransmitKind::Probe) {
            self.trouble.get_or_insert_default().retransmitted(mark, r);
        }
        self.retransmits.state = Some(r.state);
        if let Some(counters) = r.tx_segs_count.zip(r.retrans_count) {
            self.retransmits.counters = self.retransmits.counters.max(Some(counters));
        }
    }

    fn failure(&self, closed: &Closed) -> Failure {
        if let Some(errno) = closed.account.error.or_else(|| self.immediate_error()) {
            return of_errno(errno);
        }
        let begun = self.begun_at().unwrap_or(closed.mark.at);
        Failure::GaveUp(closed.account.gave_up_after_ns.unwrap_or(closed.mark.at.saturating_sub(begun)))
    }

    /// The error of `connect(2)`, unless it only says that the handshake goes on, or that the call was left.
    fn immediate_error(&self) -> Option<Errno> {
        let errno = self.connect.as_ref().and_then(|(_, c)| c.error)?;
        let goes_on = matches!(
            errno.name(),
            Some("EINPROGRESS" | "EALREADY" | "EAGAIN" | "EINTR" | "EISCONN" | "EINVAL" | "EAFNOSUPPORT")
        ) || errno.0 >= 512;
        (!goes_on).then_some(errno)
    }
}

/// Of a socket older than the window, whose ports are all that is known: the higher one was chosen by a kernel.
pub(crate) fn has_client_ports(local: Endpoint, remote: Endpoint) -> bool {
    local.port.zip(remote.port).is_some_and(|(l, r)| l >= EPHEMERAL_PORT && r < l)
}

fn of_errno(errno: Errno) -> Failure {
    match errno.name() {
        Some("ECONNREFUSED" | "ECONNRESET") => Failure::Refused,
        Some("ETIMEDOUT") => Failure::TimedOut,
        _ => Failure::Unreachable(errno),
    }
}
