/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What every hook stands on: types, helpers, the numbers of the user ABI, settings, and the two flavours of every
 * body, chosen at compile time by `direct`:
 *   direct  tp_btf, fentry, fexit, iter: typed pointers, plain loads, socket storage and cookies
 *   probed  kprobe, classic tracepoint: raw pointers, bpf_probe_read_kernel, the hash of sockets
 */
#pragma once
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>
#include "wire.h"

#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define SOCK_DGRAM 2
#define EAGAIN 11
#define PF_KTHREAD 0x00200000
#define S_IFMT 00170000
#define S_IFSOCK 0140000

extern const volatile struct kt_config kt_config;
extern const volatile __u64 kt_ports[1024]; /* bit n: port n is wanted */
extern const volatile __u64 kt_unwanted_ports[1024];
extern struct kt_state kt_state;

/* A function of its own in every object that calls it, instead of a copy in every program. */
#define KT_FUNC static __noinline __attribute__((unused))

/* ptr->member by a plain load or by a probe read */
#define KT_FIELD(direct, ptr, member) ((direct) ? (ptr)->member : BPF_CORE_READ(ptr, member))
/* the same through one or two more pointers; a NULL on the way reads as 0 */
#define KT_FIELD2(direct, ptr, a, b) ((direct) ? (ptr)->a->b : BPF_CORE_READ(ptr, a, b))
#define KT_FIELD3(direct, ptr, a, b, c) ((direct) ? (ptr)->a->b->c : BPF_CORE_READ(ptr, a, b, c))

/* Whether enum kt_filter n has values. What only runs when it has costs nothing else: it is pruned at load. */
static __always_inline bool filter_is_on(__u32 filter)
{
	return (kt_config.wants | kt_config.refuses) >> filter & 1;
}

static __always_inline bool filters_homes(void)
{
	return filter_is_on(KT_FILTER_NAMESPACE) || filter_is_on(KT_FILTER_POD) || filter_is_on(KT_FILTER_CONTAINER);
}

static __always_inline bool filters_owners(void)
{
	return filter_is_on(KT_FILTER_PID) || filter_is_on(KT_FILTER_COMM) || filter_is_on(KT_FILTER_CGROUP) ||
	       filters_homes();
}

#include "compat.bpf.h"
