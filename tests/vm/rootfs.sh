#!/usr/bin/env bash
# rootfs.sh [ARCHITECTURE]: the file system that every virtual machine boots into, as $VM/root-ARCHITECTURE.ext4 (amd64 if
# none is named): the packages that the live tests need, and what their programs link to. On amd64 they are this machine's
# own, and it is made again when one of them changes; else they are downloaded. Exit code 3: they cannot be had.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$ROOT/scripts/apt.sh"

# whose packages another architecture gets
readonly SUITE=bookworm

arch="${1:-amd64}"
image="$VM/root-$arch"

packages=(libc6 libc-bin bash dash coreutils grep sed gawk mawk findutils hostname util-linux mount procps gzip tar iproute2
	nftables dnsmasq-base bind9-dnsutils bind9-host python3-minimal python3.11-minimal libpython3.11-minimal
	libpython3.11-stdlib strace bpftool kmod ipvsadm)
installed="$([ "$arch" != amd64 ] || dpkg-query -W "${packages[@]}" 2>/dev/null || true)"
key="$({ echo "$installed"; cat "$HERE/rootfs.sh" "$HERE/guest-init.sh"; } | sha256sum | cut -c1-16)"
[ "$(cat "$image.key" 2>/dev/null)" = "$key" ] && [ -e "$image.ext4" ] && exit 0

mkdir -p "$VM"
root="$(mktemp -d "$VM/root.XXXXXX")"
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/{proc,sys,dev,run,tmp,etc,root,var/lib/misc,usr/{bin,sbin,lib,lib64}}
for dir in bin sbin lib lib64; do ln -s "usr/$dir" "$root/$dir"; done

# only files that exist, without documentation; directory links of a merged /usr are followed
files() {
	dpkg -L "${packages[@]}" 2>/dev/null | grep -vE '^/usr/share/(doc|man|locale|info|bash-completion|lintian)|/__pycache__/|/gconv/' |
		while read -r file; do
			if [ -f "$file" ] || { [ -L "$file" ] && [ -e "$file" ]; }; then echo "$file"; fi
		done
}
place() {
	local file="$1" real="$root/usr${1#/usr}"
	case "$file" in /etc/*) real="$root$file" ;; esac
	mkdir -p "$(dirname "$real")"
	[ -e "$real" ] || cp -L --preserve=mode "$file" "$real"
}

from_this_machine() {
	while read -r file; do place "$file"; done < <(files)
	# what alternatives made
	for file in /usr/bin/awk /usr/bin/python3; do [ -e "$root$file" ] || place "$(readlink -f "$file")"; done
	[ -e "$root/usr/bin/python3" ] || ln -s python3.11 "$root/usr/bin/python3"
	[ -e "$root/usr/bin/sh" ] || ln -s dash "$root/usr/bin/sh"

	# the libraries of all of them
	# (`ldd` fails for what is no program)
	{ find "$root/usr/bin" "$root/usr/sbin" "$root/usr/lib" -type f \( -perm -u+x -o -name '*.so*' \) -print0 |
		xargs -0 -n64 ldd 2>/dev/null || true; } | sed -nE 's/^\s+(.* => )?(\/[^ ]+) \(.*/\2/p' | grep -v "^$root" | sort -u |
		while read -r library; do place "$library"; done
	[ -e "$root/usr/lib64/ld-linux-x86-64.so.2" ] || place /lib64/ld-linux-x86-64.so.2
}

# programs for another architecture cannot be asked what they link to: their packages say it
from_downloads() {
	if ! apt_open "$VM/apt/$SUITE-$arch" "$SUITE" "$arch" || ! apt_unpack_all "$root" "${packages[@]}" busybox-static; then
		say "the packages of $arch cannot be had"
		exit 3
	fi
	rm -rf "$root"/usr/share/{doc,man,locale,info}
	# what installing would have made
	ln -sf mawk "$root/usr/bin/awk"
}

if [ "$arch" = amd64 ]; then from_this_machine; else from_downloads; fi

printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
printf '127.0.0.1 localhost\n' >"$root/etc/hosts"
: >"$root/etc/resolv.conf"
install -m755 "$HERE/guest-init.sh" "$root/init"
ldconfig -r "$root" 2>/dev/null || true

size=$(($(du -sm "$root" | cut -f1) * 5 / 4 + 256))
rm -f "$image.ext4"
mke2fs -q -t ext4 -O ^has_journal -m 0 -d "$root" "$image.ext4" "${size}M"
echo "$key" >"$image.key"
say "root file system, $arch: ${size} MiB"
