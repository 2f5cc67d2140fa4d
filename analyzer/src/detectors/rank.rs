//! The order of findings, and which of them only show another's effect.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::finding::{Finding, Key};

/// What makes another: (rule, signal) of the cause, (rule, signal) of the symptom about the same subject.
const EXPLAINS: &[(Form, Form)] = &[
    (FULL, POLICY),
    (EXHAUSTION, POLICY),
    (RACE, POLICY),
    (OVERFLOW, DEAD),
    (OVERFLOW, UNREPLIED),
    (OVERFLOW, SLOW),
    (OVERFLOW, TIMEOUT),
    (OVERFLOW, REFUSED),
    (OVERFLOW, SLOW_CONNECT),
    (OVERFLOW, LOST_SYN),
    (OVERFLOW, LOSS),
    (OVERFLOW, SYN_AGAIN),
    (OVERFLOW, SYNACK_AGAIN),
    (OVERFLOW, MTU_HOLE),
    (OVERFLOW, PROBE),
    (UNREAD, ZERO_WINDOW),
    (MTU_HOLE, LOSS),
    (FULL, DEAD),
    (FULL, UNREPLIED),
    (FULL, TIMEOUT),
    (FULL, NO_REPLY),
    (DEAD, UNREPLIED),
    (DEAD, TIMEOUT),
    (DEAD, REFUSED),
    (DEAD, UNREACHABLE),
    (DEAD, NO_REPLY),
    (UNREPLIED, TIMEOUT),
    (UNREPLIED, NO_REPLY),
    (HAIRPIN, DEAD),
    (HAIRPIN, UNREPLIED),
    (HAIRPIN, TIMEOUT),
    (HAIRPIN, NO_REPLY),
    (EXHAUSTION, UNREPLIED),
    (EXHAUSTION, TIMEOUT),
    (EXHAUSTION, NO_REPLY),
    (EXHAUSTION, INSERT_FAILED),
    (RACE, UNREPLIED),
    (RACE, NO_REPLY),
    (RACE, DNS_SLOW),
    (RACE, INSERT_FAILED),
    (SLOW, DNS_SLOW),
    (SLOW, SLOW_CONNECT),
    (SLOW, LOST_SYN),
    (TIMEOUT, SYN_AGAIN),
    (UNREACHABLE, SYN_AGAIN),
    (LOST_SYN, SYN_AGAIN),
    (TIMEOUT, LOST_SYN),
    (LOSS, LOST_SYN),
    (NO_REPLY, DNS_SLOW),
    (NO_PORT, UNREACHABLE),
    (NO_PORT, NO_REPLY),
    (THROTTLED, PROBE),
    (THROTTLED, DNS_SLOW),
    (THROTTLED, OVERFLOW),
    (THROTTLED, UNREAD),
    (THROTTLED, ZERO_WINDOW),
    (OOM, PROBE),
    (SHORT_OF_MEMORY, PROBE),
    (PROBE, REFUSED),
    (PROBE, TIMEOUT),
    (PROBE, UNREACHABLE),
    (PROBE, SLOW_CONNECT),
    (PROBE, LOST_SYN),
    (BAD_PATH, BAD_PEER),
    (BAD_PATH, TIMEOUT),
    (BAD_PATH, UNREACHABLE),
    (BAD_PATH, SYN_AGAIN),
    (BAD_PATH, LOST_SYN),
    (BAD_PATH, STORM),
    (DEAD, BAD_PEER),
    (UNREPLIED, BAD_PEER),
    (HAIRPIN, BAD_PEER),
    (OVERFLOW, BAD_PEER),
    (PROBE, BAD_PEER),
    (BAD_PEER, TIMEOUT),
    (BAD_PEER, REFUSED),
    (BAD_PEER, UNREACHABLE),
    (BAD_PEER, SYN_AGAIN),
    (BAD_PEER, LOST_SYN),
    (BAD_PEER, STORM),
    (DEAD, STORM),
    (PROBE, STORM),
    (TIMEOUT, STORM),
    (REFUSED, STORM),
    (UNREACHABLE, STORM),
    (NO_PORT, STORM),
    (DEAD, SERVER_DEAD),
    (UNREPLIED, SERVER_DEAD),
    (FULL, SERVER_DEAD),
    (HAIRPIN, SERVER_DEAD),
    (EXHAUSTION, SERVER_DEAD),
    (SERVER_DEAD, NO_REPLY),
    (SERVER_DEAD, RETRY),
    (RACE, RETRY),
    (SLOW, RETRY),
    (NO_REPLY, RETRY),
    (DNS_SLOW, RETRY),
    (SLOW, SLOW_FOR_ONE),
    (RACE, SLOW_FOR_ONE),
    (NO_REPLY, SLOW_FOR_ONE),
    (THROTTLED, SLOW_FOR_ONE),
    (SLOW_FOR_ONE, DNS_SLOW),
    (SLOW_FOR_ONE, RETRY),
    (MTU_HOLE, HALF_OPEN),
    (HALF_OPEN, LOSS),
    (BAD_PATH, BECAME_UNREACHABLE),
    (UNREACHABLE, BECAME_UNREACHABLE),
    (BECAME_UNREACHABLE, HALF_OPEN),
    (BECAME_UNREACHABLE, LOSS),
    (LATE, RESET),
    (OVERFLOW, SLOW_ACCEPT),
    (THROTTLED, SLOW_ACCEPT),
];

/// What throws packets away, and what each of these makes of it.
const DROPPING: [Form; 4] = [POLICY, RP_FILTER, NO_ROUTE, NEIGHBOUR];
const DROPPED: [Form; 19] = [
    BECAME_UNREACHABLE,
    BAD_PATH,
    BAD_PEER,
    STORM,
    HALF_OPEN,
    SERVER_DEAD,
    RETRY,
    PROBE,
    DEAD,
    UNREPLIED,
    TIMEOUT,
    REFUSED,
    UNREACHABLE,
    NO_REPLY,
    DNS_SLOW,
    LOSS,
    SYN_AGAIN,
    SYNACK_AGAIN,
    LOST_SYN,
];

/// Queues without room, and what each of these makes of it: some packets are lost, which is no reason for none to arrive.
const OVERFLOWING: [Form; 3] = [QDISC, QDISC_SEEN, BACKLOG];
const LOST: [Form; 5] = [LOSS, SYN_AGAIN, SYNACK_AGAIN, LOST_SYN, RTT_HIGH];

/// Causes of causes are followed this far; the table above has no circles.
const MAX_STEPS: usize = 8;

/// A rule, and the signal that tells its forms apart.
type Form = (&'static str, &'static str);

const POLICY: Form = ("policy.drop", "blocked_share");
const RP_FILTER: Form = ("net.rp_filter", "filtered_share");
const NO_ROUTE: Form = ("net.no_route", "no_route_share");
const NEIGHBOUR: Form = ("net.neighbour_failed", "no_neighbour_share");
const OVERFLOW: Form = ("tcp.listen_overflow", "turned_away_count");
const MTU_HOLE: Form = ("net.mtu_hole", "standing_connection_share");
const UNREAD: Form = ("tcp.slow_reader", "unread_time");
const ZERO_WINDOW: Form = ("tcp.slow_reader", "zero_window_time");
const FULL: Form = ("conntrack.full", "table_share");
const DEAD: Form = ("nat.backend_dead", "failed_use_share");
const UNREPLIED: Form = ("nat.unreplied", "unreplied_share");
const HAIRPIN: Form = ("nat.hairpin", "hairpin_failed_share");
const EXHAUSTION: Form = ("nat.port_exhaustion", "used_port_share");
const RACE: Form = ("dns.conntrack_race", "stalled_lookup_count");
const SLOW: Form = ("nat.backend_slow", "median_ratio");
const INSERT_FAILED: Form = ("conntrack.insert_failed", "insert_failed_rate");
const DNS_SLOW: Form = ("dns.slow", "slow_reply_share");
const TIMEOUT: Form = ("tcp.connect_timeout", "unanswered_connect_share");
const REFUSED: Form = ("tcp.refused", "refused_connect_share");
const UNREACHABLE: Form = ("tcp.unreachable", "unreachable_connect_share");
const SLOW_CONNECT: Form = ("connect.slow", "handshake_p95");
const LOST_SYN: Form = ("connect.slow", "lost_syn_share");
const BECAME_UNREACHABLE: Form = ("tcp.became_unreachable", "unreachable_time");
const LOSS: Form = ("tcp.retransmits", "retransmit_share");
const SYN_AGAIN: Form = ("tcp.retransmits", "syn_retransmit_count");
const SYNACK_AGAIN: Form = ("tcp.retransmits", "synack_retransmit_count");
const NO_PORT: Form = ("net.ephemeral_ports_exhausted", "no_port_share");
const QDISC: Form = ("net.qdisc_drops", "qdisc_drop_share");
const QDISC_SEEN: Form = ("net.qdisc_drops", "qdisc_drop_count");
const BACKLOG: Form = ("net.softnet_drops", "softnet_drop_share");
const RTT_HIGH: Form = ("tcp.rtt_high", "srtt_median");
const THROTTLED: Form = ("pod.cpu_throttled", "throttled_period_share");
const OOM: Form = ("host.memory_pressure", "oom_kill_count");
const SHORT_OF_MEMORY: Form = ("host.memory_pressure", "memory_full_share");
const PROBE: Form = ("kubelet.probe_failing", "failed_probe_share");
const SERVER_DEAD: Form = ("dns.server_dead", "unanswered_client_count");
const SLOW_FOR_ONE: Form = ("dns.slow_for_one", "slow_reply_share_of_one");
const RETRY: Form = ("dns.retry_5s", "repeated_query_count");
const BAD_PEER: Form = ("connect.bad_peer", "failed_peer_share");
const BAD_PATH: Form = ("connect.bad_path", "unanswered_target_count");
const STORM: Form = ("connect.retry_storm", "failed_connect_rate");
const HALF_OPEN: Form = ("tcp.half_open", "timed_out_connection_count");
const LATE: Form = ("tcp.keepalive_race", "late_request_count");
const RESET: Form = ("tcp.reset_by_peer", "reset_share");
const SLOW_ACCEPT: Form = ("tcp.slow_accept", "accept_queue_share");
const NO_REPLY: Form = ("dns.no_reply", "unanswered_query_share");

/// Worst first; a symptom moves into its cause. The order does not depend on the order that comes in.
pub(super) fn rank(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort_by(order);
    let causes = causes_of(&findings);
    let symptoms: Vec<(usize, &'static str)> =
        findings.iter().zip(&causes).filter_map(|(f, cause)| Some(((*cause)?, f.rule))).collect();
    for (cause, rule) in symptoms {
        if let Some(cause) = findings.get_mut(cause).filter(|c| !c.symptoms.contains(&rule)) {
            cause.symptoms.push(rule);
        }
    }
    findings.into_iter().zip(causes).filter(|(_, cause)| cause.is_none()).map(|(f, _)| f).collect()
}

/// For each finding the place of the one that explains it; never one that is itself explained.
fn causes_of(findings: &[Finding]) -> Vec<Option<usize>> {
    let mut by_form: BTreeMap<(Form, Key), usize> = BTreeMap::new();
    for (place, f) in findings.iter().enumerate() {
        for key in f.covers.clone().unwrap_or_else(|| vec![f.subject.key()]) {
            by_form.entry((form(f), key)).or_insert(place);
        }
    }
    let direct: Vec<Option<usize>> = findings.iter().map(|f| cause_of(f, findings, &by_form)).collect();
    let root = |first: usize| {
        let above = |place: &usize| direct.get(*place).copied().flatten();
        std::iter::successors(Some(first), above).take(MAX_STEPS).last().unwrap_or(first)
    };
    direct.iter().map(|cause| cause.map(root)).collect()
}

/// A mild cause does not hide a grave symptom. A finding about several subjects is a symptom where each of them has a
/// cause; it then moves into that of the first.
fn cause_of(f: &Finding, findings: &[Finding], by_form: &BTreeMap<(Form, Key), usize>) -> Option<usize> {
    let cause_at = |key: &Key| {
        causes(form(f))
            .filter_map(|cause| by_form.get(&(cause, key.clone())).copied())
            .find(|place| findings.get(*place).is_some_and(|cause| cause.severity >= f.severity))
    };
    match f.covers.as_deref() {
        Some([first, rest @ ..]) if rest.iter().all(|key| cause_at(key).is_some()) => cause_at(first),
        _ => cause_at(&f.subject.key()),
    }
}

/// What makes this symptom.
fn causes(symptom: Form) -> impl Iterator<Item = Form> {
    let named = EXPLAINS.iter().filter(move |(_, s)| *s == symptom).map(|(cause, _)| *cause);
    let dropping = DROPPING.into_iter().filter(move |_| DROPPED.contains(&symptom));
    let overflowing = OVERFLOWING.into_iter().filter(move |_| LOST.contains(&symptom));
    named.chain(dropping).chain(overflowing)
}

/// Whether the one is a cause of the other.
#[cfg(test)]
pub(super) fn explains(cause: Form, symptom: Form) -> bool {
    causes(symptom).any(|known| known == cause)
}

/// A form that is, over any number of steps, its own cause.
#[cfg(test)]
pub(super) fn circle() -> Option<Form> {
    let all = EXPLAINS.iter().map(|(_, symptom)| *symptom).chain(DROPPED).chain(LOST);
    let leads_back = |start: &Form| {
        let (mut seen, mut open) = (Vec::new(), vec![*start]);
        while let Some(form) = open.pop() {
            for cause in causes(form) {
                if cause == *start {
                    return true;
                }
                if !seen.contains(&cause) {
                    seen.push(cause);
                    open.push(cause);
                }
            }
        }
        false
    };
    all.into_iter().find(leads_back)
}

const fn form(f: &Finding) -> Form {
    (f.rule, f.signal.name)
}

fn order(a: &Finding, b: &Finding) -> Ordering {
    let weight = |f: &Finding| f.share * f.confidence;
    b.severity
        .cmp(&a.severity)
        .then(weight(b).total_cmp(&weight(a)))
        .then(a.rule.cmp(b.rule))
        .then(b.evidence.total().cmp(&a.evidence.total()))
        .then_with(|| a.title.cmp(&b.title))
        .then_with(|| a.subject.netns.cmp(&b.subject.netns))
}
