//! The filters by owner, asked in user space: about a connection that the kernel could not judge when it happened.
//! The same rule as `owner_refused_by` of `bpf/filter.bpf.h`; `tests/live/held.rs` holds both against each other.

use crate::kernel::skel::types::{kt_listed, kt_task};
use crate::plan::filters::Filters;
use crate::plan::filters::comm::Comm;

/// Whether what this task owns passes.
pub fn pass(filters: &Filters, task: &kt_task) -> bool {
    let Filters { pid, comm, cgroup, cidr: _, netns: _, homes: _ } = filters;
    let names = [task.comm, task.thread].map(|name| name.map(i8::cast_unsigned));
    let named = |list: &std::collections::BTreeSet<_>| names.iter().any(|name| list.contains(&Comm(*name)));
    // only the kernel can walk up from a cgroup
    let below = |listed: kt_listed| u32::from(task.cgroup_listed) & listed.0 != 0;
    pid.passes(pid.wanted.contains(&task.pid), pid.unwanted.contains(&task.pid))
        && comm.passes(named(&comm.wanted), named(&comm.unwanted))
        && cgroup.passes(below(kt_listed::KT_LISTED_WANTED), below(kt_listed::KT_LISTED_UNWANTED))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::filters::{Listed, comm, parse, pid};

    fn name(text: &str) -> [i8; 16] {
        comm::parse(text).unwrap().0.map(u8::cast_signed)
    }

    fn a_task() -> kt_task {
        kt_task { pid: 7, tid: 8, comm: name("nginx"), thread: name("worker-1"), ..kt_task::default() }
    }

    fn by_pid(text: &str) -> bool {
        pass(&Filters { pid: parse(text, pid::parse).unwrap(), ..Filters::default() }, &a_task())
    }

    fn by_comm(text: &str) -> bool {
        pass(&Filters { comm: parse(text, comm::parse).unwrap(), ..Filters::default() }, &a_task())
    }

    #[test]
    fn an_unwanted_value_beats_a_wanted_one_and_without_wanted_ones_the_rest_passes() {
        assert_eq!(["7", "8", "!7", "!8", "7,!8", "8,!9"].map(by_pid), [true, false, false, true, true, false]);
        assert!(pass(&Filters::default(), &a_task()));
    }

    #[test]
    fn a_name_is_that_of_the_process_or_of_the_thread() {
        let lists = ["nginx", "worker-1", "!nginx", "!worker-1", "nginx,!worker-1", "ngin", "!ngin"];
        assert_eq!(lists.map(by_comm), [true, true, false, false, false, false, true]);
    }

    #[test]
    fn the_kernel_says_whether_a_cgroup_is_listed() {
        let by_cgroup = |wanted: bool, listed: u8| {
            let mut cgroup = Listed::default();
            let id = crate::plan::filters::cgroup::resolve("7712").unwrap();
            if wanted {
                cgroup.wanted.insert(id)
            } else {
                cgroup.unwanted.insert(id)
            };
            pass(&Filters { cgroup, ..Filters::default() }, &kt_task { cgroup_listed: listed, ..a_task() })
        };
        assert_eq!([0, 1, 2].map(|listed| by_cgroup(true, listed)), [false, true, false]);
        assert_eq!([0, 2].map(|listed| by_cgroup(false, listed)), [true, false]);
    }
}
