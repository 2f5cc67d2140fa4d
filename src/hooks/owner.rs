//! `owner`: whose a TCP socket is that was accepted or handed over. Serves `tcp_state`; makes no events of its own.

use ktrace_bundle::event::EventKind;

use super::limits::{self, Limit};
use super::{Hook, Optional, Store, Variant};
use crate::kernel::features::Need;
use crate::plan::Plan;

/// See the module.
pub struct Owner;

const fn first_io(limit: &'static Limit) -> Optional {
    Optional {
        programs: &["owner__send", "owner__recv"],
        needs: &[Need::TpBtf("sock_send_length", 3), Need::TpBtf("sock_recv_length", 3)],
        limit,
    }
}

static VARIANTS: &[Variant] = &[
    Variant {
        name: "fentry",
        programs: &["owner__fentry"],
        seconds: &[],
        more: &["owner__fentry_more1", "owner__fentry_more2", "owner__fentry_more3"],
        optional: &[first_io(&limits::HANDED_OVER)],
        needs: &[Need::Trampoline("security_sock_graft")],
        store: Store::Any,
        limits: &[],
    },
    Variant {
        name: "tracepoint",
        programs: &["owner__accept", "owner__accept4"],
        seconds: &[],
        more: &[],
        optional: &[first_io(&limits::URING_ACCEPTS)],
        needs: &[Need::Tracepoint("syscalls", "sys_exit_accept"), Need::Tracepoint("syscalls", "sys_exit_accept4")],
        store: Store::Any,
        limits: &[],
    },
    Variant {
        name: "kprobe",
        programs: &["owner__kprobe"],
        seconds: &[],
        more: &[],
        optional: &[first_io(&limits::HANDED_OVER)],
        needs: &[Need::Kprobe("security_sock_graft")],
        store: Store::Any,
        limits: &[],
    },
];

impl Hook for Owner {
    fn name(&self) -> &'static str {
        "owner"
    }

    fn question(&self) -> &'static str {
        "which process has a connection that it did not open itself?"
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
