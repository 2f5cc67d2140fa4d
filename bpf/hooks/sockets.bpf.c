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

static __always_inline void fill_tcp(struct kt_socket *r, struct sock *sk, struct tcp_sock *tp, const bool direct)
{
	r->state = KT_FIELD(direct, sk, __sk_common.skc_state);
	if (r->state == TCP_LISTEN) {
		r->backlog = KT_FIELD(direct, sk, sk_max_ack_backlog);
		r->accept_queue = KT_FIELD(direct, sk, sk_ack_backlog);
		return;
	}
	r->rx_queue = KT_FIELD(direct, tp, rcv_nxt) - KT_FIELD(direct, tp, copied_seq);
	r->tx_queue = KT_FIELD(direct, tp, write_seq) - KT_FIELD(direct, tp, snd_una);
	r->tx_bytes = KT_FIELD(direct, tp, bytes_sent) - KT_FIELD(direct, tp, bytes_retrans);
	r->rx_bytes = rx_bytes_of(sk, tp, direct);
	r->tx_segs = KT_FIELD(direct, tp, segs_out);
	r->retrans = KT_FIELD(direct, tp, total_retrans);
	r->srtt_us = KT_FIELD(direct, tp, srtt_us) >> 3;
}

/* `tp` is NULL for UDP. */
static __always_inline int on_socket(struct bpf_iter__task_file *ctx, struct task_struct *task, struct sock *sk,
				     struct tcp_sock *tp, const bool direct)
{
	struct kt_sock *s = sock_of(sk, true, direct);
	struct kt_socket r = {};
	bool listens = tp && KT_FIELD(direct, sk, __sk_common.skc_state) == TCP_LISTEN;

	if (s) {
		settle_child(s, cookie_of(sk, s, direct));
		adopt(s, task, listens ? KT_ROLE_LISTENER : KT_ROLE_NONE);
	}
	r.hdr.boot_ns = bpf_ktime_get_boot_ns();
	read_flow(&r.hdr.flow, sk, s, direct);
	if (s) {
		r.hdr.owner = s->owner;
		r.age_ns = s->born_ns ? r.hdr.boot_ns - s->born_ns : 0;
	}
	if (tp) {
		fill_tcp(&r, sk, tp, direct);
		if (s && kt_state.when == KT_WHEN_START) {
			s->start_tx = r.tx_bytes;
			s->start_rx = r.rx_bytes;
		}
	} else {
		r.rx_queue = KT_FIELD(direct, sk, sk_backlog.rmem_alloc.counter);
		r.tx_queue = KT_FIELD(direct, sk, sk_wmem_alloc.refs.counter) - 1; /* the socket itself holds one */
	}
	bpf_seq_write(ctx->meta->seq, &r, sizeof(r));
	return 0;
}

/* Whoever reads this iterator is ktrace. */
static __always_inline void note_self(void)
{
	kt_state.self_pid = bpf_get_current_pid_tgid() >> 32;
}

SEC("?iter/task_file")
int sockets__iter(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct tcp_sock *tp = NULL;
	struct socket *socket;
	struct sock *sk;

	if (!task || !file)
		return 0;
	note_self();
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
	return on_socket(ctx, task, sk, tp, true);
}

/* Before bpf_sock_from_file (5.11) the way from a file to its socket is untyped. */
SEC("?iter/task_file")
int sockets__iter_probed(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct socket *socket;
	struct sock *sk;

	if (!task || !file)
		return 0;
	note_self();
	if ((BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return 0;
	socket = BPF_CORE_READ(file, private_data);
	sk = socket ? BPF_CORE_READ(socket, sk) : NULL;
	if (!sk)
		return 0;
	if (is_tcp(sk, false))
		return on_socket(ctx, task, sk, (struct tcp_sock *)sk, false);
	return is_udp(sk, false) ? on_socket(ctx, task, sk, NULL, false) : 0;
}
