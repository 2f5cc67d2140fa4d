#!/usr/bin/env bash
# vmtest.sh [--only GROUP] [KERNEL...]: on real kernels in QEMU, those named or all of tests/vm/kernels: `clock`, a stepped
# clock; `connections`, the tests with 5,000 of them and nothing left out; and the live tests with each family of
# variants forced, a group for each. Prints kernel, variants, passed, failed, not offered. A kernel or QEMU that cannot
# be had is a loud SKIP, and exit code 3 if nothing at all could be run; a failed test is exit code 1.
# With KTRACE_BLESS=1 it only writes fixtures/kernels/NAME.json anew.

. "$(dirname "${BASH_SOURCE[0]}")/../tests/vm/lib.sh"

GROUPS_OF_VARIANTS=(equivalence tracepoints classic_tracepoints fentry kprobe sockets_by_probes)
ALL_GROUPS=(fixture refused missed clock connections "${GROUPS_OF_VARIANTS[@]}")
# emulation is some twenty times slower than the machine
SECONDS_PER_KERNEL=3000

need_cargo
scripts/deps.sh build test vm
cargo build --locked --workspace
live="$(cargo test --locked --no-run -p ktrace --test live 2>&1 | sed -n 's/.*(\(.*\/live-[0-9a-f]*\))$/\1/p')"
live="$(realpath "$live")"

groups=("${ALL_GROUPS[@]}")
if [ "${1:-}" = --only ]; then
	[[ " ${ALL_GROUPS[*]} " = *" ${2:-} "* ]] || die "--only takes one of ${ALL_GROUPS[*]}"
	groups=("$2")
	shift 2
fi
names=("$@")
[ ${#names[@]} -gt 0 ] || mapfile -t names < <(kernels | cut -d' ' -f1)
mkdir -p "$VM"
job="$(mktemp "$VM/job.XXXXXX")"
trap 'rm -f "$job" "$job.fixture"' EXIT
tests_of() {
	echo "cd / && export KTRACE_LIVE_CONNECTIONS=300 KTRACE_LIVE_PATIENCE=10 KTRACE_LIVE_KERNEL=$1"
	if [ "${KTRACE_BLESS:-}" = 1 ]; then
		echo "KTRACE_BLESS=1 \"$live\" of_its_fixture 2>&1"
		return
	fi
	echo "\"$CARGO_TARGET_DIR/debug/ktrace\" check; code=0"
	for group in "${groups[@]}"; do
		echo "echo \"KTRACE-VM-GROUP $group\""
		case "$group" in
		clock) echo "KTRACE_LIVE_MAY_SET_CLOCK=1 \"$live\" a_clock_that 2>&1 || code=1" ;;
		connections) echo "KTRACE_LIVE_CONNECTIONS=5000 KTRACE_LIVE_NOTHING_HIDDEN=1 \"$live\" five_thousand_connections 2>&1 || code=1" ;;
		refused) echo "\"$live\" _refused_at_ 2>&1 || code=1" ;;
		missed) echo "\"$live\" counted_as_missed 2>&1 || code=1" ;;
		equivalence) echo "KTRACE_LIVE_NOTHING_HIDDEN=1 \"$live\" equivalence:: 2>&1 || code=1" ;;
		# not those of classic ones, which have a group of their own
		tracepoints) echo "\"$live\" tracepoints:: --skip classic_ 2>&1 || code=1" ;;
		fixture) echo "\"$live\" of_its_fixture 2>&1 || code=1" ;;
		*) echo "\"$live\" \"$group::\" 2>&1 || code=1" ;;
		esac
	done
	echo "exit \$code"
}

# what the machine printed between two lines becomes the fixture
bless() {
	sed -n '/KTRACE-FIXTURE-BEGIN /,/^KTRACE-FIXTURE-END/p' "$2" | sed '1d;$d' >"$job.fixture"
	[ -s "$job.fixture" ] && mv "$job.fixture" "$ROOT/fixtures/kernels/$1.json"
}

ran=0 failed=0
for name in "${names[@]}"; do
	log="$VM/$name.log"
	say "kernel $name: booting; what it prints is in $log"
	code=0
	tests_of "$name" >"$job"
	"$HERE/run.sh" "$name" "$SECONDS_PER_KERNEL" "$CARGO_TARGET_DIR/debug" "$job" >"$log" || code=$?
	if [ "$code" = 3 ]; then
		echo "SKIP  $name  it cannot be had here"
		continue
	fi
	ran=1
	[ "$code" = 0 ] || failed=1
	[ "${KTRACE_BLESS:-}" != 1 ] || bless "$name" "$log" || failed=1
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
