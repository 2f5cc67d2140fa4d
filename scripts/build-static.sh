#!/usr/bin/env bash
# build-static.sh: `ktrace` and `analyze` without any shared library, into <target>/static/.
# glibc stays, linked in: neither program looks names up, so nothing is loaded at run time.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_cargo
scripts/deps.sh build

triple="$(rustc -vV | sed -n 's/^host: //p')"
# where the distribution keeps libelf.a and libz.a
LIBBPF_SYS_LIBRARY_PATH="$(dirname "$(gcc -print-file-name=libelf.a)")"
export LIBBPF_SYS_LIBRARY_PATH
# with an explicit --target these flags reach the programs only, not the build scripts
export RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static"

cargo build --locked --release --target "$triple" -p ktrace --features static
cargo build --locked --release --target "$triple" -p ktrace-analyzer

[[ $triple = aarch64-* ]] && machine=AArch64 || machine=X86-64
install_static "$CARGO_TARGET_DIR/$triple/release" "$CARGO_TARGET_DIR/static" "$machine"
