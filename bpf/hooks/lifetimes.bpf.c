// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * lifetimes: which processes and cgroups began and ended meanwhile?
 *
 * Makes no events. Tells user space the path of each cgroup while there is one, what each process was started as, and when
 * both ended, so that what is gone when it looks still has a name. Runs where the task itself execs or exits, and where
 * somebody makes or removes a cgroup. Cost: 1 to 2 us at each of these.
 */
#include "ktrace.bpf.h"

#define NOTICES (256 << 10)

/* Notices of some tenth of a second: 480 to 700. What finds no room is counted. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, NOTICES);
} notices SEC(".maps");

static __always_inline void *take_notice(__u64 size)
{
	void *notice = bpf_ringbuf_reserve(&notices, size, 0);

	if (!notice)
		KT_BUMP(kt_state.untold);
	return notice;
}

/* The consumer polls; it is woken when half of the ring waits. */
static __always_inline void give_notice(void *notice)
{
	bool is_half = bpf_ringbuf_query(&notices, BPF_RB_AVAIL_DATA) > NOTICES / 2;

	bpf_ringbuf_submit(notice, is_half ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
}

/* `path` is NULL of one that was removed. */
static __always_inline int on_cgroup(__u32 hierarchy, __u64 id, const char *path)
{
	struct kt_cgroup_notice *n = take_notice(sizeof(*n));

	if (!n)
		return 0;
	n->boot_ns = bpf_ktime_get_boot_ns();
	n->kind = path ? KT_NOTICE_CGROUP_MADE : KT_NOTICE_CGROUP_REMOVED;
	n->hierarchy = hierarchy;
	n->id = id;
	n->path[0] = 0;
	if (path)
		bpf_probe_read_kernel_str(n->path, sizeof(n->path), path);
	give_notice(n);
	return 0;
}

/* Of the running process; `exe` is NULL of one that exits. */
static __always_inline int on_process(const char *exe)
{
	struct kt_process_notice *n;
	struct kt_task task = {};

	if (current_is_kernel())
		return 0;
	set_owner(&task, KT_OWNER_CURRENT);
	n = take_notice(sizeof(*n));
	if (!n)
		return 0;
	n->boot_ns = bpf_ktime_get_boot_ns();
	n->kind = exe ? KT_NOTICE_EXEC : KT_NOTICE_EXIT;
	n->reserved = 0;
	n->task = task;
	n->exe[0] = 0;
	if (exe)
		bpf_probe_read_kernel_str(n->exe, sizeof(n->exe), exe);
	give_notice(n);
	return 0;
}

/* Each thread exits; with the last one the process does (do_exit: group_dead). */
static __always_inline bool is_last_thread(void)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();

	return BPF_CORE_READ(task, signal, live.counter) == 0;
}

SEC("?tp_btf/cgroup_mkdir")
int BPF_PROG(lifetimes__mkdir, struct cgroup *cgroup, const char *path)
{
	return on_cgroup(cgroup->root->hierarchy_id, cgroup->kn->id, path);
}

SEC("?tp_btf/cgroup_rmdir")
int BPF_PROG(lifetimes__rmdir, struct cgroup *cgroup, const char *path)
{
	return on_cgroup(cgroup->root->hierarchy_id, cgroup->kn->id, NULL);
}

SEC("?tp_btf/sched_process_exec")
int BPF_PROG(lifetimes__exec, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	return on_process(bprm->filename);
}

SEC("?tp_btf/sched_process_exit")
int BPF_PROG(lifetimes__exit, struct task_struct *task)
{
	return is_last_thread() ? on_process(NULL) : 0;
}

/* A string of a classic record: where it stands in it. */
#define KT_DATA_LOC(ctx, field) ((const char *)(ctx) + (BPF_CORE_READ(ctx, __data_loc_##field) & 0xffff))

SEC("?tracepoint/cgroup/cgroup_mkdir")
int lifetimes__mkdir_tracepoint(struct trace_event_raw_cgroup *ctx)
{
	return on_cgroup(BPF_CORE_READ(ctx, root), BPF_CORE_READ(ctx, id), KT_DATA_LOC(ctx, path));
}

SEC("?tracepoint/cgroup/cgroup_rmdir")
int lifetimes__rmdir_tracepoint(struct trace_event_raw_cgroup *ctx)
{
	return on_cgroup(BPF_CORE_READ(ctx, root), BPF_CORE_READ(ctx, id), NULL);
}

SEC("?tracepoint/sched/sched_process_exec")
int lifetimes__exec_tracepoint(struct trace_event_raw_sched_process_exec *ctx)
{
	return on_process(KT_DATA_LOC(ctx, filename));
}

SEC("?tracepoint/sched/sched_process_exit")
int lifetimes__exit_tracepoint(void *ctx)
{
	return is_last_thread() ? on_process(NULL) : 0;
}
