#!/usr/bin/env bash
# eval.sh [ARGS]: runs the fault corpus of tests/eval, in a quarter of an hour: the rank of the right finding for each scenario,
# then precision and recall. SEED=n repeats a run; `--only NAME`, `--list` and `--write` are passed on.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_cargo
is_root || die "the fault corpus makes network namespaces and attaches programs to the kernel, which needs root"
scripts/deps.sh build test

# what it runs must be there first
cargo build --locked --workspace --bins --test eval
seed="${SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}"
exec cargo test --locked --workspace --test eval -- --seed "$seed" "$@"
