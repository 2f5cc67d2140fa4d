#!/usr/bin/env bash
# core-check.sh [--cached]: relocates every program against the BTF of every kernel that can be had, without loading any,
# and prints what cannot be resolved: behind a guard, in a program that is not used there, or fatally (exit code 1). The
# kernels are this machine's, those of tests/vm/kernels that are there, and tests/vm/btf-kernels, of which with --cached
# none is downloaded. Needs no root.
# Exit code 3: no BTF could be had.

. "$(dirname "${BASH_SOURCE[0]}")/../tests/vm/lib.sh"

need_cargo
scripts/deps.sh build vm || say "going on with what is there"
have strace || die "\`strace\` is not installed: run \`scripts/deps.sh test\`"
mkdir -p "$BTF"/{x86_64,aarch64}

# ARCH NAME IMAGE: caches the BTF of a kernel image
extract() {
	local out="$BTF/$1/$2.btf"
	[ ! "$out" -nt "$3" ] || return 0
	if python3 scripts/btf_of.py "$3" "$out.new"; then
		mv "$out.new" "$out"
	else
		say "kernel $2 ($1): no BTF in its image"
	fi
}

own=/sys/kernel/btf/vmlinux
[ ! -r $own ] || cp $own "$BTF/$(uname -m)/this-machine.btf"
machine() {
	[ "$1" = arm64 ] && echo aarch64 || echo x86_64
}
while read -r name _ _ arch; do
	image="$VM/kernels/$name/vmlinuz"
	[ ! -e "$image" ] || extract "$(machine "$arch")" "$name-cloud" "$image"
done < <(all_kernels)
while read -r name suite arch package; do
	if [ "${1:-}" = --cached ]; then
		[ -e "$VM/images/$name" ] || continue
	else
		tests/vm/fetch-btf.sh "$name" "$suite" "$arch" "$package" || continue
	fi
	extract "$(machine "$arch")" "$name" "$VM/images/$name"
done < <(sed 's/#.*//' tests/vm/btf-kernels | awk 'NF == 4')

compgen -G "$BTF/*/*.btf" >/dev/null || { say "no BTF could be had"; exit 3; }
test="$(cargo test --locked --no-run --workspace --bin ktrace 2>&1 | sed -n 's/.*(\(.*\/ktrace-[0-9a-f]*\))$/\1/p')"
# no bpf(2) reaches the kernel: relocation comes after a trial load, and before anything else that is loaded
KTRACE_CORE_BTFS="$BTF" strace -f -qq -o /dev/null -e trace=bpf -e inject=bpf:retval=1000 \
	"$test" --ignored --nocapture --test-threads=1 kernel::core_tests::
