// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * udp: who sent and who read which datagram, how long was it, and to or from whom?
 *
 * Context: the caller's own system call (or its io_uring worker), so `current` is the owner.
 * Cost: about 0.3 us a datagram. From Linux 7.0 on three programs stand in for each other, see ktrace.bpf.h: there every
 * send and receive of every protocol leaves a mark.
 *
 *   tp_btf  sock_send_length, sock_recv_length (6.3): every system call and io_uring. They do not tell the peer
 *           of an unconnected socket; cgroup/sendmsg and recvmsg do, in the same task, just before. A receive
 *           without an address buffer never reaches cgroup/recvmsg: its peer stays unknown.
 *   fexit   udp_sendmsg, udpv6_sendmsg and fentry skb_consume_udp: peers always known, failed receives not seen
 *   kprobe  the same functions
 *
 * Load balancers at sockets are programs at cgroups that change the address in connect(2) and sendmsg(2), and change it
 * back in recvmsg(2). What was asked for is told before they run, where the datagram went after:
 *
 *   tp_btf  programs of our own that run before all others (6.17), and cgroup/sendmsg, which at the root runs last
 *   fexit   the function that runs them, and the name that it leaves in the message; inet_dgram_connect
 *   kprobe  the name in the message at entry and at return; inet_dgram_connect
 */
#include "udp.bpf.h"

#define MSG_PEEK 2
#define MSG_ERRQUEUE 0x2000

/* What the current call named, and what became of it. */
struct kt_peer {
	__u64 sock; /* cookie (cgroup) or address (others): whose call this is */
	__u64 msg; /* of a kprobed send: struct msghdr address */
	struct kt_end end; /* the peer of a datagram; of a connect, what it was called with */
	struct kt_end asked; /* of a send: what it was called with */
};

/* One call of a task at a time. Filled by the cgroup programs and taken by the next length record of the same task, which
 * leaves the empty entry for its next call; or from entry to return of connects and kprobed sends, which delete it; or
 * (fexit) only where there are programs that may change the name, until the send returns. (Task
 * storage would do the first better, but programs at cgroups may use it on young kernels only.)
 * key: pid_tgid. A cache: an evicted peer is an unknown one. 8,192 x 56 bytes. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_CALLS);
	__type(key, __u64);
	__type(value, struct kt_peer);
} udp_calls SEC(".maps");

/* A call of a task that has been taken by one of several programs at the same place, until the last of them has seen it, or
 * where that one was skipped until the task's next call; empty unless kt_config.more. key: pid_tgid. 8,192 x 16 bytes. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_CALLS);
	__type(key, __u64);
	__type(value, __u8); /* enum kt_place */
} udp_taken SEC(".maps");

enum kt_place { PLACE_SENDMSG = 1, PLACE_SENDMSG6, PLACE_CONSUME, PLACE_SEND_LENGTH, PLACE_RECV_LENGTH };

/* Whether an earlier program has taken this call, or a later one will. The first takes all that it sees, as far as it can
 * leave a mark; the last takes what has none. Of a mark that stays, because the last one was skipped, the others may
 * believe that it is about a later call: that one is missing, and counted as the first one's. */
static __always_inline bool is_taken(__u8 place, const enum part part)
{
	__u64 key = bpf_get_current_pid_tgid();
	__u8 *mark;

	if (is_first(part)) {
		if (is_last(part))
			return false;
		if (!bpf_map_update_elem(&udp_taken, &key, &place, BPF_ANY))
			return false;
		KT_BUMP(kt_state.unmarked); /* as if skipped: whoever takes it counts as its rescuer */
		return true;
	}
	mark = bpf_map_lookup_elem(&udp_taken, &key);
	if (mark && *mark == place) {
		if (is_last(part))
			bpf_map_delete_elem(&udp_taken, &key);
		return true;
	}
	if (!is_last(part) && bpf_map_update_elem(&udp_taken, &key, &place, BPF_ANY))
		return true;
	KT_BUMP(kt_state.rescued[KT_CHAIN_UDP]);
	return false;
}

/* ---- tp_btf ------------------------------------------------------------------------------------------ */

/* A peek leaves the datagram in the queue, and the error queue holds our own: no record, but the peer that was told
 * is used up. */
static __always_inline int on_length(struct sock *sk, __u32 kind, int ret, bool unread, const enum part part)
{
	__u64 key = bpf_get_current_pid_tgid();
	struct kt_end peer = {}, asked = {};
	struct kt_use use = {};
	struct kt_peer *stash;
	bool moved;

	/* of every protocol: what the first one is skipped for is counted whatever it was */
	if (is_taken(kind == KT_UDP_SEND ? PLACE_SEND_LENGTH : PLACE_RECV_LENGTH, part) || !is_udp(sk, true))
		return 0;
	moved = !unread && begin_use(&use, sk, kind, ret, true);
	stash = bpf_map_lookup_elem(&udp_calls, &key);
	if (stash && stash->end.family && stash->sock == bpf_get_socket_cookie(sk)) {
		peer = stash->end;
		asked = stash->asked;
		stash->end.family = stash->asked.family = 0;
	}
	return moved ? on_datagram(sk, &use, kind, ret, &peer, &asked, STACK_ANY, true) : 0;
}

#define LENGTHS(suffix, part) \
	SEC("?tp_btf/sock_send_length") \
	int BPF_PROG(udp__send_tp_btf##suffix, struct sock *sk, int ret, int flags) \
	{ \
		return on_length(sk, KT_UDP_SEND, ret, false, part); \
	} \
	SEC("?tp_btf/sock_recv_length") \
	int BPF_PROG(udp__recv_tp_btf##suffix, struct sock *sk, int ret, int flags) \
	{ \
		return on_length(sk, KT_UDP_RECV, ret, flags & (MSG_PEEK | MSG_ERRQUEUE), part); \
	}
LENGTHS(, FIRST_OF_MORE)
LENGTHS(_more1, BETWEEN)
LENGTHS(_more2, LAST)

static __always_inline struct kt_peer *stash_of(struct bpf_sock_addr *ctx)
{
	__u64 key = bpf_get_current_pid_tgid();
	struct kt_peer *stash = bpf_map_lookup_elem(&udp_calls, &key);

	if (!stash) {
		static const struct kt_peer fresh;

		bpf_map_update_elem(&udp_calls, &key, &fresh, BPF_NOEXIST);
		stash = bpf_map_lookup_elem(&udp_calls, &key);
	}
	if (stash)
		stash->sock = bpf_get_socket_cookie(ctx);
	return stash;
}

static __always_inline void end_of_v4(struct kt_end *end, struct bpf_sock_addr *ctx)
{
	__builtin_memset(end->addr, 0, sizeof(end->addr));
	*(__be32 *)end->addr = ctx->user_ip4;
	end->port = bpf_ntohs(ctx->user_port);
	end->family = AF_INET;
}

static __always_inline void end_of_v6(struct kt_end *end, struct bpf_sock_addr *ctx)
{
	/* the context allows 4-byte reads only */
	((__be32 *)end->addr)[0] = ctx->user_ip6[0];
	((__be32 *)end->addr)[1] = ctx->user_ip6[1];
	((__be32 *)end->addr)[2] = ctx->user_ip6[2];
	((__be32 *)end->addr)[3] = ctx->user_ip6[3];
	end->port = bpf_ntohs(ctx->user_port);
	end->family = AF_INET6;
}

static __always_inline int stash_v4(struct bpf_sock_addr *ctx)
{
	struct kt_peer *stash = stash_of(ctx);

	if (stash)
		end_of_v4(&stash->end, ctx);
	return 1; /* 0 would forbid the call */
}

static __always_inline int stash_v6(struct bpf_sock_addr *ctx)
{
	struct kt_peer *stash = stash_of(ctx);

	if (stash)
		end_of_v6(&stash->end, ctx);
	return 1;
}

SEC("?cgroup/sendmsg4")
int udp__sendmsg4(struct bpf_sock_addr *ctx)
{
	return stash_v4(ctx);
}

SEC("?cgroup/recvmsg4")
int udp__recvmsg4(struct bpf_sock_addr *ctx)
{
	return stash_v4(ctx);
}

SEC("?cgroup/sendmsg6")
int udp__sendmsg6(struct bpf_sock_addr *ctx)
{
	return stash_v6(ctx);
}

SEC("?cgroup/recvmsg6")
int udp__recvmsg6(struct bpf_sock_addr *ctx)
{
	return stash_v6(ctx);
}

/* These run before all others. */

SEC("?cgroup/sendmsg4")
int udp__asked4(struct bpf_sock_addr *ctx)
{
	struct kt_peer *stash = stash_of(ctx);

	if (stash)
		end_of_v4(&stash->asked, ctx);
	return 1;
}

SEC("?cgroup/sendmsg6")
int udp__asked6(struct bpf_sock_addr *ctx)
{
	struct kt_peer *stash = stash_of(ctx);

	if (stash)
		end_of_v6(&stash->asked, ctx);
	return 1;
}

/* What is remembered about a socket that connects. */
static __always_inline struct kt_sock *sock_of_ctx(struct bpf_sock_addr *ctx)
{
	void *sk = ctx->sk;
	struct kt_sock *s;

	if (ctx->protocol != IPPROTO_UDP || !sk)
		return NULL;
	if (!kt_config.hash_store)
		return bpf_sk_storage_get(&sock_storage, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	s = sock_hashed(sk, true);
	if (s)
		sock_keep_to(s, bpf_get_socket_cookie(ctx));
	return s;
}

SEC("?cgroup/connect4")
int udp__connect4(struct bpf_sock_addr *ctx)
{
	struct kt_sock *s = sock_of_ctx(ctx);

	if (s)
		end_of_v4(&s->asked, ctx);
	return 1;
}

SEC("?cgroup/connect6")
int udp__connect6(struct bpf_sock_addr *ctx)
{
	struct kt_sock *s = sock_of_ctx(ctx);

	if (s)
		end_of_v6(&s->asked, ctx);
	return 1;
}

/* ---- fexit, kprobe ----------------------------------------------------------------------------------- */

/* What this send had named before programs changed it; nothing where there are none. What is left of a send that got no
 * place lasts until the next one. */
static __always_inline void take_asked(struct kt_end *asked, struct sock *sk)
{
	__u64 key = bpf_get_current_pid_tgid();
	struct kt_peer *call = bpf_map_lookup_elem(&udp_calls, &key);

	if (!call || call->sock != (__u64)sk)
		return;
	*asked = call->asked;
	bpf_map_delete_elem(&udp_calls, &key);
}

/* A v6 socket sending to a v4-mapped address runs udp_sendmsg inside udpv6_sendmsg: the inner one records. */
static __always_inline int on_sendmsg(struct sock *sk, struct msghdr *msg, int ret, const bool v6)
{
	struct kt_end peer = {};
	struct kt_use use = {};
	bool named;

	if (!is_udp(sk, true) || !begin_use(&use, sk, KT_UDP_SEND, ret, true))
		return 0;
	named = end_of_kernel_sockaddr(&peer, BPF_CORE_READ(msg, msg_name));
	if (v6 && named && (peer.family == AF_INET || is_mapped(peer.addr)))
		return 0;
	if (v6 && !named) {
		struct in6_addr to = sk->__sk_common.skc_v6_daddr;

		if (is_mapped(&to))
			return 0;
	}
	return on_datagram(sk, &use, KT_UDP_SEND, ret, &peer, NULL, v6 ? STACK_V6 : STACK_V4, true);
}

#define SENT(suffix, part) \
	SEC("?fexit/udp_sendmsg") \
	int BPF_PROG(udp__send_fexit##suffix, struct sock *sk, struct msghdr *msg, size_t len, int ret) \
	{ \
		return is_taken(PLACE_SENDMSG, part) ? 0 : on_sendmsg(sk, msg, ret, false); \
	} \
	SEC("?fexit/udpv6_sendmsg") \
	int BPF_PROG(udp__send6_fexit##suffix, struct sock *sk, struct msghdr *msg, size_t len, int ret) \
	{ \
		return is_taken(PLACE_SENDMSG6, part) ? 0 : on_sendmsg(sk, msg, ret, true); \
	}
SENT(, FIRST_OF_MORE)
SENT(_more1, BETWEEN)
SENT(_more2, LAST)

/* Runs where there are programs at cgroups, before them. */
SEC("?fentry/__cgroup_bpf_run_filter_sock_addr")
int BPF_PROG(udp__asked_fentry, struct sock *sk, void *uaddr)
{
	__u64 key = bpf_get_current_pid_tgid();
	struct kt_peer call = { .sock = (__u64)sk };

	if (is_udp(sk, true) && compat_is_sendmsg(ctx) && end_of_kernel_sockaddr(&call.asked, uaddr))
		bpf_map_update_elem(&udp_calls, &key, &call, BPF_ANY);
	return 0;
}

/* connect(2) keeps where it led to, and not what was asked for. */
static __always_inline int on_connect_entry(struct socket *sock, void *uaddr)
{
	__u64 key = bpf_get_current_pid_tgid();
	struct sock *sk = BPF_CORE_READ(sock, sk);
	struct kt_peer call = { .sock = (__u64)sk };

	/* without an address (AF_UNSPEC) it takes a connection apart */
	if (sk && is_udp(sk, false) && end_of_kernel_sockaddr(&call.end, uaddr))
		bpf_map_update_elem(&udp_calls, &key, &call, BPF_ANY);
	return 0;
}

/* What its entry has left. */
static __always_inline bool take_connect(struct kt_peer *call)
{
	__u64 key = bpf_get_current_pid_tgid();
	struct kt_peer *found = bpf_map_lookup_elem(&udp_calls, &key);

	if (!found || !found->end.family)
		return false;
	*call = *found;
	bpf_map_delete_elem(&udp_calls, &key);
	return true;
}

static __always_inline void keep_asked(struct sock *sk, const struct kt_peer *call, const bool direct)
{
	struct kt_sock *s = sock_of(sk, true, direct);

	if (!s)
		return;
	if (direct && kt_config.hash_store)
		sock_keep_to(s, bpf_get_socket_cookie(sk));
	s->asked = call->end;
}

SEC("?fentry/inet_dgram_connect")
int BPF_PROG(udp__connect_fentry, struct socket *sock, void *uaddr)
{
	return on_connect_entry(sock, uaddr);
}

SEC("?fexit/inet_dgram_connect")
int BPF_PROG(udp__connect_fexit, struct socket *sock, void *uaddr, int len, int flags, int ret)
{
	struct sock *sk = sock->sk;
	struct kt_peer call;

	if (take_connect(&call) && !ret && sk && call.sock == (__u64)sk)
		keep_asked(sk, &call, true);
	return 0;
}

/* The datagram's source, from its headers: they stay in place under the payload that is being read. */
static __always_inline void peer_of_skb(struct kt_end *peer, struct sk_buff *skb)
{
	unsigned char *head = BPF_CORE_READ(skb, head);
	unsigned char *ip = head + BPF_CORE_READ(skb, network_header);
	unsigned char *udp = head + BPF_CORE_READ(skb, transport_header);
	__be16 port = 0;
	__u8 version = 0;

	if (bpf_probe_read_kernel(&version, 1, ip) || bpf_probe_read_kernel(&port, 2, udp))
		return;
	peer->port = bpf_ntohs(port);
	if (version >> 4 == 4)
		peer->family = bpf_probe_read_kernel(peer->addr, 4, ip + 12) ? 0 : AF_INET;
	else
		peer->family = bpf_probe_read_kernel(peer->addr, 16, ip + 8) ? 0 : AF_INET6;
}

static __always_inline int on_consume(struct sock *sk, struct sk_buff *skb, int len, const bool direct)
{
	static const struct kt_end none;
	struct kt_end peer = {};
	struct kt_use use = {};

	/* negative: MSG_PEEK leaves the datagram in the queue */
	if (len < 0 || !is_udp(sk, direct) || !begin_use(&use, sk, KT_UDP_RECV, len, direct))
		return 0;
	peer_of_skb(&peer, skb);
	return on_datagram(sk, &use, KT_UDP_RECV, len, &peer, &none, peer.family == AF_INET ? STACK_V4 : STACK_V6,
			   direct);
}

#define CONSUMED(suffix, part) \
	SEC("?fentry/skb_consume_udp") \
	int BPF_PROG(udp__recv_fentry##suffix, struct sock *sk, struct sk_buff *skb, int len) \
	{ \
		return is_taken(PLACE_CONSUME, part) ? 0 : on_consume(sk, skb, len, true); \
	}
CONSUMED(, FIRST_OF_MORE)
CONSUMED(_more1, BETWEEN)
CONSUMED(_more2, LAST)

SEC("?kprobe/skb_consume_udp")
int BPF_KPROBE(udp__recv_kprobe, struct sock *sk, struct sk_buff *skb, int len)
{
	return on_consume(sk, skb, len, false);
}

static __always_inline int on_send_entry(struct sock *sk, struct msghdr *msg)
{
	__u64 key = bpf_get_current_pid_tgid();
	struct kt_peer call = { .sock = (__u64)sk, .msg = (__u64)msg };

	end_of_kernel_sockaddr(&call.asked, BPF_CORE_READ(msg, msg_name));
	bpf_map_update_elem(&udp_calls, &key, &call, BPF_ANY);
	return 0;
}

/* The inner of two nested sends takes the entry; the outer one then finds none. Meanwhile programs may have changed the
 * name. */
static __always_inline int on_send_return(int ret, enum kt_stack stack)
{
	__u64 key = bpf_get_current_pid_tgid();
	struct kt_peer *found = bpf_map_lookup_elem(&udp_calls, &key), call;
	struct kt_use use = {};
	struct msghdr *msg;
	struct sock *sk;

	if (!found || !found->msg)
		return 0;
	call = *found;
	bpf_map_delete_elem(&udp_calls, &key);
	sk = (struct sock *)call.sock;
	if (!is_udp(sk, false) || !begin_use(&use, sk, KT_UDP_SEND, ret, false))
		return 0;
	msg = (struct msghdr *)call.msg;
	if (call.asked.family && !end_of_kernel_sockaddr(&call.end, BPF_CORE_READ(msg, msg_name)))
		call.end = call.asked;
	return on_datagram(sk, &use, KT_UDP_SEND, ret, &call.end, &call.asked, stack, false);
}

SEC("?kprobe/udp_sendmsg")
int BPF_KPROBE(udp__send_kprobe, struct sock *sk, struct msghdr *msg)
{
	return on_send_entry(sk, msg);
}

SEC("?kprobe/udpv6_sendmsg")
int BPF_KPROBE(udp__send6_kprobe, struct sock *sk, struct msghdr *msg)
{
	return on_send_entry(sk, msg);
}

SEC("?kretprobe/udp_sendmsg")
int BPF_KRETPROBE(udp__sent_kprobe, int ret)
{
	return on_send_return(ret, STACK_V4);
}

SEC("?kretprobe/udpv6_sendmsg")
int BPF_KRETPROBE(udp__sent6_kprobe, int ret)
{
	return on_send_return(ret, STACK_V6);
}

SEC("?kprobe/inet_dgram_connect")
int BPF_KPROBE(udp__connect_kprobe, struct socket *sock, void *uaddr)
{
	return on_connect_entry(sock, uaddr);
}

SEC("?kretprobe/inet_dgram_connect")
int BPF_KRETPROBE(udp__connect_kretprobe, int ret)
{
	struct kt_peer call;

	if (take_connect(&call) && !ret)
		keep_asked((struct sock *)call.sock, &call, false);
	return 0;
}

/* The hash knows a socket by its address only: it must forget it before the address is used again. */
SEC("?kprobe/udp_destroy_sock")
int BPF_KPROBE(udp__destroy_kprobe, struct sock *sk)
{
	sock_forget(sk, false);
	return 0;
}

SEC("?kprobe/udpv6_destroy_sock")
int BPF_KPROBE(udp__destroy6_kprobe, struct sock *sk)
{
	sock_forget(sk, false);
	return 0;
}
