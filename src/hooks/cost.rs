//! What the programs cost, as measured: to be measured anew when a program changes much.

use super::Hook;

/// How the numbers came about.
pub const HOW: &str = "averages by `kernel.bpf_stats_enabled` under TCP and UDP load without losses, on Linux 6.18, \
                       x86-64, 2 cores of a virtual machine with other work on it, 2026-11-21, of drop, tcp_reset and \
                       tcp_wait 2026-11-30; what is not listed was not measured";

/// Program and ns per run.
static MEASURED: &[(&str, u32)] = &[
    ("connect__enter", 1623),
    ("connect__exit", 1464),
    ("drop__tp_btf_socket", 343),
    ("owner__accept4", 1367),
    ("owner__recv", 102),
    ("owner__send", 71),
    ("tcp_reset__received_tp_btf", 271),
    ("tcp_reset__sent_tp_btf_reason", 326),
    ("tcp_retransmit__tp_btf", 972),
    ("tcp_retransmit__tp_btf_err", 836),
    ("tcp_retransmit__tracepoint", 1661),
    ("tcp_state__tp_btf", 785),
    ("tcp_state__tp_btf_second", 133),
    ("tcp_state__tracepoint", 1134),
    ("tcp_wait__iter", 109),
    ("udp__recv_tp_btf", 276),
    ("udp__recvmsg4", 136),
    ("udp__send_tp_btf", 418),
    ("udp__sendmsg4", 131),
];

/// The programs of a hook that were measured, with their ns per run.
pub fn of(hook: &dyn Hook) -> impl Iterator<Item = (&'static str, u32)> {
    let variants = hook.variants();
    let runs = move |program: &str| {
        variants.iter().any(|variant| {
            let optional = variant.optional.iter().flat_map(|it| it.programs);
            variant.programs.iter().chain(variant.more).chain(variant.seconds).chain(optional).any(|it| *it == program)
        })
    };
    MEASURED.iter().copied().filter(move |(program, _)| runs(program))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::HOOKS;

    #[test]
    fn every_number_belongs_to_a_program_of_one_hook() {
        let told: usize = HOOKS.iter().map(|hook| of(*hook).count()).sum();
        assert_eq!(told, MEASURED.len());
    }

    #[test]
    fn every_hook_that_makes_events_was_measured() {
        for hook in HOOKS.iter().filter(|hook| !hook.kinds().is_empty()) {
            assert!(of(*hook).next().is_some(), "{}", hook.name());
        }
    }
}
