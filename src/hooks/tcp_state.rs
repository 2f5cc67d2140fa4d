//! `tcp_state`: how each TCP connection lived and died.

use ktrace_bundle::event::{Event, EventKind, Payload, TcpClose, TcpStateChange};
use ktrace_bundle::tcp::TcpState as State;

use super::wire::{Context, DecodeError, RawEvent, errno, state};
use super::{COOKIE, Hook, Store, Variant, limits};
use crate::kernel::features::Need;
use crate::kernel::skel::types::{kt_state_flags, kt_tcp_state};
use crate::plan::Plan;

/// See the module.
pub struct TcpState;

static VARIANTS: &[Variant] = &[
    Variant {
        name: "tp_btf",
        programs: &["tcp_state__tp_btf"],
        seconds: &["tcp_state__tp_btf_second"],
        more: &["tcp_state__tp_btf_more1", "tcp_state__tp_btf_more2"],
        optional: &[],
        needs: &[Need::TpBtf("inet_sock_set_state", 3), COOKIE],
        store: Store::Any,
        limits: &[],
    },
    Variant {
        name: "fentry",
        programs: &["tcp_state__fentry", "tcp_state__child_fentry"],
        seconds: &[],
        more: &["tcp_state__fentry_more1", "tcp_state__fentry_more2", "tcp_state__fentry_more3"],
        optional: &[],
        needs: &[Need::Trampoline("tcp_set_state"), Need::Trampoline("tcp_ca_openreq_child"), COOKIE],
        store: Store::Any,
        limits: &[&limits::BIRTHS],
    },
    Variant {
        name: "tp_btf_probed",
        programs: &["tcp_state__tp_btf_probed"],
        seconds: &[],
        more: &[],
        optional: &[],
        needs: &[Need::TpBtf("inet_sock_set_state", 3)],
        store: Store::Hash,
        limits: &[&limits::LISTENERS_OWNER, &limits::HASHED_OWNERS],
    },
    Variant {
        name: "tracepoint",
        programs: &["tcp_state__tracepoint"],
        seconds: &[],
        more: &[],
        optional: &[],
        needs: &[Need::Tracepoint("sock", "inet_sock_set_state")],
        store: Store::Hash,
        limits: &[&limits::NESTED, &limits::LISTENERS_OWNER, &limits::HASHED_OWNERS],
    },
    Variant {
        name: "kprobe",
        programs: &["tcp_state__kprobe", "tcp_state__child_kprobe"],
        seconds: &[],
        more: &[],
        optional: &[],
        needs: &[Need::Kprobe("tcp_set_state"), Need::Kprobe("tcp_ca_openreq_child")],
        store: Store::Hash,
        limits: &[&limits::BIRTHS, &limits::LISTENERS_OWNER, &limits::HASHED_OWNERS],
    },
];

impl Hook for TcpState {
    fn name(&self) -> &'static str {
        "tcp_state"
    }

    fn question(&self) -> &'static str {
        "how did each TCP connection live and die?"
    }

    fn kinds(&self) -> &'static [EventKind] {
        &[EventKind::TcpState]
    }

    fn wanted(&self, _plan: &Plan) -> bool {
        true
    }

    fn plan_limits(&self, plan: &Plan) -> &'static [&'static str] {
        super::translated(
            plan,
            &[
                "connections that NAT brought from a port of the filter to a socket on another port, unless rules of the node told of that port before",
            ],
        )
    }

    fn variants(&self) -> &'static [Variant] {
        VARIANTS
    }

    fn decode(&self, raw: RawEvent<'_>, context: &Context) -> Result<Event, DecodeError> {
        let record: kt_tcp_state = raw.read()?;
        let new = state(record.new_state)?;
        let flag = |f: kt_state_flags| u32::from(record.flags) & f.0 != 0;
        let handshake = flag(kt_state_flags::KT_STATE_HANDSHAKE);
        let change = TcpStateChange {
            old: state(record.old_state)?,
            new,
            handshake_ns: handshake.then_some(record.handshake_ns),
            syn_retrans_count: handshake.then_some(u64::from(record.retrans)),
            close: (new == State::Close).then(|| close(&record)),
        };
        context.event(record.hdr, Payload::TcpState(change))
    }
}

fn close(record: &kt_tcp_state) -> TcpClose {
    let kt_tcp_state {
        hdr: _,
        handshake_ns: _,
        duration_ns,
        gave_up_ns,
        tx_bytes,
        rx_bytes,
        tx_segs,
        rx_segs,
        retrans,
        srtt_us,
        min_rtt_us,
        err,
        soft_err,
        old_state,
        new_state: _,
        flags,
        reserved: _,
    } = *record;
    let flag = |f: kt_state_flags| u32::from(flags) & f.0 != 0;
    // a listener has no segments and no payload to account for
    let account = |value: u64| (State::from_kernel(old_state) != Some(State::Listen)).then_some(value);
    TcpClose {
        duration_ns: flag(kt_state_flags::KT_STATE_DURATION).then_some(duration_ns),
        tx_bytes: account(tx_bytes),
        rx_bytes: account(rx_bytes),
        tx_segs_count: account(u64::from(tx_segs)),
        rx_segs_count: account(u64::from(rx_segs)),
        retrans_count: account(u64::from(retrans)),
        srtt_us: (srtt_us != 0).then_some(u64::from(srtt_us)),
        min_rtt_us: (min_rtt_us != u32::MAX && srtt_us != 0).then_some(u64::from(min_rtt_us)),
        error: errno(err).or(errno(soft_err)),
        soft_error: err == 0 && soft_err != 0,
        time_wait: flag(kt_state_flags::KT_STATE_TIME_WAIT),
        gave_up_after_ns: flag(kt_state_flags::KT_STATE_GAVE_UP).then_some(gave_up_ns),
    }
}
