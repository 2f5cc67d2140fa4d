/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Differences between kernels, here and nowhere else. Each entry names the first kernel of the new shape and
 * the commit that made it. Callers see one name for one meaning. Included by base.bpf.h.
 */
#pragma once

/* 6.3 "capability: just use a 'u64' instead of a 'u32[2]' array" (f122a08b197d) */
struct kernel_cap_struct___before_6_3 {
	__u32 cap[2];
} __attribute__((preserve_access_index));
struct cred___before_6_3 {
	struct kernel_cap_struct___before_6_3 cap_effective;
} __attribute__((preserve_access_index));

static __always_inline __u64 compat_caps_eff(const struct cred *cred, const bool direct)
{
	const struct cred___before_6_3 *old = (const void *)cred;

	if (bpf_core_field_exists(old->cap_effective.cap)) {
		__u32 low = KT_FIELD(direct, old, cap_effective.cap[0]);
		__u32 high = KT_FIELD(direct, old, cap_effective.cap[1]);

		return (__u64)high << 32 | low;
	}
	return KT_FIELD(direct, cred, cap_effective.val);
}

/* 5.12 "net: initialize net->net_cookie at netns setup" (3d368ab87cf6): a number that no other namespace will ever
 * have. Before, the inode number, which a later namespace may get again. */
static __always_inline __u64 compat_netns_id(const struct net *net, const bool direct)
{
	if (bpf_core_field_exists(net->net_cookie))
		return KT_FIELD(direct, net, net_cookie);
	return KT_FIELD(direct, net, ns.inum);
}

/* __cgroup_bpf_run_filter_sock_addr says which programs it runs by its third argument, from 6.7 on by its fourth: "bpf:
 * Propagate modified uaddrlen from cgroup sockaddr programs" (fefba7d1ae19), in a series with "bpf: Implement cgroup
 * sockaddr hooks for unix sockets" (859051dd165e). From 5.15 on by a number of the kernel's own, before by that of the
 * user ABI: "bpf: Migrate cgroup_bpf to internal cgroup_bpf_attach_type enum" (6fc88c354f3a). */
enum cgroup_bpf_attach_type___own {
	CGROUP_UDP4_SENDMSG___own,
	CGROUP_UDP6_SENDMSG___own,
	CGROUP_UNIX_CONNECT___own,
};
#define BPF_CGROUP_UDP4_SENDMSG 14
#define BPF_CGROUP_UDP6_SENDMSG 15

static __always_inline bool compat_is_sendmsg(const unsigned long long *ctx)
{
	__u64 third = ctx[2], fourth = ctx[3];
	__u32 type;

	/* or clang chooses between their places first: the verifier takes no arithmetic on the context */
	barrier_var(third);
	barrier_var(fourth);
	type = bpf_core_enum_value_exists(enum cgroup_bpf_attach_type___own, CGROUP_UNIX_CONNECT___own) ? fourth : third;
	if (!bpf_core_enum_value_exists(enum cgroup_bpf_attach_type___own, CGROUP_UDP4_SENDMSG___own))
		return type == BPF_CGROUP_UDP4_SENDMSG || type == BPF_CGROUP_UDP6_SENDMSG;
	return type == bpf_core_enum_value(enum cgroup_bpf_attach_type___own, CGROUP_UDP4_SENDMSG___own) ||
	       type == bpf_core_enum_value(enum cgroup_bpf_attach_type___own, CGROUP_UDP6_SENDMSG___own);
}

/* By 6.18 (6.12 does not) tcp_retransmit_skb has a record of its own, with the error of a segment that could not be
 * sent: "tcp: trace retransmit failures in tcp_retransmit_skb". Before, it shared tcp_event_sk_skb. */
struct trace_event_raw_tcp_event_sk_skb___shared {
	const void *skbaddr;
	const void *skaddr;
} __attribute__((preserve_access_index));
struct trace_event_raw_tcp_retransmit_skb___own {
	const void *skbaddr;
	const void *skaddr;
	int err;
} __attribute__((preserve_access_index));

static __always_inline struct sock *compat_retransmit_sk(void *ctx)
{
	struct trace_event_raw_tcp_retransmit_skb___own *own = ctx;
	struct trace_event_raw_tcp_event_sk_skb___shared *shared = ctx;

	if (bpf_core_type_exists(struct trace_event_raw_tcp_retransmit_skb___own))
		return (struct sock *)BPF_CORE_READ(own, skaddr);
	return (struct sock *)BPF_CORE_READ(shared, skaddr);
}

static __always_inline struct sk_buff *compat_retransmit_skb(void *ctx)
{
	struct trace_event_raw_tcp_retransmit_skb___own *own = ctx;
	struct trace_event_raw_tcp_event_sk_skb___shared *shared = ctx;

	if (bpf_core_type_exists(struct trace_event_raw_tcp_retransmit_skb___own))
		return (struct sk_buff *)BPF_CORE_READ(own, skbaddr);
	return (struct sk_buff *)BPF_CORE_READ(shared, skbaddr);
}

/* Only the record of its own tells that the segment could not be sent. */
static __always_inline int compat_retransmit_err(void *ctx)
{
	struct trace_event_raw_tcp_retransmit_skb___own *own = ctx;

	if (bpf_core_field_exists(own->err))
		return BPF_CORE_READ(own, err);
	return 0;
}

/* 6.10 "trace: tcp: fully support trace_tcp_send_reset" (19822a980e19) and "rstreason: make it work in trace world"
 * (b533fb9cf4f7): a record of its own, with the reason, and for resets without a socket, too. Before, it shared
 * tcp_event_sk_skb. */
struct trace_event_raw_tcp_send_reset___own {
	const void *skbaddr;
	const void *skaddr;
	enum sk_rst_reason reason;
} __attribute__((preserve_access_index));

static __always_inline struct sock *compat_reset_sk(void *ctx)
{
	struct trace_event_raw_tcp_send_reset___own *own = ctx;
	struct trace_event_raw_tcp_event_sk_skb___shared *shared = ctx;

	if (bpf_core_type_exists(struct trace_event_raw_tcp_send_reset___own))
		return (struct sock *)BPF_CORE_READ(own, skaddr);
	return (struct sock *)BPF_CORE_READ(shared, skaddr);
}

static __always_inline struct sk_buff *compat_reset_skb(void *ctx)
{
	struct trace_event_raw_tcp_send_reset___own *own = ctx;
	struct trace_event_raw_tcp_event_sk_skb___shared *shared = ctx;

	if (bpf_core_type_exists(struct trace_event_raw_tcp_send_reset___own))
		return (struct sk_buff *)BPF_CORE_READ(own, skbaddr);
	return (struct sk_buff *)BPF_CORE_READ(shared, skbaddr);
}

static __always_inline __u32 compat_reset_reason(void *ctx)
{
	struct trace_event_raw_tcp_send_reset___own *own = ctx;

	if (bpf_core_field_exists(own->reason))
		return BPF_CORE_READ(own, reason);
	return 0;
}

/* 5.17 "net: skb: introduce kfree_skb_reason()" (c504e5c2f964) */
struct trace_event_raw_kfree_skb___reason {
	enum skb_drop_reason reason;
} __attribute__((preserve_access_index));

/* 6.11 "net: add rx_sk to trace_kfree_skb" (c53795d48ee8) */
struct trace_event_raw_kfree_skb___socket {
	void *rx_sk;
} __attribute__((preserve_access_index));

static __always_inline struct sock *compat_drop_rx_sk(void *ctx)
{
	struct trace_event_raw_kfree_skb___socket *record = ctx;

	if (bpf_core_field_exists(record->rx_sk))
		return BPF_CORE_READ(record, rx_sk);
	return NULL;
}

static __always_inline __u32 compat_drop_reason(void *ctx)
{
	struct trace_event_raw_kfree_skb___reason *record = ctx;

	if (bpf_core_field_exists(record->reason))
		return BPF_CORE_READ(record, reason);
	return 0;
}

/* Kernels with many subsystems of reasons have one for what is no drop at all, next to SKB_NOT_DROPPED_YET. */
static __always_inline bool compat_is_consumed(__u32 reason)
{
	return bpf_core_enum_value_exists(enum skb_drop_reason, SKB_CONSUMED) &&
	       reason == bpf_core_enum_value(enum skb_drop_reason, SKB_CONSUMED);
}

/* What has no reason of its own has this one where the kernel has reasons at all; its number was 0 at first. */
static __always_inline bool compat_is_unspecified(__u32 reason)
{
	return bpf_core_enum_value_exists(enum skb_drop_reason, SKB_DROP_REASON_NOT_SPECIFIED) &&
	       reason == bpf_core_enum_value(enum skb_drop_reason, SKB_DROP_REASON_NOT_SPECIFIED);
}

/* 5.13 "bpf: Add a bpf_snprintf helper" (7b15523a989b): the name of a function of the kernel, and of its module. */
enum bpf_func_id___snprintf {
	BPF_FUNC_snprintf___snprintf = 165,
};

static __always_inline void compat_symbol(char *name, __u32 size, __u64 address)
{
	if (bpf_core_enum_value_exists(enum bpf_func_id___snprintf, BPF_FUNC_snprintf___snprintf))
		BPF_SNPRINTF(name, size, "%ps", (void *)address);
}
