/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Registers of arm64 (arch/arm64/include/uapi/asm/ptrace.h); only what kprobes read. */
#pragma once
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct user_pt_regs {
	__u64 regs[31];
	__u64 sp;
	__u64 pc;
};
struct pt_regs {
	struct user_pt_regs user_regs;
	u64 orig_x0;
};
#pragma clang attribute pop
