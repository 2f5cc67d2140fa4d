//! Readings and counts → entries: what the kernel counts, which hook sees it, and what may explain a difference.

use ktrace_bundle::audit::{AuditEntry, AuditReason, Explained};
use ktrace_bundle::manifest::{HookOutcome, HookReport};

use super::Seen;
use super::counters::{Counter, Reading};
use crate::kernel::skel::types::kt_audit;

/// How much the counters of one namespace rose over the window.
#[derive(Debug, Clone)]
pub struct Rise {
    before: Reading,
    opened: Reading,
    closing: Reading,
    closed: Reading,
}

impl Rise {
    /// Readings before and after the gate opened, before and after it closed.
    pub fn between([before, opened, closing, closed]: [&Reading; 4]) -> Self {
        Self { before: *before, opened: *opened, closing: *closing, closed: *closed }
    }

    /// From the first reading to the last; absent where one of them is, or the counter fell.
    fn all(&self, counter: Counter) -> Option<u64> {
        self.closed.get(counter)?.checked_sub(self.before.get(counter)?)
    }

    /// The part of it that may lie outside the window.
    fn edges(&self, counter: Counter) -> u64 {
        let step = |from: &Reading, to: &Reading| Some(to.get(counter)?.saturating_sub(from.get(counter)?));
        let (opening, closing) = (step(&self.before, &self.opened), step(&self.closing, &self.closed));
        opening.unwrap_or(0).saturating_add(closing.unwrap_or(0))
    }

    fn bound(&self, counter: Counter) -> u64 {
        self.all(counter).unwrap_or(0)
    }

    /// Datagrams, and what is neither TCP nor ICMP, that came in over IPv4.
    fn other_than_tcp(&self) -> u64 {
        let rest = self.bound(Counter::IpDelivered).saturating_sub(self.bound(Counter::IcmpMessages));
        rest.saturating_sub(self.bound(Counter::TcpSegs))
    }
}

/// One audited counter.
struct Row {
    name: &'static str,
    counter: Counter,
    hook: &'static str,
    /// What the hooks saw of it.
    seen: u64,
    /// Why the kernel may have counted more, with how much at most.
    more: Vec<(AuditReason, u64)>,
    /// Why it may have counted less.
    less: Vec<(AuditReason, u64)>,
}

/// The entries of one namespace. `missed` is what the programs were skipped for and no entry has used up yet.
pub fn entries(
    netns: u32,
    rise: &Rise,
    seen: &Seen,
    has_tunnels: bool,
    hooks: &[HookReport],
    missed: &mut u64,
) -> Vec<AuditEntry> {
    let rows = udp(rise, seen, has_tunnels).into_iter().chain(tcp(rise, seen));
    rows.filter_map(|row| entry(netns, rise, row, hooks, missed)).collect()
}

fn count(seen: &Seen, what: kt_audit) -> u64 {
    usize::try_from(what.0).ok().and_then(|place| seen.get(place)).copied().unwrap_or(0)
}

/// Splits what went over IPv4 or IPv6 and did not say: to where the kernel's counts leave room for it.
fn split(rise: &Rise, any: u64, four: (Counter, u64), six: (Counter, u64)) -> (u64, u64) {
    let room = |(counter, seen): (Counter, u64)| rise.bound(counter).saturating_sub(seen);
    let needed_four = room(four).saturating_sub(rise.edges(four.0)).min(any);
    let to_six = (any - needed_four).min(room(six));
    (four.1 + (any - to_six), six.1 + to_six)
}

fn udp(rise: &Rise, seen: &Seen, has_tunnels: bool) -> [Row; 4] {
    use kt_audit as a;
    let of = |what| count(seen, what);
    let (in4, in6) = split(
        rise,
        of(a::KT_AUDIT_ANY_IN),
        (Counter::UdpIn, of(a::KT_AUDIT_UDP_IN)),
        (Counter::Udp6In, of(a::KT_AUDIT_UDP6_IN)),
    );
    let (out4, out6) = split(
        rise,
        of(a::KT_AUDIT_ANY_OUT),
        (Counter::UdpOut, of(a::KT_AUDIT_UDP_OUT)),
        (Counter::Udp6Out, of(a::KT_AUDIT_UDP6_OUT)),
    );
    let tunnels = |bound| if has_tunnels { vec![(AuditReason::Tunnels, bound)] } else { Vec::new() };
    let received =
        |name, counter, seen, bound| Row { name, counter, hook: "udp", seen, more: tunnels(bound), less: Vec::new() };
    let sent = |name, counter, seen, buffer| Row {
        name,
        counter,
        hook: "udp",
        seen,
        more: vec![(AuditReason::Corked, of(a::KT_AUDIT_CORKED))],
        less: vec![(AuditReason::SendBuffer, rise.bound(buffer))],
    };
    let delivered6 = rise.bound(Counter::Ip6Delivered).saturating_sub(rise.bound(Counter::Icmp6Messages));
    [
        received("Udp.InDatagrams", Counter::UdpIn, in4, rise.other_than_tcp()),
        sent("Udp.OutDatagrams", Counter::UdpOut, out4, Counter::UdpSendBuffer),
        received("Udp6.InDatagrams", Counter::Udp6In, in6, delivered6),
        sent("Udp6.OutDatagrams", Counter::Udp6Out, out6, Counter::Udp6SendBuffer),
    ]
}

fn tcp(rise: &Rise, seen: &Seen) -> [Row; 5] {
    use kt_audit as a;
    let of = |what| count(seen, what);
    let row = |name, counter, hook, seen, more| Row { name, counter, hook, seen, more, less: Vec::new() };
    let opens = of(a::KT_AUDIT_ACTIVE_OPENS).saturating_sub(of(a::KT_AUDIT_UNSENT_OPENS));
    let embryonic = vec![(AuditReason::EmbryonicReset, rise.bound(Counter::EmbryonicResets))];
    let failed = vec![(AuditReason::RetransmitFailed, rise.bound(Counter::RetransmitFails))];
    let fails = of(a::KT_AUDIT_ATTEMPT_FAILS);
    [
        row("Tcp.ActiveOpens", Counter::ActiveOpens, "tcp_state", opens, vec![]),
        row("Tcp.PassiveOpens", Counter::PassiveOpens, "tcp_state", of(a::KT_AUDIT_PASSIVE_OPENS), vec![]),
        row("Tcp.AttemptFails", Counter::AttemptFails, "tcp_state", fails, embryonic),
        row("Tcp.EstabResets", Counter::EstabResets, "tcp_state", of(a::KT_AUDIT_ESTAB_RESETS), vec![]),
        row("Tcp.RetransSegs", Counter::RetransSegs, "tcp_retransmit", of(a::KT_AUDIT_RETRANS_SEGS), failed),
    ]
}

/// `None` where neither side counted anything, or the kernel has no such counter.
fn entry(netns: u32, rise: &Rise, row: Row, hooks: &[HookReport], missed: &mut u64) -> Option<AuditEntry> {
    let kernel_delta = rise.all(row.counter)?;
    let outcome = hooks.iter().find(|h| h.name == row.hook).map(|h| h.outcome);
    let ktrace_seen = (outcome == Some(HookOutcome::Attached)).then_some(row.seen);
    if kernel_delta == 0 && ktrace_seen.unwrap_or(0) == 0 {
        return None;
    }
    let mut entry = AuditEntry { counter: row.name.into(), netns, kernel_delta, ktrace_seen, explained: Vec::new() };
    match ktrace_seen {
        None if outcome == Some(HookOutcome::NotRequested) => {
            explain(&mut entry, AuditReason::NotRequested, kernel_delta);
        }
        None => {}
        Some(seen) if seen > kernel_delta => {
            row.less.into_iter().for_each(|(reason, bound)| explain(&mut entry, reason, bound));
        }
        Some(_) => {
            explain(&mut entry, AuditReason::Edges, rise.edges(row.counter));
            row.more.into_iter().for_each(|(reason, bound)| explain(&mut entry, reason, bound));
            let left = entry.unexplained();
            explain(&mut entry, AuditReason::Missed, *missed);
            *missed -= left.min(*missed);
        }
    }
    Some(entry)
}

/// Takes what is left of the difference, as far as the bound allows.
fn explain(entry: &mut AuditEntry, reason: AuditReason, at_most: u64) {
    let count = entry.unexplained().min(at_most);
    if count > 0 {
        entry.explained.push(Explained { reason, count, at_most });
    }
}

#[cfg(test)]
#[path = "account_tests.rs"]
mod tests;
