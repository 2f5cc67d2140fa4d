//! Kernel bytes → typed records → the parts that all events share. The only `unsafe` on the event path.
//!
//! A record is believed only if its length is exactly that of its kind's struct in `wire.h`. Numbers without a
//! name are errors, never defaults.

mod raw;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use ktrace_bundle::attribution::{Attribution, Owner, OwnerSource, Security};
use ktrace_bundle::event::{Endpoint, Errno, Event, EventKind, Identity, PacketDir, Payload, Proto, Role};
use ktrace_bundle::tcp::TcpState;
use ktrace_bundle::why::{Reason, Why};

use super::reasons::Reasons;
use crate::cgroup::Hierarchy;
use crate::kernel::skel::types;
pub use raw::{Doubt, Mark, RawEvent};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// Why a record could not become an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Shorter than a header, or not as long as its kind's struct.
    #[error("a record of {got} bytes, expected {expected}")]
    Length {
        /// Bytes that came.
        got: usize,
        /// Bytes that `wire.h` says.
        expected: usize,
    },
    /// A number that has no name.
    #[error("{what} {number} is unknown")]
    Unknown {
        /// What the number stands for.
        what: &'static str,
        /// The number.
        number: u32,
    },
    /// No hook makes this kind.
    #[error("no hook makes `{}`", .0.as_str())]
    NoHook(EventKind),
}

/// A struct of `wire.h`: plain integers and arrays of them, without padding, valid for any bytes.
///
/// # Safety
/// Only for `repr(C)` types of which that is true.
pub unsafe trait Wire: Copy {}
// SAFETY: integers and arrays of integers; wire.h asserts that the sizes leave no room for padding.
unsafe impl Wire for types::kt_header {}
// SAFETY: as above.
unsafe impl Wire for types::kt_tcp_state {}
// SAFETY: as above.
unsafe impl Wire for types::kt_udp {}
// SAFETY: as above.
unsafe impl Wire for types::kt_connect {}
// SAFETY: as above.
unsafe impl Wire for types::kt_tcp_retransmit {}
// SAFETY: as above.
unsafe impl Wire for types::kt_tcp_reset {}
// SAFETY: as above.
unsafe impl Wire for types::kt_tcp_stall {}
// SAFETY: as above.
unsafe impl Wire for types::kt_listen_overflow {}
// SAFETY: as above.
unsafe impl Wire for types::kt_dropped {}
// SAFETY: as above.
unsafe impl Wire for types::kt_drop_key {}
// SAFETY: as above.
unsafe impl Wire for types::kt_socket {}
// SAFETY: as above.
unsafe impl Wire for types::kt_cgroup_notice {}
// SAFETY: as above.
unsafe impl Wire for types::kt_process_notice {}
// SAFETY: as above.
unsafe impl Wire for types::kt_counters {}
// SAFETY: as above.
unsafe impl Wire for types::kt_amount {}
// SAFETY: as above.
unsafe impl Wire for types::kt_process_key {}
// SAFETY: as above.
unsafe impl Wire for types::kt_process_row {}
// SAFETY: as above.
unsafe impl Wire for types::kt_flow_key {}
// SAFETY: as above.
unsafe impl Wire for types::kt_audit_counts {}
// SAFETY: as above.
unsafe impl Wire for types::kt_task {}

/// Reads `T` from bytes that are exactly as long.
///
/// # Errors
/// [`DecodeError::Length`].
pub fn read<T: Wire>(bytes: &[u8]) -> Result<T, DecodeError> {
    let expected = size_of::<T>();
    if bytes.len() != expected {
        return Err(DecodeError::Length { got: bytes.len(), expected });
    }
    // SAFETY: the length was checked, `read_unaligned` needs no alignment, and `Wire` is valid for any bytes.
    Ok(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// The event type of a kind number.
///
/// # Errors
/// The number is not one of `enum kt_kind`.
pub const fn kind_of(number: u32) -> Result<EventKind, DecodeError> {
    use types::kt_kind as k;
    Ok(match types::kt_kind(number) {
        k::KT_TCP_STATE => EventKind::TcpState,
        k::KT_UDP_SEND => EventKind::UdpSend,
        k::KT_UDP_RECV => EventKind::UdpRecv,
        k::KT_CONNECT => EventKind::Connect,
        k::KT_TCP_RETRANSMIT => EventKind::TcpRetransmit,
        k::KT_TCP_RESET => EventKind::TcpReset,
        k::KT_TCP_STALL => EventKind::TcpStall,
        k::KT_LISTEN_OVERFLOW => EventKind::ListenOverflow,
        k::KT_DROP => EventKind::Drop,
        _ => return Err(DecodeError::Unknown { what: "kind", number }),
    })
}

/// The kind number of an event type.
pub const fn number_of(kind: EventKind) -> u32 {
    use types::kt_kind as k;
    match kind {
        EventKind::TcpState => k::KT_TCP_STATE.0,
        EventKind::UdpSend => k::KT_UDP_SEND.0,
        EventKind::UdpRecv => k::KT_UDP_RECV.0,
        EventKind::Connect => k::KT_CONNECT.0,
        EventKind::TcpRetransmit => k::KT_TCP_RETRANSMIT.0,
        EventKind::TcpReset => k::KT_TCP_RESET.0,
        EventKind::TcpStall => k::KT_TCP_STALL.0,
        EventKind::ListenOverflow => k::KT_LISTEN_OVERFLOW.0,
        EventKind::Drop => k::KT_DROP.0,
    }
}

/// What decoding needs besides the bytes.
#[derive(Debug, Clone)]
pub struct Context {
    /// Node name for every record.
    pub node: Arc<str>,
    /// `CLOCK_BOOTTIME` of `utc`, ns.
    pub boot_ns: u64,
    /// UTC at `boot_ns`.
    pub utc: DateTime<Utc>,
    /// Whether security fields were recorded.
    pub with_security: bool,
    /// N, where one in N flows of UDP is recorded.
    pub sample: Option<u64>,
    /// What this kernel calls its reasons.
    pub reasons: Arc<Reasons>,
}

impl Context {
    /// UTC of a boot time by the capture's first clock sample.
    pub fn utc_of(&self, boot_ns: u64) -> DateTime<Utc> {
        let ns = i64::try_from(i128::from(boot_ns) - i128::from(self.boot_ns)).unwrap_or(0);
        self.utc.checked_add_signed(TimeDelta::nanoseconds(ns)).unwrap_or(self.utc)
    }

    /// Builds the event around a payload.
    ///
    /// # Errors
    /// A number in the header has no name.
    pub fn event(&self, header: types::kt_header, payload: Payload) -> Result<Event, DecodeError> {
        let types::kt_header { boot_ns, kind: _, cpu, flow, owner } = header;
        let id = self.identity(flow, owner)?;
        Ok(Event { seq: 0, at: self.utc_of(boot_ns), boot_ns, cpu, id, payload })
    }

    /// The socket and its owner.
    ///
    /// # Errors
    /// A number has no name.
    pub fn identity(&self, flow: types::kt_flow, owner: types::kt_task) -> Result<Identity, DecodeError> {
        let types::kt_flow { cookie, laddr, raddr, netns, lport, rport, family, proto, role, flags, reserved: _ } =
            flow;
        let mut why = Why::none();
        let flags = u32::from(flags);
        let local = Endpoint { addr: address(family, laddr)?, port: port(lport) };
        let mut remote = Endpoint { addr: address(family, raddr)?, port: port(rport) };
        if flags & types::kt_flow_flags::KT_FLOW_LADDR_GONE.0 != 0 {
            why.set("laddr", Reason::Gone);
        } else if local.addr.is_none() {
            why.set("laddr", Reason::WildcardBind);
        }
        if flags & types::kt_flow_flags::KT_FLOW_RADDR_UNKNOWN.0 != 0 {
            remote = Endpoint::default();
            why.set("raddr", Reason::HookMissing);
        }
        Ok(Identity {
            node: Arc::clone(&self.node),
            proto: proto_of(proto)?,
            local,
            remote,
            netns,
            socket: (cookie != 0).then_some(cookie),
            role: role_of(role)?,
            owner: self.owner(owner, &mut why)?,
            home: Attribution::Unresolved(Reason::NotRequested),
            peer: None,
            nat: None,
            why,
        })
    }

    fn owner(&self, task: types::kt_task, why: &mut Why) -> Result<Attribution<Owner>, DecodeError> {
        let types::kt_task {
            start_ns,
            cgroup_id,
            caps_eff,
            pid,
            tid,
            ppid,
            uid,
            gid,
            ns_mnt,
            ns_pid,
            ns_user,
            comm,
            thread,
            source,
            cgroup,
            seccomp,
            cgroup_listed: _,
            reserved: _,
        } = task;
        let Some(source) = source_of(source)? else {
            return Ok(Attribution::Unresolved(Reason::NoOwner));
        };
        let (comm, thread) = (text(&comm), text(&thread));
        let cgroup_id = cgroup_of(cgroup, cgroup_id, why)?;
        Ok(Attribution::Resolved(Owner {
            source,
            pid,
            tid: Some(tid),
            ppid: Some(ppid),
            uid: Some(uid),
            gid: Some(gid),
            thread: (thread != comm).then_some(thread),
            comm,
            proc_start_ns: Some(start_ns),
            mnt_ns: nonzero(ns_mnt),
            pid_ns: nonzero(ns_pid),
            user_ns: nonzero(ns_user),
            sec: self.with_security.then(|| Security { seccomp_mode: u32::from(seccomp), caps_eff }),
            cgroup_id,
        }))
    }
}

/// A task that is going away has left its namespaces: their numbers read as 0.
fn nonzero(inum: u32) -> Option<u32> {
    (inum != 0).then_some(inum)
}

/// `None` for 0.
pub fn port(number: u16) -> Option<u16> {
    (number != 0).then_some(number)
}

/// `None` for the wildcard address; v4-mapped becomes v4.
///
/// # Errors
/// Neither IPv4 nor IPv6.
pub fn address(family: u16, bytes: [u8; 16]) -> Result<Option<IpAddr>, DecodeError> {
    let address = match family {
        AF_INET => {
            let [a, b, c, d, ..] = bytes;
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        AF_INET6 => Ipv6Addr::from(bytes).to_canonical(),
        other => return Err(DecodeError::Unknown { what: "address family", number: u32::from(other) }),
    };
    Ok((!address.is_unspecified()).then_some(address))
}

/// What a program asked for, or `None` where that is where it went, or not known. Family 0 says that it is not.
///
/// # Errors
/// Neither IPv4 nor IPv6.
pub fn asked(family: u16, bytes: [u8; 16], number: u16, remote: Endpoint) -> Result<Option<Endpoint>, DecodeError> {
    if family == 0 {
        return Ok(None);
    }
    let asked = Endpoint { addr: address(family, bytes)?, port: port(number) };
    Ok((asked != remote).then_some(asked))
}

/// A protocol by its number.
///
/// # Errors
/// Neither TCP nor UDP.
pub fn proto_of(number: u8) -> Result<Proto, DecodeError> {
    match number {
        6 => Ok(Proto::Tcp),
        17 => Ok(Proto::Udp),
        _ => Err(DecodeError::Unknown { what: "protocol", number: u32::from(number) }),
    }
}

fn role_of(number: u8) -> Result<Option<Role>, DecodeError> {
    use types::kt_role as r;
    Ok(match types::kt_role(u32::from(number)) {
        r::KT_ROLE_NONE => None,
        r::KT_ROLE_CLIENT => Some(Role::Client),
        r::KT_ROLE_SERVER => Some(Role::Server),
        r::KT_ROLE_LISTENER => Some(Role::Listener),
        _ => return Err(DecodeError::Unknown { what: "role", number: u32::from(number) }),
    })
}

fn source_of(number: u8) -> Result<Option<OwnerSource>, DecodeError> {
    use types::kt_owner as o;
    Ok(Some(match types::kt_owner(u32::from(number)) {
        o::KT_OWNER_NONE => return Ok(None),
        o::KT_OWNER_CURRENT => OwnerSource::Current,
        o::KT_OWNER_CONNECT => OwnerSource::Connect,
        o::KT_OWNER_ACCEPT => OwnerSource::Accept,
        o::KT_OWNER_LISTEN => OwnerSource::Listen,
        o::KT_OWNER_FIRST_IO => OwnerSource::FirstIo,
        o::KT_OWNER_CLOSE => OwnerSource::Close,
        o::KT_OWNER_INHERITED => OwnerSource::Inherited,
        o::KT_OWNER_FD_TABLE => OwnerSource::FdTable,
        o::KT_OWNER_KERNEL => OwnerSource::Kernel,
        _ => return Err(DecodeError::Unknown { what: "owner source", number: u32::from(number) }),
    }))
}

fn cgroup_of(number: u8, id: u64, why: &mut Why) -> Result<Option<u64>, DecodeError> {
    let Some(hierarchy) = hierarchy(number)? else { return Ok(None) };
    if let Some(reason) = hierarchy.why() {
        why.set("cgroup_id", reason);
    }
    Ok((id != 0).then_some(id))
}

fn hierarchy(number: u8) -> Result<Option<Hierarchy>, DecodeError> {
    use types::kt_cgroup as c;
    Ok(Some(match types::kt_cgroup(u32::from(number)) {
        c::KT_CGROUP_NONE => return Ok(None),
        c::KT_CGROUP_V2 => Hierarchy::V2,
        c::KT_CGROUP_V1_MEMORY => Hierarchy::V1Memory,
        c::KT_CGROUP_V1_PIDS => Hierarchy::V1Pids,
        _ => return Err(DecodeError::Unknown { what: "cgroup hierarchy", number: u32::from(number) }),
    }))
}

/// The cgroup that a task was in, where its id is one; as far as it is known.
pub fn cgroup(task: &types::kt_task) -> Option<(Hierarchy, u64)> {
    Some((hierarchy(task.cgroup).ok()??, Some(task.cgroup_id).filter(|id| *id != 0)?))
}

/// A TCP state by its kernel number.
///
/// # Errors
/// There is no such state.
pub fn state(number: u8) -> Result<TcpState, DecodeError> {
    TcpState::from_kernel(number).ok_or(DecodeError::Unknown { what: "tcp state", number: u32::from(number) })
}

/// Which way a packet was going.
///
/// # Errors
/// There is no such way.
pub fn packet_dir(number: u8) -> Result<PacketDir, DecodeError> {
    use types::kt_dir as d;
    Ok(match types::kt_dir(u32::from(number)) {
        d::KT_DIR_SENT => PacketDir::Sent,
        d::KT_DIR_RECEIVED => PacketDir::Received,
        d::KT_DIR_FORWARDED => PacketDir::Forwarded,
        _ => return Err(DecodeError::Unknown { what: "direction", number: u32::from(number) }),
    })
}

/// `None` for 0.
pub fn errno(number: u16) -> Option<Errno> {
    (number != 0).then_some(Errno(number))
}

/// Text up to the first NUL, invalid UTF-8 replaced.
pub fn text<const N: usize>(bytes: &[i8; N]) -> String {
    let bytes = bytes.map(i8::cast_unsigned);
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}
