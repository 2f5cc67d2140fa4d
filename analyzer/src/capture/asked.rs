//! The plan in the manifest → what was asked for: ports, filters, and the caps that the user chose.

use ktrace_bundle::ledger::DropReason;
use ktrace_bundle::manifest::{Head, PlanSource};

use crate::escape;

/// Port of DNS, where the plan does not say otherwise.
pub(super) const DNS_PORT: u16 = 53;
/// Most ports that are listed.
const MAX_PORTS: usize = 16;

/// Traffic that nobody asked for.
pub(super) fn outside_plan(head: &Head) -> Option<String> {
    if is_dns_only(head) {
        return Some("traffic other than DNS (`--dns-only`)".to_owned());
    }
    Some(format!("traffic of other ports than {} (`--ports`)", listed(&plan_ports(head)?)))
}

/// What each filter by something else than wanted ports left out.
pub(super) fn outside_filters(head: &Head) -> impl Iterator<Item = String> {
    let unwanted = excluded_ports(head);
    let ports = (!unwanted.is_empty()).then(|| format!("traffic of the ports {} (`--ports`)", listed(&unwanted)));
    let others =
        ["cidr", "netns", "pid", "comm", "cgroup", "namespace", "pod", "container"].into_iter().filter_map(|flag| {
            let values = head.plan.get(flag)?.value.as_array()?.iter().filter_map(serde_json::Value::as_str);
            let values: Vec<_> = values.take(MAX_PORTS).map(escape::shown).collect();
            Some(format!("traffic that `--{flag}` leaves out: {}", values.join(", ")))
        });
    ports.into_iter().chain(others)
}

/// The ports that the plan excludes: `"!22"`.
pub(super) fn excluded_ports(head: &Head) -> Vec<u16> {
    let list = head.plan.get("ports").and_then(|e| e.value.as_array()).map_or(&[][..], Vec::as_slice);
    list.iter().filter_map(|p| p.as_str()?.strip_prefix('!')?.parse().ok()).collect()
}

/// `80, 443`, with the rest of a long list counted.
pub(super) fn listed(ports: &[u16]) -> String {
    let mut parts: Vec<String> = ports.iter().take(MAX_PORTS).map(u16::to_string).collect();
    if ports.len() > MAX_PORTS {
        parts.push(format!("{} more", ports.len() - MAX_PORTS));
    }
    parts.join(", ")
}

/// The ports that the plan is limited to; `None` if it is not.
pub(super) fn plan_ports(head: &Head) -> Option<Vec<u16>> {
    let named =
        if is_dns_only(head) { ports_of(head, "dns-ports").or(Some(vec![DNS_PORT])) } else { ports_of(head, "ports") };
    // what backends see of a named port
    named.filter(|wanted| !wanted.is_empty()).map(|named| with(named, ports_of(head, "ports-behind-nat")))
}

/// Ports of DNS by the plan.
pub(super) fn dns_ports(head: &Head) -> Vec<u16> {
    with(ports_of(head, "dns-ports").unwrap_or_else(|| vec![DNS_PORT]), ports_of(head, "dns-ports-behind-nat"))
}

fn with(mut ports: Vec<u16>, more: Option<Vec<u16>>) -> Vec<u16> {
    ports.extend(more.unwrap_or_default());
    ports
}

fn is_dns_only(head: &Head) -> bool {
    head.plan.get("dns-only").is_some_and(|e| e.value == serde_json::Value::Bool(true))
}

/// A list of ports in the plan.
fn ports_of(head: &Head, flag: &str) -> Option<Vec<u16>> {
    let list = head.plan.get(flag)?.value.as_array()?;
    Some(list.iter().filter_map(|p| p.as_u64().and_then(|p| p.try_into().ok())).collect())
}

pub(super) fn user_caps(head: &Head) -> Vec<DropReason> {
    let set = |flag: &str| head.plan.get(flag).is_some_and(|e| e.from != PlanSource::Default);
    let byte_bound = head.byte_bound.as_ref().map_or("max-bytes", |it| it.by.as_str());
    [("max-events", DropReason::EventCap), (byte_bound, DropReason::ByteCap), ("sample", DropReason::Sampled)]
        .into_iter()
        .filter_map(|(flag, reason)| set(flag).then_some(reason))
        .collect()
}
