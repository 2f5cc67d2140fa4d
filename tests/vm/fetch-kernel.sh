#!/usr/bin/env bash
# fetch-kernel.sh NAME: downloads the Debian kernel NAME of ./kernels and unpacks it, with modules ready for busybox,
# into $VM/kernels/NAME/{vmlinuz,version,lib/modules}. Nothing is installed; apt's own lists and state stay as they are.
# Exit code 3: it cannot be had.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

name="$1"
read -r _ suite package < <(kernels | awk -v n="$name" '$1 == n') || die "no kernel \`$name\` in tests/vm/kernels"
dir="$VM/kernels/$name"
[ -e "$dir/version" ] && exit 0

cannot() {
	say "kernel $name cannot be had: $*"
	exit 3
}

# the mirrors that this machine uses anyway
sources="$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources} 2>/dev/null || true)"
mirrors="$(grep -oE 'https?://[^ ]+/debian(-security)?/?( |$)' <<<"$sources" | tr -d ' ' | sort -u)"
case "$suite" in
*-security) mirror="$(grep -m1 'debian-security' <<<"$mirrors" || true)" ;;
*) mirror="$(grep -m1 -v 'debian-security' <<<"$mirrors" || true)" ;;
esac
[ -n "$mirror" ] || cannot "no Debian mirror for $suite in /etc/apt"

apt="$VM/apt/$suite"
mkdir -p "$apt"/{lists/partial,cache/archives/partial}
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$apt/sources.list"
options=(-qq -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
	-o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o Dir::State::status=/dev/null
	-o "APT::Sandbox::User=$(id -un)" -o Acquire::Languages=none -o Acquire::Check-Valid-Until=false
	-o Debug::NoLocking=1)
apt-get "${options[@]}" update || cannot "apt-get update for $suite failed"

depends() {
	apt-cache "${options[@]}" show --no-all-versions "$1" 2>/dev/null |
		sed -n 's/^Depends: //p' | tr ',' '\n' | sed 's/^ *//; s/[ (].*//'
}

if [ "$package" = linux-image-cloud-amd64 ]; then
	package="$(depends "$package" | grep -m1 '^linux-image-' || true)"
	[ -n "$package" ] || cannot "$suite has no linux-image-cloud-amd64"
fi
packages=("$package")
# from 7.x on, image and modules are packages of their own
while read -r part; do packages+=("$part"); done < <(depends "$package" | grep -E '^linux-(binary|modules|base)-[0-9]' || true)

new="$(mktemp -d "$VM/fetch.XXXXXX")"
trap 'rm -rf "$new"' EXIT
(cd "$new" && apt-get "${options[@]}" download "${packages[@]}") || cannot "${packages[*]} is not in $suite (any more)"
mkdir "$new/tree"
for deb in "$new"/*.deb; do dpkg -x "$deb" "$new/tree"; done

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
