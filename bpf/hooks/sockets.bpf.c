// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * sockets: which TCP and UDP sockets exist, in which state, and in whose file table?
 *
 * Runs over every file of every process when the window opens and again when it closes, in the reader's own
 * context; also gives sockets that are older than the capture their owner. Not seen: sockets without a file
 * (TIME_WAIT, orphans in FIN_WAIT, connections not accepted yet). Cost: about 1 us a file.
 */
#include "ktrace.bpf.h"

/* Never over a live owner: what a task was seen doing beats what its file table holds. */
static __always_inline void adopt(struct kt_sock *s, struct task_struct *task, __u8 role)
{
	if (kt_state.when == KT_WHEN_START) {
		s->known = 1;
		if (s->role == KT_ROLE_NONE)
			s->role = role;
	}
	if (s->owner.source != KT_OWNER_NONE && s->owner.source != KT_OWNER_INHERITED)
		return;
	read_task(&s->owner, task, true);
	s->owner.source = KT_OWNER_FD_TABLE;
}

static __always_inline void fill_tcp(struct kt_socket *r, struct sock *sk, struct tcp_sock *tp)
{
	r->state = sk->__sk_common.skc_state;
	r->backlog = r->state == TCP_LISTEN ? sk->sk_max_ack_backlog : 0;
	r->accept_queue = r->state == TCP_LISTEN ? sk->sk_ack_backlog : 0;
	if (r->state == TCP_LISTEN)
		return;
	r->rx_queue = tp->rcv_nxt - tp->copied_seq;
	r->tx_queue = tp->write_seq - tp->snd_una;
	r->tx_bytes = tp->bytes_sent - tp->bytes_retrans;
	r->rx_bytes = rx_bytes_of(sk, tp, true);
	r->tx_segs = tp->segs_out;
	r->retrans = tp->total_retrans;
	r->srtt_us = tp->srtt_us >> 3;
}

SEC("?iter/task_file")
int sockets__iter(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct kt_socket r = {};
	struct tcp_sock *tp = NULL;
	struct socket *socket;
	struct kt_sock *s;
	struct sock *sk;

	if (!task || !file)
		return 0;
	/* whoever reads this iterator is ktrace */
	kt_state.self_pid = bpf_get_current_pid_tgid() >> 32;
	socket = bpf_sock_from_file(file);
	if (!socket || !(sk = socket->sk))
		return 0;
	if (is_tcp(sk, true)) {
		tp = bpf_skc_to_tcp_sock(sk);
		if (!tp)
			return 0;
	} else if (!is_udp(sk, true)) {
		return 0;
	}
	s = sock_of(sk, true, true);
	if (s)
		settle_child(s, cookie_of(sk, s, true));
	if (s)
		adopt(s, task, tp && sk->__sk_common.skc_state == TCP_LISTEN ? KT_ROLE_LISTENER : KT_ROLE_NONE);
	r.hdr.boot_ns = bpf_ktime_get_boot_ns();
	read_flow(&r.hdr.flow, sk, s, true);
	if (s) {
		r.hdr.owner = s->owner;
		r.age_ns = s->born_ns ? r.hdr.boot_ns - s->born_ns : 0;
	}
	if (tp) {
		fill_tcp(&r, sk, tp);
		if (s && kt_state.when == KT_WHEN_START) {
			s->start_tx = r.tx_bytes;
			s->start_rx = r.rx_bytes;
		}
	} else {
		r.rx_queue = sk->sk_backlog.rmem_alloc.counter;
		r.tx_queue = sk->sk_wmem_alloc.refs.counter - 1; /* the socket itself holds one */
	}
	bpf_seq_write(ctx->meta->seq, &r, sizeof(r));
	return 0;
}
