#!/usr/bin/env bash
# build-arm64.sh [tests]: `ktrace` and `analyze` for arm64, without any shared library, into <target>/arm64/; with `tests`
# instead, unoptimized, all that the live tests run, into <target>/aarch64-unknown-linux-musl/debug/.
# clang compiles the C code, Rust's own linker links; no cross compiler is needed, only Rust's musl target.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

readonly TARGET=aarch64-unknown-linux-musl

need_cargo
scripts/deps.sh build arm64
[ -d "$(rustc --print target-libdir --target "$TARGET")" ] || rustup target add "$TARGET" >&2 ||
	die "Rust's standard library for $TARGET is missing; \`rustup target add $TARGET\` installs it"

libraries="$(scripts/musl-arm64.sh)"
export CC_aarch64_unknown_linux_musl="${CLANG:-clang}" AR_aarch64_unknown_linux_musl=ar
export CFLAGS_aarch64_unknown_linux_musl="-nostdlibinc -isystem $libraries/include"
export LIBBPF_SYS_LIBRARY_PATH_aarch64_unknown_linux_musl="$libraries/lib"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=rust-lld
# the build script, which runs here, links the same libraries of this machine
host="$(rustc -vV | sed -n 's/^host: //p')"
libelf="$(dirname "$(gcc -print-file-name=libelf.a)")"
export "LIBBPF_SYS_LIBRARY_PATH_${host//-/_}=$libelf"

build=(cargo build --locked --target "$TARGET" --features static -p ktrace -p ktrace-analyzer)
if [ "${1:-}" = tests ]; then
	export CARGO_PROFILE_DEV_DEBUG=false
	"${build[@]}" -p ktrace-traffic
	cargo test --locked --target "$TARGET" --features static --no-run -p ktrace --test live
	exit 0
fi

"${build[@]}" --release
install_static "$CARGO_TARGET_DIR/$TARGET/release" "$CARGO_TARGET_DIR/arm64" AArch64
