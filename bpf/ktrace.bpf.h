/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What every hook shares: the maps, the decision to admit, the way to the ring, and the reading of flows and
 * tasks. Two flavours of every body, chosen at compile time by `direct`:
 *   direct  tp_btf, fentry, fexit, iter: typed pointers, plain loads, socket storage and cookies
 *   probed  kprobe, classic tracepoint: raw pointers, bpf_probe_read_kernel, the hash of sockets
 */
#pragma once
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>
#include "compat.bpf.h"
#include "wire.h"

#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define SOCK_DGRAM 2
#define EAGAIN 11
#define PF_KTHREAD 0x00200000
#define S_IFMT 00170000
#define S_IFSOCK 0140000

#define MAX_HASHED_SOCKETS 65536
#define MAX_ACCEPTS 16384
#define MAX_CALLS 8192
#define WAKEUP_BYTES (256 * 1024)

/* What is remembered about a socket for as long as it lives. */
struct kt_sock {
	__u64 id; /* stands in for the cookie where no helper can make one; else 0 */
	__u64 born_ns; /* first state change, first use; 0: older than the capture */
	__u64 syn_ns; /* when it entered SYN_SENT; 0: not seen */
	struct kt_task owner;
	__u8 role; /* enum kt_role */
	__u8 known; /* bool: existed before the capture, or has been used */
	__u8 latch; /* enum kt_latch */
	__u8 child; /* bool: its entry into SYN_RECV is still to be told */
	__u8 reserved[4];
};

/* A socket's answer to the port filter, for records that cannot decide alone. */
enum kt_latch { LATCH_UNDECIDED = 0, LATCH_YES = 1, LATCH_NO = 2 };

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

/* Lives and dies with the socket; a child inherits its listener's. One kt_sock per socket. */
struct sock_storage_map {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct kt_sock);
};
extern struct sock_storage_map sock_storage SEC(".maps");

/* The same for kernels and variants without socket storage. key: struct sock address. A cache: entries go at
 * CLOSE (tcp) or by age; a reused address starts over at SYN_SENT, LISTEN and SYN_RECV. 65,536 x 144 bytes. */
struct sock_hash_map {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_HASHED_SOCKETS);
	__type(key, __u64);
	__type(value, struct kt_sock);
};
extern struct sock_hash_map sock_hash SEC(".maps");

/* Who accepted a child, from accept(2) until its next record. key: cookie, which no other socket will ever
 * have, so a stale entry can only age out. 16,384 x 96 bytes. */
struct accepts_map {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_ACCEPTS);
	__type(key, __u64);
	__type(value, struct kt_task);
};
extern struct accepts_map accepts SEC(".maps");

extern const volatile struct kt_config kt_config;
extern const volatile __u64 kt_ports[1024]; /* bit n: port n is wanted */
extern struct kt_state kt_state;

/* A function of its own in every object that calls it, instead of a copy in every program. */
#define KT_FUNC static __noinline __attribute__((unused))

/* ptr->member by a plain load or by a probe read */
#define KT_FIELD(direct, ptr, member) ((direct) ? (ptr)->member : BPF_CORE_READ(ptr, member))

static __always_inline struct kt_counters *counters_of(__u32 kind)
{
	return bpf_map_lookup_elem(&counters, &kind);
}

#define KT_BUMP(field) __sync_fetch_and_add(&(field), 1)

/* ---- sockets ---------------------------------------------------------------------------------------- */

static __always_inline struct kt_sock *sock_hashed(struct sock *sk, bool create)
{
	__u64 key = (__u64)sk;
	struct kt_sock *s = bpf_map_lookup_elem(&sock_hash, &key);

	if (!s && create) {
		static const struct kt_sock fresh;

		bpf_map_update_elem(&sock_hash, &key, &fresh, BPF_NOEXIST);
		s = bpf_map_lookup_elem(&sock_hash, &key);
	}
	return s;
}

/* NULL: no memory, or not there and not to be made. */
static __always_inline struct kt_sock *sock_of(struct sock *sk, bool create, const bool direct)
{
	if (direct && !kt_config.hash_store)
		return bpf_sk_storage_get(&sock_storage, sk, 0, create ? BPF_SK_STORAGE_GET_F_CREATE : 0);
	return sock_hashed(sk, create);
}

static __always_inline void sock_forget(struct sock *sk, const bool direct)
{
	__u64 key = (__u64)sk;

	if (!direct || kt_config.hash_store)
		bpf_map_delete_elem(&sock_hash, &key);
}

static __always_inline __u64 cookie_of(struct sock *sk, struct kt_sock *s, const bool direct)
{
	__u64 cookie;

	if (direct)
		return bpf_get_socket_cookie(sk);
	cookie = BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);
	if (cookie || !s)
		return cookie;
	/* Nobody asked for this socket's cookie yet and a probed program cannot make one: number it
	 * ourselves, out of the range that the kernel counts through. */
	if (!s->id)
		s->id = (1ULL << 63) | (__sync_fetch_and_add(&kt_state.next_id, 1) + 1);
	return s->id;
}

static __always_inline bool is_udp(struct sock *sk, const bool direct)
{
	__u16 family = KT_FIELD(direct, sk, __sk_common.skc_family);

	return (family == AF_INET || family == AF_INET6) && KT_FIELD(direct, sk, sk_protocol) == IPPROTO_UDP &&
	       KT_FIELD(direct, sk, sk_type) == SOCK_DGRAM;
}

static __always_inline bool is_tcp(struct sock *sk, const bool direct)
{
	__u16 family = KT_FIELD(direct, sk, __sk_common.skc_family);

	return (family == AF_INET || family == AF_INET6) && KT_FIELD(direct, sk, sk_protocol) == IPPROTO_TCP;
}

static __always_inline void read_flow(struct kt_flow *f, struct sock *sk, struct kt_sock *s, const bool direct)
{
	f->cookie = cookie_of(sk, s, direct);
	f->family = KT_FIELD(direct, sk, __sk_common.skc_family);
	f->proto = KT_FIELD(direct, sk, sk_protocol);
	f->lport = KT_FIELD(direct, sk, __sk_common.skc_num);
	f->rport = bpf_ntohs(KT_FIELD(direct, sk, __sk_common.skc_dport));
	f->role = s ? s->role : KT_ROLE_NONE;
	f->netns = direct ? sk->__sk_common.skc_net.net->ns.inum : BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	if (f->family == AF_INET) {
		*(__be32 *)f->laddr = KT_FIELD(direct, sk, __sk_common.skc_rcv_saddr);
		*(__be32 *)f->raddr = KT_FIELD(direct, sk, __sk_common.skc_daddr);
	} else if (direct) {
		__builtin_memcpy(f->laddr, &sk->__sk_common.skc_v6_rcv_saddr, 16);
		__builtin_memcpy(f->raddr, &sk->__sk_common.skc_v6_daddr, 16);
	} else {
		BPF_CORE_READ_INTO(&f->laddr, sk, __sk_common.skc_v6_rcv_saddr.in6_u.u6_addr8);
		BPF_CORE_READ_INTO(&f->raddr, sk, __sk_common.skc_v6_daddr.in6_u.u6_addr8);
	}
}

/* The socket behind a descriptor of the running task, or NULL. Raw pointer: read it by probe only. */
static __always_inline struct sock *sock_of_fd(__u64 fd)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct socket *socket;
	struct file *file = NULL;

	if (fd >= BPF_CORE_READ(table, max_fds))
		return NULL;
	bpf_probe_read_kernel(&file, sizeof(file), BPF_CORE_READ(table, fd) + fd);
	if (!file || (BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return NULL;
	socket = BPF_CORE_READ(file, private_data);
	return BPF_CORE_READ(socket, sk);
}

/* ---- tasks ------------------------------------------------------------------------------------------ */

/* cgroup v2 id; on a hybrid host, where most tasks sit in the v2 root, the v1 memory or pids one. */
static __always_inline void read_cgroup(struct kt_task *t, struct task_struct *task)
{
	struct css_set *set = BPF_CORE_READ(task, cgroups);
	struct cgroup_subsys_state *css;
	struct cgroup *cgroup;
	int i;

	t->cgroup = KT_CGROUP_V2;
	t->cgroup_id = BPF_CORE_READ(set, dfl_cgrp, kn, id);
	if (t->cgroup_id != 1)
		return;
	for (i = 0; i < 2; i++) {
		__u32 at;

		if (i == 0 ? !bpf_core_enum_value_exists(enum cgroup_subsys_id, memory_cgrp_id) :
			     !bpf_core_enum_value_exists(enum cgroup_subsys_id, pids_cgrp_id))
			continue;
		at = i == 0 ? bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id) :
			      bpf_core_enum_value(enum cgroup_subsys_id, pids_cgrp_id);
		css = NULL;
		bpf_probe_read_kernel(&css, sizeof(css),
				      (void *)set + bpf_core_field_offset(struct css_set, subsys) + at * sizeof(css));
		cgroup = BPF_CORE_READ(css, cgroup);
		if (cgroup && BPF_CORE_READ(cgroup, root, hierarchy_id) != 0) {
			t->cgroup = i == 0 ? KT_CGROUP_V1_MEMORY : KT_CGROUP_V1_PIDS;
			t->cgroup_id = BPF_CORE_READ(cgroup, kn, id);
			return;
		}
	}
}

static __always_inline __u32 read_pid_ns(struct task_struct *task)
{
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	__u32 level = BPF_CORE_READ(pid, level);
	struct upid *upid = (void *)pid + bpf_core_field_offset(struct pid, numbers);
	struct pid_namespace *ns;

	if (level > 32) /* MAX_PID_NS_LEVEL */
		return 0;
	upid = (void *)upid + level * bpf_core_type_size(struct upid);
	ns = BPF_CORE_READ(upid, ns);
	return BPF_CORE_READ(ns, ns.inum);
}

/* Fills everything but `source`. Any task, in any context: its fields are read by probe. */
KT_FUNC void read_task(struct kt_task *t, struct task_struct *task)
{
	struct task_struct *leader = BPF_CORE_READ(task, group_leader);
	const struct cred *cred = BPF_CORE_READ(task, real_cred);

	t->pid = BPF_CORE_READ(task, tgid);
	t->tid = BPF_CORE_READ(task, pid);
	t->ppid = BPF_CORE_READ(task, real_parent, tgid);
	t->uid = BPF_CORE_READ(cred, uid.val);
	t->gid = BPF_CORE_READ(cred, gid.val);
	t->start_ns = compat_start_ns(leader);
	t->ns_mnt = BPF_CORE_READ(task, nsproxy, mnt_ns, ns.inum);
	t->ns_pid = read_pid_ns(task);
	t->ns_user = BPF_CORE_READ(cred, user_ns, ns.inum);
	BPF_CORE_READ_STR_INTO(&t->comm, leader, comm);
	BPF_CORE_READ_STR_INTO(&t->thread, task, comm);
	if (kt_config.with_security) {
		t->caps_eff = compat_caps_eff(cred);
		if (bpf_core_field_exists(task->seccomp))
			t->seccomp = BPF_CORE_READ(task, seccomp.mode);
	}
	read_cgroup(t, task);
}

/* Only where `current` is provably in its own context on this socket. A kernel thread owns for the kernel. */
KT_FUNC void set_owner(struct kt_task *t, __u8 source)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();

	read_task(t, task);
	t->source = BPF_CORE_READ(task, flags) & PF_KTHREAD ? KT_OWNER_KERNEL : source;
}

static __always_inline bool current_is_kernel(void)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();

	return BPF_CORE_READ(task, flags) & PF_KTHREAD;
}

/* A child that still carries its listener's owner takes the one that accepted it, once that is known. */
static __always_inline void settle_child(struct kt_sock *s, __u64 cookie)
{
	struct kt_task *accepted;

	if (s->owner.source != KT_OWNER_INHERITED && s->owner.source != KT_OWNER_NONE)
		return;
	accepted = bpf_map_lookup_elem(&accepts, &cookie);
	if (accepted) {
		s->owner = *accepted;
		bpf_map_delete_elem(&accepts, &cookie);
	}
}

/* ---- admission -------------------------------------------------------------------------------------- */

static __always_inline bool port_wanted(__u16 port)
{
	return kt_ports[port >> 6] >> (port & 63) & 1;
}

/* Both ends decide when both are known; one wanted end is enough. A record that cannot decide takes the
 * answer that its socket gave last, and is admitted when there is none. */
static __always_inline bool ports_pass(const struct kt_flow *f, struct kt_sock *s)
{
	if (!kt_config.filter_ports)
		return true;
	if (port_wanted(f->lport) || port_wanted(f->rport)) {
		if (s)
			s->latch = LATCH_YES;
		return true;
	}
	if (f->lport && f->rport) {
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

/* Never the default wakeup: it costs ten times the record. The consumer polls; a filling ring wakes it. */
static __always_inline void submit(void *ring, void *record, struct kt_counters *c)
{
	__u64 waiting = bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA);

	KT_BUMP(c->submitted);
	bpf_ringbuf_submit(record, waiting > WAKEUP_BYTES ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
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
