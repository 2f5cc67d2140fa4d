// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * tcp_reset: who resets which connections, in which state, and why?
 *
 * Context: softirq where a segment is answered, process context where a socket is aborted; `current` is never used. A reset
 * that answers a segment for a closed port has no socket: its ends come from that segment. Cost: see src/hooks/cost.rs.
 */
#include "ktrace.bpf.h"
#include "packet.bpf.h"

static __always_inline void emit(struct kt_flow *flow, struct kt_sock *s, __u8 state, __u32 reason, __u8 dir)
{
	struct kt_counters *c = counters_of(KT_TCP_RESET);
	struct kt_task *owner = s ? &s->owner : NULL;
	struct kt_tcp_reset *e;

	if (!c || !admit(c, flow, owner, s))
		return;
	e = take_place(&rare_ring, sizeof(*e), c, false);
	if (!e) {
		struct kt_amount n = { .events = 1 };

		count_refused(c, flow, owner, &n);
		return;
	}
	fill_header(&e->hdr, KT_TCP_RESET, bpf_ktime_get_boot_ns(), flow, owner);
	e->reason = reason;
	e->state = state;
	e->dir = dir;
	e->reserved[0] = e->reserved[1] = 0;
	submit(&rare_ring, e, sizeof(*e), c);
}

/* A connection that is being opened, or has gone, is a smaller kind of socket: it has the common part only. */
static __always_inline bool is_small(__u8 state)
{
	return state == TCP_TIME_WAIT || state == TCP_NEW_SYN_RECV;
}

static __always_inline int on_socket(struct sock *sk, __u32 reason, __u8 dir, const bool direct)
{
	__u8 state = KT_FIELD(direct, sk, __sk_common.skc_state);
	struct kt_sock *s = is_small(state) ? NULL : sock_of(sk, false, direct);
	struct kt_flow flow = {};

	read_ends(&flow, sk, s, direct);
	/* one that is small gets no cookie: it would not be the connection's */
	flow.cookie = is_small(state) ? KT_FIELD(direct, sk, __sk_common.skc_cookie.counter) : cookie_of(sk, s, direct);
	flow.proto = IPPROTO_TCP;
	if (!flow.lport && !is_small(state))
		flow.lport = bpf_ntohs(BPF_CORE_READ((struct inet_sock *)sk, inet_sport));
	if (s)
		settle_child(s, flow.cookie);
	emit(&flow, s, state, reason, dir);
	return 0;
}

/* `sk` or `skb` may be NULL, which not every kernel tells the verifier: what is read of NULL is 0. */
static __always_inline int on_sent(struct sock *sk, struct sk_buff *skb, __u32 reason, const bool direct)
{
	__u16 family = sk ? KT_FIELD(direct, sk, __sk_common.skc_family) : 0;
	struct kt_flow flow = {};
	struct dst_entry *dst;

	if (!kt_state.gate)
		return 0;
	if (family == AF_INET || family == AF_INET6)
		return on_socket(sk, reason, KT_DIR_SENT, direct);
	if (!skb || !read_packet(&flow, skb, direct))
		return 0;
	dst = dst_of(skb, direct);
	turn_round(&flow); /* it is the segment that is answered */
	flow.netns = netns_of_device(device_of(skb, dst, direct));
	emit(&flow, NULL, 0, reason, KT_DIR_SENT);
	return 0;
}

static __always_inline int on_received(struct sock *sk, const bool direct)
{
	return kt_state.gate ? on_socket(sk, 0, KT_DIR_RECEIVED, direct) : 0;
}

SEC("?tp_btf/tcp_send_reset")
int BPF_PROG(tcp_reset__sent_tp_btf_reason, struct sock *sk, struct sk_buff *skb, int reason)
{
	return on_sent(sk, skb, reason, true);
}

SEC("?tp_btf/tcp_send_reset")
int BPF_PROG(tcp_reset__sent_tp_btf, struct sock *sk, struct sk_buff *skb)
{
	return on_sent(sk, skb, 0, true);
}

SEC("?tracepoint/tcp/tcp_send_reset")
int tcp_reset__sent_tracepoint(void *ctx)
{
	return on_sent(compat_reset_sk(ctx), compat_reset_skb(ctx), compat_reset_reason(ctx), false);
}

SEC("?tp_btf/tcp_receive_reset")
int BPF_PROG(tcp_reset__received_tp_btf, struct sock *sk)
{
	return on_received(sk, true);
}

SEC("?tracepoint/tcp/tcp_receive_reset")
int tcp_reset__received_tracepoint(struct trace_event_raw_tcp_event_sk *ctx)
{
	return on_received((struct sock *)BPF_CORE_READ(ctx, skaddr), false);
}
