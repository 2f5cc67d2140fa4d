#!/usr/bin/env bash
# test.sh [live]: builds everything and runs everything, or only the live tests.
# The live tests say themselves, by name and reason, when they cannot run here (no root, no BTF).

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_cargo
scripts/deps.sh build
if is_root; then
	scripts/deps.sh test
else
	scripts/deps.sh test || say "the live tests need root anyway; going on without those packages"
fi

# the live tests run `ktrace`, `analyze` and `traffic`, so these must be there first
cargo build --locked --workspace

if [ "${1:-all}" = live ]; then
	exec cargo test --locked -p ktrace --test live
fi
exec cargo test --locked --workspace --no-fail-fast
