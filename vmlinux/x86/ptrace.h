/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Registers of x86-64, by the kernel's names (arch/x86/include/asm/ptrace.h); only what kprobes read. */
#pragma once
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct pt_regs {
	unsigned long bp, bx, r10, r8, ax, cx, dx, si, di, ip, sp;
};
#pragma clang attribute pop
