/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * A task → struct kt_task: who it is, in which namespaces and cgroup, with which rights. Read by probe, so any
 * task may be asked for in any context; whether it owns anything is for the caller to prove.
 */
#pragma once
#include "base.bpf.h"

/* cgroup v2 id; on a hybrid host, where most tasks sit in the v2 root, the v1 memory or pids one. */
static __always_inline void read_cgroup(struct kt_task *t, struct task_struct *task)
{
	struct css_set *set = BPF_CORE_READ(task, cgroups);
	struct cgroup_subsys_state *css;
	struct cgroup *cgroup;
	int i;

	t->cgroup = KT_CGROUP_V2;
	t->cgroup_id = BPF_CORE_READ(set, dfl_cgrp, kn, id);
	if (t->cgroup_id != 1)
		return;
	for (i = 0; i < 2; i++) {
		__u32 at;

		if (i == 0 ? !bpf_core_enum_value_exists(enum cgroup_subsys_id, memory_cgrp_id) :
			     !bpf_core_enum_value_exists(enum cgroup_subsys_id, pids_cgrp_id))
			continue;
		at = i == 0 ? bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id) :
			      bpf_core_enum_value(enum cgroup_subsys_id, pids_cgrp_id);
		css = NULL;
		bpf_probe_read_kernel(&css, sizeof(css),
				      (void *)set + bpf_core_field_offset(struct css_set, subsys) + at * sizeof(css));
		cgroup = BPF_CORE_READ(css, cgroup);
		if (cgroup && BPF_CORE_READ(cgroup, root, hierarchy_id) != 0) {
			t->cgroup = i == 0 ? KT_CGROUP_V1_MEMORY : KT_CGROUP_V1_PIDS;
			t->cgroup_id = BPF_CORE_READ(cgroup, kn, id);
			return;
		}
	}
}

static __always_inline __u32 read_pid_ns(struct task_struct *task)
{
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	__u32 level = BPF_CORE_READ(pid, level);
	struct upid *upid = (void *)pid + bpf_core_field_offset(struct pid, numbers);
	struct pid_namespace *ns;

	if (level > 32) /* MAX_PID_NS_LEVEL */
		return 0;
	upid = (void *)upid + level * bpf_core_type_size(struct upid);
	ns = BPF_CORE_READ(upid, ns);
	return BPF_CORE_READ(ns, ns.inum);
}

/* Fills everything but `source`. Any task, in any context: its fields are read by probe. */
KT_FUNC void read_task(struct kt_task *t, struct task_struct *task)
{
	struct task_struct *leader = BPF_CORE_READ(task, group_leader);
	const struct cred *cred = BPF_CORE_READ(task, real_cred);

	t->pid = BPF_CORE_READ(task, tgid);
	t->tid = BPF_CORE_READ(task, pid);
	t->ppid = BPF_CORE_READ(task, real_parent, tgid);
	t->uid = BPF_CORE_READ(cred, uid.val);
	t->gid = BPF_CORE_READ(cred, gid.val);
	t->start_ns = compat_start_ns(leader);
	t->ns_mnt = BPF_CORE_READ(task, nsproxy, mnt_ns, ns.inum);
	t->ns_pid = read_pid_ns(task);
	t->ns_user = BPF_CORE_READ(cred, user_ns, ns.inum);
	BPF_CORE_READ_STR_INTO(&t->comm, leader, comm);
	BPF_CORE_READ_STR_INTO(&t->thread, task, comm);
	if (kt_config.with_security) {
		t->caps_eff = compat_caps_eff(cred);
		if (bpf_core_field_exists(task->seccomp))
			t->seccomp = BPF_CORE_READ(task, seccomp.mode);
	}
	read_cgroup(t, task);
}

/* Only where `current` is provably in its own context on this socket. A kernel thread owns for the kernel. */
KT_FUNC void set_owner(struct kt_task *t, __u8 source)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();

	read_task(t, task);
	t->source = BPF_CORE_READ(task, flags) & PF_KTHREAD ? KT_OWNER_KERNEL : source;
}

static __always_inline bool current_is_kernel(void)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();

	return BPF_CORE_READ(task, flags) & PF_KTHREAD;
}
