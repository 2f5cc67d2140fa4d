//! Builders for tests, here and in the crates that read bundles (feature `testing`).
//!
//! Every builder starts from a whole, valid record, so that a test names only what it is about:
//! `an_event().udp_send().to("10.96.0.10:53").by("api", 1847).at_ms(5).build()`.
//! They panic on text that is not an endpoint; nothing outside tests may use them.
#![allow(clippy::expect_used, clippy::missing_panics_doc, clippy::must_use_candidate)]

mod captures;

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use crate::attribution::{Attribution, Owner, OwnerSource, Security};
use crate::event::{
    Connect, Datagram, Dropped, Endpoint, Errno, Event, Identity, ListenOverflow, PacketDir, Payload, Proto, Reset,
    Retransmit, RetransmitKind, Role, SocketRecord, Stall, StallKind, TcpClose, TcpStateChange, When,
};
use crate::line::parse_endpoint;
use crate::nat::{Direction, Nat};
use crate::tcp::TcpState;
use crate::why::{Reason, Why};
use crate::workload::Home;

pub use captures::{a_bundle, a_bundle_on, a_head, a_ledger, a_manifest, a_tracking_report, in_network, of_host};

/// `boot_ns` at which every built window opens.
pub const START_BOOT_NS: u64 = 5_000_000_000_000;

/// Network namespace of every built record, unless it says otherwise.
pub const NETNS: u32 = 4_026_532_001;

/// Length of the built window, ns.
pub const WINDOW_NS: u64 = 60_000_000_000;

/// UTC at which every built window opens.
pub fn start_at() -> DateTime<Utc> {
    DateTime::from_timestamp(1_769_291_874, 0).expect("a valid time")
}

fn at(boot_ns: u64) -> DateTime<Utc> {
    // lines carry whole microseconds
    start_at() + TimeDelta::microseconds(((boot_ns.cast_signed() - START_BOOT_NS.cast_signed()) / 1000).max(-1_000_000))
}

fn endpoint(text: &str) -> Endpoint {
    parse_endpoint(text).expect("an endpoint as `addr:port`")
}

/// The entry of a flow from `client` to `vip` that `backend` gets, and sees as one from `seen_as`.
pub fn a_nat(state: &'static str, client: &str, vip: &str, backend: &str, seen_as: &str) -> Nat {
    let original = Direction { from: endpoint(client), to: endpoint(vip) };
    Nat::new(state, original, Direction { from: endpoint(backend), to: endpoint(seen_as) }, NETNS)
}

/// An owner named `comm`, found in its own system call.
pub fn an_owner(comm: &str, pid: u32) -> Owner {
    Owner {
        source: OwnerSource::Current,
        pid,
        tid: Some(pid),
        ppid: Some(1),
        uid: Some(1000),
        gid: Some(1000),
        comm: comm.to_owned(),
        thread: None,
        proc_start_ns: Some(1_000_000_000 + u64::from(pid)),
        mnt_ns: Some(4_026_532_201),
        pid_ns: Some(4_026_532_202),
        user_ns: Some(4_026_531_837),
        sec: Some(Security { seccomp_mode: 2, caps_eff: 0 }),
        cgroup_id: Some(7712),
    }
}

fn an_identity(proto: Proto) -> Identity {
    Identity {
        node: Arc::from("node-1"),
        proto,
        local: endpoint("10.42.1.15:48210"),
        remote: endpoint("10.96.0.10:53"),
        netns: NETNS,
        socket: Some(4096),
        role: Some(Role::Client),
        owner: Attribution::Resolved(an_owner("api", 1847)),
        home: Attribution::Unresolved(Reason::NotRequested),
        peer: None,
        nat: None,
        why: Why::none(),
    }
}

macro_rules! identity_setters {
    ($field:ident) => {
        /// The remote end, as `addr:port`, `[addr]:port`, `*:port` or `*`.
        pub fn to(mut self, remote: &str) -> Self {
            self.$field.id.remote = endpoint(remote);
            self
        }

        /// The local end.
        pub fn from(mut self, local: &str) -> Self {
            self.$field.id.local = endpoint(local);
            self
        }

        /// The owner's name and process id; how it was found stays.
        pub fn by(mut self, comm: &str, pid: u32) -> Self {
            let source = self.$field.id.owner.value().map_or(OwnerSource::Current, |o| o.source);
            self.$field.id.owner = Attribution::Resolved(Owner { source, ..an_owner(comm, pid) });
            self
        }

        /// What the owner belongs to.
        pub fn home(mut self, home: Home) -> Self {
            self.$field.id.home = Attribution::Resolved(home);
            self
        }

        /// How the owner was found.
        pub fn found_by(mut self, source: OwnerSource) -> Self {
            if let Attribution::Resolved(owner) = &mut self.$field.id.owner {
                owner.source = source;
            }
            self
        }

        /// No owner, and why.
        pub fn unowned(mut self, reason: Reason) -> Self {
            self.$field.id.owner = Attribution::Unresolved(reason);
            self
        }

        /// Why a key is absent.
        pub fn why(mut self, key: &'static str, reason: Reason) -> Self {
            self.$field.id.why.set(key, reason);
            self
        }

        /// Socket cookie.
        pub fn socket(mut self, cookie: u64) -> Self {
            self.$field.id.socket = Some(cookie);
            self
        }

        /// Network namespace of the socket.
        pub fn netns(mut self, netns: u32) -> Self {
            self.$field.id.netns = netns;
            self
        }

        /// Part that the socket plays.
        pub fn role(mut self, role: Role) -> Self {
            self.$field.id.role = Some(role);
            self
        }

        /// What connection tracking says of the flow.
        pub fn nat(mut self, nat: Nat) -> Self {
            self.$field.id.nat = Some(Arc::new(nat));
            self
        }

        /// Time since the window opened, ms.
        pub fn at_ms(self, ms: u64) -> Self {
            self.at_us(ms * 1000)
        }

        /// Time since the window opened, µs.
        pub fn at_us(mut self, us: u64) -> Self {
            self.$field.boot_ns = START_BOOT_NS + us * 1000;
            self.$field.at = at(self.$field.boot_ns);
            self
        }
    };
}

/// Builds an [`Event`]; see [`an_event`].
#[derive(Debug, Clone)]
pub struct EventBuilder {
    event: Event,
}

/// A UDP send of 45 bytes by `api` (1847), 10.42.1.15:48210 to 10.96.0.10:53, as the window opens.
pub fn an_event() -> EventBuilder {
    let event = Event {
        seq: 0,
        at: start_at(),
        boot_ns: START_BOOT_NS,
        cpu: 1,
        id: an_identity(Proto::Udp),
        payload: Payload::UdpSend(Datagram { bytes: Some(45), ..Datagram::default() }),
    };
    EventBuilder { event }
}

impl EventBuilder {
    identity_setters!(event);

    fn with(mut self, proto: Proto, payload: Payload) -> Self {
        self.event.id.proto = proto;
        self.event.payload = payload;
        self
    }

    /// A UDP send of 45 bytes.
    pub fn udp_send(self) -> Self {
        self.with(Proto::Udp, Payload::UdpSend(Datagram { bytes: Some(45), ..Datagram::default() }))
    }

    /// A UDP receive of 112 bytes.
    pub fn udp_recv(self) -> Self {
        self.with(Proto::Udp, Payload::UdpRecv(Datagram { bytes: Some(112), ..Datagram::default() }))
    }

    /// A TCP state change; one into `CLOSE` carries an account without any numbers.
    pub fn tcp_state(self, old: TcpState, new: TcpState) -> Self {
        let close = (new == TcpState::Close).then(TcpClose::default);
        self.with(Proto::Tcp, Payload::TcpState(TcpStateChange { old, new, close, ..TcpStateChange::default() }))
    }

    /// The client's `SYN_SENT` to `ESTABLISHED` after this handshake, ms.
    pub fn established_after_ms(self, ms: u64) -> Self {
        self.with(
            Proto::Tcp,
            Payload::TcpState(TcpStateChange {
                old: TcpState::SynSent,
                new: TcpState::Established,
                handshake_ns: Some(ms * 1_000_000),
                syn_retrans_count: Some(0),
                close: None,
            }),
        )
    }

    /// A state change into `CLOSE` with this account.
    pub fn closed(self, old: TcpState, close: TcpClose) -> Self {
        let change = TcpStateChange { old, new: TcpState::Close, close: Some(close), ..TcpStateChange::default() };
        self.with(Proto::Tcp, Payload::TcpState(change))
    }

    /// A blocking `connect(2)` that succeeded after 1 ms.
    pub fn connect(self) -> Self {
        self.with(Proto::Tcp, Payload::Connect(Connect { syscall_ns: 1_000_000, ..Connect::default() }))
    }

    /// A retransmit, the first of its socket.
    pub fn tcp_retransmit(self, kind: RetransmitKind, state: TcpState) -> Self {
        let r = Retransmit { kind, state, retrans_count: Some(1), tx_segs_count: None, srtt_us: None };
        self.with(Proto::Tcp, Payload::TcpRetransmit(r))
    }

    /// A reset without a reason.
    pub fn tcp_reset(self, dir: PacketDir, state: Option<TcpState>) -> Self {
        self.with(Proto::Tcp, Payload::TcpReset(Reset { dir, state, reason: None, reason_id: None }))
    }

    /// So many ms in which the connection had to wait.
    pub fn tcp_stall(self, kind: StallKind, ms: u64, queued_bytes: u64) -> Self {
        let error = (kind == StallKind::Unreachable).then_some(Errno(113));
        let stall = Stall { kind, duration_ns: ms * 1_000_000, queued_bytes: Some(queued_bytes), error };
        self.with(Proto::Tcp, Payload::TcpStall(stall))
    }

    /// A listener with room for 128 that turned so many away.
    pub fn listen_overflow(self, count: u64) -> Self {
        let payload = ListenOverflow { accept_queue: Some(129), backlog: Some(128), count };
        self.with(Proto::Tcp, Payload::ListenOverflow(payload))
    }

    /// Packets of this protocol that were thrown away for this reason, 60 bytes each.
    pub fn dropped(self, proto: Proto, dir: PacketDir, reason: &str, count: u64) -> Self {
        let payload = Dropped {
            dir,
            reason: Some(reason.into()),
            reason_id: Some(1),
            symbol: Some("ip_rcv_finish_core".into()),
            dev: Some("eth0".into()),
            count,
            bytes: Some(count * 60),
            first_boot_ns: Some(self.event.boot_ns),
        };
        self.with(proto, Payload::Drop(payload))
    }

    /// Payload bytes of a datagram.
    pub fn bytes(mut self, bytes: u64) -> Self {
        if let Payload::UdpSend(d) | Payload::UdpRecv(d) = &mut self.event.payload {
            d.bytes = Some(bytes);
        }
        self
    }

    /// The error of this event, by the kernel's name; a datagram loses its bytes.
    pub fn error(mut self, name: &str) -> Self {
        let error = Some(Errno::from_name(name).expect("the name of a kernel error"));
        match &mut self.event.payload {
            Payload::UdpSend(d) | Payload::UdpRecv(d) => (d.error, d.bytes) = (error, None),
            Payload::Connect(c) => c.error = error,
            Payload::TcpState(s) => s.close.get_or_insert_default().error = error,
            Payload::TcpRetransmit(_)
            | Payload::TcpReset(_)
            | Payload::TcpStall(_)
            | Payload::ListenOverflow(_)
            | Payload::Drop(_) => {}
        }
        self
    }

    /// Any other change to the payload.
    pub fn payload(mut self, change: impl FnOnce(&mut Payload)) -> Self {
        change(&mut self.event.payload);
        self
    }

    /// Line number.
    pub fn seq(mut self, seq: u64) -> Self {
        self.event.seq = seq;
        self
    }

    /// The event.
    pub fn build(self) -> Event {
        self.event
    }
}

/// Builds a [`SocketRecord`]; see [`a_socket`].
#[derive(Debug, Clone)]
pub struct SocketBuilder {
    socket: SocketRecord,
}

/// An established TCP socket of `api` (1847), 10.42.1.15:48210 to 10.96.0.10:53, as the window closes.
pub fn a_socket() -> SocketBuilder {
    let boot_ns = START_BOOT_NS + WINDOW_NS;
    let socket = SocketRecord {
        at: at(boot_ns),
        boot_ns,
        when: When::End,
        id: an_identity(Proto::Tcp),
        state: Some(TcpState::Established),
        rx_queue_bytes: Some(0),
        tx_queue_bytes: Some(0),
        age_ns: None,
        backlog: None,
        accept_queue: None,
        tx_bytes: Some(0),
        rx_bytes: Some(0),
        tx_segs_count: None,
        retrans_count: None,
        srtt_us: None,
    };
    SocketBuilder { socket }.found_by(OwnerSource::FdTable)
}

impl SocketBuilder {
    identity_setters!(socket);

    /// Read as the window opened.
    pub fn at_start(mut self) -> Self {
        self.socket.when = When::Start;
        self.at_us(0)
    }

    /// A UDP socket.
    pub fn udp(mut self) -> Self {
        self.socket.id.proto = Proto::Udp;
        self.socket.state = None;
        self
    }

    /// TCP state.
    pub fn state(mut self, state: TcpState) -> Self {
        self.socket.state = Some(state);
        self
    }

    /// Payload bytes sent and received so far.
    pub fn moved(mut self, tx_bytes: u64, rx_bytes: u64) -> Self {
        (self.socket.tx_bytes, self.socket.rx_bytes) = (Some(tx_bytes), Some(rx_bytes));
        self
    }

    /// Any other change.
    pub fn with(mut self, change: impl FnOnce(&mut SocketRecord)) -> Self {
        change(&mut self.socket);
        self
    }

    /// The record.
    pub fn build(self) -> SocketRecord {
        self.socket
    }
}
