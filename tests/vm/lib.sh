# shellcheck shell=bash
# Shared by the scripts of this folder; sourced, never run. Everything they make is below $VM, a cache that may be
# deleted at any time.

. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"

# shellcheck disable=SC2034 # for those who source this
VM="$CARGO_TARGET_DIR/vm"
HERE="$ROOT/tests/vm"
# shellcheck disable=SC2034
BTF="$CARGO_TARGET_DIR/btf"

# NAME SUITE PACKAGE per line
kernels() {
	sed 's/#.*//' "$HERE/kernels" | awk 'NF == 3'
}

# SUITE ARCH: sets APT to options for a package database of its own, made from the mirrors that this machine uses anyway;
# apt's own lists and state stay as they are. Fails where there is no such mirror.
apt_for() {
	local sources mirrors mirror apt="$VM/apt/$1-$2"
	[ "$2" != amd64 ] || apt="$VM/apt/$1"
	sources="$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources} 2>/dev/null || true)"
	mirrors="$(grep -oE 'https?://[^ ]+/debian(-security)?/?( |$)' <<<"$sources" | tr -d ' ' | sort -u)"
	case "$1" in
	*-security) mirror="$(grep -m1 'debian-security' <<<"$mirrors" || true)" ;;
	*) mirror="$(grep -m1 -v 'debian-security' <<<"$mirrors" || true)" ;;
	esac
	[ -n "$mirror" ] || return 1
	mkdir -p "$apt"/{lists/partial,cache/archives/partial}
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $1 main" >"$apt/sources.list"
	APT=(-qq -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
		-o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o Dir::State::status=/dev/null
		-o "APT::Architecture=$2" -o "APT::Architectures=$2"
		-o "APT::Sandbox::User=$(id -un)" -o Acquire::Languages=none -o Acquire::Check-Valid-Until=false
		-o Debug::NoLocking=1)
	apt-get "${APT[@]}" update
}

# PACKAGE: names of what it depends on, a line each
apt_depends() {
	apt-cache "${APT[@]}" show --no-all-versions "$1" 2>/dev/null |
		sed -n 's/^Depends: //p' | tr ',' '\n' | sed 's/^ *//; s/[ (].*//'
}
