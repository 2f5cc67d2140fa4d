//! `connect`: how long programs are inside `connect(2)` on TCP sockets, and what they get.

use ktrace_bundle::event::{Connect as Call, Event, EventKind, Payload};

use super::wire::{Context, DecodeError, RawEvent, asked, errno};
use super::{Hook, Store, Variant, limits};
use crate::kernel::features::Need;
use crate::kernel::skel::types::kt_connect;
use crate::plan::Plan;

/// See the module.
pub struct Connect;

static VARIANTS: &[Variant] = &[
    Variant {
        name: "fexit",
        programs: &["connect__fentry", "connect__fexit"],
        seconds: &[],
        more: &[
            "connect__fentry_more1",
            "connect__fentry_more2",
            "connect__fentry_more3",
            "connect__fexit_more1",
            "connect__fexit_more2",
            "connect__fexit_more3",
        ],
        optional: &[],
        needs: &[Need::Trampoline("inet_stream_connect")],
        store: Store::None,
        limits: &[],
    },
    Variant {
        name: "tracepoint",
        programs: &["connect__enter", "connect__exit"],
        seconds: &[],
        more: &[],
        optional: &[],
        needs: &[Need::Tracepoint("syscalls", "sys_enter_connect"), Need::Tracepoint("syscalls", "sys_exit_connect")],
        store: Store::None,
        limits: &[&limits::URING_CONNECTS],
    },
    Variant {
        name: "kprobe",
        programs: &["connect__kprobe", "connect__kretprobe"],
        seconds: &[],
        more: &[],
        optional: &[],
        needs: &[Need::Kprobe("inet_stream_connect")],
        store: Store::None,
        limits: &[&limits::RETURN_PROBES],
    },
];

impl Hook for Connect {
    fn name(&self) -> &'static str {
        "connect"
    }

    fn question(&self) -> &'static str {
        "how long was a program inside connect(2), and what did it get?"
    }

    fn kinds(&self) -> &'static [EventKind] {
        &[EventKind::Connect]
    }

    fn wanted(&self, plan: &Plan) -> bool {
        plan.with_connect_latency
    }

    fn flag(&self) -> Option<&'static str> {
        Some("with-connect-latency")
    }

    fn variants(&self) -> &'static [Variant] {
        VARIANTS
    }

    fn decode(&self, raw: RawEvent<'_>, context: &Context) -> Result<Event, DecodeError> {
        let kt_connect { hdr, syscall_ns, asked_addr, asked_port, asked_family, err, nonblocking, reserved: _ } =
            raw.read()?;
        let call = Call { syscall_ns, error: errno(err), nonblocking: nonblocking != 0, asked: None };
        let mut event = context.event(hdr, Payload::Connect(call))?;
        if let Payload::Connect(call) = &mut event.payload {
            call.asked = asked(asked_family, asked_addr, asked_port, event.id.remote)?;
        }
        Ok(event)
    }
}
