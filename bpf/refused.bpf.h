/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What the kernel side refuses after it was seen still counts: how much, whose, and on which flow. Runs at the moment
 * of refusal only, so an event that gets through costs nothing here. Rows are never evicted: what finds no room is in
 * the counters' total and in no row, which makes the difference the row of all others. About 0.3 us an event.
 */
#pragma once
#include "sock.bpf.h"

/* 4,096 x 144 bytes; key: kt_process_key */
struct process_rows_map {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct kt_process_key);
	__type(value, struct kt_process_row);
};
extern struct process_rows_map process_rows SEC(".maps");

/* 16,384 x 160 bytes; key: kt_flow_key, which leaves out the port that the client's kernel chose, so that the many
 * sockets of one client are one row */
struct flow_rows_map {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct kt_flow_key);
	__type(value, struct kt_amount);
};
extern struct flow_rows_map flow_rows SEC(".maps");

/* 3 x 3,840 x 8 bytes; key: enum kt_histogram * KT_HIST_BUCKETS + bucket */
struct histograms_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, KT_HIST_MAX * KT_HIST_BUCKETS);
	__type(key, __u32);
	__type(value, __u64);
};
extern struct histograms_map histograms SEC(".maps");

#define KT_ADD(field, n)                                       \
	do {                                                   \
		if (n)                                         \
			__sync_fetch_and_add(&(field), (n));   \
	} while (0)

static __always_inline void add_amount(struct kt_amount *sum, const struct kt_amount *n)
{
	KT_ADD(sum->events, n->events);
	KT_ADD(sum->tx_bytes, n->tx_bytes);
	KT_ADD(sum->rx_bytes, n->rx_bytes);
	KT_ADD(sum->connections, n->connections);
	KT_ADD(sum->retrans[KT_RETRANS_DATA], n->retrans[KT_RETRANS_DATA]);
	KT_ADD(sum->retrans[KT_RETRANS_SYN], n->retrans[KT_RETRANS_SYN]);
	KT_ADD(sum->retrans[KT_RETRANS_SYNACK], n->retrans[KT_RETRANS_SYNACK]);
	KT_ADD(sum->retrans[KT_RETRANS_PROBE], n->retrans[KT_RETRANS_PROBE]);
}

KT_FUNC void add_to_process(const struct kt_task *owner, const struct kt_amount *n)
{
	static const struct kt_process_row fresh;
	struct kt_process_key key = {};
	struct kt_process_row *row;

	if (owner->source != KT_OWNER_NONE) {
		key.start_ns = owner->start_ns;
		key.pid = owner->pid;
	}
	row = bpf_map_lookup_elem(&process_rows, &key);
	if (!row) {
		bpf_map_update_elem(&process_rows, &key, &fresh, BPF_NOEXIST);
		row = bpf_map_lookup_elem(&process_rows, &key);
		if (!row)
			return;
		/* whoever comes second writes the same */
		if (key.pid)
			__builtin_memcpy(row->comm, owner->comm, sizeof(row->comm));
	}
	add_amount(&row->n, n);
}

KT_FUNC void add_to_flow(const struct kt_flow *f, const struct kt_amount *n)
{
	static const struct kt_amount fresh;
	struct kt_flow_key key = { .netns = f->netns, .family = f->family, .proto = f->proto };
	struct kt_amount *row;

	__builtin_memcpy(key.laddr, f->laddr, sizeof(key.laddr));
	__builtin_memcpy(key.raddr, f->raddr, sizeof(key.raddr));
	key.lport = f->role == KT_ROLE_CLIENT ? 0 : f->lport;
	key.rport = f->role == KT_ROLE_SERVER ? 0 : f->rport;
	row = bpf_map_lookup_elem(&flow_rows, &key);
	if (!row) {
		bpf_map_update_elem(&flow_rows, &key, &fresh, BPF_NOEXIST);
		row = bpf_map_lookup_elem(&flow_rows, &key);
		if (!row)
			return;
	}
	add_amount(row, n);
}

/* `owner` may have no source: nobody is known to own it. */
static __always_inline void count_refused(struct kt_counters *c, const struct kt_flow *f, const struct kt_task *owner,
					  const struct kt_amount *n)
{
	static const struct kt_task nobody;

	add_amount(&c->refused, n);
	add_to_process(owner ? owner : &nobody, n);
	add_to_flow(f, n);
}

static __always_inline __u32 log2_of(__u64 v)
{
	__u32 log = 0;

	if (v >> 32) {
		v >>= 32;
		log += 32;
	}
	if (v >> 16) {
		v >>= 16;
		log += 16;
	}
	if (v >> 8) {
		v >>= 8;
		log += 8;
	}
	if (v >> 4) {
		v >>= 4;
		log += 4;
	}
	if (v >> 2) {
		v >>= 2;
		log += 2;
	}
	return log + (v >> 1);
}

KT_FUNC void count_duration(__u32 histogram, __u64 ns)
{
	__u32 log = log2_of(ns), shift = log < 6 ? 0 : log - 6;
	__u32 key = histogram * KT_HIST_BUCKETS + shift * 64 + (__u32)(ns >> (shift & 63));
	__u64 *count = bpf_map_lookup_elem(&histograms, &key);

	if (count)
		__sync_fetch_and_add(count, 1);
}

/* Whether this is the first event of a UDP socket. */
static __always_inline bool first_event(struct kt_sock *s)
{
	if (!s || s->counted)
		return false;
	s->counted = 1;
	return true;
}
