#!/usr/bin/env bash
# run.sh KERNEL SECONDS PROGRAMS JOB: boots KERNEL of ./kernels in QEMU, by plain emulation, and runs the shell script JOB
# in it. The directory PROGRAMS is there under the same path, read-only. What the machine prints goes to stdout.
# KTRACE_VM_APPEND holds further parameters of the kernel; modules whose names match KTRACE_VM_WITHOUT are not loaded.
# Exit code: the job's; 124 it did not end in time; 125 the machine died; 3 QEMU or the kernel cannot be had.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

name="$1" seconds="$2" programs="$(realpath "$3")" job="$4"
arch="$(all_kernels | awk -v n="$name" '$1 == n { print $4 }')"
# single-threaded emulation: with one thread per processor, and with cx16, machines die now and then
case "$arch" in
amd64) qemu=(qemu-system-x86_64 -accel "tcg,thread=single" -cpu "max,-cx16" -smp 2) console=ttyS0 group=vm ;;
# signed pointers cost emulation half of its speed
arm64) qemu=(qemu-system-aarch64 -machine virt -accel "tcg,thread=single" -cpu "max,pauth=off,sve=off" -smp 2) console=ttyAMA0 group=vm-arm64 ;;
*) die "no kernel \`$name\` in tests/vm/kernels" ;;
esac
for tool in "${qemu[0]}" busybox cpio mke2fs; do
	have "$tool" || { say "\`$tool\` is not installed: run \`scripts/deps.sh $group\`"; exit 3; }
done
mkdir -p "$VM"
"$HERE/fetch-kernel.sh" "$name" || exit 3
"$HERE/rootfs.sh" "$arch" || exit
root="$VM/root-$arch.ext4"
kernel="$VM/kernels/$name"
version="$(cat "$kernel/version")"

# Linux 7 makes socket storage with an allocator that needs cx16, or caches that are debugged
parameters="${KTRACE_VM_APPEND:-}"
case "$arch/$version" in amd64/[7-9].*) parameters="slab_debug=F,kmalloc-cg-*,kmalloc-192,kmalloc-256,kmalloc-512 $parameters" ;; esac

# what a node has loaded, and what the tests need to make links, rules and queues
MODULES="virtio_pci virtio_blk crc32c_generic ext4 veth tun nf_tables nft_counter nft_numgen nft_ct nft_reject_inet nft_reject nft_chain_nat nft_nat
	nft_masq nft_limit nft_meta nft_redir sch_tbf sch_netem sch_fq_codel nf_conntrack nf_conntrack_netlink nf_nat
	inet_diag tcp_diag udp_diag ip_vs ip_vs_rr"

work="$(mktemp -d "$VM/run.XXXXXX")"
trap 'rm -rf "$work"' EXIT
initrd="$work/initrd"
mkdir -p "$initrd"/{bin,proc,dev,new,lib/modules/"$version"}
case "$arch" in
amd64) cp "$(command -v busybox)" "$initrd/bin/busybox" ;;
*) debugfs -R "dump -p /usr/bin/busybox $initrd/bin/busybox" "$root" 2>/dev/null ;;
esac
from="$kernel/lib/modules/$version"
for module in $MODULES; do
	[[ ! $module =~ ^(${KTRACE_VM_WITHOUT:-})$ ]] || continue
	grep -m1 -E "(^|/)${module//_/[-_]}\.ko:" "$from/modules.dep" || true
done | tr -d : | tr ' ' '\n' | sort -u | while read -r file; do
	[ -z "$file" ] || install -D -m644 "$from/$file" "$initrd/lib/modules/$version/$file"
done
cp "$from/modules.builtin" "$from/modules.order" "$initrd/lib/modules/$version/"
busybox depmod -b "$initrd" "$version"
cp "$job" "$initrd/job"
echo "$programs" >"$initrd/programs"
cat >"$initrd/init" <<-'INIT'
	#!/bin/busybox sh
	/bin/busybox --install -s /bin
	mount -t proc proc /proc
	mount -t devtmpfs dev /dev
	find /lib/modules -name '*.ko' | sed 's|.*/||; s/\.ko$//' | while read -r m; do modprobe "$m" 2>/dev/null; done
	mount -t ext4 /dev/vda /new && mount -t tmpfs run /new/run && cp /job /programs /new/run/
	umount /proc
	exec switch_root /new /init
INIT
chmod +x "$initrd/init"
(cd "$initrd" && find . -print0 | cpio --null -o -H newc -R 0:0 --quiet) >"$work/initrd.cpio"

# the tests' programs without their debugging information
mkdir "$work/programs"
(cd "$programs" && find . -maxdepth 2 -type f -perm -u+x ! -name '*.so' ! -name 'build-script*' -newermt '1970-01-02' -print) >"$work/list"
while read -r file; do
	case "$file" in ./ktrace | ./analyze | ./traffic | ./deps/live-*) ;; *) continue ;; esac
	mkdir -p "$work/programs/$(dirname "$file")"
	# (those of another architecture were built without)
	if [ "$arch" = amd64 ]; then
		objcopy --strip-debug "$programs/$file" "$work/programs/$file"
	else
		cp "$programs/$file" "$work/programs/$file"
	fi
done <"$work/list"
size=$(($(du -sm "$work/programs" | cut -f1) * 5 / 4 + 32))
mke2fs -q -t ext4 -O ^has_journal -m 0 -d "$work/programs" "$work/programs.ext4" "${size}M"

timeout --foreground -k 5 "$seconds" "${qemu[@]}" -m 2048 \
	-nodefaults -no-user-config -display none -no-reboot -serial stdio \
	-kernel "$kernel/vmlinuz" -initrd "$work/initrd.cpio" -append "console=$console quiet panic=-1 oops=panic $parameters" \
	-drive "file=$root,format=raw,if=none,id=root,snapshot=on" -device virtio-blk-pci,drive=root \
	-drive "file=$work/programs.ext4,format=raw,if=none,id=programs,snapshot=on" -device virtio-blk-pci,drive=programs \
	</dev/null 2>&1 | stdbuf -oL tr -d '\r' | tee "$work/console"
ended="${PIPESTATUS[0]}"
code="$(sed -n 's/^KTRACE-VM-EXIT \([0-9]*\) .*/\1/p' "$work/console" | tail -1)"
[ -n "$code" ] || { [ "$ended" = 124 ] && code=124; }
exit "${code:-125}"
