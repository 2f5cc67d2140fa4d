//! `lifetimes`: which processes and cgroups began and ended meanwhile. Serves the names of what is gone; makes no events.

use ktrace_bundle::event::EventKind;

use super::{Hook, Store, Variant};
use crate::kernel::features::Need;
use crate::plan::Plan;

/// See the module.
pub struct Lifetimes;

static VARIANTS: &[Variant] = &[
    Variant {
        name: "tp_btf",
        programs: &["lifetimes__mkdir", "lifetimes__rmdir", "lifetimes__exec", "lifetimes__exit"],
        seconds: &[],
        more: &[],
        optional: &[],
        needs: &[
            Need::TpBtf("cgroup_mkdir", 2),
            Need::TpBtf("cgroup_rmdir", 2),
            Need::TpBtf("sched_process_exec", 3),
            Need::TpBtf("sched_process_exit", 1),
        ],
        store: Store::None,
        limits: &[],
    },
    Variant {
        name: "tracepoint",
        programs: &[
            "lifetimes__mkdir_tracepoint",
            "lifetimes__rmdir_tracepoint",
            "lifetimes__exec_tracepoint",
            "lifetimes__exit_tracepoint",
        ],
        seconds: &[],
        more: &[],
        optional: &[],
        needs: &[
            Need::Tracepoint("cgroup", "cgroup_mkdir"),
            Need::Tracepoint("cgroup", "cgroup_rmdir"),
            Need::Tracepoint("sched", "sched_process_exec"),
            Need::Tracepoint("sched", "sched_process_exit"),
        ],
        store: Store::None,
        limits: &[],
    },
];

impl Hook for Lifetimes {
    fn name(&self) -> &'static str {
        "lifetimes"
    }

    fn question(&self) -> &'static str {
        "which processes and cgroups began and ended meanwhile?"
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
