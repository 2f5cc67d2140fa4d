// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Programs that record nothing, in an object of their own: whether this kernel lets us load fentry, attach a
 * kprobe, be the first at a cgroup and read its memory, and whether a BTF is that of this kernel, cannot be read anywhere, only tried.
 * A failed load here takes nothing else down.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Made only to be written to from user space. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, __u64[32]); /* about as much as is kept of a socket */
} trial_storage SEC(".maps");

SEC("?fentry/tcp_set_state")
int BPF_PROG(trial_fentry)
{
	return 0;
}

SEC("?kprobe/tcp_set_state")
int BPF_KPROBE(trial_kprobe)
{
	return 0;
}

SEC("?cgroup/sendmsg4")
int trial_cgroup(void *ctx)
{
	return 1;
}

/* What the collector knows of its own listening TCP socket. */
const volatile __u32 trial_fd = 0;
const volatile __u32 trial_netns = 0;
const volatile __u16 trial_port = 0;

/* Which of the answers is wrong, if one is; ends up in the return value. */
enum trial_types_result {
	TRIAL_TYPES_RIGHT,
	TRIAL_TYPES_TASK,
	TRIAL_TYPES_FILE,
	TRIAL_TYPES_SOCKET,
	TRIAL_TYPES_TCP,
};

/* Runs once, in the collector, by BPF_PROG_TEST_RUN: reads through the types in use what is known without them. */
SEC("?raw_tp/sys_enter")
int trial_types(void *ctx)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	__u64 id = bpf_get_current_pid_tgid();
	char known[16] = {}, comm[16] = {};
	struct file *file = NULL, **files;
	struct socket *socket;
	struct sock *sk;

	bpf_get_current_comm(&known, sizeof(known));
	BPF_CORE_READ_STR_INTO(&comm, task, comm);
	if (BPF_CORE_READ(task, tgid) != (int)(id >> 32) || BPF_CORE_READ(task, pid) != (int)id)
		return TRIAL_TYPES_TASK;
	for (int i = 0; i < 16; i++) {
		if (comm[i] != known[i])
			return TRIAL_TYPES_TASK;
		if (!comm[i])
			break;
	}

	if (BPF_CORE_READ(task, files, fdt, max_fds) <= trial_fd)
		return TRIAL_TYPES_FILE;
	files = BPF_CORE_READ(task, files, fdt, fd);
	bpf_probe_read_kernel(&file, sizeof(file), files + trial_fd);
	socket = BPF_CORE_READ(file, private_data);
	if (BPF_CORE_READ(socket, file) != file)
		return TRIAL_TYPES_FILE;

	sk = BPF_CORE_READ(socket, sk);
	if (BPF_CORE_READ(sk, __sk_common.skc_num) != trial_port ||
	    BPF_CORE_READ(sk, __sk_common.skc_state) != TCP_LISTEN ||
	    BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum) != trial_netns)
		return TRIAL_TYPES_SOCKET;

	/* tcp_init_sock(): no round trip measured yet */
	if (BPF_CORE_READ((struct tcp_sock *)sk, rtt_min.s[0].v) != ~0U)
		return TRIAL_TYPES_TCP;
	return TRIAL_TYPES_RIGHT;
}
