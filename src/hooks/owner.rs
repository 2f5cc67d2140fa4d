//! `owner`: whose an accepted TCP socket is. Serves `tcp_state`; makes no events of its own.

use ktrace_bundle::event::EventKind;

use super::{Hook, Optional, Store, Variant, limits};
use crate::kernel::features::Need;
use crate::plan::Plan;

/// See the module.
pub struct Owner;

static FIRST_IO: &[Optional] = &[Optional {
    programs: &["owner__send", "owner__recv"],
    needs: &[Need::TpBtf("sock_send_length", 3), Need::TpBtf("sock_recv_length", 3)],
    limit: &limits::FIRST_IO,
}];

static VARIANTS: &[Variant] = &[
    Variant {
        name: "fentry",
        programs: &["owner__fentry"],
        seconds: &[],
        optional: FIRST_IO,
        needs: &[Need::Trampoline("security_sock_graft")],
        store: Store::Any,
        limits: &[],
    },
    Variant {
        name: "tracepoint",
        programs: &["owner__accept", "owner__accept4"],
        seconds: &[],
        optional: FIRST_IO,
        needs: &[Need::Tracepoint("syscalls", "sys_exit_accept"), Need::Tracepoint("syscalls", "sys_exit_accept4")],
        store: Store::Any,
        limits: &[],
    },
    Variant {
        name: "kprobe",
        programs: &["owner__kprobe"],
        seconds: &[],
        optional: FIRST_IO,
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
        "which process accepted a connection?"
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
