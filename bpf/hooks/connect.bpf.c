// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * connect: how long was a program inside connect(2) on a TCP socket, what did it get, and what had it asked for?
 *
 * The handshake is tcp_state's business: for a non-blocking socket this call returns EINPROGRESS after
 * microseconds. Context: the caller's own system call. Cost: 0.4 us a connect.
 *
 *   fexit       inet_stream_connect: io_uring too. It includes the blocking wait, as tcp_v4_connect would not.
 *   tracepoint  sys_enter_connect, sys_exit_connect: everywhere, but not io_uring
 *   kprobe      inet_stream_connect; many callers blocked at once can exhaust its return probes (nmissed)
 */
#include "ktrace.bpf.h"

#define O_NONBLOCK 04000
#define EINTR 4

/* Entry to return of one call. key: pid_tgid, deleted at return. 8,192 x 48 bytes. */
struct kt_call {
	__u64 start_ns;
	__u64 sock; /* struct sock address, or (tracepoint) the descriptor */
	__u64 id; /* of the socket: a failed connect is forgotten before it returns; 0: the kernel's cookie will do */
	struct kt_end asked;
	__u8 nonblocking;
	__u8 reserved[3];
};
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_CALLS);
	__type(key, __u64);
	__type(value, struct kt_call);
} connect_calls SEC(".maps");

static __always_inline void begin(struct kt_call *call, struct sock *sk, const enum part part)
{
	__u64 key = bpf_get_current_pid_tgid();

	if (!is_first(part)) {
		struct kt_call *found = bpf_map_lookup_elem(&connect_calls, &key);

		if (found && found->sock == call->sock)
			return;
		KT_BUMP(kt_state.rescued[KT_CHAIN_CONNECT]);
	}
	if (kt_config.hash_store && sk && is_tcp(sk, false)) {
		__u64 address = (__u64)sk;

		call->id = cookie_of(sk, sock_hashed(sk, true), false);
		/* or else it asks what became of the attempt before it */
		if (BPF_CORE_READ(sk, sk_socket, state) != SS_CONNECTING)
			bpf_map_delete_elem(&failed_ends, &address);
	}
	call->start_ns = bpf_ktime_get_boot_ns();
	bpf_map_update_elem(&connect_calls, &key, call, BPF_ANY);
}

/* connect(2) failed and the kernel has cleared both ends. The remote one is where the SYN went, which a program at a
 * cgroup may have changed; without a SYN the one asked for stands in. */
static __always_inline void restore_ends(struct kt_flow *f, const struct kt_call *call, const struct kt_failed *failed)
{
	if (f->rport)
		return;
	__builtin_memset(f->laddr, 0, sizeof(f->laddr));
	f->flags |= KT_FLOW_LADDR_GONE;
	if (failed->remote.family)
		set_remote(f, &failed->remote);
	else
		set_remote(f, &call->asked);
}

static __always_inline int finish(struct sock *sk, const struct kt_call *call, int ret)
{
	struct kt_counters *c = counters_of(KT_CONNECT);
	struct kt_task owner = {};
	struct kt_failed failed = {};
	struct kt_flow flow = {};
	struct kt_connect *e;
	__u64 now = bpf_ktime_get_boot_ns();

	if (!c || !sk || !kt_state.gate || !is_tcp(sk, false))
		return 0;
	set_owner(&owner, KT_OWNER_CURRENT);
	if (ret <= -512) /* -ERESTART*: a signal; a call that is made again is a record of its own */
		ret = -EINTR;
	read_flow(&flow, sk, kt_config.hash_store ? sock_hashed(sk, false) : NULL, false);
	if (call->id)
		flow.cookie = call->id;
	flow.role = KT_ROLE_CLIENT;
	take_failed(&failed, sk, &flow);
	restore_ends(&flow, call, &failed);
	if (!admit_ends(c, &flow, &owner, NULL, &failed.ends))
		return 0;
	e = take_place(&rare_ring, sizeof(*e), c, false);
	if (!e) {
		struct kt_amount n = { .events = 1 };

		count_refused(c, &flow, &owner, &n);
		if (!ret && !call->nonblocking)
			count_duration(KT_HIST_SYSCALL, now - call->start_ns);
		return 0;
	}
	fill_header(&e->hdr, KT_CONNECT, now, &flow, &owner);
	e->syscall_ns = now - call->start_ns;
	__builtin_memcpy(e->asked_addr, call->asked.addr, 16);
	e->asked_port = call->asked.port;
	e->asked_family = call->asked.family;
	e->err = ret < 0 ? -ret : 0;
	e->nonblocking = call->nonblocking;
	e->reserved = 0;
	submit(&rare_ring, e, sizeof(*e), c);
	return 0;
}

static __always_inline int end(struct sock *sk, int ret, bool by_fd, const enum part part)
{
	__u64 key = bpf_get_current_pid_tgid();
	struct kt_call *found = bpf_map_lookup_elem(&connect_calls, &key), call;

	if (!found) /* began before the programs were attached, or an earlier program has taken it */
		return 0;
	if (!is_first(part))
		KT_BUMP(kt_state.rescued[KT_CHAIN_CONNECT]);
	call = *found;
	bpf_map_delete_elem(&connect_calls, &key);
	if (by_fd)
		sk = sock_of_fd(call.sock);
	else if (!sk)
		sk = (struct sock *)call.sock;
	return finish(sk, &call, ret);
}

/* ---- the function -------------------------------------------------------------------------------------- */

static __always_inline int on_entry(struct socket *sock, void *uaddr, int flags, const enum part part)
{
	struct sock *sk = BPF_CORE_READ(sock, sk);
	struct kt_call call = { .sock = (__u64)sk, .nonblocking = !!(flags & O_NONBLOCK) };

	/* without an address (AF_UNSPEC) it takes a connection apart */
	if (end_of_kernel_sockaddr(&call.asked, uaddr))
		begin(&call, sk, part);
	return 0;
}

SEC("?fentry/inet_stream_connect")
int BPF_PROG(connect__fentry, struct socket *sock, void *uaddr, int len, int flags)
{
	return on_entry(sock, uaddr, flags, FIRST);
}

SEC("?fexit/inet_stream_connect")
int BPF_PROG(connect__fexit, struct socket *sock, void *uaddr, int len, int flags, int ret)
{
	return end(NULL, ret, false, FIRST);
}

#define MORE(n) \
	SEC("?fentry/inet_stream_connect") \
	int BPF_PROG(connect__fentry_more##n, struct socket *sock, void *uaddr, int len, int flags) \
	{ \
		return on_entry(sock, uaddr, flags, BETWEEN); \
	} \
	SEC("?fexit/inet_stream_connect") \
	int BPF_PROG(connect__fexit_more##n, struct socket *sock, void *uaddr, int len, int flags, int ret) \
	{ \
		return end(NULL, ret, false, BETWEEN); \
	}
MORE(1)
MORE(2)
MORE(3)

SEC("?kprobe/inet_stream_connect")
int BPF_KPROBE(connect__kprobe, struct socket *sock, void *uaddr, int len, int flags)
{
	return on_entry(sock, uaddr, flags, ALONE);
}

SEC("?kretprobe/inet_stream_connect")
int BPF_KRETPROBE(connect__kretprobe, int ret)
{
	return end(NULL, ret, false, ALONE);
}

/* ---- the system call ------------------------------------------------------------------------------------ */

SEC("?tracepoint/syscalls/sys_enter_connect")
int connect__enter(struct trace_event_raw_sys_enter *ctx)
{
	void *uaddr = (void *)ctx->args[1];
	__u32 len = ctx->args[2];
	struct kt_sockaddr sa = {};
	struct kt_call call = { .sock = ctx->args[0] };
	struct file *file = socket_file(call.sock);

	if (!file)
		return 0;
	call.nonblocking = !!(BPF_CORE_READ(file, f_flags) & O_NONBLOCK);
	if (len >= SOCKADDR_IN_BYTES && !bpf_probe_read_user(&sa, SOCKADDR_IN_BYTES, uaddr) &&
	    (sa.family != AF_INET6 || (len >= sizeof(sa) && !bpf_probe_read_user(&sa, sizeof(sa), uaddr))))
		end_of_sockaddr(&call.asked, &sa);
	/* without an address (AF_UNSPEC) it takes a connection apart */
	if (call.asked.family) {
		struct socket *socket = BPF_CORE_READ(file, private_data);

		begin(&call, BPF_CORE_READ(socket, sk), ALONE);
	}
	return 0;
}

SEC("?tracepoint/syscalls/sys_exit_connect")
int connect__exit(struct trace_event_raw_sys_exit *ctx)
{
	return end(NULL, ctx->ret, true, ALONE);
}
