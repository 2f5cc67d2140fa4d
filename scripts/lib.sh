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
