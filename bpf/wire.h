/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The truth about bytes: every record, counter and setting that the kernel side and user space share.
 * The structs reach Rust through the BTF of the linked object (see the anchors in core.bpf.c), so nothing
 * mirrors them by hand. Fixed width, widest first, no holes, sizes asserted. Numbers are raw kernel
 * numbers in host byte order unless a comment says otherwise; names are Rust's business. No payload bytes.
 */
#pragma once

/* One kind = one record struct = one hook. */
enum kt_kind {
	KT_TCP_STATE = 0,
	KT_UDP_SEND = 1,
	KT_UDP_RECV = 2,
	KT_CONNECT = 3,
	KT_TCP_RETRANSMIT = 4,
	KT_TCP_RESET = 5,
	KT_TCP_STALL = 6,
	KT_LISTEN_OVERFLOW = 7,
	KT_DROP = 8,
	KT_KIND_MAX = 9,
};

/* What the hooks saw of what the kernel counts by itself, see bpf/audit.bpf.h. */
enum kt_audit {
	KT_AUDIT_UDP_IN = 0,
	KT_AUDIT_UDP_OUT = 1,
	KT_AUDIT_UDP6_IN = 2,
	KT_AUDIT_UDP6_OUT = 3,
	KT_AUDIT_ANY_IN = 4, /* of a v6 socket, over IPv4 or IPv6: no hook could tell */
	KT_AUDIT_ANY_OUT = 5,
	KT_AUDIT_CORKED = 6, /* sends that left their data waiting for more */
	KT_AUDIT_ACTIVE_OPENS = 7,
	KT_AUDIT_UNSENT_OPENS = 8, /* of those, closed before the first SYN */
	KT_AUDIT_PASSIVE_OPENS = 9,
	KT_AUDIT_ATTEMPT_FAILS = 10,
	KT_AUDIT_ESTAB_RESETS = 11,
	KT_AUDIT_RETRANS_SEGS = 12,
	KT_AUDIT_MAX = 13,
};

/* Why the kernel side refused an event that it had seen. */
enum kt_drop {
	KT_DROP_EVENT_CAP = 0,
	KT_DROP_BYTE_CAP = 1,
	KT_DROP_RING_FULL = 2,
	KT_DROP_SAMPLED = 3,
	KT_DROP_MAX = 4,
};

/* Hooks of which several programs stand in for each other: what one is skipped for, the next one takes. */
enum kt_chain {
	KT_CHAIN_STATE = 0,
	KT_CHAIN_CONNECT = 1,
	KT_CHAIN_UDP = 2,
	KT_CHAIN_RETRANSMIT = 3,
	KT_CHAIN_MAX = 4,
};

/* Which filter said no; in the order in which they are asked. */
enum kt_filter {
	KT_FILTER_SELF = 0, /* ktrace's own sockets */
	KT_FILTER_NETNS = 1,
	KT_FILTER_PORTS = 2, /* --ports or --dns-only */
	KT_FILTER_CIDR = 3,
	KT_FILTER_PID = 4,
	KT_FILTER_COMM = 5,
	KT_FILTER_CGROUP = 6,
	/* What user space knows of cgroups, see filter_homes. */
	KT_FILTER_NAMESPACE = 7,
	KT_FILTER_POD = 8,
	KT_FILTER_CONTAINER = 9,
	KT_FILTER_MAX = 10,
	KT_FILTER_LATER = 11, /* no filter's number: user space has yet to say whether one refuses */
};

/* What the values of a filter say about something; several values may say several things. */
enum kt_listed {
	KT_LISTED_WANTED = 1,
	KT_LISTED_UNWANTED = 2, /* beats the other one */
};

/* Key of the filter by addresses: a longest-prefix match. */
struct kt_prefix {
	__u32 bits;
	__u8 addr[16]; /* network order; IPv4 as ::ffff:a.b.c.d */
};

/* Key of what is said about cgroups: ids are unique within a hierarchy. */
struct kt_cgroup_key {
	__u64 id;
	__u64 hierarchy; /* enum kt_cgroup */
};

/* How the owner was found. The order is that of the bundle format, not a ranking. */
enum kt_owner {
	KT_OWNER_NONE = 0,
	KT_OWNER_CURRENT = 1,
	KT_OWNER_CONNECT = 2,
	KT_OWNER_ACCEPT = 3,
	KT_OWNER_LISTEN = 4,
	KT_OWNER_FIRST_IO = 5,
	KT_OWNER_CLOSE = 6,
	KT_OWNER_INHERITED = 7,
	KT_OWNER_FD_TABLE = 8,
	KT_OWNER_KERNEL = 9,
};

enum kt_role {
	KT_ROLE_NONE = 0,
	KT_ROLE_CLIENT = 1,
	KT_ROLE_SERVER = 2,
	KT_ROLE_LISTENER = 3,
};

/* Which hierarchy kt_task.cgroup_id belongs to. */
enum kt_cgroup {
	KT_CGROUP_NONE = 0,
	KT_CGROUP_V2 = 1,
	KT_CGROUP_V1_MEMORY = 2,
	KT_CGROUP_V1_PIDS = 3,
};

enum kt_retransmit_kind {
	KT_RETRANS_DATA = 0,
	KT_RETRANS_SYN = 1,
	KT_RETRANS_SYNACK = 2,
	KT_RETRANS_PROBE = 3,
	KT_RETRANS_MAX = 4,
};

/* Which way a segment or a packet was going. */
enum kt_dir {
	KT_DIR_SENT = 0, /* by a socket of this node */
	KT_DIR_RECEIVED = 1, /* to an address of this node */
	KT_DIR_FORWARDED = 2, /* neither, or not known; kt_flow has its source as the local end */
};

enum kt_stall {
	KT_STALL_ZERO_WINDOW = 0, /* the peer does not read */
	KT_STALL_SEND_BUFFER = 1, /* full, while the network could have taken more */
	KT_STALL_RECEIVE_BUFFER = 2, /* its own process does not read */
	KT_STALL_UNREACHABLE = 3, /* the network has said so (ICMP) of what is on its way */
	KT_STALL_MAX = 4,
};

/* kt_flow.flags */
enum kt_flow_flags {
	KT_FLOW_RADDR_UNKNOWN = 1, /* an unconnected receive whose peer no hook could tell */
	KT_FLOW_LADDR_GONE = 2, /* the kernel cleared the local end before it could be read */
	KT_FLOW_UNDECIDED = 4, /* filters by owner could not decide yet: a later event of this socket will */
	KT_FLOW_REFUSED = 8, /* a filter refuses this one; it settles the undecided ones before it */
	KT_FLOW_UNNAMED = 16, /* user space decides by its owner's cgroup, also about the undecided ones before it */
};

/* kt_tcp_state.flags */
enum kt_state_flags {
	KT_STATE_TIME_WAIT = 1, /* handed over to a TIME_WAIT mini-socket */
	KT_STATE_HANDSHAKE = 2, /* handshake_ns is valid */
	KT_STATE_DURATION = 4, /* duration_ns is valid */
	KT_STATE_GAVE_UP = 8, /* left SYN_SENT for CLOSE without any error; gave_up_ns is valid */
};

/* kt_state.byte_capped */
enum kt_capped {
	KT_CAPPED_BULK = 1, /* UDP events have used up their share */
	KT_CAPPED_ALL = 2,
};

/* kt_socket.when */
enum kt_when {
	KT_WHEN_START = 0,
	KT_WHEN_END = 1,
};

/* A process as it was when it became the owner. */
struct kt_task {
	__u64 start_ns; /* group_leader->start_boottime */
	__u64 cgroup_id; /* kn->id in the hierarchy that `cgroup` names */
	__u64 caps_eff; /* bit n = capability n; 0 without --with-security */
	__u32 pid; /* tgid, initial pid namespace */
	__u32 tid;
	__u32 ppid;
	__u32 uid; /* real ids, initial user namespace */
	__u32 gid;
	__u32 ns_mnt; /* inode numbers */
	__u32 ns_pid;
	__u32 ns_user;
	char comm[16]; /* of the thread-group leader */
	char thread[16]; /* of the thread */
	__u8 source; /* enum kt_owner */
	__u8 cgroup; /* enum kt_cgroup */
	__u8 seccomp; /* task->seccomp.mode */
	__u8 cgroup_listed; /* enum kt_listed: what --cgroup says */
	__u8 reserved[4];
};

/* Both ends of a socket. */
struct kt_flow {
	__u64 cookie; /* 0: none was made yet */
	__u8 laddr[16]; /* network order; AF_INET uses the first 4 bytes; all 0 = wildcard */
	__u8 raddr[16];
	__u32 netns; /* inode number of the socket's namespace */
	__u16 lport; /* 0: not chosen yet */
	__u16 rport; /* 0: not known */
	__u16 family; /* AF_INET or AF_INET6 */
	__u8 proto; /* IPPROTO_TCP or IPPROTO_UDP */
	__u8 role; /* enum kt_role */
	__u8 flags; /* enum kt_flow_flags */
	__u8 reserved[3];
};

struct kt_header {
	__u64 boot_ns; /* CLOCK_BOOTTIME */
	__u32 kind; /* enum kt_kind */
	__u32 cpu;
	struct kt_flow flow;
	struct kt_task owner;
};

struct kt_tcp_state {
	struct kt_header hdr;
	__u64 handshake_ns;
	__u64 duration_ns;
	__u64 gave_up_ns;
	/* the rest only when new_state is CLOSE */
	__u64 tx_bytes; /* bytes_sent - bytes_retrans */
	__u64 rx_bytes; /* bytes_received - the FIN */
	__u32 tx_segs; /* segs_out */
	__u32 rx_segs; /* segs_in */
	__u32 retrans; /* total_retrans; also with KT_STATE_HANDSHAKE */
	__u32 srtt_us; /* 0: never sampled */
	__u32 min_rtt_us; /* ~0: never sampled */
	__u16 err; /* sk_err */
	__u16 soft_err; /* sk_err_soft */
	__u8 old_state;
	__u8 new_state;
	__u8 flags; /* enum kt_state_flags */
	__u8 reserved[5];
};

struct kt_udp {
	struct kt_header hdr;
	__u8 asked_addr[16]; /* network order; what a send, or connect(2) before it, was called with */
	__u32 bytes; /* UDP payload length; 0 when err is set */
	__u32 err; /* errno; 0: none */
	__u16 asked_port;
	__u16 asked_family; /* 0: not known, or a receive */
	__u8 reserved[4];
};

struct kt_connect {
	struct kt_header hdr;
	__u64 syscall_ns;
	__u8 asked_addr[16]; /* network order */
	__u16 asked_port;
	__u16 asked_family; /* 0: the address could not be read */
	__u16 err; /* errno; 0: success */
	__u8 nonblocking;
	__u8 reserved;
};

struct kt_tcp_retransmit {
	struct kt_header hdr;
	__u32 retrans; /* retransmits of this socket so far, with this one */
	__u32 tx_segs; /* segs_out; 0: not known (SYN-ACK) */
	__u32 srtt_us; /* 0: never sampled */
	__u8 kind; /* enum kt_retransmit_kind */
	__u8 state;
	__u8 reserved[2];
};

struct kt_tcp_reset {
	struct kt_header hdr;
	__u32 reason; /* enum sk_rst_reason of this kernel; 0: it does not tell */
	__u8 state; /* 0: there is no socket */
	__u8 dir; /* enum kt_dir */
	__u8 reserved[2];
};

struct kt_tcp_stall {
	struct kt_header hdr;
	__u64 duration_ns; /* since the last record of this kind */
	__u32 queued; /* bytes that wait */
	__u8 kind; /* enum kt_stall */
	__u8 err; /* errno that the network's message stands for; 0: none */
	__u8 reserved[2];
};

struct kt_listen_overflow {
	struct kt_header hdr;
	__u32 count; /* what sk_drops gained */
	__u32 accept_queue;
	__u32 backlog;
	__u32 reserved;
};

/* Packets of one flow that were thrown away in one second, for one reason and at one place. Added up in a map, from which
 * user space takes it when the second is over: it passes no ring. */
struct kt_dropped {
	struct kt_header hdr; /* boot_ns is that of the last */
	__u64 first_ns;
	__u64 count;
	__u64 bytes;
	char symbol[64]; /* function that threw them away; empty: not known */
	char dev[16]; /* empty: at none, or not known */
	__u32 reason; /* enum skb_drop_reason of this kernel; 0: it does not tell */
	__u8 dir; /* enum kt_dir */
	__u8 reserved[3];
};

/* What is added up: one flow, one second, one reason, one place. Both ends' ports count. */
struct kt_drop_key {
	__u64 location; /* address in the kernel */
	__u8 laddr[16];
	__u8 raddr[16];
	__u32 netns;
	__u32 second; /* of CLOCK_BOOTTIME: whoever takes rows leaves those of the running second alone */
	__u32 reason;
	__u16 lport;
	__u16 rport;
	__u16 family;
	__u8 proto;
	__u8 dir; /* enum kt_dir */
};

/* One socket in somebody's file table; comes through the iterator, not through a ring. */
struct kt_socket {
	struct kt_header hdr; /* kind is unused */
	__u64 age_ns; /* 0: older than the capture */
	__u64 tx_bytes;
	__u64 rx_bytes;
	__u32 rx_queue; /* tcp: bytes not yet read, for a listener 0; udp: memory that waiting datagrams take */
	__u32 tx_queue; /* tcp: bytes not yet acknowledged; udp: memory of datagrams not yet sent */
	__u32 backlog;
	__u32 accept_queue;
	__u32 tx_segs;
	__u32 retrans;
	__u32 srtt_us;
	__u8 state;
	__u8 reserved[3];
};

/* What user space is told beside the events, to know processes and cgroups that are gone when it looks. No events:
 * nothing of it is in the ledger. */
enum kt_notice {
	KT_NOTICE_CGROUP_MADE = 0,
	KT_NOTICE_CGROUP_REMOVED = 1,
	KT_NOTICE_EXEC = 2,
	KT_NOTICE_EXIT = 3,
};

struct kt_cgroup_notice {
	__u64 boot_ns;
	__u32 kind; /* enum kt_notice */
	__u32 hierarchy; /* cgroup_root->hierarchy_id; 0: v2 */
	__u64 id; /* kn->id */
	char path[512]; /* from the root of the hierarchy; empty of one that was removed */
};

struct kt_process_notice {
	__u64 boot_ns;
	__u32 kind; /* enum kt_notice */
	__u32 reserved;
	struct kt_task task;
	char exe[256]; /* as execve(2) was called; empty of one that exits */
};

/* What was refused after it was seen. Atomic adds, as below. */
struct kt_amount {
	__u64 events;
	__u64 tx_bytes; /* payload: of each datagram; of a TCP connection that closed, what it moved in the window */
	__u64 rx_bytes;
	__u64 connections; /* TCP connections that closed, UDP sockets of which this was the first event */
	__u64 retrans[KT_RETRANS_MAX]; /* segments by enum kt_retransmit_kind */
};

/* Durations of events that were refused. */
enum kt_histogram {
	KT_HIST_HANDSHAKE = 0, /* kt_tcp_state.handshake_ns */
	KT_HIST_SYSCALL = 1, /* kt_connect.syscall_ns of blocking calls that succeeded */
	KT_HIST_SRTT = 2, /* kt_tcp_state.srtt_us at CLOSE, in ns */
	KT_HIST_MAX = 3,
	KT_HIST_BUCKETS = 3840, /* of each: 64 to a power of two, as bundle/src/histogram.rs has them */
};

/* All 0: nobody is known to own it. */
struct kt_process_key {
	__u64 start_ns;
	__u32 pid;
	__u8 reserved[4];
};

struct kt_process_row {
	struct kt_amount n;
	char comm[16]; /* of the thread-group leader, as of the row's first event */
};

/* As in kt_flow, less the port that the client's kernel chose. */
struct kt_flow_key {
	__u8 laddr[16];
	__u8 raddr[16];
	__u32 netns;
	__u16 lport;
	__u16 rport;
	__u16 family;
	__u8 proto;
	__u8 reserved[5];
};

/* Account of one kind on one CPU. Atomic adds: an interrupt may run the same program on the same CPU. */
struct kt_counters {
	__u64 observed;
	__u64 filtered[KT_FILTER_MAX];
	__u64 seen;
	__u64 submitted;
	__u64 dropped[KT_DROP_MAX];
	struct kt_amount refused; /* what the events under `dropped` would have told */
};

/* What the hooks saw in one network namespace on one CPU, before filters and caps. Atomic adds, as above. */
struct kt_audit_counts {
	__u64 counts[KT_AUDIT_MAX]; /* by enum kt_audit */
	__u32 netns; /* inode number; 0: set on another CPU */
	__u32 reserved;
};

/* Settings that are fixed before load. */
struct kt_config {
	__u64 max_events; /* of all kinds together */
	__u64 max_bulk; /* of UDP events, so that a flood cannot use up the rest */
	__u64 spare_bulk; /* UDP events beyond those that user space holds for what the rest leaves */
	__u32 wants; /* bit n: enum kt_filter n has wanted values, so that nothing else passes */
	__u32 refuses; /* bit n: enum kt_filter n has unwanted values */
	__u32 with_security; /* bool */
	__u32 hash_store; /* bool: sockets are kept in a hash, not in sk_storage */
	__u32 task_btf; /* bool: the kernel has bpf_get_current_task_btf (5.11) */
	__u32 sample; /* N: 1 in N flows of UDP; 0 and 1: all */
	__u32 more; /* bool: programs can be preempted, and there are more of them */
	__u32 reserved;
};

/* Settings and state that change while programs run. */
struct kt_state {
	__u64 admitted_rare; /* events that took a place under max_events and are not UDP */
	__u64 admitted_bulk; /* those that are UDP */
	__u32 gate; /* bool: the window is open */
	__u32 byte_capped; /* enum kt_capped: what the writer refuses */
	__u32 self_pid; /* ktrace's tgid in the initial pid namespace */
	__u32 when; /* enum kt_when, for the iterator */
	__u64 late; /* those of them that may still be refused, so that no cap counts them yet */
	__u64 rescued[KT_CHAIN_MAX]; /* what the first program was skipped for and a later one took */
	__u64 untold; /* notices that found no room */
	__u64 unmarked; /* of the chain of udp: what the first one saw, and left to a later one for want of a mark */
};

#define KT_SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), #type " is part of the wire contract")
KT_SIZE(struct kt_task, 96);
KT_SIZE(struct kt_flow, 56);
KT_SIZE(struct kt_header, 168);
KT_SIZE(struct kt_tcp_state, 240);
KT_SIZE(struct kt_udp, 200);
KT_SIZE(struct kt_connect, 200);
KT_SIZE(struct kt_tcp_retransmit, 184);
KT_SIZE(struct kt_tcp_reset, 176);
KT_SIZE(struct kt_tcp_stall, 184);
KT_SIZE(struct kt_listen_overflow, 184);
KT_SIZE(struct kt_dropped, 280);
KT_SIZE(struct kt_drop_key, 64);
KT_SIZE(struct kt_socket, 224);
KT_SIZE(struct kt_cgroup_notice, 536);
KT_SIZE(struct kt_process_notice, 368);
KT_SIZE(struct kt_amount, 64);
KT_SIZE(struct kt_process_key, 16);
KT_SIZE(struct kt_process_row, 80);
KT_SIZE(struct kt_flow_key, 48);
KT_SIZE(struct kt_counters, 200);
KT_SIZE(struct kt_audit_counts, 112);
KT_SIZE(struct kt_prefix, 20);
KT_SIZE(struct kt_cgroup_key, 16);
