# shellcheck shell=bash
# Shared by the scripts of this folder; sourced, never run. Everything they make is below $VM, a cache that may be
# deleted at any time.

. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"

# shellcheck disable=SC2034 # for those who source this
VM="$CARGO_TARGET_DIR/vm"
HERE="$ROOT/tests/vm"

# NAME SUITE PACKAGE per line
kernels() {
	sed 's/#.*//' "$HERE/kernels" | awk 'NF == 3'
}
