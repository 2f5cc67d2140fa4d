#!/usr/bin/env bash
# fetch-btf.sh NAME SUITE ARCH PACKAGE: downloads the Debian kernel that the meta package names and keeps its image as
# $VM/images/NAME. Nothing is installed. Exit code 3: it cannot be had.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$ROOT/scripts/apt.sh"

name="$1" suite="$2" arch="$3" package="$4"
image="$VM/images/$name"
[ ! -e "$image" ] || exit 0
mkdir -p "$VM/images"

cannot() {
	say "kernel $name cannot be had: $*"
	exit 3
}

apt_open "$VM/apt/$suite-$arch" "$suite" "$arch" || cannot "no list of packages"
mapfile -t packages < <(apt_kernel "$package" binary)
[ ${#packages[@]} -gt 0 ] || cannot "$suite has no $package"

new="$(mktemp -d "$VM/fetch.XXXXXX")"
trap 'rm -rf "$new"' EXIT
(cd "$new" && apt-get "${APT[@]}" download "${packages[@]}") || cannot "${packages[*]} is not in $suite (any more)"
for deb in "$new"/*.deb; do dpkg --fsys-tarfile "$deb" | tar -x -C "$new" --wildcards '*boot/vmlinuz*' '*lib/modules/*/vmlinuz' 2>/dev/null || true; done
found="$(find "$new" -name 'vmlinuz*' -type f -print -quit)"
[ -n "$found" ] || cannot "no kernel image in ${packages[*]}"
mv "$found" "$image"
say "kernel $name: ${packages[0]}"
