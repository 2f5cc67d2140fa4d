// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * drop: which packets of TCP and UDP does the kernel throw away, where, and why?
 *
 * Context: any, mostly softirq; `current` is never used. What is no packet of TCP or UDP leaves after a few loads. The rest
 * is added up by flow, second, reason and place, so that a flood is one event a second: see src/hooks/cost.rs. A row is an
 * event from the moment it is made: admitted, capped and counted then, and taken by user space when its second is over.
 */
#include "ktrace.bpf.h"
#include "packet.bpf.h"

#define MAX_DROP_ROWS 1024
#define NS_PER_SECOND 1000000000ULL

struct drop_rows_map {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_DROP_ROWS);
	__type(key, struct kt_drop_key);
	__type(value, struct kt_dropped);
};

/* Of two to three seconds, after which user space takes them. 1,024 x 344 bytes, made in advance: this runs where memory
 * cannot be waited for. */
struct drop_rows_map drop_rows SEC(".maps");

/* What found no room there, by everything but the client's port, the owner and the socket: a flood from many ports of one
 * host is one row. What finds no room here either is counted as if a ring were full. */
struct drop_rows_map drop_rest SEC(".maps");

/* The second in which the first map was full. */
static __u32 full_second;

/* Too large for the stack. A program is never run on top of itself on its CPU, so one a CPU is enough. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct kt_dropped);
} drop_scratch SEC(".maps");

/* Sockets are read by probe: `rx_sk` may be NULL without the verifier's knowing, and what `skb->sk` leads to is no pointer that
 * helpers take, but for that of socket storage. */
static __always_inline bool is_inet(struct sock *sk)
{
	__u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);

	return family == AF_INET || family == AF_INET6;
}

static __always_inline bool is_whole(struct sock *sk)
{
	__u8 state = BPF_CORE_READ(sk, __sk_common.skc_state);

	return state != TCP_TIME_WAIT && state != TCP_NEW_SYN_RECV;
}

/* Whether the socket is the packet's destination. One that is sent to its own port has both: then its address tells. */
static __always_inline bool is_destination(const struct kt_flow *f, struct sock *sk)
{
	__u16 port = BPF_CORE_READ(sk, __sk_common.skc_num);

	if (!port && is_whole(sk)) /* as it closes */
		port = bpf_ntohs(BPF_CORE_READ((struct inet_sock *)sk, inet_sport));
	if (f->lport != f->rport)
		return port == f->rport;
	return f->family == AF_INET && BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr) == *(__be32 *)f->raddr;
}

/* What a socket adds: its namespace, and if it is more than a stub its name and owner. */
static __always_inline struct kt_sock *add_socket(struct kt_flow *f, struct sock *sk, const bool direct)
{
	struct kt_sock *s;

	f->netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	if (!is_whole(sk))
		return NULL;
	s = sock_of(sk, false, direct);
	f->cookie = s && s->id ? s->id : BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);
	f->role = s ? s->role : KT_ROLE_NONE;
	if (s)
		settle_child(s, f->cookie);
	return s;
}

/* Before it has headers only its sender knows whom it is for. */
static __always_inline bool read_sender(struct kt_flow *f, struct sock *sk)
{
	if (!is_whole(sk) || (!is_tcp(sk, false) && !is_udp(sk, false)))
		return false;
	read_ends(f, sk, NULL, false);
	return f->rport;
}

/* The ends of the packet, and which way it goes; false: of no interest. `to`: it was for `sk`. */
static __always_inline bool read_way(struct kt_flow *f, __u8 *dir, struct sk_buff *skb, struct sock *sk, bool to,
				     const bool direct)
{
	struct dst_entry *dst;

	*dir = KT_DIR_SENT;
	if (!read_packet(f, skb, direct))
		return sk && !to && read_sender(f, sk);
	dst = dst_of(skb, direct);
	if (to || (sk ? is_destination(f, sk) : is_for_us(dst, f->family)))
		*dir = KT_DIR_RECEIVED;
	else if (!sk && KT_FIELD(direct, skb, skb_iif))
		*dir = KT_DIR_FORWARDED;
	if (*dir == KT_DIR_RECEIVED)
		turn_round(f);
	if (!sk)
		f->netns = netns_of_device(device_of(skb, dst, direct));
	return true;
}

/* TCP frees most segments that it needs no longer as if they had been consumed, and some, such as the last one of each
 * connection, as if they were dropped, for no reason that it would tell. By then all headers are pulled. */
static __always_inline bool is_spent(const struct kt_flow *f, struct sk_buff *skb, __u32 reason, const bool direct)
{
	__u64 data = (__u64)KT_FIELD(direct, skb, data), head = (__u64)KT_FIELD(direct, skb, head);

	return f->proto == IPPROTO_TCP && compat_is_unspecified(reason) &&
	       data - head >= KT_FIELD(direct, skb, transport_header);
}

static __always_inline void fill_key(struct kt_drop_key *key, const struct kt_flow *f, __u64 now)
{
	__builtin_memcpy(key->laddr, f->laddr, 16);
	__builtin_memcpy(key->raddr, f->raddr, 16);
	key->netns = f->netns;
	key->second = now / NS_PER_SECOND;
	key->lport = f->lport;
	key->rport = f->rport;
	key->family = f->family;
	key->proto = f->proto;
}

static __always_inline bool add_to_row(void *rows, const struct kt_drop_key *key, __u64 now, __u32 bytes)
{
	struct kt_dropped *row = bpf_map_lookup_elem(rows, key);

	if (!row)
		return false;
	__sync_fetch_and_add(&row->count, 1);
	__sync_fetch_and_add(&row->bytes, bytes);
	row->hdr.boot_ns = now; /* of two at once either is the last */
	return true;
}

/* One packet, with what is known of it. */
struct drop {
	struct kt_drop_key key;
	struct kt_flow flow;
	struct kt_task *owner;
	struct net_device *dev;
	__u64 now;
	__u32 bytes;
};

/* False: no room. `is_new`: nobody on another CPU had made the row meanwhile. */
static __always_inline bool put_row(void *rows, const struct drop *d, bool *is_new)
{
	__u32 zero = 0;
	struct kt_dropped *row = bpf_map_lookup_elem(&drop_scratch, &zero);

	if (!row)
		return false;
	__builtin_memset(row, 0, sizeof(*row));
	fill_header(&row->hdr, KT_DROP, d->now, &d->flow, d->owner);
	row->first_ns = d->now;
	row->count = 1;
	row->bytes = d->bytes;
	row->reason = d->key.reason;
	row->dir = d->key.dir;
	compat_symbol(row->symbol, sizeof(row->symbol), d->key.location);
	if (d->dev)
		bpf_probe_read_kernel_str(row->dev, sizeof(row->dev), d->dev->name);
	*is_new = !bpf_map_update_elem(rows, &d->key, row, BPF_NOEXIST);
	return *is_new || add_to_row(rows, &d->key, d->now, d->bytes);
}

/* Where nobody knows who is the client, it has the larger port of the two. */
static __always_inline void coarsen(struct drop *d)
{
	bool is_client = d->flow.role == KT_ROLE_NONE ? d->key.lport > d->key.rport : d->flow.role == KT_ROLE_CLIENT;

	if (is_client)
		d->key.lport = d->flow.lport = 0;
	else
		d->key.rport = d->flow.rport = 0;
	d->flow.cookie = 0;
	d->flow.role = KT_ROLE_NONE;
	d->owner = NULL;
}

static __always_inline bool put_somewhere(struct drop *d, bool *is_new)
{
	if (full_second != d->key.second) {
		if (put_row(&drop_rows, d, is_new))
			return true;
		full_second = d->key.second;
	}
	coarsen(d);
	return add_to_row(&drop_rest, &d->key, d->now, d->bytes) || put_row(&drop_rest, d, is_new);
}

/* A new row is an event, and what is added to one is none. The row comes late, so it settles nothing about other events of
 * its socket: filters by owner are asked as if it had none. */
static __always_inline void make_row(struct drop *d, __u8 *ends)
{
	struct kt_counters *c = counters_of(KT_DROP);
	struct kt_amount n = { .events = 1 };
	bool is_new = false;

	if (!c || !admit_ends(c, &d->flow, d->owner, NULL, ends))
		return;
	if (no_place(c, false)) {
		count_refused(c, &d->flow, d->owner, &n);
	} else if (!put_somewhere(d, &is_new)) {
		KT_BUMP(c->dropped[KT_DROP_RING_FULL]);
		count_refused(c, &d->flow, d->owner, &n);
	} else if (is_new) {
		KT_BUMP(kt_state.admitted_rare);
		KT_BUMP(c->submitted);
	} else {
		__sync_fetch_and_add(&c->observed, -1);
		__sync_fetch_and_add(&c->seen, -1);
		if (d->flow.flags & (KT_FLOW_UNDECIDED | KT_FLOW_REFUSED | KT_FLOW_UNNAMED))
			__sync_fetch_and_add(&kt_state.late, -1);
	}
}

/* `rx_sk`: the socket that it was for, where the kernel tells. */
static __always_inline int on_drop(struct sk_buff *skb, __u64 location, __u32 reason, struct sock *rx_sk,
				   const bool direct)
{
	struct drop d = { .key = { .location = location, .reason = reason } };
	bool to = rx_sk && is_inet(rx_sk);
	struct kt_sock *s = NULL;
	struct sock *sk;

	if (!kt_state.gate || compat_is_consumed(reason))
		return 0;
	sk = to ? rx_sk : KT_FIELD(direct, skb, sk);
	if (sk && !is_inet(sk))
		sk = NULL;
	if (!read_way(&d.flow, &d.key.dir, skb, sk, to, direct) || is_spent(&d.flow, skb, reason, direct))
		return 0;
	if (sk)
		s = add_socket(&d.flow, sk, direct);
	d.now = bpf_ktime_get_boot_ns();
	d.bytes = KT_FIELD(direct, skb, len);
	if (!d.bytes) /* a FIN that a queue held: nothing is lost with it */
		return 0;
	fill_key(&d.key, &d.flow, d.now);
	if (add_to_row(&drop_rows, &d.key, d.now, d.bytes))
		return 0;
	if (s && s->owner.source != KT_OWNER_NONE)
		d.owner = &s->owner;
	/* routing says of what is received only that it stays here */
	d.dev = device_of(skb, d.key.dir == KT_DIR_RECEIVED ? NULL : dst_of(skb, direct), direct);
	make_row(&d, s ? &s->ends : NULL);
	return 0;
}

/* with the socket that it was for */
SEC("?tp_btf/kfree_skb")
int BPF_PROG(drop__tp_btf_socket, struct sk_buff *skb, void *location, int reason, struct sock *rx_sk)
{
	return on_drop(skb, (__u64)location, reason, rx_sk, true);
}

SEC("?tp_btf/kfree_skb")
int BPF_PROG(drop__tp_btf_reason, struct sk_buff *skb, void *location, int reason)
{
	return on_drop(skb, (__u64)location, reason, NULL, true);
}

SEC("?tp_btf/kfree_skb")
int BPF_PROG(drop__tp_btf, struct sk_buff *skb, void *location)
{
	return on_drop(skb, (__u64)location, 0, NULL, true);
}

SEC("?tracepoint/skb/kfree_skb")
int drop__tracepoint(struct trace_event_raw_kfree_skb *ctx)
{
	return on_drop((struct sk_buff *)BPF_CORE_READ(ctx, skbaddr), (__u64)BPF_CORE_READ(ctx, location),
		       compat_drop_reason(ctx), compat_drop_rx_sk(ctx), false);
}
