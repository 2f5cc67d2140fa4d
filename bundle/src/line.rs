//! One record ↔ one line of JSON. The table in `keys` is the only place that knows key names and their order.
//!
//! Writing is exact: fixed key order, no spaces, absent when unknown. Reading is lenient: keys in any
//! order, keys of a newer writer skipped and counted, everything optional that older examples lack.

mod evidence;
mod home;
mod keys;
mod peer;
mod put;
mod reading;
mod values;

use std::borrow::Cow;

use crate::attribution::{Attribution, Owner, OwnerSource, Security};
use crate::event::{
    Connect, Datagram, Endpoint, Errno, Event, EventKind, Identity, LINE_VERSION, Payload, Proto, Retransmit,
    SocketRecord, TcpClose, TcpStateChange,
};
use crate::tcp::TcpState;
use crate::why::Reason;
use keys::{Line, Namespaces, Sec};
use reading::{Text, clip, json, shared};
pub use values::parse_endpoint;
use values::{CapsEff, End, Kind, Timestamp, Tuple};

/// Longest line that is written or read, bytes, without the newline.
pub const MAX_LINE_BYTES: usize = 4096;

/// Longest string from outside that a line carries, bytes; longer ones are cut at a character boundary.
pub const MAX_STRING_BYTES: usize = 256;

/// Why a line is not a record of this contract.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// Longer than the contract allows ([`MAX_LINE_BYTES`]).
    #[error("longer than {MAX_LINE_BYTES} bytes")]
    TooLong,
    /// Not JSON, or a key of the wrong type.
    #[error("not a record: {0}")]
    Json(#[from] serde_json::Error),
    /// Written by a newer ktrace.
    #[error("line version {0} is newer than this reader knows ({LINE_VERSION})")]
    Version(u32),
    /// `type` is not one of this version; to be counted and skipped.
    #[error("unknown event type `{0}`")]
    UnknownType(String),
    /// A key that the type cannot be without.
    #[error("`{0}` is missing")]
    Missing(&'static str),
}

/// Appends an event as one line, without the newline.
pub fn write_event(out: &mut Vec<u8>, event: &Event) {
    let mut line = Line::of_identity(&event.id);
    line.seq = Some(event.seq);
    line.ts = Some(Timestamp(event.at));
    line.kind = Some(Text(Cow::Borrowed(event.payload.kind().as_str())));
    line.boot_ns = Some(event.boot_ns);
    line.cpu = Some(event.cpu);
    line.set_payload(&event.payload);
    line.write(out);
}

/// Appends a socket record as one line, without the newline.
pub fn write_socket(out: &mut Vec<u8>, s: &SocketRecord) {
    let mut line = Line::of_identity(&s.id);
    line.ts = Some(Timestamp(s.at));
    line.boot_ns = Some(s.boot_ns);
    line.when = Some(s.when);
    line.state = s.state;
    line.rx_queue_bytes = s.rx_queue_bytes;
    line.tx_queue_bytes = s.tx_queue_bytes;
    line.age_ns = s.age_ns;
    line.backlog = s.backlog;
    line.accept_queue = s.accept_queue;
    line.tx_bytes = s.tx_bytes;
    line.rx_bytes = s.rx_bytes;
    line.tx_segs_count = s.tx_segs_count;
    line.retrans_count = s.retrans_count;
    line.srtt_us = s.srtt_us;
    line.write(out);
}

/// A record read back, with the number of keys that this version does not know.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed<T> {
    /// The record.
    pub record: T,
    /// Keys that were skipped.
    pub unknown_keys: u64,
}

/// Reads an event. `line_number` (from 1) stands in where the line has no `seq`.
///
/// # Errors
/// [`LineError::UnknownType`] is not a fault of the bundle; every other variant is.
pub fn parse_event(text: &[u8], line_number: u64) -> Result<Parsed<Event>, LineError> {
    let mut line = Line::default();
    json(text, &mut line)?;
    line.check_version()?;
    let kind = line.kind.as_deref().ok_or(LineError::Missing("type"))?;
    let kind = EventKind::ALL
        .into_iter()
        .find(|k| k.as_str() == kind)
        .ok_or_else(|| LineError::UnknownType((*clip(kind)).to_owned()))?;
    let payload = line.payload(kind)?;
    let at = line.ts.as_ref().ok_or(LineError::Missing("ts"))?.0;
    let event = Event {
        seq: line.seq.unwrap_or(line_number),
        at,
        boot_ns: line.boot_ns.unwrap_or_else(|| at.timestamp_nanos_opt().map_or(0, |n| n.max(0).unsigned_abs())),
        cpu: line.cpu.unwrap_or(0),
        payload,
        id: line.identity(match kind {
            EventKind::UdpSend | EventKind::UdpRecv => Proto::Udp,
            EventKind::TcpState
            | EventKind::Connect
            | EventKind::TcpRetransmit
            | EventKind::TcpReset
            | EventKind::TcpStall
            | EventKind::ListenOverflow
            | EventKind::Drop => Proto::Tcp,
        }),
    };
    Ok(Parsed { record: event, unknown_keys: line.rest })
}

/// Reads a socket record.
///
/// # Errors
/// As for [`parse_event`], except that there is no unknown type.
pub fn parse_socket(text: &[u8]) -> Result<Parsed<SocketRecord>, LineError> {
    let mut line = Line::default();
    json(text, &mut line)?;
    line.check_version()?;
    let record = SocketRecord {
        at: line.ts.as_ref().ok_or(LineError::Missing("ts"))?.0,
        boot_ns: line.boot_ns.ok_or(LineError::Missing("boot_ns"))?,
        when: line.when.ok_or(LineError::Missing("when"))?,
        state: line.state,
        rx_queue_bytes: line.rx_queue_bytes,
        tx_queue_bytes: line.tx_queue_bytes,
        age_ns: line.age_ns,
        backlog: line.backlog,
        accept_queue: line.accept_queue,
        tx_bytes: line.tx_bytes,
        rx_bytes: line.rx_bytes,
        tx_segs_count: line.tx_segs_count,
        retrans_count: line.retrans_count,
        srtt_us: line.srtt_us,
        id: line.identity(line.proto.ok_or(LineError::Missing("proto"))?),
    };
    Ok(Parsed { record, unknown_keys: line.rest })
}

impl<'a> Line<'a> {
    fn of_identity(id: &'a Identity) -> Self {
        let mut line = Self {
            v: Some(LINE_VERSION),
            node: Some(clip(&id.node)),
            tuple: Some(Tuple { local: id.local, remote: id.remote }),
            proto: Some(id.proto),
            laddr: id.local.addr,
            lport: id.local.port,
            raddr: id.remote.addr,
            rport: id.remote.port,
            role: id.role,
            socket: id.socket,
            why: id.why.clone(),
            ..Self::default()
        };
        let mut ns = Namespaces { net: Some(id.netns), ..Namespaces::default() };
        match &id.owner {
            Attribution::Resolved(o) => {
                line.comm = Some(clip(&o.comm));
                line.thread = o.thread.as_deref().map(clip);
                line.pid = Some(o.pid);
                line.tid = o.tid;
                line.ppid = o.ppid;
                line.uid = o.uid;
                line.gid = o.gid;
                line.owner = Some(o.source);
                line.proc_start_ns = o.proc_start_ns;
                line.cgroup_id = o.cgroup_id;
                line.sec =
                    o.sec.map(|s| Sec { seccomp_mode: Some(s.seccomp_mode), caps_eff: Some(CapsEff(s.caps_eff)) });
                ns = Namespaces { net: ns.net, mnt: o.mnt_ns, pid: o.pid_ns, user: o.user_ns };
            }
            Attribution::Unresolved(reason) => line.why.set("pid", reason.clone()),
        }
        line.set_home(&id.home);
        if let Some(peer) = &id.peer {
            line.set_peer(peer);
        }
        line.conntrack.clone_from(&id.nat);
        line.ns = Some(ns);
        line
    }

    fn set_payload(&mut self, payload: &'a Payload) {
        match payload {
            Payload::TcpState(p) => {
                self.old_state = Some(p.old);
                self.new_state = Some(p.new);
                self.handshake_ns = p.handshake_ns;
                self.syn_retrans_count = p.syn_retrans_count;
                if let Some(c) = &p.close {
                    self.set_close(c);
                }
            }
            Payload::UdpSend(d) | Payload::UdpRecv(d) => {
                self.bytes = d.bytes;
                self.set_error(d.error);
                self.dns_rtt_ns = d.dns_rtt_ns;
                self.query_seq = d.query_seq;
                self.ambiguous = d.ambiguous;
                self.late = d.late;
                self.duplicate = d.duplicate;
                self.sample = d.sample;
                self.asked = d.asked.map(End);
            }
            Payload::Connect(c) => {
                self.syscall_ns = Some(c.syscall_ns);
                self.set_error(c.error);
                self.nonblocking = c.nonblocking;
                self.asked = c.asked.map(End);
            }
            Payload::TcpRetransmit(r) => {
                self.what = Some(Kind::Retransmit(r.kind));
                self.state = Some(r.state);
                self.retrans_count = r.retrans_count;
                self.tx_segs_count = r.tx_segs_count;
                self.srtt_us = r.srtt_us;
            }
            Payload::TcpReset(_) | Payload::TcpStall(_) | Payload::ListenOverflow(_) | Payload::Drop(_) => {
                self.set_evidence(payload);
            }
        }
    }

    fn set_close(&mut self, c: &TcpClose) {
        self.duration_ns = c.duration_ns;
        self.tx_bytes = c.tx_bytes;
        self.rx_bytes = c.rx_bytes;
        self.tx_segs_count = c.tx_segs_count;
        self.rx_segs_count = c.rx_segs_count;
        self.retrans_count = c.retrans_count;
        self.srtt_us = c.srtt_us;
        self.min_rtt_us = c.min_rtt_us;
        self.set_error(c.error);
        self.soft_error = c.soft_error;
        self.time_wait = c.time_wait;
        self.gave_up_after_ns = c.gave_up_after_ns;
    }

    fn set_error(&mut self, error: Option<Errno>) {
        self.errno = error.map(|e| e.0);
        self.error = error.map(|e| {
            Text(match e.name() {
                Some(name) => Cow::Borrowed(name),
                None => Cow::Owned(e.to_string()),
            })
        });
    }

    fn check_version(&self) -> Result<(), LineError> {
        match self.v {
            Some(v) if v > LINE_VERSION => Err(LineError::Version(v)),
            _ => Ok(()),
        }
    }

    fn errno(&self) -> Option<Errno> {
        self.errno.map(Errno).or_else(|| self.error.as_deref().and_then(Errno::from_name))
    }

    fn identity(&self, proto: Proto) -> Identity {
        let tuple = self.tuple.unwrap_or_default();
        let ns = self.ns.as_ref();
        let mut why = self.why.clone();
        let owner = match self.pid {
            Some(pid) => Attribution::Resolved(self.owner_of(pid)),
            None => Attribution::Unresolved(why.take("pid").unwrap_or(Reason::NoOwner)),
        };
        Identity {
            node: shared(self.node.as_deref().unwrap_or_default()),
            proto: self.proto.unwrap_or(proto),
            local: Endpoint { addr: self.laddr.or(tuple.local.addr), port: self.lport.or(tuple.local.port) },
            remote: Endpoint { addr: self.raddr.or(tuple.remote.addr), port: self.rport.or(tuple.remote.port) },
            netns: ns.and_then(|n| n.net).unwrap_or(0),
            socket: self.socket,
            role: self.role,
            owner,
            home: self.home(&mut why),
            peer: self.peer(),
            nat: self.conntrack.clone(),
            why,
        }
    }

    fn owner_of(&self, pid: u32) -> Owner {
        let ns = self.ns.as_ref();
        Owner {
            source: self.owner.unwrap_or(OwnerSource::Unstated),
            pid,
            tid: self.tid,
            ppid: self.ppid,
            uid: self.uid,
            gid: self.gid,
            comm: self.comm.as_deref().unwrap_or_default().to_owned(),
            thread: self.thread.as_deref().map(str::to_owned),
            proc_start_ns: self.proc_start_ns,
            mnt_ns: ns.and_then(|n| n.mnt),
            pid_ns: ns.and_then(|n| n.pid),
            user_ns: ns.and_then(|n| n.user),
            sec: self
                .sec
                .as_ref()
                .and_then(|s| Some(Security { seccomp_mode: s.seccomp_mode?, caps_eff: s.caps_eff?.0 })),
            cgroup_id: self.cgroup_id,
        }
    }

    fn payload(&self, kind: EventKind) -> Result<Payload, LineError> {
        Ok(match kind {
            EventKind::TcpState => Payload::TcpState(self.state_change()?),
            EventKind::UdpSend => Payload::UdpSend(self.datagram()),
            EventKind::UdpRecv => Payload::UdpRecv(self.datagram()),
            EventKind::Connect => Payload::Connect(Connect {
                syscall_ns: self.syscall_ns.ok_or(LineError::Missing("syscall_ns"))?,
                error: self.errno(),
                nonblocking: self.nonblocking,
                asked: self.asked.map(|a| a.0),
            }),
            EventKind::TcpRetransmit => Payload::TcpRetransmit(Retransmit {
                kind: match self.what {
                    Some(Kind::Retransmit(kind)) => kind,
                    _ => return Err(LineError::Missing("kind")),
                },
                state: self.state.ok_or(LineError::Missing("state"))?,
                retrans_count: self.retrans_count,
                tx_segs_count: self.tx_segs_count,
                srtt_us: self.srtt_us,
            }),
            EventKind::TcpReset | EventKind::TcpStall | EventKind::ListenOverflow | EventKind::Drop => {
                self.evidence(kind)?
            }
        })
    }

    fn state_change(&self) -> Result<TcpStateChange, LineError> {
        let new = self.new_state.ok_or(LineError::Missing("new_state"))?;
        Ok(TcpStateChange {
            old: self.old_state.ok_or(LineError::Missing("old_state"))?,
            new,
            handshake_ns: self.handshake_ns,
            syn_retrans_count: self.syn_retrans_count,
            close: (new == TcpState::Close).then(|| TcpClose {
                duration_ns: self.duration_ns,
                tx_bytes: self.tx_bytes,
                rx_bytes: self.rx_bytes,
                tx_segs_count: self.tx_segs_count,
                rx_segs_count: self.rx_segs_count,
                retrans_count: self.retrans_count,
                srtt_us: self.srtt_us,
                min_rtt_us: self.min_rtt_us,
                error: self.errno(),
                soft_error: self.soft_error,
                time_wait: self.time_wait,
                gave_up_after_ns: self.gave_up_after_ns,
            }),
        })
    }

    fn datagram(&self) -> Datagram {
        Datagram {
            bytes: self.bytes,
            error: self.errno(),
            dns_rtt_ns: self.dns_rtt_ns,
            query_seq: self.query_seq,
            ambiguous: self.ambiguous,
            late: self.late,
            duplicate: self.duplicate,
            sample: self.sample,
            asked: self.asked.map(|a| a.0),
        }
    }
}

#[cfg(test)]
#[path = "line/documented_tests.rs"]
mod documented_tests;
#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
