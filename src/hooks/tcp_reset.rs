//! `tcp_reset`: who resets which connections, in which state, and why.

use ktrace_bundle::event::{Event, EventKind, Payload, Reset};

use super::reasons::Named;
use super::wire::{Context, DecodeError, RawEvent, packet_dir, state};
use super::{COOKIE, Hook, Store, Variant, limits};
use crate::kernel::features::Need;
use crate::kernel::skel::types::kt_tcp_reset;
use crate::plan::Plan;

/// See the module.
pub struct TcpReset;

static VARIANTS: &[Variant] = &[
    Variant {
        name: "tp_btf",
        programs: &["tcp_reset__sent_tp_btf_reason", "tcp_reset__received_tp_btf"],
        seconds: &[],
        more: &[],
        optional: &[],
        needs: &[Need::TpBtf("tcp_send_reset", 3), Need::TpBtf("tcp_receive_reset", 1), COOKIE],
        store: Store::Any,
        limits: &[&limits::RESETS_ON_TOP],
    },
    Variant {
        name: "tp_btf_2",
        programs: &["tcp_reset__sent_tp_btf", "tcp_reset__received_tp_btf"],
        seconds: &[],
        more: &[],
        optional: &[],
        needs: &[Need::TpBtf("tcp_send_reset", 2), Need::TpBtf("tcp_receive_reset", 1), COOKIE],
        store: Store::Any,
        limits: &[&limits::RESETS_ON_TOP, &limits::RESETS_WITHOUT_SOCKET],
    },
    Variant {
        name: "tracepoint",
        programs: &["tcp_reset__sent_tracepoint", "tcp_reset__received_tracepoint"],
        seconds: &[],
        more: &[],
        optional: &[],
        needs: &[Need::Tracepoint("tcp", "tcp_send_reset"), Need::Tracepoint("tcp", "tcp_receive_reset")],
        store: Store::Hash,
        limits: &[&limits::RESETS_ON_TOP, &limits::LISTENERS_OWNER, &limits::HASHED_OWNERS, &limits::RESETS_OF_CLOSED],
    },
];

impl Hook for TcpReset {
    fn name(&self) -> &'static str {
        "tcp_reset"
    }

    fn question(&self) -> &'static str {
        "who resets which connections, in which state, and why?"
    }

    fn kinds(&self) -> &'static [EventKind] {
        &[EventKind::TcpReset]
    }

    fn wanted(&self, _plan: &Plan) -> bool {
        true
    }

    /// As of `drop`: one program is attached, and where programs can be preempted it is skipped for others on its CPU.
    fn counts_missed(&self) -> bool {
        false
    }

    fn variants(&self) -> &'static [Variant] {
        VARIANTS
    }

    fn decode(&self, raw: RawEvent<'_>, context: &Context) -> Result<Event, DecodeError> {
        let kt_tcp_reset { hdr, reason, state: number, dir, reserved: _ } = raw.read()?;
        let Named { name, id } = context.reasons.of_reset(reason);
        let payload = Payload::TcpReset(Reset {
            dir: packet_dir(dir)?,
            state: if number == 0 { None } else { Some(state(number)?) },
            reason: name,
            reason_id: id,
        });
        context.event(hdr, payload)
    }
}
