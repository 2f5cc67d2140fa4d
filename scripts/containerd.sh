#!/usr/bin/env bash
# containerd.sh SUITE: the containerd of another Debian suite (trixie has 1.7, sid 2.x), unpacked and never installed,
# into <target>/containerd/SUITE/. Prints the folder of its programs. It is fetched once, and runs with the runc and the
# libc of this machine.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$ROOT/scripts/apt.sh"

suite="${1:?a suite of Debian}"
out="$CARGO_TARGET_DIR/containerd/$suite"
[ -e "$out/done" ] && { echo "$out/usr/bin"; exit 0; }

mkdir -p "$CARGO_TARGET_DIR/containerd"
new="$(mktemp -d "$CARGO_TARGET_DIR/containerd/new.XXXXXX")"
trap 'rm -rf "$new"' EXIT
fetch() {
	apt_open "$CARGO_TARGET_DIR/containerd/apt-$suite" "$suite" "$(dpkg --print-architecture)" &&
		apt_unpack "$new/tree" containerd
}
have dpkg || die "containerd of $suite cannot be had: this is not a Debian-like system"
fetch >&2 || die "containerd of $suite cannot be had"
"$new/tree/usr/bin/containerd" --version >&2 || die "containerd of $suite does not run here"
touch "$new/tree/done"
rm -rf "$out"
mv "$new/tree" "$out"
echo "$out/usr/bin"
