// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * tcp_retransmit: which connections send segments again, in which state, and whose are they?
 *
 * Context: softirq (timers, ACK processing) in most cases; `current` is never used. Cost: 0.3 us a retransmit.
 * Where a program can be preempted (Linux 7) there are three, see ktrace.bpf.h: the socket's own count tells each of
 * them whether an earlier one has dealt with this segment. SYN-ACKs have one.
 */
#include "ktrace.bpf.h"
#include "audit.bpf.h"

#define ICSK_TIME_LOSS_PROBE 5
#define TCP_CA_RECOVERY 3

static __always_inline void emit(struct kt_flow *flow, struct kt_sock *s, struct kt_tcp_retransmit *fill)
{
	struct kt_counters *c = counters_of(KT_TCP_RETRANSMIT);
	struct kt_task *owner = s ? &s->owner : NULL;
	struct kt_tcp_retransmit *e;

	if (!c || !admit(c, flow, owner, s))
		return;
	e = take_place(&rare_ring, sizeof(*e), c, false);
	if (!e) {
		struct kt_amount n = { .events = 1 };

		n.retrans[fill->kind & (KT_RETRANS_MAX - 1)] = 1;
		count_refused(c, flow, owner, &n);
		return;
	}
	fill_header(&e->hdr, KT_TCP_RETRANSMIT, bpf_ktime_get_boot_ns(), flow, owner);
	e->retrans = fill->retrans;
	e->tx_segs = fill->tx_segs;
	e->srtt_us = fill->srtt_us;
	e->kind = fill->kind;
	e->state = fill->state;
	e->reserved[0] = e->reserved[1] = 0;
	submit(&rare_ring, e, sizeof(*e), c);
}

/* The kernel counts segments, and it counts them also where sending them then fails: total_retrans has grown by as
 * many. Where that cannot be compared, a failed one is left to `TCPRetransFail` to explain. */
static __always_inline void audit_segments(struct sock *sk, struct tcp_sock *tp, struct kt_sock *s, struct sk_buff *skb,
					   int err, const bool direct)
{
	__u32 total = KT_FIELD(direct, tp, total_retrans);
	struct tcp_skb_cb *cb = (void *)skb + bpf_core_field_offset(struct sk_buff, cb);
	bool counted = s && s->retrans ? total != s->retrans : !err;

	if (s)
		s->retrans = total;
	if (counted)
		audit_add(audited_net(sk, direct), KT_AUDIT_RETRANS_SEGS, BPF_CORE_READ(cb, tcp_gso_segs), direct);
}

/* Whether an earlier program has dealt with this one: with each, the kernel's count of the socket grows. Only
 * typed programs have further parts, so it is read directly. */
static __always_inline bool taken(struct tcp_sock *tp, struct kt_sock *s, const enum part part)
{
	if (is_first(part))
		return false;
	if (!s || tp->total_retrans == s->retrans)
		return true;
	KT_BUMP(kt_state.rescued[KT_CHAIN_RETRANSMIT]);
	return false;
}

static __always_inline int on_retransmit(struct sock *sk, struct sk_buff *skb, int err, const bool direct,
					 const enum part part)
{
	struct kt_tcp_retransmit fill = {};
	struct kt_flow flow = {};
	struct tcp_sock *tp;
	struct kt_sock *s;

	if (!kt_state.gate)
		return 0;
	tp = direct ? bpf_skc_to_tcp_sock(sk) : (struct tcp_sock *)sk;
	if (!tp)
		return 0;
	s = sock_of(sk, false, direct);
	if (taken(tp, s, part))
		return 0;
	audit_segments(sk, tp, s, skb, err, direct);
	if (err)
		return 0;
	read_flow(&flow, sk, s, direct);
	if (s)
		settle_child(s, flow.cookie);
	fill.state = KT_FIELD(direct, sk, __sk_common.skc_state);
	fill.retrans = KT_FIELD(direct, tp, total_retrans);
	fill.tx_segs = KT_FIELD(direct, tp, segs_out);
	fill.srtt_us = KT_FIELD(direct, tp, srtt_us) >> 3;
	if (fill.state == TCP_SYN_SENT)
		fill.kind = KT_RETRANS_SYN;
	else if (KT_FIELD(direct, tp, inet_conn.icsk_pending) == ICSK_TIME_LOSS_PROBE &&
		 BPF_CORE_READ_BITFIELD_PROBED(&tp->inet_conn, icsk_ca_state) < TCP_CA_RECOVERY)
		fill.kind = KT_RETRANS_PROBE; /* in recovery the timer is only still set */
	emit(&flow, s, &fill);
	return 0;
}

/* The listener's socket speaks for a child that does not exist yet; the ends come from the request. */
static __always_inline int on_synack(struct sock *sk, struct request_sock *req, const bool direct)
{
	struct kt_tcp_retransmit fill = { .kind = KT_RETRANS_SYNACK, .state = TCP_SYN_RECV };
	struct kt_flow flow = {};
	struct kt_sock *s;

	if (!kt_state.gate)
		return 0;
	audit_add(audited_net(sk, direct), KT_AUDIT_RETRANS_SEGS, 1, direct);
	s = sock_of(sk, false, direct);
	read_flow(&flow, sk, s, direct);
	flow.cookie = BPF_CORE_READ(req, __req_common.skc_cookie.counter);
	flow.role = KT_ROLE_SERVER;
	flow.family = BPF_CORE_READ(req, __req_common.skc_family);
	flow.rport = bpf_ntohs(BPF_CORE_READ(req, __req_common.skc_dport));
	flow.lport = BPF_CORE_READ(req, __req_common.skc_num);
	if (flow.family == AF_INET) {
		__builtin_memset(flow.laddr, 0, 16);
		__builtin_memset(flow.raddr, 0, 16);
		*(__be32 *)flow.laddr = BPF_CORE_READ(req, __req_common.skc_rcv_saddr);
		*(__be32 *)flow.raddr = BPF_CORE_READ(req, __req_common.skc_daddr);
	} else {
		BPF_CORE_READ_INTO(&flow.laddr, req, __req_common.skc_v6_rcv_saddr.in6_u.u6_addr8);
		BPF_CORE_READ_INTO(&flow.raddr, req, __req_common.skc_v6_daddr.in6_u.u6_addr8);
	}
	fill.retrans = BPF_CORE_READ(req, num_retrans) + 1;
	emit(&flow, s, &fill);
	return 0;
}

/* by 6.18 the tracepoint has an error argument and fires for segments that could not be sent, too */
SEC("?tp_btf/tcp_retransmit_skb")
int BPF_PROG(tcp_retransmit__tp_btf_err, struct sock *sk, struct sk_buff *skb, int err)
{
	return on_retransmit(sk, skb, err, true, FIRST_OF_MORE);
}

/* What the one before was skipped for, where programs can be preempted. */
#define MORE(n) \
	SEC("?tp_btf/tcp_retransmit_skb") \
	int BPF_PROG(tcp_retransmit__tp_btf_err_more##n, struct sock *sk, struct sk_buff *skb, int err) \
	{ \
		return on_retransmit(sk, skb, err, true, BETWEEN); \
	}
MORE(1)
MORE(2)

SEC("?tp_btf/tcp_retransmit_skb")
int BPF_PROG(tcp_retransmit__tp_btf, struct sock *sk, struct sk_buff *skb)
{
	return on_retransmit(sk, skb, 0, true, ALONE);
}

SEC("?tracepoint/tcp/tcp_retransmit_skb")
int tcp_retransmit__tracepoint(void *ctx)
{
	return on_retransmit(compat_retransmit_sk(ctx), compat_retransmit_skb(ctx), compat_retransmit_err(ctx), false,
			     ALONE);
}

SEC("?tp_btf/tcp_retransmit_synack")
int BPF_PROG(tcp_retransmit__synack_tp_btf, struct sock *sk, struct request_sock *req)
{
	return on_synack(sk, req, true);
}

SEC("?tracepoint/tcp/tcp_retransmit_synack")
int tcp_retransmit__synack_tracepoint(struct trace_event_raw_tcp_retransmit_synack *ctx)
{
	return on_synack((struct sock *)ctx->skaddr, (struct request_sock *)ctx->req, false);
}
