#!/usr/bin/env bash
# fetch-kernel.sh NAME: downloads the Debian kernel NAME of ./kernels and unpacks it, with modules ready for busybox,
# into $VM/kernels/NAME/{vmlinuz,version,lib/modules}. Nothing is installed; apt's own lists and state stay as they are.
# Exit code 3: it cannot be had.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$ROOT/scripts/apt.sh"

name="$1"
read -r _ suite package arch < <(all_kernels | awk -v n="$name" '$1 == n') || die "no kernel \`$name\` in tests/vm/kernels"
dir="$VM/kernels/$name"
[ -e "$dir/version" ] && exit 0

cannot() {
	say "kernel $name cannot be had: $*"
	exit 3
}

apt_open "$VM/apt/$suite-$arch" "$suite" "$arch" || cannot "no list of packages"

mapfile -t packages < <(apt_kernel "$package" 'binary|modules|base')
[ ${#packages[@]} -gt 0 ] || cannot "$suite has no $package"

new="$(mktemp -d "$VM/fetch.XXXXXX")"
trap 'rm -rf "$new"' EXIT
apt_unpack "$new/tree" "${packages[@]}" || cannot "${packages[*]} is not in $suite (any more)"

modules="$(find "$new/tree" -type d -path '*lib/modules/*' -prune -print -quit)"
version="$(basename "$modules")"
image="$(find "$new/tree" -name 'vmlinuz*' -type f -print -quit)"
[ -n "$image" ] || cannot "no kernel image in ${packages[*]}"
rm -rf "$dir"
mkdir -p "$dir/lib/modules"
cp "$image" "$dir/vmlinuz"
cp -a "$modules" "$dir/lib/modules/"
modules="$dir/lib/modules/$version"
rm -f "$modules"/{vmlinuz,build,source}
find "$modules" -name '*.ko.xz' -print0 | xargs -0r -P2 -n32 xz -d
find "$modules" -name '*.ko.zst' -print0 | xargs -0r -P2 -n32 zstd -dq --rm
busybox depmod -b "$dir" "$version"
echo "$version" >"$dir/version"
say "kernel $name: $version"
