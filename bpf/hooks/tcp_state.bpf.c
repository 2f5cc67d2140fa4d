// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * tcp_state: how did each TCP connection live and die, and whose was it?
 *
 * Context: process or softirq, whichever changed the state; `current` is used only for transitions that a
 * task makes itself (connect, listen, close). Cost: about 0.25 us per state change.
 * A child's entry into SYN_RECV happens before its addresses and cookie are set, so it is told, with its own
 * time, together with the child's next state change, some microseconds later. A client's entry into SYN_SENT
 * happens before it has a local port; where a port filter cannot decide without, that is told later, too.
 *
 * The kernel skips a program that is already running on its CPU: a task changes a state, and on top of it a softirq
 * changes another. So there are two typed programs: one of them always runs, and the socket remembers what was taken.
 * Without the second, 300 to 1,700 of 110,000 changes were missed under load. Where a program can be preempted, there
 * are four, see ktrace.bpf.h.
 */
#include "ktrace.bpf.h"
#include "audit.bpf.h"

/* The storage is a copy of the listener's. The hash has no such copy: what it holds at the birth is left of another socket;
 * later it can be of the child, which may be accepted before it leaves SYN_RECV. */
static __always_inline void child_born(struct kt_sock *s, int old, __u64 now)
{
	bool accepted = s->owner.source == KT_OWNER_ACCEPT || s->owner.source == KT_OWNER_FIRST_IO;

	s->role = KT_ROLE_SERVER;
	s->born_ns = now;
	s->syn_ns = 0;
	s->untold = 0;
	s->retrans = 0;
	forget_answers(s);
	if (kt_config.hash_store) {
		if (old == TCP_LISTEN)
			s->id = 0;
		if (old == TCP_LISTEN || !accepted)
			s->owner.source = KT_OWNER_NONE;
	} else if (s->owner.source != KT_OWNER_NONE && s->owner.source != KT_OWNER_KERNEL) {
		s->owner.source = KT_OWNER_INHERITED;
	}
}

/* Whose doing a change is, if it is that of the running task; else KT_OWNER_NONE. */
static __always_inline __u8 doing_of(int old, int new)
{
	switch (new) {
	case TCP_SYN_SENT:
		return KT_OWNER_CONNECT;
	case TCP_LISTEN:
		return KT_OWNER_LISTEN;
	case TCP_FIN_WAIT1:
	case TCP_LAST_ACK:
		/* close(2), shutdown(2) or exit: the task's own doing, unless a worker of the kernel does it */
		return current_is_kernel() ? KT_OWNER_NONE : KT_OWNER_CLOSE;
	case TCP_CLOSE:
		return old != TCP_LISTEN || current_is_kernel() ? KT_OWNER_NONE : KT_OWNER_CLOSE;
	}
	return KT_OWNER_NONE;
}

static __always_inline void note_doing(struct kt_sock *s, int old, int new)
{
	__u8 doing = doing_of(old, new);

	if (doing == KT_OWNER_NONE)
		return;
	if (doing == KT_OWNER_CLOSE && is_fresh(&s->owner))
		s->owner.source = doing;
	else
		set_owner(&s->owner, doing);
}

static __always_inline void track(struct kt_sock *s, int old, int new, __u64 now)
{
	/* a variant that does not see children enter SYN_RECV sees them leave it */
	if (old == TCP_SYN_RECV && s->role != KT_ROLE_CLIENT && s->role != KT_ROLE_SERVER)
		child_born(s, old, now);
	switch (new) {
	case TCP_SYN_SENT:
		s->retrans = 0;
		s->role = KT_ROLE_CLIENT;
		s->born_ns = s->syn_ns = now;
		s->start_tx = s->start_rx = 0;
		s->untold = 0;
		forget_answers(s);
		break;
	case TCP_LISTEN:
		s->role = KT_ROLE_LISTENER;
		s->born_ns = now;
		forget_answers(s);
		break;
	case TCP_SYN_RECV:
		if (old == TCP_LISTEN) /* else both ends opened at once: no child */
			child_born(s, old, now);
		break;
	case TCP_CLOSE:
		if (old == TCP_LISTEN && !current_is_kernel())
			s->role = KT_ROLE_LISTENER;
		break;
	}
}

static __always_inline void fill_account(struct kt_tcp_state *e, struct sock *sk, struct tcp_sock *tp, const bool direct)
{
	e->tx_bytes = KT_FIELD(direct, tp, bytes_sent) - KT_FIELD(direct, tp, bytes_retrans);
	e->rx_bytes = rx_bytes_of(sk, tp, direct);
	e->tx_segs = KT_FIELD(direct, tp, segs_out);
	e->rx_segs = KT_FIELD(direct, tp, segs_in);
	e->retrans = KT_FIELD(direct, tp, total_retrans);
	e->srtt_us = KT_FIELD(direct, tp, srtt_us) >> 3;
	e->min_rtt_us = KT_FIELD(direct, tp, rtt_min.s[0].v);
	e->err = KT_FIELD(direct, sk, sk_err);
	e->soft_err = KT_FIELD(direct, sk, sk_err_soft);
}

static __always_inline void fill_close(struct kt_tcp_state *e, struct sock *sk, struct tcp_sock *tp, struct kt_sock *s,
				       __u64 now, const bool direct)
{
	fill_account(e, sk, tp, direct);
	if (s && s->born_ns) {
		e->duration_ns = now - s->born_ns;
		e->flags |= KT_STATE_DURATION;
	}
	if (e->err || e->soft_err)
		return;
	if (e->old_state == TCP_FIN_WAIT2 || e->old_state == TCP_CLOSING)
		e->flags |= KT_STATE_TIME_WAIT;
	if (e->old_state == TCP_SYN_SENT && s && s->syn_ns) {
		e->gave_up_ns = now - s->syn_ns;
		e->flags |= KT_STATE_GAVE_UP;
	}
}

/* A connection counts when it closes, with what it moved in the window. */
static __always_inline void refused(struct kt_counters *c, const struct kt_flow *flow, struct sock *sk,
				    struct tcp_sock *tp, struct kt_sock *s, int old, int new, __u64 at,
				    const bool direct)
{
	struct kt_amount n = { .events = 1 };

	if (new == TCP_CLOSE && old != TCP_LISTEN && old != TCP_CLOSE) {
		n.connections = 1;
		n.tx_bytes = KT_FIELD(direct, tp, bytes_sent) - KT_FIELD(direct, tp, bytes_retrans);
		n.rx_bytes = rx_bytes_of(sk, tp, direct);
		if (s) {
			n.tx_bytes -= s->start_tx;
			n.rx_bytes -= s->start_rx;
		}
	}
	if (new == TCP_CLOSE) {
		__u32 srtt_us = KT_FIELD(direct, tp, srtt_us) >> 3;

		if (srtt_us)
			count_duration(KT_HIST_SRTT, srtt_us * 1000ULL);
	}
	if (old == TCP_SYN_SENT && new == TCP_ESTABLISHED && s && s->syn_ns)
		count_duration(KT_HIST_HANDSHAKE, at - s->syn_ns);
	count_refused(c, flow, s ? &s->owner : NULL, &n);
}

static __always_inline void emit(struct sock *sk, struct tcp_sock *tp, struct kt_sock *s, int old, int new, __u64 at,
				 const bool direct)
{
	struct kt_counters *c = counters_of(KT_TCP_STATE);
	struct kt_task *owner = s ? &s->owner : NULL;
	struct kt_flow flow = {};
	struct kt_tcp_state *e;
	bool admitted;

	if (!c)
		return;
	read_flow(&flow, sk, s, direct);
	if (s)
		settle_child(s, flow.cookie);
	if (!flow.lport) /* already given back at CLOSE */
		flow.lport = bpf_ntohs(KT_FIELD(direct, tp, inet_conn.icsk_inet.inet_sport));
	admitted = admit(c, &flow, owner, s);
	if (old == TCP_SYN_SENT && new == TCP_CLOSE)
		remember_failed(sk, &flow, s);
	if (!admitted)
		return;
	e = take_place(&rare_ring, sizeof(*e), c, false);
	if (!e) {
		refused(c, &flow, sk, tp, s, old, new, at, direct);
		return;
	}
	__builtin_memset(&e->handshake_ns, 0, sizeof(*e) - sizeof(e->hdr));
	fill_header(&e->hdr, KT_TCP_STATE, at, &flow, owner);
	e->old_state = old;
	e->new_state = new;
	if (old == TCP_SYN_SENT && new == TCP_ESTABLISHED && s && s->syn_ns) {
		e->handshake_ns = at - s->syn_ns;
		e->retrans = KT_FIELD(direct, tp, total_retrans);
		e->flags |= KT_STATE_HANDSHAKE;
	} else if (new == TCP_CLOSE) {
		fill_close(e, sk, tp, s, at, direct);
	}
	submit(&rare_ring, e, sizeof(*e), c);
}

/* Not yet: the ends are not known, or not enough of them to decide. */
static __always_inline bool too_early(struct sock *sk, int old, int new, const bool direct)
{
	if (new == TCP_SYN_RECV)
		return old == TCP_LISTEN;
	return new == TCP_SYN_SENT && !KT_FIELD(direct, sk, __sk_common.skc_num) &&
	       port_decides_later(bpf_ntohs(KT_FIELD(direct, sk, __sk_common.skc_dport)));
}

static __always_inline void tell_entry(struct sock *sk, struct tcp_sock *tp, struct kt_sock *s, const bool direct)
{
	bool server = s->role == KT_ROLE_SERVER;

	s->untold = 0;
	emit(sk, tp, s, server ? TCP_LISTEN : TCP_CLOSE, server ? TCP_SYN_RECV : TCP_SYN_SENT, s->born_ns, direct);
}

/* Whether tcp_done closes it: with an error, or (a child that nobody will accept) as an orphan. Its owner closes it
 * without either. */
static __always_inline bool is_done(struct sock *sk, const bool direct)
{
	__u64 dead = 1UL << bpf_core_enum_value(enum sock_flags, SOCK_DEAD);

	return KT_FIELD(direct, sk, sk_err) || KT_FIELD(direct, sk, __sk_common.skc_flags) & dead;
}

/* What the kernel's counters count about this change. ActiveOpens is counted where the first SYN is sent, AttemptFails
 * in tcp_done. */
static __always_inline void audit_change(struct sock *sk, int old, int new, const bool births, const bool direct)
{
	struct net *net = audited_net(sk, direct);

	if (new == TCP_SYN_SENT)
		audit_add(net, KT_AUDIT_ACTIVE_OPENS, 1, direct);
	if (births && new == TCP_SYN_RECV && old == TCP_LISTEN)
		audit_add(net, KT_AUDIT_PASSIVE_OPENS, 1, direct);
	if (new != TCP_CLOSE)
		return;
	if (old == TCP_ESTABLISHED || old == TCP_CLOSE_WAIT)
		audit_add(net, KT_AUDIT_ESTAB_RESETS, 1, direct);
	if ((old == TCP_SYN_SENT || old == TCP_SYN_RECV) && is_done(sk, direct))
		audit_add(net, KT_AUDIT_ATTEMPT_FAILS, 1, direct);
	if (old == TCP_SYN_SENT) {
		struct tcp_sock *tp = direct ? bpf_skc_to_tcp_sock(sk) : (struct tcp_sock *)sk;

		if (tp && !KT_FIELD(direct, tp, segs_out))
			audit_add(net, KT_AUDIT_UNSENT_OPENS, 1, direct);
	}
}

/* Whether this change has been dealt with by an earlier program. */
static __always_inline bool taken(struct kt_sock *s, int old, int new, const enum part part)
{
	__u16 change = old << 8 | new;

	if (!s) /* cannot be remembered, so it is the first one's alone */
		return !is_first(part);
	if (s->taken == change)
		return true;
	s->taken = change;
	if (!is_first(part))
		KT_BUMP(kt_state.rescued[KT_CHAIN_STATE]);
	return false;
}

/* `births`: this variant sees children enter SYN_RECV. */
static __always_inline int on_state(struct sock *sk, int old, int new, const bool direct, const enum part part,
				    const bool births)
{
	struct tcp_sock *tp;
	struct kt_sock *s;
	__u64 now = bpf_ktime_get_boot_ns();

	if (old == new || !is_tcp(sk, direct))
		return 0;
	s = sock_of(sk, true, direct);
	if (taken(s, old, new, part))
		goto out;
	if (s && (new == TCP_FIN_WAIT1 || new == TCP_LAST_ACK))
		latch_acceptor(sk, s, direct);
	if (s) {
		track(s, old, new, now);
		note_doing(s, old, new);
	}
	if (s && old == TCP_SYN_RECV) {
		cookie_of(sk, s, direct); /* made here, for whoever accepts it from now on */
		settle_early(sk, s);
	}
	if (!kt_state.gate)
		goto out;
	audit_change(sk, old, new, births, direct);
	if (s && too_early(sk, old, new, direct)) {
		s->untold = 1;
		return 0;
	}
	tp = direct ? bpf_skc_to_tcp_sock(sk) : (struct tcp_sock *)sk;
	if (!tp)
		goto out;
	if (s && s->untold)
		tell_entry(sk, tp, s, direct);
	emit(sk, tp, s, old, new, now, direct);
out:
	if (new == TCP_CLOSE && is_last(part)) /* the others must still find what the first one has taken */
		sock_forget(sk, direct);
	return 0;
}

#define TP_BTF(suffix, part) \
	SEC("?tp_btf/inet_sock_set_state") \
	int BPF_PROG(tcp_state__tp_btf##suffix, struct sock *sk, int old, int new) \
	{ \
		return on_state(sk, old, new, true, part, true); \
	}
TP_BTF(, FIRST)
TP_BTF(_more1, BETWEEN)
TP_BTF(_more2, BETWEEN)
TP_BTF(_second, LAST)

/* Does not see LISTEN and SYN_RECV, which are stored without tcp_set_state. */
#define FENTRY(suffix, part) \
	SEC("?fentry/tcp_set_state") \
	int BPF_PROG(tcp_state__fentry##suffix, struct sock *sk, int new) \
	{ \
		return on_state(sk, sk->__sk_common.skc_state, new, true, part, false); \
	}
FENTRY(, FIRST_OF_MORE)
FENTRY(_more1, BETWEEN)
FENTRY(_more2, BETWEEN)
FENTRY(_more3, LAST)

/* Where typed programs cannot ask for a socket's cookie (before 5.12); there the kernel skips none of them. */
SEC("?tp_btf/inet_sock_set_state")
int BPF_PROG(tcp_state__tp_btf_probed, struct sock *sk, int old, int new)
{
	return on_state(sk, old, new, false, ALONE, true);
}

/* Every child at its birth, as the kernel counts them: also of a handshake that two segments complete on two CPUs, of which
 * one child ends without tcp_set_state. Before anybody can accept it, so that what the hash holds is another socket's. */
static __always_inline int on_child(struct sock *child, const bool direct)
{
	sock_forget(child, direct);
	if (kt_state.gate)
		audit_add(audited_net(child, direct), KT_AUDIT_PASSIVE_OPENS, 1, direct);
	return 0;
}

SEC("?fentry/tcp_ca_openreq_child")
int BPF_PROG(tcp_state__child_fentry, struct sock *child)
{
	return on_child(child, true);
}

SEC("?kprobe/tcp_ca_openreq_child")
int BPF_KPROBE(tcp_state__child_kprobe, struct sock *child)
{
	return on_child(child, false);
}

SEC("?tracepoint/sock/inet_sock_set_state")
int tcp_state__tracepoint(struct trace_event_raw_inet_sock_set_state *ctx)
{
	return on_state((struct sock *)ctx->skaddr, ctx->oldstate, ctx->newstate, false, ALONE, true);
}

SEC("?kprobe/tcp_set_state")
int BPF_KPROBE(tcp_state__kprobe, struct sock *sk, int new)
{
	return on_state(sk, BPF_CORE_READ(sk, __sk_common.skc_state), new, false, ALONE, false);
}
