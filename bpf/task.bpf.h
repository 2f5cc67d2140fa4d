/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * A task → struct kt_task: who it is, in which namespaces and cgroup, with which rights. Any task may be read in any
 * context; whether it owns anything is for the caller to prove. By plain loads this takes 0.1 us, by probe reads
 * 1.3 us, hence `kt_config.task_btf`.
 */
#pragma once
#include "base.bpf.h"

#define MAX_CGROUP_DEPTH 32

/* --cgroup: 1 to 64 cgroups; a number without a path stands for three. value: enum kt_listed */
struct filter_cgroups_map {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct kt_cgroup_key);
	__type(value, __u8);
};
extern struct filter_cgroups_map filter_cgroups SEC(".maps");

/* The cgroup in the hierarchy of this subsystem. */
static __always_inline struct cgroup *cgroup_of(struct css_set *set, __u32 subsystem, const bool direct)
{
	struct cgroup_subsys_state **slot =
		(void *)set + bpf_core_field_offset(struct css_set, subsys) + subsystem * sizeof(void *);
	struct cgroup_subsys_state *css = NULL;

	if (direct)
		css = *slot;
	else
		bpf_probe_read_kernel(&css, sizeof(css), slot);
	return KT_FIELD(direct, css, cgroup);
}

/* Hierarchy 0 is v2. */
static __always_inline bool is_v1(struct cgroup *cgroup, const bool direct)
{
	return KT_FIELD2(direct, cgroup, root, hierarchy_id);
}

static __always_inline struct cgroup *v1_cgroup(struct css_set *set, __u32 subsystem, const bool direct)
{
	struct cgroup *cgroup = cgroup_of(set, subsystem, direct);

	return is_v1(cgroup, direct) ? cgroup : NULL;
}

/* What --cgroup says: the nearest ancestor that it lists decides, the cgroup itself included. */
KT_FUNC __u8 subtree_listed(struct cgroup *cgroup, __u64 hierarchy)
{
	struct kt_cgroup_key key = { .hierarchy = hierarchy };
	__u8 *listed;
	int level;

	for (level = 0; level < MAX_CGROUP_DEPTH && cgroup; level++) {
		key.id = BPF_CORE_READ(cgroup, kn, id);
		listed = bpf_map_lookup_elem(&filter_cgroups, &key);
		if (listed)
			return *listed;
		cgroup = BPF_CORE_READ(cgroup, self.parent, cgroup);
	}
	return 0;
}

/* A task sits in one cgroup of each hierarchy; v2 is asked first. */
static __always_inline __u8 cgroup_listed(struct css_set *set, const bool direct)
{
	struct cgroup *cgroup = KT_FIELD(direct, set, dfl_cgrp);
	__u8 listed = subtree_listed(cgroup, KT_CGROUP_V2);

	if (!listed && bpf_core_enum_value_exists(enum cgroup_subsys_id, memory_cgrp_id)) {
		cgroup = v1_cgroup(set, bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id), direct);
		listed = subtree_listed(cgroup, KT_CGROUP_V1_MEMORY);
	}
	if (!listed && bpf_core_enum_value_exists(enum cgroup_subsys_id, pids_cgrp_id)) {
		cgroup = v1_cgroup(set, bpf_core_enum_value(enum cgroup_subsys_id, pids_cgrp_id), direct);
		listed = subtree_listed(cgroup, KT_CGROUP_V1_PIDS);
	}
	return listed;
}

/* Takes the cgroup of a subsystem's hierarchy if it lies deeper than the one that was taken before: one of v1, as in v2 it is
 * that of the task or an ancestor. */
static __always_inline void take_deeper(struct kt_task *t, struct cgroup *cgroup, __u8 hierarchy, int *deepest,
					const bool direct)
{
	int level = KT_FIELD(direct, cgroup, level);

	if (level <= *deepest)
		return;
	*deepest = level;
	t->cgroup = hierarchy;
	t->cgroup_id = KT_FIELD2(direct, cgroup, kn, id);
}

/* The v2 cgroup, or on a hybrid host one of v1 that lies deeper. There a runtime may move its containers in v1 only, so
 * that in v2 they stay where it runs itself: whoever puts a process somewhere puts it deeper than what it inherits. */
static __always_inline void read_cgroup(struct kt_task *t, struct task_struct *task, const bool direct)
{
	struct css_set *set = KT_FIELD(direct, task, cgroups);
	struct cgroup *cgroup;
	int deepest;

	if (!set)
		return;
	if (filter_is_on(KT_FILTER_CGROUP))
		t->cgroup_listed = cgroup_listed(set, direct);
	cgroup = KT_FIELD(direct, set, dfl_cgrp);
	t->cgroup = KT_CGROUP_V2;
	t->cgroup_id = KT_FIELD2(direct, cgroup, kn, id);
	deepest = KT_FIELD(direct, cgroup, level);
	if (bpf_core_enum_value_exists(enum cgroup_subsys_id, memory_cgrp_id)) {
		cgroup = cgroup_of(set, bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id), direct);
		take_deeper(t, cgroup, KT_CGROUP_V1_MEMORY, &deepest, direct);
	}
	if (bpf_core_enum_value_exists(enum cgroup_subsys_id, pids_cgrp_id)) {
		cgroup = cgroup_of(set, bpf_core_enum_value(enum cgroup_subsys_id, pids_cgrp_id), direct);
		take_deeper(t, cgroup, KT_CGROUP_V1_PIDS, &deepest, direct);
	}
}

/* The namespace that the task lives in, not the one of its children (nsproxy). */
static __always_inline __u32 read_pid_ns(struct task_struct *task, const bool direct)
{
	struct pid *pid = KT_FIELD(direct, task, thread_pid);
	__u32 level = KT_FIELD(direct, pid, level);
	struct upid *upid = (void *)pid + bpf_core_field_offset(struct pid, numbers);
	struct pid_namespace *ns;

	if (direct && !level) /* most tasks */
		return pid->numbers[0].ns->ns.inum;
	if (level > 32) /* MAX_PID_NS_LEVEL */
		return 0;
	upid = (void *)upid + level * bpf_core_type_size(struct upid);
	ns = BPF_CORE_READ(upid, ns);
	return BPF_CORE_READ(ns, ns.inum);
}

static __always_inline void read_cred(struct kt_task *t, const struct cred *cred, const bool direct)
{
	t->uid = KT_FIELD(direct, cred, uid.val);
	t->gid = KT_FIELD(direct, cred, gid.val);
	t->ns_user = KT_FIELD2(direct, cred, user_ns, ns.inum);
	if (kt_config.with_security)
		t->caps_eff = compat_caps_eff(cred, direct);
}

/* Everything but `source`. */
static __always_inline void read_task(struct kt_task *t, struct task_struct *task, const bool direct)
{
	struct task_struct *leader = KT_FIELD(direct, task, group_leader);
	/* kernels that tag RCU pointers in their types want these two tested */
	struct task_struct *parent = KT_FIELD(direct, task, real_parent);
	const struct cred *cred = KT_FIELD(direct, task, real_cred);

	t->pid = KT_FIELD(direct, task, tgid);
	t->tid = KT_FIELD(direct, task, pid);
	if (parent)
		t->ppid = KT_FIELD(direct, parent, tgid);
	t->start_ns = KT_FIELD(direct, leader, start_boottime);
	t->ns_mnt = KT_FIELD3(direct, task, nsproxy, mnt_ns, ns.inum);
	t->ns_pid = read_pid_ns(task, direct);
	/* names are compared whole, so what follows the NUL must be zero */
	__builtin_memset(t->comm, 0, sizeof(t->comm) + sizeof(t->thread));
	bpf_probe_read_kernel_str(t->thread, sizeof(t->thread), task->comm);
	if (t->pid == t->tid)
		__builtin_memcpy(t->comm, t->thread, sizeof(t->comm));
	else
		bpf_probe_read_kernel_str(t->comm, sizeof(t->comm), leader->comm);
	if (kt_config.with_security && bpf_core_field_exists(task->seccomp.mode))
		t->seccomp = KT_FIELD(direct, task, seccomp.mode);
	if (cred)
		read_cred(t, cred, direct);
	read_cgroup(t, task, direct);
}

/* Only where `current` is provably in its own context on this socket. A kernel thread owns for the kernel. */
KT_FUNC void set_owner(struct kt_task *t, __u8 source)
{
	bool kernel;

	if (kt_config.task_btf) {
		struct task_struct *task = bpf_get_current_task_btf();

		read_task(t, task, true);
		kernel = task->flags & PF_KTHREAD;
	} else {
		struct task_struct *task = (struct task_struct *)bpf_get_current_task();

		read_task(t, task, false);
		kernel = BPF_CORE_READ(task, flags) & PF_KTHREAD;
	}
	t->source = kernel ? KT_OWNER_KERNEL : source;
}

/* Whether a copy that is kept with the socket still tells the running task: another task, or the same one under another
 * name (exec), makes a new one. Its rights are as of when it was made. One question without branches: the verifier
 * follows each way to set_owner, and there each pointer that is read from a typed task costs it 1.8 ms (Linux 6.18,
 * which looks through all its types by name). So whoever asks does so early, before there are many ways. */
static __always_inline bool is_fresh(const struct kt_task *t)
{
	const __u64 others = 1 << KT_OWNER_NONE | 1 << KT_OWNER_INHERITED | 1 << KT_OWNER_KERNEL;
	__u64 id = bpf_get_current_pid_tgid(), differs;
	__u64 comm[2] = {};

	bpf_get_current_comm(comm, sizeof(comm));
	differs = others >> (t->source & 63) & 1;
	differs |= t->pid ^ id >> 32;
	differs |= t->tid ^ (__u32)id;
	differs |= *(__u64 *)t->thread ^ comm[0];
	differs |= *(__u64 *)&t->thread[8] ^ comm[1];
	return !differs;
}

/* Whether it is the running process, under its name of now. For programs of kernels that have
 * bpf_get_current_task_btf. Byte by byte: the verifier loads nothing longer from a name, and a probe read costs 0.1 us. */
static __always_inline bool is_current(const struct kt_task *t)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_struct *leader = task->group_leader;
	__u32 i;

	if (t->pid != (__u32)task->tgid)
		return false;
	for (i = 0; i < sizeof(t->comm); i++) {
		char c = leader->comm[i];

		if (c != t->comm[i])
			return false;
		if (!c)
			return true;
	}
	return true;
}

static __always_inline bool current_is_kernel(void)
{
	if (kt_config.task_btf)
		return bpf_get_current_task_btf()->flags & PF_KTHREAD;
	return BPF_CORE_READ((struct task_struct *)bpf_get_current_task(), flags) & PF_KTHREAD;
}
