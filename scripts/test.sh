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

# The live tests run `ktrace`, `analyze` and `traffic`, so these must be there first. Whatever is built, here as in other scripts, is
# built for the whole workspace with a test: what only tests use changes the features of what the programs use, and all of it would be
# built again.
if [ "${1:-all}" = live ]; then
	cargo build --locked --workspace --bins --test live
	exec cargo test --locked --workspace --test live
fi
exec cargo test --locked --workspace --no-fail-fast
