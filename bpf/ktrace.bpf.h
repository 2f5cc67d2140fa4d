/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The path of an event: filter → admit → take a place in a ring → fill → submit. Every refusal after `admit` bumps
 * exactly one counter.
 */
#pragma once
#include "refused.bpf.h"
#include "sock.bpf.h"
#include "task.bpf.h"
#include "filter.bpf.h"

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

/* Of several programs at one place, in the order in which they run. The kernel skips one that is already running on its
 * CPU: below an interrupt, or (Linux 7.0, where it can be preempted) in a task that waits there for its turn. What one
 * is skipped for, the next one takes; each leaves a mark of what it took. As many are needed as may be held at once. */
enum part {
	ALONE,
	FIRST, /* of two or more */
	FIRST_OF_MORE, /* alone unless kt_config.more */
	BETWEEN,
	LAST,
};

static __always_inline bool is_first(const enum part part)
{
	return part == ALONE || part == FIRST || part == FIRST_OF_MORE;
}

static __always_inline bool is_last(const enum part part)
{
	return part == ALONE || part == LAST || (part == FIRST_OF_MORE && !kt_config.more);
}

/* observed = filtered + seen: from here on the event is seen, or its filter is counted. `ends` is what is remembered
 * about the ends, or NULL. */
static __always_inline bool admit_ends(struct kt_counters *c, struct kt_flow *f, const struct kt_task *owner,
				       struct kt_sock *s, __u8 *ends)
{
	__u64 no = KT_FILTER_SELF;

	KT_BUMP(c->observed);
	if (!owner || !owner->pid || owner->pid != kt_state.self_pid) {
		no = flow_refused_by(f, ends);
		if (no == KT_FILTER_MAX)
			no = event_refused_by(f, owner, s);
	}
	barrier_var(no); /* the verifier has to see the bound on the register that is the index */
	if (no < KT_FILTER_MAX) {
		KT_BUMP(c->filtered[no]);
		return false;
	}
	KT_BUMP(c->seen);
	return true;
}

static __always_inline bool admit(struct kt_counters *c, struct kt_flow *f, const struct kt_task *owner,
				  struct kt_sock *s)
{
	return admit_ends(c, f, owner, s, s ? &s->ends : NULL);
}

/* Whether `--sample` leaves this flow of UDP out: a client's socket with all its remote ends, so that no reply is
 * parted from its query, or one remote end of a server's. The cookie is not random, its mix is (the finalizer of
 * splitmix64). */
static __always_inline bool sampled_out(const struct kt_flow *f)
{
	const __u64 *raddr = (const __u64 *)f->raddr;
	__u64 mix = f->cookie;

	if (kt_config.sample < 2)
		return false;
	if (f->role == KT_ROLE_SERVER)
		mix ^= (raddr[0] * 31 + raddr[1]) * 31 + f->rport;
	mix += 0x9e3779b97f4a7c15ULL;
	mix = (mix ^ mix >> 30) * 0xbf58476d1ce4e5b9ULL;
	mix = (mix ^ mix >> 27) * 0x94d049bb133111ebULL;
	mix ^= mix >> 31;
	return mix % kt_config.sample;
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
	/* what a filter could not judge yet may still be refused: it uses nothing up */
	return kt_state.admitted_rare + udp >= kt_config.max_events + kt_state.late;
}

/* Whether a cap leaves no place, with the reason counted. The caps spare the way to user space what the writer would refuse:
 * they may let a few more through than asked (one per CPU), and the writer, which is alone, is exact. No fetch-and-add,
 * which the verifier knows from 5.12 only. */
static __always_inline bool no_place(struct kt_counters *c, const bool bulk)
{
	if (kt_state.byte_capped & (bulk ? KT_CAPPED_BULK | KT_CAPPED_ALL : KT_CAPPED_ALL)) {
		KT_BUMP(c->dropped[KT_DROP_BYTE_CAP]);
		return true;
	}
	if (event_capped(bulk)) {
		KT_BUMP(c->dropped[KT_DROP_EVENT_CAP]);
		return true;
	}
	return false;
}

/* A place in the ring, or NULL with the reason counted; the caller then says by count_refused what it was. */
static __always_inline void *take_place(void *ring, __u64 size, struct kt_counters *c, const bool bulk)
{
	void *record;

	if (no_place(c, bulk))
		return NULL;
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
