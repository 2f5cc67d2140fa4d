/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Packets: whose they are, read from their headers where no socket tells. Only addresses and ports are read, from the
 * linear part and within it, by probe reads: an skb that is about to be freed may be anything.
 */
#pragma once
#include "sock.bpf.h"

#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define IP_OFFSET 0x1fff
#define RTN_LOCAL 2
#define RTF_LOCAL 0x80000000
#define DST_METADATA 0x0080
#define SKB_DST_PTRMASK (~1UL)
/* Inode numbers of namespaces begin here (PROC_DYNAMIC_FIRST): what is smaller is none. */
#define FIRST_NSFS_INUM 0xf0000000U

struct kt_ip4 {
	__u8 version_ihl;
	__u8 tos;
	__be16 len;
	__be16 id;
	__be16 frag_off;
	__u8 ttl;
	__u8 protocol;
	__be16 check;
	__u8 saddr[4];
	__u8 daddr[4];
};

struct kt_ip6 {
	__u8 version;
	__u8 reserved[5];
	__u8 nexthdr;
	__u8 hop_limit;
	__u8 saddr[16];
	__u8 daddr[16];
};

static __always_inline bool read_ip4(struct kt_flow *f, const unsigned char *head, __u32 *at, __u32 tail)
{
	struct kt_ip4 ip;

	if (*at + sizeof(ip) > tail || bpf_probe_read_kernel(&ip, sizeof(ip), head + *at) || ip.version_ihl >> 4 != 4)
		return false;
	__builtin_memcpy(f->laddr, ip.saddr, 4);
	__builtin_memcpy(f->raddr, ip.daddr, 4);
	f->family = AF_INET;
	f->proto = ip.protocol;
	/* only the first fragment has ports */
	*at = bpf_ntohs(ip.frag_off) & IP_OFFSET ? tail : *at + (ip.version_ihl & 15) * 4;
	return true;
}

static __always_inline bool read_ip6(struct kt_flow *f, const unsigned char *head, __u32 *at, __u32 tail)
{
	struct kt_ip6 ip;

	if (*at + sizeof(ip) > tail || bpf_probe_read_kernel(&ip, sizeof(ip), head + *at) || ip.version >> 4 != 6)
		return false;
	__builtin_memcpy(f->laddr, ip.saddr, 16);
	__builtin_memcpy(f->raddr, ip.daddr, 16);
	f->family = AF_INET6;
	f->proto = ip.nexthdr; /* behind extension headers it is neither TCP nor UDP */
	*at += sizeof(ip);
	return true;
}

/* The packet's source as the local end, its destination as the remote one. False: neither TCP nor UDP, or not known. */
static __always_inline bool read_packet(struct kt_flow *f, struct sk_buff *skb, const bool direct)
{
	const unsigned char *head = KT_FIELD(direct, skb, head);
	__u32 at = KT_FIELD(direct, skb, network_header), tail = KT_FIELD(direct, skb, tail);
	__u16 protocol = bpf_ntohs(KT_FIELD(direct, skb, protocol));
	__be16 ports[2];

	if (protocol == ETH_P_IP) {
		if (!read_ip4(f, head, &at, tail))
			return false;
	} else if (protocol != ETH_P_IPV6 || !read_ip6(f, head, &at, tail)) {
		return false;
	}
	if (f->proto != IPPROTO_TCP && f->proto != IPPROTO_UDP)
		return false;
	if (at + sizeof(ports) <= tail && !bpf_probe_read_kernel(ports, sizeof(ports), head + at)) {
		f->lport = bpf_ntohs(ports[0]);
		f->rport = bpf_ntohs(ports[1]);
	}
	return true;
}

static __always_inline void turn_round(struct kt_flow *f)
{
	__u8 addr[16];
	__u16 port = f->lport;

	__builtin_memcpy(addr, f->laddr, 16);
	__builtin_memcpy(f->laddr, f->raddr, 16);
	__builtin_memcpy(f->raddr, addr, 16);
	f->lport = f->rport;
	f->rport = port;
}

static __always_inline struct dst_entry *dst_of(struct sk_buff *skb, const bool direct)
{
	struct dst_entry *dst = (void *)(KT_FIELD(direct, skb, _skb_refdst) & SKB_DST_PTRMASK);

	return dst && !(BPF_CORE_READ(dst, flags) & DST_METADATA) ? dst : NULL;
}

/* Whether routing has found that it is for this machine. */
static __always_inline bool is_for_us(struct dst_entry *dst, __u16 family)
{
	if (!dst)
		return false;
	if (family == AF_INET)
		return BPF_CORE_READ((struct rtable *)dst, rt_type) == RTN_LOCAL;
	return BPF_CORE_READ((struct rt6_info *)dst, rt6i_flags) & RTF_LOCAL;
}

static __always_inline __u32 netns_of_device(struct net_device *dev)
{
	__u32 inum = dev ? BPF_CORE_READ(dev, nd_net.net, ns.inum) : 0;

	return inum >= FIRST_NSFS_INUM ? inum : 0;
}

/* The device that it is at. In a socket's queue its place holds something else, which leads to no namespace. */
static __always_inline struct net_device *device_of(struct sk_buff *skb, struct dst_entry *dst, const bool direct)
{
	struct net_device *dev = KT_FIELD(direct, skb, dev);

	if (netns_of_device(dev))
		return dev;
	dev = dst ? BPF_CORE_READ(dst, dev) : NULL;
	return netns_of_device(dev) ? dev : NULL;
}
