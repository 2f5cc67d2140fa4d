//! The filters by owner, asked in user space: about a connection that the kernel could not judge when it happened.
//! The same rule as `owner_refused_by` of `bpf/filter.bpf.h`; a test holds both against each other.

use crate::kernel::skel::types::{kt_listed, kt_task};
use crate::plan::filters::Filters;
use crate::plan::filters::comm::Comm;

/// Whether what this task owns passes.
pub fn pass(filters: &Filters, task: &kt_task) -> bool {
    let Filters { pid, comm, cgroup, cidr: _, netns: _ } = filters;
    let names = [task.comm, task.thread].map(|name| name.map(i8::cast_unsigned));
    let named = |list: &std::collections::BTreeSet<_>| names.iter().any(|name| list.contains(&Comm(*name)));
    // only the kernel can walk up from a cgroup
    let below = |listed: kt_listed| u32::from(task.cgroup_listed) & listed.0 != 0;
    pid.passes(pid.wanted.contains(&task.pid), pid.unwanted.contains(&task.pid))
        && comm.passes(named(&comm.wanted), named(&comm.unwanted))
        && cgroup.passes(below(kt_listed::KT_LISTED_WANTED), below(kt_listed::KT_LISTED_UNWANTED))
}
