// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The maps, settings and type anchors that the hooks share. No program lives here.
 */
#include "ktrace.bpf.h"
#include "audit.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct ring_map bulk_ring SEC(".maps");
struct ring_map rare_ring SEC(".maps");
struct counters_map counters SEC(".maps");
struct audit_map audit SEC(".maps");
struct audit_rest_map audit_rest SEC(".maps");
struct sock_storage_map sock_storage SEC(".maps");
struct sock_hash_map sock_hash SEC(".maps");
struct accepts_map accepts SEC(".maps");
struct process_rows_map process_rows SEC(".maps");
struct flow_rows_map flow_rows SEC(".maps");
struct histograms_map histograms SEC(".maps");
struct filter_cidrs_map filter_cidrs SEC(".maps");
struct filter_netns_map filter_netns SEC(".maps");
struct filter_pids_map filter_pids SEC(".maps");
struct filter_comms_map filter_comms SEC(".maps");
struct filter_cgroups_map filter_cgroups SEC(".maps");
struct filter_homes_map filter_homes SEC(".maps");
struct failed_ends_map failed_ends SEC(".maps");

const volatile struct kt_config kt_config = {};
const volatile __u64 kt_ports[1024] = {};
const volatile __u64 kt_unwanted_ports[1024] = {};
struct kt_state kt_state = {};

/* Updating this map from user space waits until every program that may still run has ended: the kernel
 * waits for readers when an inner map is replaced (maybe_wait_bpf_programs). */
struct grace_inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} grace_inner SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct grace_inner);
} grace SEC(".maps") = {
	.values = { &grace_inner },
};

/* Carries every wire type into BTF, and so into the Rust skeleton. */
struct {
	struct kt_tcp_state tcp_state;
	struct kt_udp udp;
	struct kt_connect connect;
	struct kt_tcp_retransmit tcp_retransmit;
	struct kt_tcp_reset tcp_reset;
	struct kt_tcp_stall tcp_stall;
	struct kt_listen_overflow listen_overflow;
	struct kt_dropped dropped;
	struct kt_drop_key drop_key;
	struct kt_socket socket;
	struct kt_cgroup_notice cgroup_notice;
	struct kt_process_notice process_notice;
	struct kt_process_key process_key;
	struct kt_process_row process_row;
	struct kt_flow_key flow_key;
	enum kt_kind kind;
	enum kt_audit audit;
	enum kt_chain chain;
	enum kt_drop drop;
	enum kt_notice notice;
	enum kt_filter filter;
	enum kt_listed listed;
	struct kt_prefix prefix;
	struct kt_cgroup_key cgroup_key;
	enum kt_owner owner;
	enum kt_role role;
	enum kt_cgroup cgroup;
	enum kt_retransmit_kind retransmit_kind;
	enum kt_dir dir;
	enum kt_stall stall;
	enum kt_flow_flags flow_flags;
	enum kt_state_flags state_flags;
	enum kt_when when;
	enum kt_histogram histogram;
	enum kt_capped capped;
} wire_anchor = {};
