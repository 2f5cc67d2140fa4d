/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Which events are wanted. Each filter is a list of wanted and of unwanted (`!`) values: what an unwanted one matches
 * is refused; else what a wanted one matches passes; else it passes if the filter wants nothing in particular. An
 * event has to pass every filter that has values. One that is off costs nothing: its code is pruned at load.
 */
#pragma once
#include "sock.bpf.h"
#include "task.bpf.h"

#define MAX_FAILED 4096

/* --cidr: 1 to 64 prefixes and, under a wide v6 one, an empty one for all of IPv4. value: enum kt_listed */
struct filter_cidrs_map {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct kt_prefix);
	__type(value, __u8);
};
extern struct filter_cidrs_map filter_cidrs SEC(".maps");

/* --netns: 1 to 64 inode numbers. value: enum kt_listed */
struct filter_netns_map {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u8);
};
extern struct filter_netns_map filter_netns SEC(".maps");

/* --pid: 1 to 64 process ids. value: enum kt_listed */
struct filter_pids_map {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u8);
};
extern struct filter_pids_map filter_pids SEC(".maps");

/* --comm: 1 to 64 names, filled up with zeros. value: enum kt_listed */
struct filter_comms_map {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, char[16]);
	__type(value, __u8);
};
extern struct filter_comms_map filter_comms SEC(".maps");

/* --namespace, --pod, --container: what user space has said of the cgroups that it knows. value: enum kt_filter, the one
 * that refuses, or KT_FILTER_MAX. 16,384 of them; what finds no room is asked again, event by event. */
struct filter_homes_map {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct kt_cgroup_key);
	__type(value, __u8);
};
extern struct filter_homes_map filter_homes SEC(".maps");

/* The ends of a socket whose connect failed: connect(2) returns when the kernel has cleared the local end and the remote
 * port. */
struct kt_failed {
	struct kt_end remote; /* where its SYN went, which need not be what was asked for */
	__u8 ends; /* what filters said of them, as in kt_sock */
	__u8 reserved[3];
};

/* key: cookie, which no other socket will ever have, so a stale entry can only age out; with the hash of sockets, which
 * numbers one anew after its CLOSE, the address, and an attempt starts without an entry. 4,096 x 24 bytes. */
struct failed_ends_map {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, __u64);
	__type(value, struct kt_failed);
};
extern struct failed_ends_map failed_ends SEC(".maps");

static __always_inline __u8 listed_in(void *map, const void *key)
{
	__u8 *listed = bpf_map_lookup_elem(map, key);

	return listed ? *listed : 0;
}

static __always_inline bool passes(__u32 filter, __u8 listed)
{
	if (listed & KT_LISTED_UNWANTED)
		return false;
	return listed & KT_LISTED_WANTED || !(kt_config.wants >> filter & 1);
}

static __always_inline __u8 port_listed(__u16 port)
{
	__u8 listed = kt_ports[port >> 6] >> (port & 63) & 1 ? KT_LISTED_WANTED : 0;

	return kt_unwanted_ports[port >> 6] >> (port & 63) & 1 ? listed | KT_LISTED_UNWANTED : listed;
}

/* `is_open`: there is an end that nobody knows, and neither list has the others. What the socket's ends have said
 * before then counts, since nothing that comes later would tell. */
static __always_inline bool ends_pass(__u32 filter, __u8 listed, bool is_open, __u8 *ends, __u32 shift)
{
	bool pass = passes(filter, listed);
	__u8 said;

	if (!listed && is_open) {
		said = *ends >> shift & (KT_LISTED_WANTED | KT_LISTED_UNWANTED);
		return said ? said & KT_LISTED_WANTED : pass;
	}
	*ends |= (pass ? KT_LISTED_WANTED : KT_LISTED_UNWANTED) << shift;
	return pass;
}

static __always_inline bool is_wildcard(const __u8 *addr)
{
	const __u64 *words = (const __u64 *)addr;

	return !words[0] && !words[1];
}

/* The longest prefix decides for each address. */
KT_FUNC __u8 address_listed(const __u8 *addr, __u16 family)
{
	struct kt_prefix key = { .bits = 128 };

	if (family == AF_INET) {
		key.addr[10] = key.addr[11] = 0xff;
		__builtin_memcpy(&key.addr[12], addr, 4);
	} else {
		__builtin_memcpy(key.addr, addr, 16);
	}
	return listed_in(&filter_cidrs, &key);
}

static __always_inline bool cidr_passes(const struct kt_flow *f, __u8 *ends)
{
	bool no_local = is_wildcard(f->laddr);
	bool no_remote = f->flags & KT_FLOW_RADDR_UNKNOWN || is_wildcard(f->raddr);
	__u8 listed = 0;

	if (!no_local)
		listed |= address_listed(f->laddr, f->family);
	if (!no_remote)
		listed |= address_listed(f->raddr, f->family);
	return ends_pass(KT_FILTER_CIDR, listed, no_local || no_remote, ends, 2);
}

static __always_inline bool ports_pass(const struct kt_flow *f, __u8 *ends)
{
	bool is_open = !f->lport || !f->rport || f->flags & KT_FLOW_RADDR_UNKNOWN;

	return ends_pass(KT_FILTER_PORTS, port_listed(f->lport) | port_listed(f->rport), is_open, ends, 0);
}

/* The filter by namespace and ends that refuses, or KT_FILTER_MAX. `ends` may be NULL. */
static __always_inline __u32 flow_refused_by(const struct kt_flow *f, __u8 *ends)
{
	__u8 none = 0;

	if (!ends)
		ends = &none;
	/* or clang asks again which of them it is, by `|` with other questions: the verifiers up to 6.1 lose the answer */
	barrier_var(ends);
	if (filter_is_on(KT_FILTER_NETNS) && !passes(KT_FILTER_NETNS, listed_in(&filter_netns, &f->netns)))
		return KT_FILTER_NETNS;
	if (filter_is_on(KT_FILTER_PORTS) && !ports_pass(f, ends))
		return KT_FILTER_PORTS;
	if (filter_is_on(KT_FILTER_CIDR) && !cidr_passes(f, ends))
		return KT_FILTER_CIDR;
	return KT_FILTER_MAX;
}

static __always_inline __u32 home_refused_by(const struct kt_task *t)
{
	struct kt_cgroup_key key = { .id = t->cgroup_id, .hierarchy = t->cgroup };
	__u8 *answer = bpf_map_lookup_elem(&filter_homes, &key);

	return answer ? *answer : KT_FILTER_LATER;
}

/* The filter by owner that refuses, or KT_FILTER_MAX, or KT_FILTER_LATER. src/capture/owners.rs asks the same in user
 * space. */
KT_FUNC __u32 owner_refused_by(const struct kt_task *t)
{
	if (filter_is_on(KT_FILTER_PID) && !passes(KT_FILTER_PID, listed_in(&filter_pids, &t->pid)))
		return KT_FILTER_PID;
	if (filter_is_on(KT_FILTER_COMM) &&
	    !passes(KT_FILTER_COMM, listed_in(&filter_comms, t->comm) | listed_in(&filter_comms, t->thread)))
		return KT_FILTER_COMM;
	if (filter_is_on(KT_FILTER_CGROUP) && !passes(KT_FILTER_CGROUP, t->cgroup_listed))
		return KT_FILTER_CGROUP;
	return filters_homes() ? home_refused_by(t) : KT_FILTER_MAX;
}

/* A connection is recorded whole or not at all: the first owner that was found in its own context, or in a file table,
 * answers for good. 0: there was none yet. */
static __always_inline __u8 latched_answer(struct kt_sock *s)
{
	__u8 answer = s->answer;

	if (!answer && s->owner.source != KT_OWNER_NONE && s->owner.source != KT_OWNER_INHERITED) {
		answer = owner_refused_by(&s->owner);
		if (answer != KT_FILTER_LATER)
			s->answer = answer;
	}
	return answer;
}

/* The same for an event: a datagram and a call answer for themselves, by the task that made them. */
static __always_inline __u8 owner_answer(const struct kt_flow *f, const struct kt_task *owner, struct kt_sock *s)
{
	if (owner && (f->proto == IPPROTO_UDP || !s))
		return owner_refused_by(owner);
	/* a listener's storage says nothing about a child that does not exist yet */
	if (!s || (f->role == KT_ROLE_SERVER && s->role == KT_ROLE_LISTENER))
		return 0;
	return latched_answer(s);
}

/* The socket begins another life. */
static __always_inline void forget_answers(struct kt_sock *s)
{
	s->ends = s->answer = s->undecided = 0;
}

/* Before another task can become the owner: the one that accepted answers. Where that is still to be asked, the next
 * one does, in the same pod but for a descriptor that was handed to another. */
static __always_inline void latch_acceptor(struct sock *sk, struct kt_sock *s, const bool direct)
{
	if (!filters_owners() || s->answer)
		return;
	settle_child(s, cookie_of(sk, s, direct));
	latched_answer(s);
}

/* The filter by owner that refuses, or KT_FILTER_MAX. An event that cannot be judged yet passes and is marked; so is
 * the first one after it that is refused, for user space to drop both. */
static __always_inline __u32 event_refused_by(struct kt_flow *f, const struct kt_task *owner, struct kt_sock *s)
{
	__u8 answer;

	if (!filters_owners())
		return KT_FILTER_MAX;
	answer = owner_answer(f, owner, s);
	if (!answer) {
		f->flags |= KT_FLOW_UNDECIDED;
		if (s && s->role != KT_ROLE_LISTENER)
			s->undecided = 1;
	} else if (answer == KT_FILTER_LATER) {
		f->flags |= KT_FLOW_UNNAMED;
		if (s)
			s->undecided = 0;
	} else if (answer < KT_FILTER_MAX) {
		if (f->proto == IPPROTO_UDP || !s || !s->undecided)
			return answer;
		f->flags |= KT_FLOW_REFUSED;
		s->undecided = 0;
	} else if (s) {
		s->undecided = 0;
	}
	if (f->flags & (KT_FLOW_UNDECIDED | KT_FLOW_REFUSED | KT_FLOW_UNNAMED))
		__sync_fetch_and_add(&kt_state.late, 1);
	return KT_FILTER_MAX;
}

/* Whether a socket that has no local port yet has to get one before --ports can decide. */
static __always_inline bool port_decides_later(__u16 rport)
{
	__u8 listed = port_listed(rport);

	if (!filter_is_on(KT_FILTER_PORTS) || listed & KT_LISTED_UNWANTED)
		return false;
	return !listed || kt_config.refuses >> KT_FILTER_PORTS & 1;
}

static __always_inline __u64 failed_key(struct sock *sk, const struct kt_flow *f)
{
	return kt_config.hash_store ? (__u64)sk : f->cookie;
}

/* connect(2) will ask which ends they were. */
static __always_inline void remember_failed(struct sock *sk, const struct kt_flow *f, const struct kt_sock *s)
{
	__u64 key = failed_key(sk, f);
	struct kt_failed failed = { .remote = { .port = f->rport, .family = f->family }, .ends = s ? s->ends : 0 };

	__builtin_memcpy(failed.remote.addr, f->raddr, 16);
	bpf_map_update_elem(&failed_ends, &key, &failed, BPF_ANY);
}

/* An attempt that has returned leaves nothing to the next one of its socket. */
static __always_inline void take_failed(struct kt_failed *failed, struct sock *sk, const struct kt_flow *f)
{
	__u64 key = failed_key(sk, f);
	struct kt_failed *found = bpf_map_lookup_elem(&failed_ends, &key);

	if (!found)
		return;
	*failed = *found;
	if (!f->rport)
		bpf_map_delete_elem(&failed_ends, &key);
}
