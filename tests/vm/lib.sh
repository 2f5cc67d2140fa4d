# shellcheck shell=bash
# Shared by the scripts of this folder; sourced, never run. Everything they make is below $VM, a cache that may be
# deleted at any time.

. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"

# shellcheck disable=SC2034 # for those who source this
VM="$CARGO_TARGET_DIR/vm"
HERE="$ROOT/tests/vm"
# shellcheck disable=SC2034
BTF="$CARGO_TARGET_DIR/btf"

# NAME SUITE PACKAGE ARCHITECTURE per line
all_kernels() {
	sed 's/#.*//' "$HERE/kernels" | awk 'NF >= 3 { print $1, $2, $3, (NF > 3 ? $4 : "amd64") }'
}

# the same of one architecture
kernels_of() {
	all_kernels | awk -v arch="$1" '$4 == arch'
}

# the same of amd64
kernels() {
	kernels_of amd64
}
