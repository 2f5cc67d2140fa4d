// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * rewriter: a load balancer at sockets as small as can be, for the tests: it changes the address that a program of its
 * cgroup names, in connect(2), sendto(2) and sendmsg(2), and changes it back where the program asks who answered.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Network order; IPv4 as ::ffff:a.b.c.d. */
struct end {
	__be32 addr[4];
	__u32 port;
};

struct table {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, struct end);
	__type(value, struct end);
};
struct table backends SEC(".maps"); /* what stands behind an address */
struct table services SEC(".maps"); /* the address in front of a backend */

static __always_inline int change4(struct bpf_sock_addr *ctx, void *table)
{
	struct end end = { .addr = { 0, 0, bpf_htonl(0xffff), ctx->user_ip4 }, .port = ctx->user_port };
	struct end *other = bpf_map_lookup_elem(table, &end);

	if (other) {
		ctx->user_ip4 = other->addr[3];
		ctx->user_port = other->port;
	}
	return 1; /* 0 would forbid the call */
}

static __always_inline int change6(struct bpf_sock_addr *ctx, void *table)
{
	struct end end = { .port = ctx->user_port };
	struct end *other;

	/* the context allows 4-byte access only */
	end.addr[0] = ctx->user_ip6[0];
	end.addr[1] = ctx->user_ip6[1];
	end.addr[2] = ctx->user_ip6[2];
	end.addr[3] = ctx->user_ip6[3];
	other = bpf_map_lookup_elem(table, &end);
	if (other) {
		ctx->user_ip6[0] = other->addr[0];
		ctx->user_ip6[1] = other->addr[1];
		ctx->user_ip6[2] = other->addr[2];
		ctx->user_ip6[3] = other->addr[3];
		ctx->user_port = other->port;
	}
	return 1;
}

#define CHANGES(place, change, table) \
	SEC("cgroup/" #place) \
	int rewrite_##place(struct bpf_sock_addr *ctx) \
	{ \
		return change(ctx, &table); \
	}
CHANGES(connect4, change4, backends)
CHANGES(connect6, change6, backends)
CHANGES(sendmsg4, change4, backends)
CHANGES(sendmsg6, change6, backends)
CHANGES(recvmsg4, change4, services)
CHANGES(recvmsg6, change6, services)
