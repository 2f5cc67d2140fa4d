#!/usr/bin/env bash
# deps.sh GROUP...: says which packages of these groups are missing, and installs them where it may:
# as root on a Debian-like system. DEPS=no only lists, for those who have the same from elsewhere, and so
# does a system without dpkg; both exit 0, as the build itself tells what is really lacking.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

packages_of() {
	case "$1" in
	# libbpf comes with its crate; libelf and zlib are linked; protoc reads what containerd-client is made from
	build) echo clang gcc libc6-dev make pkg-config libelf-dev zlib1g-dev protobuf-compiler ;;
	# another architecture: its headers are unpacked, not installed
	arm64) echo apt binutils python3-minimal ;;
	# the demo: namespaces, and a client and a server to trace
	run) echo iproute2 util-linux python3-minimal ;;
	# the live tests: resolvers, faults, other observers, a container runtime
	test)
		echo iproute2 util-linux procps nftables dnsmasq-base dnsutils python3 strace bpftool gzip tar \
			containerd runc containernetworking-plugins busybox-static iptables ipvsadm
		;;
	# real kernels, booted by emulation
	vm) echo qemu-system-x86 busybox-static cpio e2fsprogs xz-utils zstd lz4 python3-minimal binutils ;;
	vm-arm64) echo qemu-system-arm busybox-static cpio e2fsprogs xz-utils zstd ;;
	lint) echo shellcheck python3-venv ;;
	bench) echo iproute2 util-linux bpftrace libbpf-tools ;;
	*) die "unknown group \`$1\`; there are: build arm64 run test vm vm-arm64 lint bench" ;;
	esac
}

installed() {
	[ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

wanted=()
for group in "${@:-build}"; do
	read -ra names <<<"$(packages_of "$group")"
	wanted+=("${names[@]}")
done

if ! have dpkg-query; then
	say "not a Debian-like system: what is needed is what Debian calls ${wanted[*]}"
	exit 0
fi

missing=()
for name in "${wanted[@]}"; do
	installed "$name" || missing+=("$name")
done
if [ ${#missing[@]} -eq 0 ]; then
	exit 0
fi

say "missing packages: ${missing[*]}"
install="apt-get install -y --no-install-recommends ${missing[*]}"
if [ "${DEPS:-yes}" = no ]; then
	say "not installed, as DEPS=no asks; to install them: $install"
	exit 0
fi
if ! is_root; then
	say "not installed: that needs root; to install them: sudo $install (DEPS=no goes on without)"
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq </dev/null >&2
# shellcheck disable=SC2086 # one word per package
$install -qq -o Dpkg::Use-Pty=0 </dev/null >&2
say "installed: ${missing[*]}"
