#!/usr/bin/env bash
# vmtest.sh [--only GROUP]... [KERNEL[:GROUP,...]...]: the live tests on real kernels in QEMU, those named or all of
# tests/vm/kernels, in this order as many at a time as there are processors. Prints kernel x hook x variant x result, and the
# results of each group of tests, of all or of those that are named:
#   fixture         variants and verified instructions are those of fixtures/kernels/NAME.json
#   equivalence     each variant of each hook yields what the programs did
#   chosen          the tests of owners, DNS, connections, faults and the ledger, with the variants that the kernel gets
#   fentry, kprobe, tracepoints, classic_tracepoints, probed_tracepoint, sockets_by_probes, lifetimes_by_tracepoints
#                   the same with these variants forced
#   evidence        drops, resets, waits and full listeners, with every variant of their hooks
#   reasons         why packets are thrown away, by the kernel's own names
#   limits          what only shows where the machine's own limits may be set
#   ipvs            what the kernel's own load balancer has counted
#   refused, missed what the kernel refuses or skips
#   rights          without BTF, capabilities, root
#   lockdown        on a locked-down kernel: a machine of its own
#   clock           a stepped clock
#   connections     5,000 of them, four times
#   conntrack       who stands behind a service, and a full table
#   unloaded        connection tracking that is not loaded stays so: a machine of its own
# A kernel or QEMU that cannot be had is a loud SKIP, and exit code 3 if nothing at all could be run; a failed test is
# exit code 1. With KTRACE_BLESS=1 it only writes fixtures/kernels/NAME.json anew.

. "$(dirname "${BASH_SOURCE[0]}")/../tests/vm/lib.sh"

FAMILIES=(fentry kprobe tracepoints classic_tracepoints probed_tracepoint sockets_by_probes lifetimes_by_tracepoints)
ALL_GROUPS=(fixture equivalence chosen "${FAMILIES[@]}" evidence reasons limits ipvs refused missed rights clock connections conntrack lockdown unloaded)
# emulation is some twenty times slower than the machine
SECONDS_PER_KERNEL=5400

# GROUP: what selects its tests by their names, each line a run
tests_of() {
	case "$1" in
	fixture) echo of_its_fixture ;;
	chosen) printf '%s\n' udp:: dns:: tcp:: connect:: socketlb:: sockets:: owners:: processes:: identity:: faults:: audit:: variants:: the_ledger_balances ;;
	# not those of classic ones, which have a group of their own
	tracepoints) echo "tracepoints:: --skip classic_" ;;
	evidence) printf '%s\n' evidence:: drops_by drops_without resets_ waits_by_probes ;;
	reasons) echo evidence::every_packet_that_a_rule ;;
	limits) echo node_faults::a_backlog ;;
	ipvs) echo node::what_ipvs ;;
	refused) echo _refused_at_ ;;
	missed) echo counted_as_missed ;;
	rights) printf '%s\n' privileges:: btf:: ;;
	lockdown) echo privileges::lockdown ;;
	clock) echo a_clock_that ;;
	connections) echo five_thousand_connections ;;
	conntrack) printf '%s\n' nat::both_ends_of nat_full:: ;;
	unloaded) echo nat_rights::where_the_module ;;
	*) echo "$1::" ;;
	esac
}

# KERNEL GROUP...: what a machine runs
job() {
	local name="$1" group selection
	shift
	echo "cd / && export KTRACE_LIVE_KERNEL=$name KTRACE_LIVE_PATIENCE=10 KTRACE_LIVE_NOTHING_HIDDEN=1 KTRACE_LIVE_MAY_SET_CLOCK=1 KTRACE_LIVE_MAY_SET_LIMITS=1"
	if [ "${KTRACE_BLESS:-}" = 1 ]; then
		echo "KTRACE_BLESS=1 \"$live\" of_its_fixture 2>&1"
		return
	fi
	echo "up() { cut -d' ' -f1 /proc/uptime; }; code=0; \"$CARGO_TARGET_DIR/debug/ktrace\" check"
	for group in "$@"; do
		echo "echo \"KTRACE-VM-GROUP $group \$(up)\""
		[ "$group" = connections ] && echo "export KTRACE_LIVE_CONNECTIONS=5000" || echo "export KTRACE_LIVE_CONNECTIONS=300"
		while read -r selection; do echo "\"$live\" $selection 2>&1 || code=1"; done < <(tests_of "$group")
		echo "echo \"KTRACE-VM-GROUP-END \$(up)\""
	done
	echo "exit \$code"
}

# What the machine printed between two lines becomes the fixture.
bless() {
	local new="$ROOT/fixtures/kernels/$1.json.new"
	sed -n '/KTRACE-FIXTURE-BEGIN /,/^KTRACE-FIXTURE-END/p' "$VM/$1.log" | sed '1d;$d' >"$new"
	[ -s "$new" ] && mv "$new" "${new%.new}"
}

# KERNEL LOG GROUP...: boots a machine, and reports. Exit code: 0 passed, 1 not, 3 it cannot be had.
machine() {
	local name="$1" log="$2" script code=0
	shift 2
	script="$(mktemp "$VM/job.XXXXXX")"
	job "$name" "$@" >"$script"
	say "kernel $name: booting; what it prints is in $log"
	"$HERE/run.sh" "$name" "$SECONDS_PER_KERNEL" "$CARGO_TARGET_DIR/debug" "$script" >"$log" || code=$?
	rm -f "$script"
	if [ "$code" = 3 ]; then
		echo "SKIP  $name  it cannot be had here"
		return 3
	fi
	if [ "${KTRACE_BLESS:-}" = 1 ]; then bless "$name" && [ "$code" = 0 ]; return; fi
	awk -v name="$name" -v code="$code" -f "$HERE/report.awk" "$log" || code=1
	# what each failed test said, as far as one can read at a glance
	awk '/^---- .* ----$/ { left = 40 } /^$/ { left = 0 } left > 0 { left--; print substr($0, 1, 300) }' "$log"
	[ "$code" = 0 ]
}

# KERNEL GROUP...: all these groups, `lockdown` and `unloaded` on machines of their own.
run() {
	local name="$1" here=() group code=0 all_code=0
	shift
	for group in "$@"; do [[ $group = lockdown || $group = unloaded ]] || here+=("$group"); done
	[ ${#here[@]} -eq 0 ] || machine "$name" "$VM/$name.log" "${here[@]}" || all_code=$?
	for group in lockdown unloaded; do
		if [[ " $* " != *" $group "* ]] || [ "$all_code" = 3 ] || [ "${KTRACE_BLESS:-}" = 1 ]; then continue; fi
		code=0
		case "$group" in
		lockdown) KTRACE_VM_APPEND="${KTRACE_VM_APPEND:-} lockdown=confidentiality" machine "$name" "$VM/$name-lockdown.log" lockdown || code=$? ;;
		unloaded) KTRACE_VM_WITHOUT='nf_conntrack.*|ip_vs.*|nf_nat|nft_(ct|chain_nat|nat|masq|redir)' machine "$name" "$VM/$name-unloaded.log" unloaded || code=$? ;;
		esac
		[ "$code" = 0 ] || all_code="$code"
	done
	return "$all_code"
}

# GROUP...: whether there are such
known() {
	local group
	for group in "$@"; do
		[[ " ${ALL_GROUPS[*]} " = *" $group "* ]] || die "no group \`$group\`; there are ${ALL_GROUPS[*]}"
	done
}

groups=()
while [ "${1:-}" = --only ]; do
	groups+=("${2:-}")
	shift 2
done
[ ${#groups[@]} -gt 0 ] || groups=("${ALL_GROUPS[@]}")
known "${groups[@]}"
wanted=("$@")
[ ${#wanted[@]} -gt 0 ] || mapfile -t wanted < <(kernels | cut -d' ' -f1)
names=()
declare -A groups_of
for each in "${wanted[@]}"; do
	name="${each%%:*}"
	names+=("$name")
	kernels | grep -q "^$name " || die "no kernel \`$name\` in tests/vm/kernels: $(kernels | cut -d' ' -f1 | tr '\n' ' ')"
	groups_of[$name]="${groups[*]}"
	[ "$each" = "$name" ] || groups_of[$name]="$(tr ',' ' ' <<<"${each#*:}")"
	read -ra own <<<"${groups_of[$name]}"
	known "${own[@]}"
done

need_cargo
scripts/deps.sh build test vm
cargo build --locked --workspace --bins --test live
live="$(cargo test --locked --no-run --workspace --test live 2>&1 | sed -n 's/.*(\(.*\/live-[0-9a-f]*\))$/\1/p')"
live="$(realpath "$live")"
mkdir -p "$VM"
"$HERE/rootfs.sh" amd64 || exit

# one after the other: kernels of one suite share a list of packages
for name in "${names[@]}"; do "$HERE/fetch-kernel.sh" "$name" || true; done

out="$(mktemp -d "$VM/out.XXXXXX")"
trap 'rm -rf "$out"' EXIT
at_once="$(nproc)"
for name in "${names[@]}"; do
	while [ "$(jobs -rp | wc -l)" -ge "$at_once" ]; do wait -n || true; done
	{
		code=0
		read -ra own <<<"${groups_of[$name]}"
		run "$name" "${own[@]}" >"$out/$name" || code=$?
		echo "$code" >"$out/$name.code"
		# at once: whoever stops a run that takes too long wants to know what there is
		cat "$out/$name"
	} &
done
wait
ran=0 failed=0
for name in "${names[@]}"; do
	case "$(cat "$out/$name.code")" in
	0) ran=1 ;;
	3) ;;
	*) ran=1 failed=1 ;;
	esac
done
[ "$ran" = 1 ] || exit 3
exit "$failed"
