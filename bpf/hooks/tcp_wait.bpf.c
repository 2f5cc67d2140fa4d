// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * tcp_wait: which connections wait for somebody to read, or for a peer that cannot be reached, and which listeners turn
 * connections away?
 *
 * Runs over every file of every process once a second, in the reader's own context, and compares what the kernel
 * itself keeps for each socket (tcp_sock.chrono_stat, sk_err_soft, sk_drops) with the look before. So nothing runs
 * while packets move, and what happened between two looks is not lost but told late, as one record. The first look,
 * before the gate opens, only remembers. Cost: 0.2 us a file, at most one percent of a CPU.
 */
#include "ktrace.bpf.h"

#define MAX_HASHED_WAITS 8192
#define NS_PER_MS 1000000ULL
#define MIN_STALL_NS (100 * NS_PER_MS)

/* What a socket had at the last look. */
struct kt_wait {
	__u64 cookie; /* in the hash: whose it is */
	__u64 unread_since; /* since when its process has read nothing of a full window, or was last told of; 0: it has */
	__u32 jiffies[2]; /* by enum kt_stall, of those that the kernel adds up */
	__u32 drops;
	__u32 copied; /* copied_seq when unread_since was set */
	__u64 unreachable_since; /* since when an error of the network stands, or was last told of; 0: none does */
	__u32 una; /* snd_una then: whatever arrives takes the error away */
	__u32 reserved;
};

/* Of sockets that have had to wait, or have turned somebody away: most never have. Lives and dies with the socket. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct kt_wait);
} wait_storage SEC(".maps");

/* The same without socket storage. key: struct sock address, checked by cookie; a cache, of which the least recently looked
 * at go. 8,192 x 64 bytes. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_HASHED_WAITS);
	__type(key, __u64);
	__type(value, struct kt_wait);
} wait_hash SEC(".maps");

/* When the first look was, by both clocks: so many ns are a jiffy. */
static __u64 first_jiffies, first_ns;

static __always_inline struct kt_wait *hashed(struct sock *sk, __u64 cookie)
{
	static const struct kt_wait fresh;
	__u64 key = (__u64)sk;
	struct kt_wait *w = bpf_map_lookup_elem(&wait_hash, &key);

	if (!w) {
		bpf_map_update_elem(&wait_hash, &key, &fresh, BPF_NOEXIST);
		w = bpf_map_lookup_elem(&wait_hash, &key);
	}
	if (w && w->cookie != cookie) {
		*w = fresh;
		w->cookie = cookie;
	}
	return w;
}

static __always_inline struct kt_wait *wait_of(struct sock *sk, __u64 cookie, const bool direct)
{
	if (direct && !kt_config.hash_store)
		return bpf_sk_storage_get(&wait_storage, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	return hashed(sk, cookie);
}

static __always_inline __u64 ns_of(__u64 jiffies, __u64 now)
{
	__u64 passed = bpf_jiffies64() - first_jiffies;

	return passed ? jiffies * ((now - first_ns) / passed) : 0;
}

/* What the kernel has added up of this kind, and what runs. */
static __always_inline __u32 chrono(struct tcp_sock *tp, __u32 type, const bool direct)
{
	__u32 sum = type == TCP_CHRONO_RWND_LIMITED ? KT_FIELD(direct, tp, chrono_stat[TCP_CHRONO_RWND_LIMITED - 1])
						    : KT_FIELD(direct, tp, chrono_stat[TCP_CHRONO_SNDBUF_LIMITED - 1]);

	if (BPF_CORE_READ_BITFIELD_PROBED(tp, chrono_type) == type)
		sum += (__u32)bpf_jiffies64() - KT_FIELD(direct, tp, chrono_start);
	return sum;
}

/* One socket, as it is looked at. */
struct look {
	__u64 now;
	struct kt_sock *s;
	struct kt_flow flow;
};

/* A place in the ring, with its header; NULL with the reason counted. */
static __always_inline void *place(struct look *l, __u32 kind, __u64 size, struct kt_counters *c)
{
	static const struct kt_task nobody;
	struct kt_task *owner = l->s ? &l->s->owner : NULL;
	struct kt_amount n = { .events = 1 };
	void *e;

	if (!c || !admit(c, &l->flow, owner, l->s))
		return NULL;
	e = take_place(&rare_ring, size, c, false);
	if (!e) {
		count_refused(c, &l->flow, owner, &n);
		return NULL;
	}
	fill_header(e, kind, l->now, &l->flow, owner ?: &nobody);
	return e;
}

static __always_inline void tell_stall(struct look *l, __u8 kind, __u64 ns, __u32 queued, __u8 err)
{
	struct kt_counters *c = counters_of(KT_TCP_STALL);
	struct kt_tcp_stall *e = place(l, KT_TCP_STALL, sizeof(*e), c);

	if (!e)
		return;
	e->duration_ns = ns;
	e->queued = queued;
	e->kind = kind;
	e->err = err;
	__builtin_memset(e->reserved, 0, sizeof(e->reserved));
	submit(&rare_ring, e, sizeof(*e), c);
}

static __always_inline void tell_overflow(struct look *l, struct sock *sk, __u32 count, const bool direct)
{
	struct kt_counters *c = counters_of(KT_LISTEN_OVERFLOW);
	struct kt_listen_overflow *e = place(l, KT_LISTEN_OVERFLOW, sizeof(*e), c);

	if (!e)
		return;
	e->count = count;
	e->accept_queue = KT_FIELD(direct, sk, sk_ack_backlog);
	e->backlog = KT_FIELD(direct, sk, sk_max_ack_backlog);
	e->reserved = 0;
	submit(&rare_ring, e, sizeof(*e), c);
}

static __always_inline void on_listener(struct look *l, struct sock *sk, const bool direct)
{
	__u32 drops = KT_FIELD(direct, sk, sk_drops.counter), more;
	struct kt_wait *w;

	if (!drops)
		return;
	read_flow(&l->flow, sk, l->s, direct);
	w = wait_of(sk, l->flow.cookie, direct);
	if (!w)
		return;
	more = drops - w->drops;
	w->drops = drops;
	if (more && kt_state.gate)
		tell_overflow(l, sk, more, direct);
}

/* Of what the peer may send there is no room for another segment. */
static __always_inline bool window_is_closed(struct tcp_sock *tp, const bool direct)
{
	__u32 used = KT_FIELD(direct, tp, rcv_nxt) - KT_FIELD(direct, tp, rcv_wup);

	return (int)(KT_FIELD(direct, tp, rcv_wnd) - used) < (int)KT_FIELD(direct, tp, inet_conn.icsk_ack.rcv_mss);
}

static __always_inline void on_unread(struct look *l, struct tcp_sock *tp, struct kt_wait *w, __u32 unread,
				      const bool direct)
{
	__u32 copied = KT_FIELD(direct, tp, copied_seq);
	__u64 since = w->unread_since;

	if (!unread || !window_is_closed(tp, direct)) {
		w->unread_since = 0;
		return;
	}
	/* several processes can have it open */
	if (since && l->now - since < MIN_STALL_NS)
		return;
	w->unread_since = l->now;
	if (since && w->copied == copied && kt_state.gate)
		tell_stall(l, KT_STALL_RECEIVE_BUFFER, l->now - since, unread, 0);
	w->copied = copied;
}

/* What is sent again and again, as long as the error of an ICMP message stands: the kernel keeps it to itself, and takes
 * it away with the next acknowledgement. */
static __always_inline void on_unreachable(struct look *l, struct tcp_sock *tp, struct kt_wait *w, __u32 err,
					   __u32 unsent, const bool direct)
{
	__u32 una = KT_FIELD(direct, tp, snd_una);
	__u64 since = w->una == una ? w->unreachable_since : 0;

	if (since && l->now - since < MIN_STALL_NS)
		return;
	w->unreachable_since = err ? l->now : 0;
	w->una = una;
	if (since && err && kt_state.gate)
		tell_stall(l, KT_STALL_UNREACHABLE, l->now - since, unsent, err);
}

/* More than MIN_STALL_NS since the last look. Less is kept for the next one. */
static __always_inline __u64 stalled(struct look *l, struct kt_wait *w, __u32 kind, __u32 jiffies)
{
	__u64 ns = ns_of((__u32)(jiffies - w->jiffies[kind & 1]), l->now);

	if (kt_state.gate && ns < MIN_STALL_NS)
		return 0;
	w->jiffies[kind & 1] = jiffies;
	return kt_state.gate ? ns : 0;
}

static __always_inline void on_connection(struct look *l, struct sock *sk, struct tcp_sock *tp, const bool direct)
{
	__u32 window = chrono(tp, TCP_CHRONO_RWND_LIMITED, direct), buffer = chrono(tp, TCP_CHRONO_SNDBUF_LIMITED, direct);
	__u32 unread = KT_FIELD(direct, tp, rcv_nxt) - KT_FIELD(direct, tp, copied_seq);
	__u32 unsent = KT_FIELD(direct, tp, write_seq) - KT_FIELD(direct, tp, snd_una);
	__u32 unreachable = unsent ? KT_FIELD(direct, sk, sk_err_soft) : 0;
	struct kt_wait *w;
	__u64 ns;

	if (!window && !buffer && !unreachable && !(unread && window_is_closed(tp, direct)))
		return;
	read_flow(&l->flow, sk, l->s, direct);
	w = wait_of(sk, l->flow.cookie, direct);
	if (!w)
		return;
	ns = stalled(l, w, KT_STALL_ZERO_WINDOW, window);
	/* a window that is only too small for the distance has always something on its way */
	if (ns && (!KT_FIELD(direct, tp, packets_out) ||
		   KT_FIELD(direct, tp, snd_wnd) < KT_FIELD(direct, tp, mss_cache)))
		tell_stall(l, KT_STALL_ZERO_WINDOW, ns, unsent, 0);
	ns = stalled(l, w, KT_STALL_SEND_BUFFER, buffer);
	if (ns)
		tell_stall(l, KT_STALL_SEND_BUFFER, ns, unsent, 0);
	on_unread(l, tp, w, unread, direct);
	on_unreachable(l, tp, w, unreachable, unsent, direct);
}

static __always_inline int on_socket(struct sock *sk, struct tcp_sock *tp, const bool direct)
{
	struct look l = { .now = bpf_ktime_get_boot_ns() };
	__u8 state = KT_FIELD(direct, sk, __sk_common.skc_state);

	if (!first_jiffies) {
		first_jiffies = bpf_jiffies64();
		first_ns = l.now;
	}
	l.s = sock_of(sk, false, direct);
	if (state == TCP_LISTEN)
		on_listener(&l, sk, direct);
	else if (state == TCP_ESTABLISHED || state == TCP_CLOSE_WAIT || state == TCP_FIN_WAIT1)
		on_connection(&l, sk, tp, direct);
	return 0;
}

SEC("?iter/task_file")
int tcp_wait__iter(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct socket *socket;
	struct tcp_sock *tp;
	struct sock *sk;

	if (!task || !file)
		return 0;
	socket = bpf_sock_from_file(file);
	if (!socket || !(sk = socket->sk) || !is_tcp(sk, true))
		return 0;
	tp = bpf_skc_to_tcp_sock(sk);
	return tp ? on_socket(sk, tp, true) : 0;
}

/* As in sockets.bpf.c. */
SEC("?iter/task_file")
int tcp_wait__iter_probed(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct socket *socket;
	struct sock *sk;

	if (!task || !file || (BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return 0;
	socket = BPF_CORE_READ(file, private_data);
	sk = socket ? BPF_CORE_READ(socket, sk) : NULL;
	return sk && is_tcp(sk, false) ? on_socket(sk, (struct tcp_sock *)sk, false) : 0;
}
