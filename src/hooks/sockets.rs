//! `sockets`: which TCP and UDP sockets exist when the window opens and closes, and in whose file table.

use ktrace_bundle::event::{EventKind, Proto, SocketRecord, When};
use ktrace_bundle::tcp::TcpState;

use super::wire::{Context, DecodeError, read, state};
use super::{COOKIE, Hook, Store, Variant, limits};
use crate::kernel::features::Need;
use crate::kernel::skel::types::kt_socket;
use crate::plan::Plan;

/// Its name, by which its iterator is found.
pub const NAME: &str = "sockets";

/// See the module.
pub struct Sockets;

static VARIANTS: &[Variant] = &[
    Variant {
        name: "iter",
        programs: &["sockets__iter"],
        seconds: &[],
        more: &[],
        optional: &[],
        needs: &[Need::Iter("task_file"), Need::Helper("bpf_sock_from_file"), COOKIE],
        store: Store::Any,
        limits: &[&limits::WITHOUT_FILE],
    },
    Variant {
        name: "iter_probed",
        programs: &["sockets__iter_probed"],
        seconds: &[],
        more: &[],
        optional: &[],
        needs: &[Need::Iter("task_file")],
        store: Store::Hash,
        limits: &[&limits::WITHOUT_FILE, &limits::LISTENERS_OWNER, &limits::HASHED_OWNERS],
    },
];

impl Hook for Sockets {
    fn name(&self) -> &'static str {
        NAME
    }

    fn question(&self) -> &'static str {
        "which sockets existed when the window opened and closed, and whose were they?"
    }

    fn kinds(&self) -> &'static [EventKind] {
        &[]
    }

    fn wanted(&self, _plan: &Plan) -> bool {
        true
    }

    fn variants(&self) -> &'static [Variant] {
        VARIANTS
    }
}

/// One record of the iterator.
///
/// # Errors
/// The bytes are not a `struct kt_socket`, or a number has no name.
pub fn decode_socket(bytes: &[u8], when: When, context: &Context) -> Result<SocketRecord, DecodeError> {
    let kt_socket {
        hdr,
        age_ns,
        tx_bytes,
        rx_bytes,
        rx_queue,
        tx_queue,
        backlog,
        accept_queue,
        tx_segs,
        retrans,
        srtt_us,
        state: number,
        reserved: _,
    } = read(bytes)?;
    let id = context.identity(hdr.flow, hdr.owner)?;
    let state = match id.proto {
        Proto::Tcp => Some(state(number)?),
        Proto::Udp => None,
    };
    let listener = state == Some(TcpState::Listen);
    let connected = state.is_some() && !listener;
    let tcp = |value: u64| connected.then_some(value);
    Ok(SocketRecord {
        at: context.utc_of(hdr.boot_ns),
        boot_ns: hdr.boot_ns,
        when,
        state,
        rx_queue_bytes: (!listener).then_some(u64::from(rx_queue)),
        tx_queue_bytes: (!listener).then_some(u64::from(tx_queue)),
        age_ns: (age_ns != 0).then_some(age_ns),
        backlog: listener.then_some(u64::from(backlog)),
        accept_queue: listener.then_some(u64::from(accept_queue)),
        tx_bytes: tcp(tx_bytes),
        rx_bytes: tcp(rx_bytes),
        tx_segs_count: tcp(u64::from(tx_segs)),
        retrans_count: tcp(u64::from(retrans)),
        srtt_us: tcp(u64::from(srtt_us)).filter(|v| *v != 0),
        id,
    })
}
