#!/usr/bin/env bash
# musl-arm64.sh: what C code for arm64 and musl is built against, in <target>/musl-arm64/: `include` (musl and the kernel,
# from Debian's packages) and `lib` (libelf and zlib, which no distribution has for musl and arm64: compiled with clang from
# the sources that libbpf-sys brings). Rust's own target brings musl itself. Prints the folder; made once per version.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$ROOT/scripts/apt.sh"

readonly SUITE=bookworm
CLANG="${CLANG:-clang}"

crate="$(cargo metadata --locked --format-version 1 | python3 -c '
import json, sys
print(next(p["manifest_path"] for p in json.load(sys.stdin)["packages"] if p["name"] == "libbpf-sys"))')"
crate="$(dirname "$crate")"
key="$({ cat "$ROOT/scripts/musl-arm64.sh"; echo "$crate"; } | sha256sum | cut -c1-16)"
out="$CARGO_TARGET_DIR/musl-arm64/$key"
[ -e "$out/done" ] && { echo "$out"; exit 0; }

mkdir -p "$CARGO_TARGET_DIR/musl-arm64"
new="$(mktemp -d "$CARGO_TARGET_DIR/musl-arm64/new.XXXXXX")"
trap 'rm -rf "$new"' EXIT

fetch() {
	apt_open "$CARGO_TARGET_DIR/musl-arm64/apt" "$SUITE" arm64 && apt_unpack "$new/tree" musl-dev linux-libc-dev
}
fetch || die "the C headers of arm64 cannot be had: they are in Debian's musl-dev and linux-libc-dev"
mkdir "$new/lib"
mv "$new/tree/usr/include" "$new/include"
cp -a "$new/include/aarch64-linux-musl/." "$new/include/aarch64-linux-gnu/." "$new/include/"
cp "$crate"/elfutils/libelf/{libelf,gelf,elf}.h "$crate"/zlib/{zlib,zconf}.h "$new/include/"

# what elfutils' configure would find out about musl
cat >"$new/config.h" <<-'CONFIG'
	#define HAVE_DECL_MEMRCHR 1
	#define HAVE_DECL_MEMPCPY 1
	#define HAVE_DECL_REALLOCARRAY 1
	#define HAVE_ERR_H 1
	#define HAVE_MREMAP 1
	#define HAVE_VISIBILITY 1
	#define HAVE_FALLTHROUGH 1
	#include <eu-config.h>
CONFIG

# archive NAME FLAG... -- SOURCE...
archive() {
	local name="$1" flags=(--target=aarch64-unknown-linux-musl -O2 -fPIC -nostdlibinc -isystem "$new/include")
	shift
	while [ "$1" != -- ]; do flags+=("$1"); shift; done
	shift
	mkdir "$new/$name"
	(cd "$new/$name" && printf '%s\0' "$@" | xargs -0 -P2 -n 30 "$CLANG" "${flags[@]}" -w -c) || die "$name does not compile"
	ar rcs "$new/lib/$name.a" "$new/$name"/*.o
}
archive libelf -std=gnu99 -D_GNU_SOURCE -DHAVE_CONFIG_H -I"$new" -I"$crate/elfutils/libelf" -I"$crate/elfutils/lib" \
	-- "$crate"/elfutils/libelf/*.c
archive libz -DHAVE_HIDDEN -DHAVE_UNISTD_H -- "$crate"/zlib/*.c

rm -rf "$new"/{tree,libelf,libz,config.h} "$out"
touch "$new/done"
mv "$new" "$out"
say "built libelf and zlib for arm64"
echo "$out"
