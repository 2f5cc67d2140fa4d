//! `net.neighbour_failed`: the next hop does not answer to ARP or neighbour discovery, so packets to it are thrown away.

use super::{Account, Kind, NEEDS, Strangers, Thresholds, findings, found, found_strange, state, words};
use crate::capture::{Capture, DropRow, Needs, Target};
use crate::detectors::{Rule, steps};
use crate::finding::{Finding, Step, Subject};
use crate::units::count;

/// The kernel's names for it.
const REASONS: [&str; 4] = ["NEIGH_FAILED", "NEIGH_QUEUEFULL", "NEIGH_CREATEFAIL", "NEIGH_DEAD"];
/// Functions by which a kernel without reasons tells the same.
const SYMBOLS: [&str; 3] = ["arp_error_report", "ndisc_error_report", "__neigh_event_send"];

/// See the module.
pub(in crate::detectors) struct NeighbourFailed;

fn is_it(row: &DropRow) -> bool {
    if row.reason.is_some() { REASONS.contains(&row.reason()) } else { SYMBOLS.contains(&row.symbol()) }
}

impl Rule for NeighbourFailed {
    const ID: &'static str = "net.neighbour_failed";
    const TEXT: &'static str = include_str!("../../../kb/net.neighbour_failed.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        NEEDS
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        findings(capture, t, is_it, finding, strange)
    }
}

fn finding(capture: &Capture, t: &Thresholds, kind: Kind, target: &Target, account: &Account<'_>) -> Option<Finding> {
    let (row, is_own) = account.worst()?;
    let subject = account.subject(capture, target);
    let title = format!(
        "{} cannot reach {}: the next hop of {} does not answer in {}, {}",
        subject.who(),
        subject.whom(),
        words::what(is_own),
        words::netns(capture, row.netns, &subject),
        words::extent(account, kind),
    );
    let mut next_steps = next_steps(capture, row, &subject);
    next_steps.extend(if kind == Kind::Tcp { steps::try_connect(&subject) } else { None });
    let told = found(t, "net.neighbour_failed", "no_neighbour_share", account, (subject, title));
    Some(Finding { cause: cause(capture, row), next_steps, ..told })
}

fn strange(capture: &Capture, t: &Thresholds, them: &Strangers<'_>) -> Option<Finding> {
    let row = *them.rows.iter().max_by_key(|row| row.packets)?;
    let title = format!(
        "the next hop of {} {} packets of {} does not answer in {}: {}",
        them.packets(),
        words::adjective(row.dir),
        count(them.rows.len() as u64, "flow", "flows"),
        words::netns(capture, row.netns, &Subject::default()),
        words::destinations(them),
    );
    let next_steps = next_steps(capture, row, &Subject::default());
    Some(Finding {
        cause: cause(capture, row),
        next_steps,
        ..found_strange(t, "net.neighbour_failed", them, row, title)
    })
}

fn cause(capture: &Capture, row: &DropRow) -> String {
    let hop = state::next_hop(capture, row).map_or_else(String::new, |hop| format!("; {hop}"));
    let dev =
        row.dev.as_deref().map_or_else(String::new, |dev| format!(" at interface `{}`", crate::escape::shown(dev)));
    format!(
        "nobody answers for the link-layer address of the next hop{dev}, which is the destination itself or the router towards \
         it: that host is down, gone, or in another network than its address says{hop}"
    )
}

fn next_steps(capture: &Capture, row: &DropRow, subject: &Subject) -> Vec<Step> {
    let there = |text: &str, command: &str| words::there(capture, row, subject, text, command);
    let route = row.to.addr.map(|addr| there("see which next hop the route names", &format!("ip route get {addr}")));
    let mut out: Vec<Step> = route.into_iter().collect();
    out.push(there("see the neighbours that do not answer", "ip neigh show nud failed nud incomplete"));
    out
}
