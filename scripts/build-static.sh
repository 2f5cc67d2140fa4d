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

out="$CARGO_TARGET_DIR/static"
mkdir -p "$out"
for name in ktrace analyze; do
	install -m 0755 "$CARGO_TARGET_DIR/$triple/release/$name" "$out/$name"
	dynamic="$(readelf --dynamic "$out/$name")"
	case "$dynamic" in
	*NEEDED*) die "$out/$name still needs shared libraries" ;;
	esac
	say "built $out/$name, $(stat -c %s "$out/$name") bytes, no shared libraries"
done
