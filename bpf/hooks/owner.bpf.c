// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * owner: whose is a TCP socket that a process got from another one, or from the kernel? Serves tcp_state and makes no
 * records of its own.
 *
 * A child is born in softirq with its listener's owner. The task that accepts it, or failing that (io_uring)
 * the first one that sends or receives on it, is its owner. Any other process that sends or receives later, to whom it was
 * left by fork or handed in a message (SCM_RIGHTS), is the owner from then on; so is the same one under a new name (exec).
 * Context: the task's own system call. Cost: 0.3 us per accept, 0.1 us per TCP send or receive.
 */
#include "ktrace.bpf.h"

/* The kernel moves data for those who opened the socket. */
static __always_inline bool is_settled(const struct kt_task *owner)
{
	switch (owner->source) {
	case KT_OWNER_NONE:
	case KT_OWNER_INHERITED:
	case KT_OWNER_ACCEPT:
		return false;
	}
	return is_current(owner) || current_is_kernel();
}

static __always_inline int on_io(struct sock *sk, const bool direct)
{
	struct kt_task owner = {};
	struct kt_sock *s;

	/* a call on a connection that was reset learns it last: nothing more will come of that socket */
	if (!is_tcp(sk, direct) || KT_FIELD(direct, sk, __sk_common.skc_state) == TCP_CLOSE)
		return 0;
	/* made here for a connection that waited in the accept queue when the capture started */
	s = sock_of(sk, true, direct);
	if (!s || is_settled(&s->owner))
		return 0;
	set_owner(&owner, KT_OWNER_FIRST_IO);
	latch_acceptor(sk, s, direct);
	s->owner = owner;
	if (filters_owners() && !s->answer) {
		__u64 cookie = cookie_of(sk, s, direct);

		latched_answer(s);
		tell_acceptor(cookie, &owner);
	}
	return 0;
}

/* 6.3 and newer */
SEC("?tp_btf/sock_send_length")
int BPF_PROG(owner__send, struct sock *sk, int ret, int flags)
{
	return on_io(sk, true);
}

SEC("?tp_btf/sock_recv_length")
int BPF_PROG(owner__recv, struct sock *sk, int ret, int flags)
{
	return on_io(sk, true);
}

static __always_inline int on_accept(struct sock *sk)
{
	struct kt_task owner = {};
	__u64 cookie;

	if (!sk || !is_tcp(sk, false) || BPF_CORE_READ(sk, __sk_common.skc_state) == TCP_CLOSE)
		return 0;
	set_owner(&owner, KT_OWNER_ACCEPT);
	if (kt_config.hash_store) {
		struct kt_sock *s = sock_hashed(sk, true);

		if (s)
			s->owner = owner;
		if (!s || !filters_owners())
			return 0;
		tell_acceptor(cookie_of(sk, s, false), &owner);
		return 0;
	}
	cookie = BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);
	if (cookie)
		tell_acceptor(cookie, &owner);
	else if (BPF_CORE_READ(sk, __sk_common.skc_state) == TCP_SYN_RECV)
		tell_early_acceptor(sk, &owner);
	/* else older than the capture: its first send or receive, or its file, will tell */
	return 0;
}

/* Where accept(2) ties the child to its file. inet_csk_accept would do but for calls that wait in it since before the
 * capture: a function that was entered before it was hooked is not seen to return. */
SEC("?fentry/security_sock_graft")
int BPF_PROG(owner__fentry, struct sock *child)
{
	return on_accept(child);
}

/* The same where the first one can be preempted and is skipped then: what two of them say is the same. */
#define MORE(n) \
	SEC("?fentry/security_sock_graft") \
	int BPF_PROG(owner__fentry_more##n, struct sock *child) \
	{ \
		return on_accept(child); \
	}
MORE(1)
MORE(2)
MORE(3)

SEC("?kprobe/security_sock_graft")
int BPF_KPROBE(owner__kprobe, struct sock *child)
{
	return on_accept(child);
}

SEC("?tracepoint/syscalls/sys_exit_accept4")
int owner__accept4(struct trace_event_raw_sys_exit *ctx)
{
	long fd = ctx->ret;

	return fd < 0 ? 0 : on_accept(sock_of_fd(fd));
}

SEC("?tracepoint/syscalls/sys_exit_accept")
int owner__accept(struct trace_event_raw_sys_exit *ctx)
{
	long fd = ctx->ret;

	return fd < 0 ? 0 : on_accept(sock_of_fd(fd));
}
