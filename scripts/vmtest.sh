#!/usr/bin/env bash
# vmtest.sh [KERNEL...]: on real kernels in QEMU, those named or all of tests/vm/kernels, a stepped clock and the live tests
# with each variant and each family of variants forced. Prints kernel, variants, passed, failed, not offered. A kernel or QEMU that cannot
# be had is a loud SKIP, and exit code 3 if nothing at all could be run; a failed test is exit code 1.

. "$(dirname "${BASH_SOURCE[0]}")/../tests/vm/lib.sh"

GROUPS_OF_VARIANTS=(equivalence tracepoints classic_tracepoints fentry kprobe sockets_by_probes)
# emulation is some twenty times slower than the machine
SECONDS_PER_KERNEL=3000

need_cargo
scripts/deps.sh build test vm
cargo build --locked --workspace
live="$(cargo test --locked --no-run -p ktrace --test live 2>&1 | sed -n 's/.*(\(.*\/live-[0-9a-f]*\))$/\1/p')"
live="$(realpath "$live")"

names=("$@")
[ ${#names[@]} -gt 0 ] || mapfile -t names < <(kernels | cut -d' ' -f1)
mkdir -p "$VM"
job="$(mktemp "$VM/job.XXXXXX")"
trap 'rm -f "$job"' EXIT
{
	echo "cd / && export KTRACE_LIVE_CONNECTIONS=300"
	echo "\"$CARGO_TARGET_DIR/debug/ktrace\" check; code=0"
	echo "echo \"KTRACE-VM-GROUP clock\"; KTRACE_LIVE_MAY_SET_CLOCK=1 \"$live\" a_clock_that 2>&1 || code=1"
	for group in "${GROUPS_OF_VARIANTS[@]}"; do
		echo "echo \"KTRACE-VM-GROUP $group\"; \"$live\" \"$group::\" 2>&1 || code=1"
	done
	echo "exit \$code"
} >"$job"

ran=0 failed=0
for name in "${names[@]}"; do
	log="$VM/$name.log"
	say "kernel $name: booting; what it prints is in $log"
	code=0
	"$HERE/run.sh" "$name" "$SECONDS_PER_KERNEL" "$CARGO_TARGET_DIR/debug" "$job" >"$log" || code=$?
	if [ "$code" = 3 ]; then
		echo "SKIP  $name  it cannot be had here"
		continue
	fi
	ran=1
	[ "$code" = 0 ] || failed=1
	version="$(sed -n 's/^KTRACE-VM-UP \([^ ]*\) .*/\1/p' "$log")"
	awk -v name="$name" -v version="$version" -v code="$code" '
		/^KTRACE-VM-GROUP / { group = $2 }
		/^test result:/ { printf "%-5s %-30s %-20s %3d passed %3d failed %3d not offered\n", name, version, group, $4, $6, $8; n++ }
		/^KTRACE-VM-KERNEL / { print name ": " $0 }
		END { if (code >= 124) print "FAIL  " name "  the machine " (code == 124 ? "did not end in time" : "died") }
	' "$log"
	grep -aE '^---- .* ----$|^test panicked' "$log" | cut -c1-300 || true
done
[ "$ran" = 1 ] || exit 3
exit "$failed"
