#!/usr/bin/env bash
# bench.sh: prints what ktrace adds to a TCP connection and to a UDP round trip, beside other tools.
# The traffic stays on the loopback of a network namespace that ends with this script.
# BENCH_ROUNDS and BENCH_SLICE_MS (9 and 1000) trade time for steadiness; a quiet machine does more than both.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

is_root || die "the benchmark attaches programs to the kernel, which needs root"
need_cargo
scripts/deps.sh build bench
cargo build --locked --release -p ktrace -p ktrace-bench

# the live tests make load under the same lock, which would be measured
exec 9>/run/ktrace-live.lock
if ! flock --nonblock 9; then
	say "waiting for a live test run to end"
	flock 9
fi

# in memory, so that no disk is measured
work="$(mktemp -d -p /dev/shm ktrace-bench.XXXXXX)"
trap 'rm -rf "$work"' EXIT

inside() {
	ip link set lo up
	# or the connections in TIME_WAIT would be what limits the rate
	echo 1024 65535 >/proc/sys/net/ipv4/ip_local_port_range
	# bpftrace and libbpf-tools look their tracepoints up there
	mountpoint -q /sys/kernel/debug || mount -t debugfs debugfs /sys/kernel/debug
	mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing
	exec "$@"
}
export -f inside

# shellcheck disable=SC2016 # expanded by the inner shell
unshare --net --mount bash -euc 'inside "$@"' bench \
	"$CARGO_TARGET_DIR/release/ktrace-bench" compare \
	--ktrace "$CARGO_TARGET_DIR/release/ktrace" --work "$work" \
	--rounds "${BENCH_ROUNDS:-9}" --slice-ms "${BENCH_SLICE_MS:-1000}"
