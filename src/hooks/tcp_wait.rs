//! `tcp_wait`: which connections wait for somebody to read, or for a peer that cannot be reached, and which listeners turn connections
//! away.

use ktrace_bundle::event::{Errno, Event, EventKind, ListenOverflow, Payload, Stall, StallKind};

use super::wire::{Context, DecodeError, RawEvent};
use super::{COOKIE, Hook, Store, Variant, limits};
use crate::kernel::features::Need;
use crate::kernel::skel::types::{kt_listen_overflow, kt_stall, kt_tcp_stall};
use crate::plan::Plan;

/// Its name, by which its iterator is found.
pub const NAME: &str = "tcp_wait";

/// See the module.
pub struct TcpWait;

static VARIANTS: &[Variant] = &[
    Variant {
        name: "iter",
        programs: &["tcp_wait__iter"],
        seconds: &[],
        more: &[],
        optional: &[],
        needs: &[Need::Iter("task_file"), Need::Helper("bpf_sock_from_file"), COOKIE],
        store: Store::Any,
        limits: &[&limits::WAITS_WITHOUT_FILE],
    },
    Variant {
        name: "iter_probed",
        programs: &["tcp_wait__iter_probed"],
        seconds: &[],
        more: &[],
        optional: &[],
        needs: &[Need::Iter("task_file")],
        store: Store::Hash,
        limits: &[&limits::WAITS_WITHOUT_FILE, &limits::LISTENERS_OWNER, &limits::HASHED_OWNERS],
    },
];

impl Hook for TcpWait {
    fn name(&self) -> &'static str {
        NAME
    }

    fn question(&self) -> &'static str {
        "which connections wait for somebody to read, or for a peer that cannot be reached, and which listeners turn connections away?"
    }

    fn kinds(&self) -> &'static [EventKind] {
        &[EventKind::TcpStall, EventKind::ListenOverflow]
    }

    fn wanted(&self, _plan: &Plan) -> bool {
        true
    }

    fn variants(&self) -> &'static [Variant] {
        VARIANTS
    }

    fn decode(&self, raw: RawEvent<'_>, context: &Context) -> Result<Event, DecodeError> {
        if raw.kind() == EventKind::ListenOverflow {
            let kt_listen_overflow { hdr, count, accept_queue, backlog, reserved: _ } = raw.read()?;
            let payload = Payload::ListenOverflow(ListenOverflow {
                accept_queue: Some(u64::from(accept_queue)),
                backlog: Some(u64::from(backlog)),
                count: u64::from(count),
            });
            return context.event(hdr, payload);
        }
        let kt_tcp_stall { hdr, duration_ns, queued, kind, err, reserved: _ } = raw.read()?;
        let payload = Payload::TcpStall(Stall {
            kind: kind_of(kind)?,
            duration_ns,
            queued_bytes: Some(u64::from(queued)),
            error: (err > 0).then(|| Errno(u16::from(err))),
        });
        context.event(hdr, payload)
    }
}

fn kind_of(number: u8) -> Result<StallKind, DecodeError> {
    use kt_stall as k;
    Ok(match kt_stall(u32::from(number)) {
        k::KT_STALL_ZERO_WINDOW => StallKind::ZeroWindow,
        k::KT_STALL_SEND_BUFFER => StallKind::SendBuffer,
        k::KT_STALL_RECEIVE_BUFFER => StallKind::ReceiveBuffer,
        k::KT_STALL_UNREACHABLE => StallKind::Unreachable,
        _ => return Err(DecodeError::Unknown { what: "kind of stall", number: u32::from(number) }),
    })
}
