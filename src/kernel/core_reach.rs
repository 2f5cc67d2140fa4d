//! Which instructions of a relocated program can be reached, as the verifier finds it: constants are followed through
//! registers, and a branch that a constant decides has one way. Less sharp than the verifier: it knows nothing of the
//! stack and of ranges, so what it calls unreachable is.

use std::collections::BTreeSet;

use libbpf_rs::libbpf_sys::bpf_insn;

/// The function that libbpf calls where a relocation cannot be resolved (`bpf_core_poison_insn`).
const POISON: i32 = 195_896_080;

const CALL: u8 = 0x85;
const LD_IMM64: u8 = 0x18;

/// What the registers hold where that is known.
type Registers = [Option<u64>; 11];

/// Instructions that stand for an unresolved relocation.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Poisoned {
    /// All.
    pub all: BTreeSet<usize>,
    /// Those that can be reached.
    pub reached: BTreeSet<usize>,
}

/// Looks through one program.
pub fn reached(code: &[bpf_insn]) -> Poisoned {
    let poisoned = |at: &usize| code[*at].code == CALL && code[*at].imm == POISON;
    let mut seen: Vec<Option<Registers>> = vec![None; code.len()];
    let mut work = vec![(0_usize, Registers::default())];
    while let Some((at, registers)) = work.pop() {
        let Some(slot) = seen.get_mut(at) else { panic!("the program goes on behind its end, at {at}") };
        let joined = slot.map_or(registers, |old| join(old, registers));
        if *slot == Some(joined) {
            continue;
        }
        *slot = Some(joined);
        work.extend(step(code[at], code.get(at + 1), at, joined));
    }
    let all: BTreeSet<_> = (0..code.len()).filter(poisoned).collect();
    let reached = all.iter().copied().filter(|at| seen[*at].is_some()).collect();
    Poisoned { all, reached }
}

fn join(a: Registers, b: Registers) -> Registers {
    std::array::from_fn(|n| a[n].filter(|_| a[n] == b[n]))
}

fn jump(at: usize, by: i64) -> usize {
    usize::try_from(at as i64 + 1 + by).unwrap()
}

/// Where the program may go from here, and with what in its registers.
fn step(insn: bpf_insn, next: Option<&bpf_insn>, at: usize, mut r: Registers) -> Vec<(usize, Registers)> {
    let (dst, src) = (usize::from(insn.dst_reg()), usize::from(insn.src_reg()));
    let operand = if insn.code & 8 == 0 { Some(insn.imm as i64 as u64) } else { r[src] };
    match insn.code & 7 {
        0 if insn.code == LD_IMM64 => {
            let high = next.map_or(0, |n| n.imm as u32 as u64) << 32;
            // a source register says that it is an address
            r[dst] = (src == 0).then_some(high | u64::from(insn.imm as u32));
            return vec![(at + 2, r)];
        }
        0 => r[0] = None,
        1 => r[dst] = None,
        2 => {}
        // an atomic operation may give back what was there
        3 => (r[src], r[0]) = if insn.code & 0xe0 == 0xc0 { (None, None) } else { (r[src], r[0]) },
        class @ (4 | 7) => r[dst] = compute(insn.code & 0xf0, r[dst], operand, class == 7),
        class => return branch(insn, class == 5, at, r, r[dst], operand),
    }
    vec![(at + 1, r)]
}

fn compute(operation: u8, a: Option<u64>, b: Option<u64>, wide: bool) -> Option<u64> {
    let (bits, cut) = if wide { (63, u64::MAX) } else { (31, u64::from(u32::MAX)) };
    let value = match (operation, a, b) {
        (0xb0, _, Some(b)) => b,
        (0x50, _, Some(0)) => 0,
        (0x00, Some(a), Some(b)) => a.wrapping_add(b),
        (0x10, Some(a), Some(b)) => a.wrapping_sub(b),
        (0x40, Some(a), Some(b)) => a | b,
        (0x50, Some(a), Some(b)) => a & b,
        (0x60, Some(a), Some(b)) => a << (b & bits),
        (0x70, Some(a), Some(b)) => (a & cut) >> (b & bits),
        (0xa0, Some(a), Some(b)) => a ^ b,
        _ => return None,
    };
    Some(value & cut)
}

fn branch(
    insn: bpf_insn,
    wide: bool,
    at: usize,
    mut r: Registers,
    a: Option<u64>,
    b: Option<u64>,
) -> Vec<(usize, Registers)> {
    let there = jump(at, i64::from(insn.off));
    match insn.code & 0xf0 {
        0x00 => vec![(if wide { there } else { jump(at, i64::from(insn.imm)) }, r)],
        0x80 => {
            const TO_OWN: u8 = 1;
            let own = (insn.src_reg() == TO_OWN).then(|| (jump(at, i64::from(insn.imm)), Registers::default()));
            r[..6].fill(None);
            [(at + 1, r)].into_iter().chain(own).collect()
        }
        0x90 => Vec::new(),
        comparison => match a.zip(b).and_then(|(a, b)| taken(comparison, a, b, wide)) {
            Some(true) => vec![(there, r)],
            Some(false) => vec![(at + 1, r)],
            None => vec![(at + 1, r), (there, r)],
        },
    }
}

fn taken(comparison: u8, a: u64, b: u64, wide: bool) -> Option<bool> {
    let (a, b) = if wide { (a, b) } else { (a & u64::from(u32::MAX), b & u64::from(u32::MAX)) };
    Some(match comparison {
        0x10 => a == b,
        0x20 => a > b,
        0x30 => a >= b,
        0x40 => a & b != 0,
        0x50 => a != b,
        0xa0 => a < b,
        0xb0 => a <= b,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insn(code: u8, dst: u8, off: i16, imm: i32) -> bpf_insn {
        let mut insn = bpf_insn { code, off, imm, ..Default::default() };
        insn.set_dst_reg(dst);
        insn
    }

    const MOV: u8 = 0xb7;
    const IF_EQUAL: u8 = 0x15;
    const LOAD: u8 = 0x79;
    const EXIT: u8 = 0x95;

    fn poison() -> bpf_insn {
        insn(CALL, 0, 0, POISON)
    }

    /// `if (r1 == 0) goto exit; poison; exit`, with something in r1.
    fn guarded_by(r1: bpf_insn) -> Poisoned {
        reached(&[r1, insn(IF_EQUAL, 1, 1, 0), poison(), insn(EXIT, 0, 0, 0)])
    }

    #[test]
    fn a_constant_guard_decides_and_an_unknown_one_does_not() {
        let all = BTreeSet::from([2]);
        let absent = Poisoned { all: all.clone(), reached: BTreeSet::new() };
        assert_eq!(guarded_by(insn(MOV, 1, 0, 0)), absent);
        assert_eq!(guarded_by(insn(MOV, 1, 0, 1)), Poisoned { all: all.clone(), reached: all.clone() });
        assert_eq!(guarded_by(insn(LOAD, 1, 0, 0)), Poisoned { all: all.clone(), reached: all });
    }

    #[test]
    fn ways_with_different_constants_that_meet_leave_both_open() {
        // r1 = r10[..] ? 0 : 1; if (r1 == 0) exit; poison
        let code = [
            insn(LOAD, 2, 0, 0),
            insn(MOV, 1, 0, 0),
            insn(IF_EQUAL, 2, 1, 0),
            insn(MOV, 1, 0, 1),
            insn(IF_EQUAL, 1, 1, 0),
            poison(),
            insn(EXIT, 0, 0, 0),
        ];
        assert_eq!(reached(&code).reached, BTreeSet::from([5]));
    }

    #[test]
    fn a_call_forgets_what_it_may_change_and_keeps_the_rest() {
        let helper = insn(CALL, 0, 0, 5);
        let of = |register| {
            let code =
                [insn(MOV, register, 0, 0), helper, insn(IF_EQUAL, register, 1, 0), poison(), insn(EXIT, 0, 0, 0)];
            reached(&code).reached
        };
        assert_eq!((of(1), of(6)), (BTreeSet::from([3]), BTreeSet::new()));
    }
}
