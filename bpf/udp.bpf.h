/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * A datagram's path from the program that saw it to its record, whichever program that was: its socket's owner, the
 * protocol that carried it, what the kernel counts about it, the record or its refusal.
 */
#pragma once
#include "ktrace.bpf.h"
#include "audit.bpf.h"

static __always_inline void note_first(struct kt_sock *s, __u32 kind)
{
	if (s->known)
		return;
	s->known = 1;
	s->born_ns = bpf_ktime_get_boot_ns();
	s->role = kind == KT_UDP_SEND ? KT_ROLE_CLIENT : KT_ROLE_SERVER;
}

/* A datagram's socket, and who used it. */
struct kt_use {
	struct kt_sock *s; /* NULL: no memory */
	struct net *net;
	struct kt_task owner;
};

/* The owner is made in a copy: another process may be using the same socket on another CPU. */
static __always_inline void note_use(struct kt_use *use, __u32 kind)
{
	struct kt_sock *s = use->s;
	bool fresh = false;

	if (s) {
		use->owner = s->owner;
		fresh = is_fresh(&use->owner);
	}
	if (fresh)
		use->owner.source = KT_OWNER_CURRENT;
	else
		set_owner(&use->owner, KT_OWNER_CURRENT);
	if (!s)
		return;
	note_first(s, kind);
	if (!fresh || s->owner.source != KT_OWNER_CURRENT)
		s->owner = use->owner;
}

/* To be asked first of all, see is_fresh. False: no datagram was moved, or not within the window. */
static __always_inline bool begin_use(struct kt_use *use, struct sock *sk, __u32 kind, int ret, const bool direct)
{
	if (!kt_state.gate || ret == -EAGAIN || ret <= -512) /* -ERESTART*: the call will be made again */
		return false;
	use->net = audited_net(sk, direct);
	use->s = sock_of(sk, true, direct);
	if (use->s && direct && kt_config.hash_store)
		sock_keep_to(use->s, bpf_get_socket_cookie(sk));
	note_use(use, kind);
	return true;
}

static __always_inline bool is_mapped(const void *addr)
{
	const __be32 *words = addr;

	return !words[0] && !words[1] && words[2] == bpf_htonl(0xffff);
}

static __always_inline bool is_unspecified(const void *addr)
{
	const __be32 *words = addr;

	return !(words[0] | words[1] | words[2] | words[3]);
}

/* Which protocol carries a datagram. */
enum kt_stack { STACK_ANY, STACK_V4, STACK_V6 };

/* A v6 socket does both; its remote end tells, or else its local one. */
static __always_inline enum kt_stack stack_of(const struct kt_flow *f)
{
	const void *addr = is_unspecified(f->raddr) ? f->laddr : f->raddr;

	if (f->family == AF_INET)
		return STACK_V4;
	if (is_unspecified(addr))
		return STACK_ANY;
	return is_mapped(addr) ? STACK_V4 : STACK_V6;
}

/* The kernel counts what it sent or handed over, by the protocol that carried it. Not here: what is still corked, and
 * a send that the queue below dropped silently (`SndbufErrors`). */
static __always_inline __u32 counter_of(struct sock *sk, __u32 kind, const struct kt_flow *f, enum kt_stack stack)
{
	bool in = kind == KT_UDP_RECV;

	if (!in && BPF_CORE_READ((struct udp_sock *)sk, pending))
		return KT_AUDIT_CORKED;
	if (stack == STACK_ANY)
		stack = stack_of(f);
	if (stack == STACK_V4)
		return in ? KT_AUDIT_UDP_IN : KT_AUDIT_UDP_OUT;
	if (stack == STACK_V6)
		return in ? KT_AUDIT_UDP6_IN : KT_AUDIT_UDP6_OUT;
	return in ? KT_AUDIT_ANY_IN : KT_AUDIT_ANY_OUT;
}

/* A send of a v6 socket that is connected over IPv4 names no end, and yet the kernel names it to its IPv4 side. */
static __always_inline bool names_own_end(struct sock *sk, const struct kt_end *peer, const bool direct)
{
	__be32 own[4];

	if (peer->family != AF_INET || KT_FIELD(direct, sk, __sk_common.skc_family) != AF_INET6 ||
	    bpf_ntohs(KT_FIELD(direct, sk, __sk_common.skc_dport)) != peer->port)
		return false;
	if (direct)
		__builtin_memcpy(own, &sk->__sk_common.skc_v6_daddr, 16);
	else
		BPF_CORE_READ_INTO(&own, sk, __sk_common.skc_v6_daddr.in6_u.u6_addr8);
	return is_mapped(own) && own[3] == *(const __be32 *)peer->addr;
}

static __always_inline void take_asked(struct kt_end *asked, struct sock *sk);

/* What a program asked for, by this call, or by connect(2) if this call names no end. Where it went is the flow's. */
static __always_inline void fill_asked(struct kt_udp *e, struct sock *sk, const struct kt_sock *s, __u32 kind,
				       const struct kt_end *peer, const struct kt_end *asked, const bool direct)
{
	struct kt_end end = {};
	bool named = peer->family && !names_own_end(sk, peer, direct);

	if (named && asked)
		end = *asked;
	else if (named)
		take_asked(&end, sk);
	else if (kind == KT_UDP_SEND && s)
		end = s->asked;
	__builtin_memcpy(e->asked_addr, end.addr, 16);
	e->asked_port = end.port;
	e->asked_family = end.family;
}

/* `peer`: the other end, where the call or its datagram tells. `asked`: what this call named, if it is known; NULL:
 * take_asked knows, and is asked last, as each question makes the way longer for the verifier. */
static __always_inline int on_datagram(struct sock *sk, const struct kt_use *use, __u32 kind, int ret,
				       const struct kt_end *peer, const struct kt_end *asked, enum kt_stack stack,
				       const bool direct)
{
	const struct kt_task *owner = &use->owner;
	struct kt_counters *c = counters_of(kind);
	struct kt_sock *s = use->s;
	struct kt_flow flow = {};
	struct kt_udp *e;
	bool first;

	if (!c)
		return 0;
	read_flow(&flow, sk, s, direct);
	if (peer->family)
		set_remote(&flow, peer);
	else if (!flow.rport)
		flow.flags |= KT_FLOW_RADDR_UNKNOWN;
	if (ret >= 0)
		audit_add(use->net, counter_of(sk, kind, &flow, stack), 1, direct);
	if (!admit(c, &flow, owner, s))
		return 0;
	first = first_event(s);
	if (sampled_out(&flow)) {
		KT_BUMP(c->dropped[KT_DROP_SAMPLED]);
		e = NULL;
	} else {
		e = take_place(&bulk_ring, sizeof(*e), c, true);
	}
	if (!e) {
		struct kt_amount n = { .events = 1, .connections = first };

		*(kind == KT_UDP_SEND ? &n.tx_bytes : &n.rx_bytes) = ret < 0 ? 0 : ret;
		count_refused(c, &flow, owner, &n);
		return 0;
	}
	fill_header(&e->hdr, kind, bpf_ktime_get_boot_ns(), &flow, owner);
	fill_asked(e, sk, s, kind, peer, asked, direct);
	e->bytes = ret < 0 ? 0 : ret;
	e->err = ret < 0 ? -ret : 0;
	__builtin_memset(e->reserved, 0, sizeof(e->reserved));
	submit(&bulk_ring, e, sizeof(*e), c);
	return 0;
}
