/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The kernel types that ktrace reads, and of them only the fields that it reads. Declared by hand against
 * Linux 6.18 (BTF of 6.18.44) and relocated at load (CO-RE), so a field may move but not be renamed; renames
 * are bridged in bpf/compat.bpf.h. Objects built from this are 20 KB, from a full vmlinux.h 600 KB.
 */
#pragma once
#define __VMLINUX_H__ /* bpf_tracing.h: use the kernel's names for registers */

typedef unsigned char __u8;
typedef signed char __s8;
typedef unsigned short __u16;
typedef short __s16;
typedef unsigned int __u32;
typedef int __s32;
typedef unsigned long long __u64;
typedef long long __s64;
typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s32 s32;
typedef __s64 s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u64 __be64;
typedef __u32 __wsum;
typedef unsigned long size_t;
typedef _Bool bool;
enum { false = 0, true = 1 };

/* include/uapi/linux/bpf.h: numbers of the user ABI */
enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_HASH = 5,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_LPM_TRIE = 11,
	BPF_MAP_TYPE_ARRAY_OF_MAPS = 12,
	BPF_MAP_TYPE_SK_STORAGE = 24,
	BPF_MAP_TYPE_RINGBUF = 27,
	BPF_MAP_TYPE_TASK_STORAGE = 29,
};
enum {
	BPF_ANY = 0,
	BPF_NOEXIST = 1,
	BPF_F_NO_PREALLOC = 1,
	BPF_F_CLONE = 512,
	BPF_LOCAL_STORAGE_GET_F_CREATE = 1,
	BPF_SK_STORAGE_GET_F_CREATE = 1,
	BPF_RB_NO_WAKEUP = 1,
	BPF_RB_FORCE_WAKEUP = 2,
	BPF_RB_AVAIL_DATA = 0,
};

/* the context of cgroup/sendmsg and recvmsg programs: user ABI, never relocated */
struct bpf_sock_addr {
	__u32 user_family;
	__u32 user_ip4; /* network order */
	__u32 user_ip6[4]; /* network order */
	__u32 user_port; /* network order */
	__u32 family;
	__u32 type;
	__u32 protocol;
	__u32 msg_src_ip4;
	__u32 msg_src_ip6[4];
	void *sk;
};

/* include/net/tcp_states.h */
enum {
	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT = 2,
	TCP_SYN_RECV = 3,
	TCP_FIN_WAIT1 = 4,
	TCP_FIN_WAIT2 = 5,
	TCP_TIME_WAIT = 6,
	TCP_CLOSE = 7,
	TCP_CLOSE_WAIT = 8,
	TCP_LAST_ACK = 9,
	TCP_LISTEN = 10,
	TCP_CLOSING = 11,
	TCP_NEW_SYN_RECV = 12,
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct ns_common {
	unsigned int inum;
};
struct net {
	struct ns_common ns;
	u64 net_cookie;
};
struct mnt_namespace {
	struct ns_common ns;
};
struct user_namespace {
	struct ns_common ns;
};
struct pid_namespace {
	struct ns_common ns;
};
struct nsproxy {
	struct mnt_namespace *mnt_ns;
};
struct upid {
	int nr;
	struct pid_namespace *ns;
};
struct pid {
	unsigned int level;
	struct upid numbers[1];
};

struct kernfs_node {
	u64 id;
};
struct cgroup_root {
	int hierarchy_id;
};
struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys_state *parent;
};
struct cgroup {
	struct cgroup_subsys_state self;
	int level;
	struct kernfs_node *kn;
	struct cgroup_root *root;
};
struct css_set {
	struct cgroup_subsys_state *subsys[16];
	struct cgroup *dfl_cgrp;
};
enum cgroup_subsys_id {
	memory_cgrp_id = 4,
	pids_cgrp_id = 11,
};

typedef struct {
	u32 val;
} kuid_t;
typedef struct {
	u32 val;
} kgid_t;
typedef struct {
	u64 val;
} kernel_cap_t;
struct cred {
	kuid_t uid;
	kgid_t gid;
	kernel_cap_t cap_effective;
	struct user_namespace *user_ns;
};
struct seccomp {
	int mode;
};

struct inode {
	u16 i_mode;
};
struct file {
	struct inode *f_inode;
	void *private_data;
	unsigned int f_flags;
};
struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};
struct files_struct {
	struct fdtable *fdt;
};

struct task_struct {
	unsigned int flags;
	int pid;
	int tgid;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct pid *thread_pid;
	u64 start_boottime;
	const struct cred *real_cred;
	char comm[16];
	struct files_struct *files;
	struct nsproxy *nsproxy;
	struct seccomp seccomp;
	struct css_set *cgroups;
	struct signal_struct *signal;
};

typedef struct {
	struct net *net;
} possible_net_t;
struct in6_addr {
	union {
		__u8 u6_addr8[16];
		__be32 u6_addr32[4];
	} in6_u;
};
typedef struct {
	s64 counter;
} atomic64_t;
typedef struct {
	int counter;
} atomic_t;
typedef struct {
	atomic_t refs;
} refcount_t;

struct signal_struct {
	atomic_t live;
};
struct linux_binprm {
	const char *filename;
};

struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
	atomic64_t skc_cookie;
	unsigned long skc_flags;
};
struct sock {
	struct sock_common __sk_common;
	int sk_err;
	int sk_err_soft;
	atomic_t sk_drops;
	u16 sk_protocol;
	u16 sk_type;
	int sk_wmem_queued;
	refcount_t sk_wmem_alloc;
	u32 sk_ack_backlog;
	u32 sk_max_ack_backlog;
	struct {
		atomic_t rmem_alloc;
	} sk_backlog;
	struct socket *sk_socket;
};
enum sock_flags {
	SOCK_DEAD = 0,
	SOCK_DONE = 1,
};
typedef enum {
	SS_FREE = 0,
	SS_UNCONNECTED = 1,
	SS_CONNECTING = 2,
	SS_CONNECTED = 3,
	SS_DISCONNECTING = 4,
} socket_state;
struct socket {
	socket_state state;
	struct file *file;
	struct sock *sk;
};
struct inet_sock {
	struct sock sk;
	__be16 inet_sport;
};
struct inet_connection_sock {
	struct inet_sock icsk_inet;
	__u8 icsk_ca_state : 5;
	__u8 icsk_pending;
	struct {
		__u16 rcv_mss;
	} icsk_ack;
};
struct minmax_sample {
	u32 t;
	u32 v;
};
struct minmax {
	struct minmax_sample s[3];
};
struct tcp_sock {
	struct inet_connection_sock inet_conn;
	u64 bytes_sent;
	u64 bytes_received;
	u64 bytes_retrans;
	u32 segs_in;
	u32 segs_out;
	u32 srtt_us;
	struct minmax rtt_min;
	u32 total_retrans;
	u32 rcv_nxt;
	u32 copied_seq;
	u32 write_seq;
	u32 snd_una;
	u32 snd_wnd;
	u32 mss_cache;
	u32 packets_out;
	u32 rcv_wnd;
	u32 rcv_wup;
	u32 chrono_start;
	u32 chrono_stat[3];
	u8 chrono_type : 2;
};
enum tcp_chrono {
	TCP_CHRONO_RWND_LIMITED = 2,
	TCP_CHRONO_SNDBUF_LIMITED = 3,
};
struct udp_sock {
	struct inet_sock inet;
	int pending;
};
struct request_sock {
	struct sock_common __req_common;
	u8 num_retrans;
};

struct net_device {
	char name[16];
	possible_net_t nd_net;
};
struct dst_entry {
	struct net_device *dev;
	unsigned short flags;
};
struct rtable {
	struct dst_entry dst;
	u16 rt_type;
};
struct rt6_info {
	struct dst_entry dst;
	u32 rt6i_flags;
};

struct sk_buff {
	struct net_device *dev;
	struct sock *sk;
	unsigned long _skb_refdst;
	unsigned int len;
	int skb_iif;
	__be16 protocol;
	unsigned int tail;
	unsigned char *head;
	unsigned char *data;
	char cb[48];
	u16 network_header;
	u16 transport_header;
};
enum sk_rst_reason {
	SK_RST_REASON_NOT_SPECIFIED = 0,
};
enum skb_drop_reason {
	SKB_NOT_DROPPED_YET = 0,
	SKB_CONSUMED = 1,
	SKB_DROP_REASON_NOT_SPECIFIED = 2,
};
struct tcp_skb_cb {
	u16 tcp_gso_segs;
};
struct msghdr {
	void *msg_name;
};

struct seq_file;
struct bpf_iter_meta {
	struct seq_file *seq;
};
struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	u32 fd;
	struct file *file;
};

struct trace_event_raw_sys_enter {
	unsigned long args[6];
};
struct trace_event_raw_sched_process_exec {
	u32 __data_loc_filename;
};
struct trace_event_raw_cgroup {
	int root;
	u64 id;
	u32 __data_loc_path;
};
struct trace_event_raw_sys_exit {
	long ret;
};
struct trace_event_raw_inet_sock_set_state {
	const void *skaddr;
	int oldstate;
	int newstate;
};
struct trace_event_raw_kfree_skb {
	void *skbaddr;
	void *location;
};
struct trace_event_raw_tcp_event_sk {
	const void *skaddr;
};
struct trace_event_raw_tcp_retransmit_synack {
	const void *skaddr;
	const void *req;
};

#pragma clang attribute pop

#if defined(__TARGET_ARCH_x86)
#include "x86/ptrace.h"
#elif defined(__TARGET_ARCH_arm64)
#include "arm64/ptrace.h"
#else
#error "vmlinux/ has no register layout for this architecture"
#endif
