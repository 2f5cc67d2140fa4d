//! `tcp_retransmit`: which connections send segments again, and in which state.

use ktrace_bundle::event::{Event, EventKind, Payload, Retransmit, RetransmitKind};

use super::wire::{Context, DecodeError, RawEvent, state};
use super::{COOKIE, Hook, Store, Variant, limits};
use crate::kernel::features::Need;
use crate::kernel::skel::types::{kt_retransmit_kind, kt_tcp_retransmit};
use crate::plan::Plan;

/// See the module.
pub struct TcpRetransmit;

static VARIANTS: &[Variant] = &[
    Variant {
        name: "tp_btf",
        programs: &["tcp_retransmit__tp_btf_err", "tcp_retransmit__synack_tp_btf"],
        seconds: &[],
        more: &["tcp_retransmit__tp_btf_err_more1", "tcp_retransmit__tp_btf_err_more2"],
        optional: &[],
        needs: &[Need::TpBtf("tcp_retransmit_skb", 3), Need::TpBtf("tcp_retransmit_synack", 2), COOKIE],
        store: Store::Any,
        limits: &[],
    },
    Variant {
        name: "tp_btf_2",
        programs: &["tcp_retransmit__tp_btf", "tcp_retransmit__synack_tp_btf"],
        seconds: &[],
        more: &[],
        optional: &[],
        needs: &[Need::TpBtf("tcp_retransmit_skb", 2), Need::TpBtf("tcp_retransmit_synack", 2), COOKIE],
        store: Store::Any,
        limits: &[],
    },
    Variant {
        name: "tracepoint",
        programs: &["tcp_retransmit__tracepoint", "tcp_retransmit__synack_tracepoint"],
        seconds: &[],
        more: &[],
        optional: &[],
        needs: &[Need::Tracepoint("tcp", "tcp_retransmit_skb"), Need::Tracepoint("tcp", "tcp_retransmit_synack")],
        store: Store::Hash,
        limits: &[&limits::LISTENERS_OWNER, &limits::HASHED_OWNERS],
    },
];

impl Hook for TcpRetransmit {
    fn name(&self) -> &'static str {
        "tcp_retransmit"
    }

    fn question(&self) -> &'static str {
        "which connections send segments again, and in which state?"
    }

    fn kinds(&self) -> &'static [EventKind] {
        &[EventKind::TcpRetransmit]
    }

    fn wanted(&self, plan: &Plan) -> bool {
        plan.with_retransmits
    }

    fn flag(&self) -> Option<&'static str> {
        Some("with-retransmits")
    }

    fn variants(&self) -> &'static [Variant] {
        VARIANTS
    }

    fn decode(&self, raw: RawEvent<'_>, context: &Context) -> Result<Event, DecodeError> {
        let kt_tcp_retransmit { hdr, retrans, tx_segs, srtt_us, kind, state: number, reserved: _ } = raw.read()?;
        let payload = Payload::TcpRetransmit(Retransmit {
            kind: kind_of(kind)?,
            state: state(number)?,
            retrans_count: Some(u64::from(retrans)),
            tx_segs_count: (tx_segs != 0).then_some(u64::from(tx_segs)),
            srtt_us: (srtt_us != 0).then_some(u64::from(srtt_us)),
        });
        context.event(hdr, payload)
    }
}

fn kind_of(number: u8) -> Result<RetransmitKind, DecodeError> {
    use kt_retransmit_kind as k;
    Ok(match kt_retransmit_kind(u32::from(number)) {
        k::KT_RETRANS_DATA => RetransmitKind::Data,
        k::KT_RETRANS_SYN => RetransmitKind::Syn,
        k::KT_RETRANS_SYNACK => RetransmitKind::Synack,
        k::KT_RETRANS_PROBE => RetransmitKind::Probe,
        _ => return Err(DecodeError::Unknown { what: "retransmit kind", number: u32::from(number) }),
    })
}
