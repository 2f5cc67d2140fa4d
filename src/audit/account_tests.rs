//! Entries for kernels and hooks that do and do not agree.

use super::*;

fn reading(values: &[(&str, u64)]) -> Reading {
    let tables: String = values
        .iter()
        .chain(&[("Udp.OutDatagrams", 0), ("Tcp.RetransSegs", 0)])
        .filter_map(|(name, value)| Some((name.split_once('.')?, value)))
        .rev()
        .map(|((group, name), value)| format!("{group}: {name}\n{group}: {value}\n"))
        .collect();
    let words: String = values.iter().filter(|(n, _)| !n.contains('.')).map(|(n, v)| format!("{n}\t{v}\n")).collect();
    Reading::parse(&tables, &words, "").unwrap()
}

fn rise_of(values: &[(&str, u64)]) -> Rise {
    let zero: Vec<_> = values.iter().map(|(name, _)| (*name, 0)).collect();
    let (zero, end) = (reading(&zero), reading(values));
    Rise::between([&zero, &zero, &end, &end])
}

fn seen(values: &[(kt_audit, u64)]) -> Seen {
    let mut seen = Seen::default();
    values.iter().for_each(|(what, n)| seen[what.0 as usize] = *n);
    seen
}

fn hooks(outcome: HookOutcome) -> Vec<HookReport> {
    let hook = |name: &str| HookReport {
        name: name.into(),
        outcome,
        variant: None,
        tried: Vec::new(),
        programs: Vec::new(),
        attached_after_ns: None,
        limits: Vec::new(),
    };
    ["tcp_state", "udp", "tcp_retransmit"].map(hook).to_vec()
}

fn audit(rise: &Rise, seen: &Seen) -> Vec<AuditEntry> {
    entries(7, rise, seen, false, &hooks(HookOutcome::Attached), &mut 0)
}

fn told(entries: &[AuditEntry]) -> Vec<(&str, u64, Option<u64>, u64)> {
    entries.iter().map(|e| (e.counter.as_str(), e.kernel_delta, e.ktrace_seen, e.unexplained())).collect()
}

#[test]
fn what_both_count_alike_needs_no_explanation_and_what_neither_counts_no_entry() {
    let rise = rise_of(&[("Udp.InDatagrams", 3), ("Udp.OutDatagrams", 5), ("Tcp.ActiveOpens", 0)]);
    let got = audit(&rise, &seen(&[(kt_audit::KT_AUDIT_UDP_IN, 3), (kt_audit::KT_AUDIT_UDP_OUT, 5)]));
    assert_eq!(told(&got), [("Udp.InDatagrams", 3, Some(3), 0), ("Udp.OutDatagrams", 5, Some(5), 0)]);
    assert!(got.iter().all(|e| e.explained.is_empty()));
}

#[test]
fn a_hook_that_saw_nothing_is_not_explained() {
    let rise = rise_of(&[("Tcp.ActiveOpens", 12)]);
    assert_eq!(told(&audit(&rise, &Seen::default())), [("Tcp.ActiveOpens", 12, Some(0), 12)]);
    let missing = entries(7, &rise, &Seen::default(), false, &hooks(HookOutcome::Failed), &mut 0);
    assert_eq!(told(&missing), [("Tcp.ActiveOpens", 12, None, 12)]);
    let unasked = entries(7, &rise, &Seen::default(), false, &hooks(HookOutcome::NotRequested), &mut 0);
    assert_eq!(told(&unasked), [("Tcp.ActiveOpens", 12, None, 0)]);
}

#[test]
fn the_edges_explain_no_more_than_what_was_counted_there() {
    let at = |n| reading(&[("Udp.OutDatagrams", n)]);
    let rise = Rise::between([&at(10), &at(12), &at(20), &at(21)]);
    let with = |n| audit(&rise, &seen(&[(kt_audit::KT_AUDIT_UDP_OUT, n)]));
    assert_eq!(told(&with(8)), [("Udp.OutDatagrams", 11, Some(8), 0)]);
    assert_eq!(with(8)[0].explained, [Explained { reason: AuditReason::Edges, count: 3, at_most: 3 }]);
    assert_eq!(told(&with(7)), [("Udp.OutDatagrams", 11, Some(7), 1)]);
    assert_eq!(told(&with(12)), [("Udp.OutDatagrams", 11, Some(12), 1)]);
}

#[test]
fn a_v6_socket_that_does_not_tell_its_protocol_fits_where_the_kernel_counted() {
    let rise = rise_of(&[("Udp.InDatagrams", 5), ("Udp6InDatagrams", 4)]);
    let some = [(kt_audit::KT_AUDIT_UDP_IN, 2), (kt_audit::KT_AUDIT_UDP6_IN, 3), (kt_audit::KT_AUDIT_ANY_IN, 4)];
    assert_eq!(
        told(&audit(&rise, &seen(&some))),
        [("Udp.InDatagrams", 5, Some(5), 0), ("Udp6.InDatagrams", 4, Some(4), 0)]
    );
    let too_many = [some[0], some[1], (kt_audit::KT_AUDIT_ANY_IN, 6)];
    let left: u64 = audit(&rise, &seen(&too_many)).iter().map(AuditEntry::unexplained).sum();
    assert_eq!(left, 2);
}

#[test]
fn an_open_that_never_sent_its_syn_does_not_count() {
    let rise = rise_of(&[("Tcp.ActiveOpens", 2)]);
    let counts = [(kt_audit::KT_AUDIT_ACTIVE_OPENS, 3), (kt_audit::KT_AUDIT_UNSENT_OPENS, 1)];
    assert_eq!(told(&audit(&rise, &seen(&counts))), [("Tcp.ActiveOpens", 2, Some(2), 0)]);
}

#[test]
fn the_kernels_own_counts_bound_what_they_explain() {
    let rise = rise_of(&[("Tcp.AttemptFails", 5), ("TcpExt.EmbryonicRsts", 3)]);
    let got = audit(&rise, &seen(&[(kt_audit::KT_AUDIT_ATTEMPT_FAILS, 1)]));
    assert_eq!(told(&got), [("Tcp.AttemptFails", 5, Some(1), 1)]);
    let rise = rise_of(&[("Udp.OutDatagrams", 5), ("Udp.SndbufErrors", 2)]);
    assert_eq!(told(&audit(&rise, &seen(&[(kt_audit::KT_AUDIT_UDP_OUT, 7)]))), [("Udp.OutDatagrams", 5, Some(7), 0)]);
    assert_eq!(told(&audit(&rise, &seen(&[(kt_audit::KT_AUDIT_UDP_OUT, 8)]))), [("Udp.OutDatagrams", 5, Some(8), 1)]);
}

#[test]
fn tunnels_explain_only_datagrams_that_arrived_and_only_where_there_are_any() {
    let rise = rise_of(&[("Udp.InDatagrams", 9), ("Ip.InDelivers", 20), ("Tcp.InSegs", 10), ("Icmp.InMsgs", 3)]);
    let counts = seen(&[(kt_audit::KT_AUDIT_UDP_IN, 1)]);
    let with = |tunnels| entries(7, &rise, &counts, tunnels, &hooks(HookOutcome::Attached), &mut 0);
    assert_eq!(told(&with(true)), [("Udp.InDatagrams", 9, Some(1), 1)]);
    assert_eq!(told(&with(false)), [("Udp.InDatagrams", 9, Some(1), 8)]);
}

#[test]
fn what_programs_were_skipped_for_explains_as_many_differences_once() {
    let rise = rise_of(&[("Tcp.ActiveOpens", 5), ("Tcp.PassiveOpens", 5)]);
    let counts = seen(&[(kt_audit::KT_AUDIT_ACTIVE_OPENS, 3), (kt_audit::KT_AUDIT_PASSIVE_OPENS, 3)]);
    let mut missed = 3;
    let got = entries(7, &rise, &counts, false, &hooks(HookOutcome::Attached), &mut missed);
    assert_eq!(told(&got), [("Tcp.ActiveOpens", 5, Some(3), 0), ("Tcp.PassiveOpens", 5, Some(3), 1)]);
    assert_eq!(missed, 0);
}

#[test]
fn a_counter_that_fell_has_no_entry() {
    let at = |n| reading(&[("Udp.OutDatagrams", n)]);
    let rise = Rise::between([&at(10), &at(10), &at(9), &at(9)]);
    assert_eq!(audit(&rise, &seen(&[(kt_audit::KT_AUDIT_UDP_OUT, 1)])), []);
}
