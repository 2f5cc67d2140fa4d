/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Sockets: what is remembered about each, where that lives, and how a flow is read from one. Keyed by the socket
 * itself or by its cookie, never by the running task.
 */
#pragma once
#include "base.bpf.h"

#define MAX_HASHED_SOCKETS 65536
/* Set in a number that stands in for a cookie: out of the range that the kernel counts through. */
#define KT_OWN_ID (1ULL << 63)
#define MAX_ACCEPTS 16384

/* An address and a port that some call named. Aligned, or a copy is as many instructions as it has halves of a word. */
struct kt_end {
	__u8 addr[16]; /* network order; AF_INET uses the first 4 bytes */
	__u16 port;
	__u16 family; /* 0: nothing here */
} __attribute__((aligned(4)));

/* What is remembered about a socket for as long as it lives. With what the kernel adds (72 bytes) it takes no more than 256:
 * the next size is twice that. */
struct kt_sock {
	__u64 id; /* stands in for the cookie where no helper can make one; else 0 */
	__u64 born_ns; /* first state change, first use; 0: older than the capture */
	__u64 syn_ns; /* when it entered SYN_SENT; 0: not seen */
	struct kt_task owner;
	__u8 role; /* enum kt_role */
	__u8 known; /* bool: existed before the capture, or has been used */
	__u8 ends; /* enum kt_listed, for --ports and << 2 for --cidr: the answers so far */
	__u8 untold; /* bool: its entry into SYN_SENT or SYN_RECV is still to be told */
	__u16 taken; /* old << 8 | new of the state change that was taken last */
	__u8 counted; /* bool: a UDP socket that has had an event */
	__u8 answer; /* tcp, filters by owner: 0 none yet, enum kt_filter that refuses, KT_FILTER_MAX admitted */
	__u64 start_tx; /* tcp: bytes moved before the window */
	__u64 start_rx;
	__u32 retrans; /* total_retrans at the last retransmit that was seen; 0: none was */
	struct kt_end asked; /* udp: what connect(2) was called with; in its place the remote end may be another */
	__u8 undecided; /* bool: has had events while there was no answer */
	__u8 reserved[7];
};
_Static_assert(sizeof(struct kt_sock) <= 256 - 72, "what is remembered about a socket takes twice the memory");

/* Lives and dies with the socket; a child inherits its listener's. One kt_sock per socket. */
struct sock_storage_map {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct kt_sock);
};
extern struct sock_storage_map sock_storage SEC(".maps");

/* The same for kernels and variants without socket storage. key: struct sock address. A cache: entries go at CLOSE (tcp),
 * with the socket (udp, by kprobes) or by age. One that is left of another socket is told by: a birth, which starts over
 * (SYN_SENT, LISTEN, children at SYN_RECV or in tcp_ca_openreq_child), or the cookie (udp, typed programs).
 * 65,536 x 184 bytes. */
struct sock_hash_map {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_HASHED_SOCKETS);
	__type(key, __u64);
	__type(value, struct kt_sock);
};
extern struct sock_hash_map sock_hash SEC(".maps");

/* Who accepted a child, from accept(2) until its next record. key: cookie, which no other socket will ever
 * have, so a stale entry can only age out; of a child without one, which is still in SYN_RECV, its address,
 * until it leaves that state. 16,384 x 96 bytes. */
struct accepts_map {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_ACCEPTS);
	__type(key, __u64);
	__type(value, struct kt_task);
};
extern struct accepts_map accepts SEC(".maps");

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

/* Where an entry of the hash may be left of another socket, and a typed program knows this one's cookie. */
static __always_inline void sock_keep_to(struct kt_sock *s, __u64 cookie)
{
	static const struct kt_sock fresh;

	if (s->id && !(s->id & KT_OWN_ID) && s->id != cookie)
		*s = fresh;
	if (!s->id)
		s->id = cookie;
}

static __always_inline void sock_forget(struct sock *sk, const bool direct)
{
	__u64 key = (__u64)sk;

	if (!direct || kt_config.hash_store)
		bpf_map_delete_elem(&sock_hash, &key);
}

static __always_inline __u64 cookie_of(struct sock *sk, struct kt_sock *s, const bool direct)
{
	__u64 cookie = KT_FIELD(direct, sk, __sk_common.skc_cookie.counter);

	if (s && s->id) /* one name for the socket's whole life, also if it gets a cookie later */
		return s->id;
	if (cookie)
		return cookie;
	if (direct)
		return bpf_get_socket_cookie(sk); /* makes one */
	if (!s)
		return 0;
	/* Nobody asked for this socket's cookie yet and a probed program cannot make one: number it by the time. */
	if (!s->id)
		s->id = KT_OWN_ID | bpf_ktime_get_boot_ns();
	return s->id;
}

/* Payload that was received: the kernel counts the peer's FIN as a byte. */
static __always_inline __u64 rx_bytes_of(struct sock *sk, struct tcp_sock *tp, const bool direct)
{
	__u64 done = 1UL << bpf_core_enum_value(enum sock_flags, SOCK_DONE);
	__u64 received = KT_FIELD(direct, tp, bytes_received);

	return received - (received && KT_FIELD(direct, sk, __sk_common.skc_flags) & done ? 1 : 0);
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

/* All but the cookie. */
static __always_inline void read_ends(struct kt_flow *f, struct sock *sk, struct kt_sock *s, const bool direct)
{
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

static __always_inline void read_flow(struct kt_flow *f, struct sock *sk, struct kt_sock *s, const bool direct)
{
	f->cookie = cookie_of(sk, s, direct);
	read_ends(f, sk, s, direct);
}

/* sockaddr_in and sockaddr_in6 (user ABI): family, port, then 4 bytes of address, or flow info and 16. */
struct kt_sockaddr {
	__u16 family;
	__be16 port;
	__u8 rest[20];
};
#define SOCKADDR_IN_BYTES 16

static __always_inline bool end_of_sockaddr(struct kt_end *end, const struct kt_sockaddr *sa)
{
	if (sa->family == AF_INET)
		__builtin_memcpy(end->addr, &sa->rest[0], 4);
	else if (sa->family == AF_INET6)
		__builtin_memcpy(end->addr, &sa->rest[4], 16);
	else
		return false;
	end->family = sa->family;
	end->port = bpf_ntohs(sa->port);
	return true;
}

/* The same from a kernel copy: only as many bytes as the family has. */
static __always_inline bool end_of_kernel_sockaddr(struct kt_end *end, const void *name)
{
	struct kt_sockaddr sa = {};

	if (!name || bpf_probe_read_kernel(&sa, SOCKADDR_IN_BYTES, name) ||
	    (sa.family == AF_INET6 && bpf_probe_read_kernel(&sa, sizeof(sa), name)))
		return false;
	return end_of_sockaddr(end, &sa);
}

static __always_inline void set_remote(struct kt_flow *f, const struct kt_end *end)
{
	f->rport = end->port;
	if (end->family == AF_INET && f->family == AF_INET6) {
		/* v4 through a v6 socket: keep the socket's family, write the address as v4-mapped */
		__builtin_memset(f->raddr, 0, 10);
		f->raddr[10] = f->raddr[11] = 0xff;
		*(__be32 *)&f->raddr[12] = *(__be32 *)end->addr;
	} else {
		__builtin_memcpy(f->raddr, end->addr, 16);
	}
}

/* The socket file behind a descriptor of the running task, or NULL. Raw pointer: read it by probe only. */
static __always_inline struct file *socket_file(__u64 fd)
{
	struct file **files, *file = NULL;
	__u32 count;

	if (kt_config.task_btf) {
		struct fdtable *table = bpf_get_current_task_btf()->files->fdt;

		count = table->max_fds;
		files = table->fd;
	} else {
		struct task_struct *task = (struct task_struct *)bpf_get_current_task();
		struct fdtable *table = BPF_CORE_READ(task, files, fdt);

		count = BPF_CORE_READ(table, max_fds);
		files = BPF_CORE_READ(table, fd);
	}
	if (fd >= count)
		return NULL;
	bpf_probe_read_kernel(&file, sizeof(file), files + fd);
	if (!file || (BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return NULL;
	return file;
}

static __always_inline struct sock *sock_of_fd(__u64 fd)
{
	struct file *file = socket_file(fd);
	struct socket *socket = file ? BPF_CORE_READ(file, private_data) : NULL;

	return socket ? BPF_CORE_READ(socket, sk) : NULL;
}

static __always_inline void tell_acceptor(__u64 cookie, const struct kt_task *owner)
{
	bpf_map_update_elem(&accepts, &cookie, owner, BPF_ANY);
}

/* A child is in the accept queue before it leaves SYN_RECV, where it gets its cookie: one of the two CPUs sees what the
 * other one has done. */
static __always_inline void tell_early_acceptor(struct sock *sk, const struct kt_task *owner)
{
	__u64 key = (__u64)sk, cookie;

	tell_acceptor(key, owner);
	cookie = BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);
	if (cookie) {
		bpf_map_delete_elem(&accepts, &key);
		tell_acceptor(cookie, owner);
	}
}

static __always_inline void settle_early(struct sock *sk, struct kt_sock *s)
{
	__u64 key = (__u64)sk;
	struct kt_task *accepted = bpf_map_lookup_elem(&accepts, &key);

	if (!accepted)
		return;
	if (s->owner.source == KT_OWNER_INHERITED || s->owner.source == KT_OWNER_NONE)
		s->owner = *accepted;
	bpf_map_delete_elem(&accepts, &key);
}

/* A child that still carries its listener's owner takes the one that accepted it, once that is known. With filters by
 * owner the entry stays until it ages out: user space settles by it what it holds. */
static __always_inline void settle_child(struct kt_sock *s, __u64 cookie)
{
	struct kt_task *accepted;

	if (s->owner.source != KT_OWNER_INHERITED && s->owner.source != KT_OWNER_NONE)
		return;
	accepted = bpf_map_lookup_elem(&accepts, &cookie);
	if (accepted) {
		s->owner = *accepted;
		if (!filters_owners())
			bpf_map_delete_elem(&accepts, &cookie);
	}
}
