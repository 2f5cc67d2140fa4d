/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The path of an event: filter → admit → take a place in a ring → fill → submit. Every refusal after `admit` bumps
 * exactly one counter.
 */
#pragma once
#include "sock.bpf.h"
#include "task.bpf.h"

#define MAX_CALLS 8192
#define WAKEUP_SHIFT 18 /* 256 KiB */

/* Plain ring: udp. Rare ring: everything else, so that a flood cannot push it out. Sizes set before load. */
struct ring_map {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
};
extern struct ring_map bulk_ring SEC(".maps");
extern struct ring_map rare_ring SEC(".maps");

/* key: enum kt_kind */
struct counters_map {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, KT_KIND_MAX);
	__type(key, __u32);
	__type(value, struct kt_counters);
};
extern struct counters_map counters SEC(".maps");

static __always_inline struct kt_counters *counters_of(__u32 kind)
{
	return bpf_map_lookup_elem(&counters, &kind);
}

#define KT_BUMP(field) __sync_fetch_and_add(&(field), 1)

static __always_inline bool port_wanted(__u16 port)
{
	return kt_ports[port >> 6] >> (port & 63) & 1;
}

/* One wanted end is enough. Only a receive without its peer cannot decide: it takes the answer that its socket
 * gave last, and is admitted when there is none. */
static __always_inline bool ports_pass(const struct kt_flow *f, struct kt_sock *s)
{
	if (!kt_config.filter_ports)
		return true;
	if (port_wanted(f->lport) || port_wanted(f->rport)) {
		if (s)
			s->latch = LATCH_YES;
		return true;
	}
	if (!(f->flags & KT_FLOW_RADDR_UNKNOWN)) {
		if (s)
			s->latch = LATCH_NO;
		return false;
	}
	return !s || s->latch != LATCH_NO;
}

/* observed = filtered + seen: from here on the event is seen, or its filter is counted. */
static __always_inline bool admit(struct kt_counters *c, const struct kt_flow *f, const struct kt_task *owner,
				  struct kt_sock *s)
{
	KT_BUMP(c->observed);
	if (owner && owner->pid && owner->pid == kt_state.self_pid) {
		KT_BUMP(c->filtered[KT_FILTER_SELF]);
		return false;
	}
	if (!ports_pass(f, s)) {
		KT_BUMP(c->filtered[KT_FILTER_PORTS]);
		return false;
	}
	KT_BUMP(c->seen);
	return true;
}

/* A place in the ring, or NULL with the reason counted. Exact: reserve, then take a number, then give the
 * place back if the number is above the cap. */
static __always_inline void *take_place(void *ring, __u64 size, struct kt_counters *c, __u64 cap)
{
	void *record;

	if (kt_state.byte_capped) {
		KT_BUMP(c->dropped[KT_DROP_BYTE_CAP]);
		return NULL;
	}
	if (*(volatile __u64 *)&kt_state.admitted >= cap) {
		KT_BUMP(c->dropped[KT_DROP_EVENT_CAP]);
		return NULL;
	}
	record = bpf_ringbuf_reserve(ring, size, 0);
	if (!record) {
		KT_BUMP(c->dropped[KT_DROP_RING_FULL]);
		return NULL;
	}
	if (__sync_fetch_and_add(&kt_state.admitted, 1) >= cap) {
		KT_BUMP(c->dropped[KT_DROP_EVENT_CAP]);
		bpf_ringbuf_discard(record, BPF_RB_NO_WAKEUP);
		return NULL;
	}
	return record;
}

/* Never the default wakeup: it costs ten times the record. The consumer polls; a filling ring wakes it, once for
 * every 256 KiB that wait. */
static __always_inline void submit(void *ring, void *record, __u64 size, struct kt_counters *c)
{
	__u64 waiting = bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA);
	bool crossed = (waiting - size) >> WAKEUP_SHIFT < waiting >> WAKEUP_SHIFT;

	KT_BUMP(c->submitted);
	bpf_ringbuf_submit(record, crossed ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
}

static __always_inline void fill_header(struct kt_header *h, __u32 kind, __u64 boot_ns, const struct kt_flow *f,
					const struct kt_task *owner)
{
	h->boot_ns = boot_ns;
	h->kind = kind;
	h->cpu = bpf_get_smp_processor_id();
	h->flow = *f;
	if (owner)
		h->owner = *owner;
	else
		__builtin_memset(&h->owner, 0, sizeof(h->owner));
}
