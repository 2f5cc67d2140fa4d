# shellcheck shell=bash
# Shared by the scripts of this folder; sourced, never run.
# Gives them the project's root, the folder cargo builds into, and one way to talk: stderr, lower-case.

set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$ROOT/target}"
cd "$ROOT"

# a toolchain that rustup installed, when the shell that runs this has not read its profile
if ! command -v cargo >/dev/null 2>&1 && [ -f "${HOME:-/root}/.cargo/env" ]; then
	# shellcheck source=/dev/null
	. "${HOME:-/root}/.cargo/env"
fi

say() {
	printf '%s\n' "$*" >&2
}

die() {
	say "error: $*"
	exit 1
}

is_root() {
	[ "$(id -u)" -eq 0 ]
}

have() {
	command -v "$1" >/dev/null 2>&1
}

need_cargo() {
	have cargo || die "\`cargo\` is not installed; rustup brings it: https://rustup.rs (the oldest compiler that works is \`rust-version\` in Cargo.toml)"
}

# install_static FROM TO MACHINE: takes the programs from one folder to another, if they run on MACHINE, as `readelf` names
# it, without any shared library.
install_static() {
	local name header
	mkdir -p "$2"
	for name in ktrace analyze; do
		install -m 0755 "$1/$name" "$2/$name"
		header="$(LC_ALL=C readelf --file-header --program-headers --dynamic "$2/$name")"
		case "$header" in
		*INTERP* | *NEEDED*) die "$2/$name still needs shared libraries" ;;
		*Machine:*"$3"*) ;;
		*) die "$2/$name is not for $3" ;;
		esac
		say "built $2/$name, $(stat -c %s "$2/$name") bytes, no shared libraries"
	done
}
