#!/usr/bin/env bash
# vmtest-arm64.sh [KERNEL...]: the live tests of SMOKE on arm64 kernels in QEMU, those named or all arm64 ones of
# tests/vm/kernels. Prints kernel, test, passed, failed, not offered. TESTS="a b" runs the tests with `a` or `b` in their
# name instead. A kernel or QEMU that cannot be had is a loud SKIP, and exit code 3 if nothing at all could be run; a
# failed test, or a name that no test has, is exit code 1.

. "$(dirname "${BASH_SOURCE[0]}")/../tests/vm/lib.sh"

# every way to attach, both protocols, both families of addresses, names of errors, and the analyzer: 4 minutes each
SMOKE="a_capture_attaches_what_check_says kprobe::every_v4_datagram kprobe::v6_connections kprobe::a_refused_connect
	fentry::every_v6_datagram fentry::a_reset_connection tracepoints::every_v4_datagram
	classic_tracepoints::a_lost_first_syn sockets_by_probes::a_server_that_never kprobe::dropped_dns_replies"
SECONDS_PER_TEST=120

need_cargo
scripts/deps.sh vm-arm64
scripts/build-arm64.sh tests
programs="$CARGO_TARGET_DIR/aarch64-unknown-linux-musl/debug"
live="$(find "$programs/deps" -name 'live-*' -type f -perm -u+x -printf '%T@ %p\n' | sort -rn | sed -n '1s/^[^ ]* //p')"

names=("$@")
[ ${#names[@]} -gt 0 ] || mapfile -t names < <(kernels_of arm64 | cut -d' ' -f1)
read -rd '' -a tests <<<"${TESTS:-$SMOKE}" || true
mkdir -p "$VM"
job="$(mktemp "$VM/job.XXXXXX")"
trap 'rm -f "$job"' EXIT
{
	echo "cd / && export KTRACE_LIVE_CONNECTIONS=300"
	echo "up() { cut -d' ' -f1 /proc/uptime; }; code=0; \"$programs/ktrace\" check"
	for test in "${tests[@]}"; do
		echo "echo \"KTRACE-VM-GROUP $test \$(up)\"; \"$live\" \"$test\" 2>&1 || code=1; echo \"KTRACE-VM-GROUP-END \$(up)\""
	done
	echo "exit \$code"
} >"$job"

ran=0 failed=0
for name in "${names[@]}"; do
	log="$VM/$name.log"
	say "kernel $name: booting; what it prints is in $log"
	code=0
	"$HERE/run.sh" "$name" "$((SECONDS_PER_TEST * (${#tests[@]} + 1)))" "$programs" "$job" >"$log" || code=$?
	if [ "$code" = 3 ]; then
		echo "SKIP  $name  it cannot be had here"
		continue
	fi
	ran=1
	awk -v name="$name" -v code="$code" -f "$HERE/report.awk" "$log" || failed=1
	grep -aE '^---- .* ----$|^test panicked' "$log" | cut -c1-300 || true
done
[ "$ran" = 1 ] || exit 3
exit "$failed"
