#!/usr/bin/env bash
# demo.sh: builds ktrace and analyze, captures this machine for 10 s while two namespaces talk to each other
# and to a DNS server that never answers, and shows what `analyze` says about it.
# Where it cannot capture it says why and analyzes the bundle in fixtures/ instead. Leaves only ./out behind.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

readonly LIVE=10.199.0.1 DEAD=10.199.0.53 CLIENT=10.199.0.2 SERVER_MAC=02:00:00:00:00:01
readonly CLIENT_NS="ktrace-demo-client-$$" SERVER_NS="ktrace-demo-server-$$"
readonly FIXTURE=fixtures/demo.bundle.tgz
readonly KTRACE="$CARGO_TARGET_DIR/debug/ktrace" ANALYZE="$CARGO_TARGET_DIR/debug/analyze"

work="$(mktemp -d)"
pids=()

cleanup() {
	for pid in "${pids[@]}"; do
		kill "$pid" 2>/dev/null || true
	done
	wait 2>/dev/null || true
	for name in "$CLIENT_NS" "$SERVER_NS"; do
		ip netns del "$name" 2>/dev/null || true
	done
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

inside() {
	local name="$1"
	shift
	# not `ip netns exec`, which hides the cgroup mounts
	exec nsenter --net="/run/netns/$name" -- "$@"
}

# Two namespaces and a cable. The dead server is a neighbour entry without a machine behind it:
# queries leave, and nothing ever comes back, not even an error.
lay_network() {
	ip netns add "$CLIENT_NS" &&
		ip netns add "$SERVER_NS" &&
		ip -n "$SERVER_NS" link add eth0 type veth peer name eth0 netns "$CLIENT_NS" &&
		ip -n "$SERVER_NS" addr add "$LIVE/24" dev eth0 &&
		ip -n "$CLIENT_NS" addr add "$CLIENT/24" dev eth0 &&
		ip -n "$SERVER_NS" link set eth0 address "$SERVER_MAC" up &&
		ip -n "$CLIENT_NS" link set eth0 up &&
		ip -n "$CLIENT_NS" neigh replace "$DEAD" lladdr "$SERVER_MAC" nud permanent dev eth0
}

# Waits until a file is there; gives up with its writer or after 20 s.
wait_for() {
	local file="$1" writer="$2"
	for _ in $(seq 200); do
		[ -e "$file" ] && return 0
		kill -0 "$writer" 2>/dev/null || return 1
		sleep 0.1
	done
	return 1
}

start_traffic() {
	inside "$CLIENT_NS" python3 scripts/demo_traffic.py client "$LIVE" "$DEAD" &
	pids+=($!)
}

start_server() {
	inside "$SERVER_NS" python3 scripts/demo_traffic.py server "$LIVE" "$work/server-ready" &
	pids+=($!)
	wait_for "$work/server-ready" "$!"
}

# Leaves the bundle's path in $work/bundle. Returns the collector's exit code.
capture() {
	# only the demo's ports, so that a busy machine does not push its few events out of an unoptimized build
	"$KTRACE" --duration 10s --ports 53,8080 --out-dir ./out --ready-file "$work/ready" >"$work/bundle" &
	local collector=$!
	pids+=("$collector")
	if wait_for "$work/ready" "$collector"; then
		start_traffic
	fi
	local code=0
	wait "$collector" || code=$?
	return "$code"
}

show_fixture() {
	say "cannot capture here: $1"
	say "showing the bundle that ships with ktrace instead: $FIXTURE"
	say
	need_cargo
	cargo build --locked -p ktrace-analyzer
	"$ANALYZE" "$FIXTURE"
	say
	say "next: run \`make run\` where it can capture, or read the evidence: $ANALYZE events $FIXTURE --limit 20"
	exit 0
}

need_cargo
[ "$(uname -s)" = Linux ] || show_fixture "this is not Linux"
is_root || show_fixture "capturing needs root, and this is uid $(id -u)"
[ -r /sys/kernel/btf/vmlinux ] || show_fixture "this kernel has no BTF (\`/sys/kernel/btf/vmlinux\`)"
scripts/deps.sh build run || show_fixture "packages are missing"
lay_network || show_fixture "network namespaces cannot be made here"

say "building ktrace and analyze"
cargo build --locked -p ktrace -p ktrace-analyzer
start_server || die "the demo's server did not start"

say "capturing this machine for 10 s; in $CLIENT_NS, \`checkout\` asks a DNS server that is dead ($DEAD)"
code=0
capture || code=$?
case "$code" in
0 | 4) ;;
3) show_fixture "the reason is in ktrace's words above" ;;
*) die "ktrace ended with exit code $code" ;;
esac

bundle="$(cat "$work/bundle")"
say
"$ANALYZE" "$bundle"
say
say "bundle: $bundle"
say "next:   $ANALYZE events $bundle --where raddr=$DEAD --limit 5"
