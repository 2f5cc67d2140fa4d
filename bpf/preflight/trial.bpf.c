// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Programs that do nothing, in an object of their own: whether this kernel lets us load and attach fentry
 * and kprobes cannot be read anywhere, only tried. A failed load here takes nothing else down.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

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
