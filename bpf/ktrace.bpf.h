/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The path of an event: filter → admit → take a place in a ring → fill → submit. Every refusal after `admit` bumps
 * exactly one counter.
 */
#pragma once
#include "refused.bpf.h"
#include "sock.bpf.h"
#include "task.bpf.h"

#define MAX_CALLS 8192
#define WAKEUP_SHIFT 18 /* 256 KiB */

/* Bulk ring: udp. Rare ring: everything else, so that a flood cannot push it out. Sizes set before load. */
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

/* One wanted end is enough. A receive without its peer cannot decide by itself: it passes if its socket has had a
 * wanted peer, since nothing that comes later would tell. */
static __always_inline bool ports_pass(const struct kt_flow *f, struct kt_sock *s)
{
	if (!kt_config.filter_ports)
		return true;
	if (port_wanted(f->lport) || port_wanted(f->rport)) {
		if (s)
			s->wanted = 1;
		return true;
	}
	return f->flags & KT_FLOW_RADDR_UNKNOWN && s && s->wanted;
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

/* UDP beyond its share takes no place: user space holds it until it is known what the rest has left. So a rare event
 * is refused only when rare events and UDP's share have used up the cap. */
static __always_inline bool event_capped(const bool bulk)
{
	__u64 udp = kt_state.admitted_bulk;

	if (bulk && udp >= kt_config.max_bulk + kt_config.spare_bulk)
		return true;
	if (udp > kt_config.max_bulk)
		udp = kt_config.max_bulk;
	return kt_state.admitted_rare + udp >= kt_config.max_events;
}

/* A place in the ring, or NULL with the reason counted; the caller then says by count_refused what it was. The caps spare the ring what the writer would refuse: they
 * may let a few more through than asked (one per CPU), and the writer, which is alone, is exact. No fetch-and-add,
 * which the verifier knows from 5.12 only. */
static __always_inline void *take_place(void *ring, __u64 size, struct kt_counters *c, const bool bulk)
{
	void *record;

	if (kt_state.byte_capped & (bulk ? KT_CAPPED_BULK | KT_CAPPED_ALL : KT_CAPPED_ALL)) {
		KT_BUMP(c->dropped[KT_DROP_BYTE_CAP]);
		return NULL;
	}
	if (event_capped(bulk)) {
		KT_BUMP(c->dropped[KT_DROP_EVENT_CAP]);
		return NULL;
	}
	record = bpf_ringbuf_reserve(ring, size, 0);
	if (!record) {
		KT_BUMP(c->dropped[KT_DROP_RING_FULL]);
		return NULL;
	}
	if (bulk)
		KT_BUMP(kt_state.admitted_bulk);
	else
		KT_BUMP(kt_state.admitted_rare);
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
