//! `net.rp_filter`: packets that arrive at an interface by which the kernel would not answer their sender.

use super::{Account, Kind, NEEDS, Strangers, Thresholds, findings, found, found_strange, state, words};
use crate::capture::{Capture, DropRow, Needs, Target};
use crate::detectors::Rule;
use crate::finding::{Finding, Severity, Step, Subject};
use crate::units::count;

/// The kernel's name for it.
const REASON: &str = "IP_RPFILTER";

/// See the module.
pub(in crate::detectors) struct RpFilter;

impl Rule for RpFilter {
    const ID: &'static str = "net.rp_filter";
    const TEXT: &'static str = include_str!("../../../kb/net.rp_filter.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        NEEDS
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        findings(capture, t, |row| row.reason() == REASON, finding, strange)
    }
}

fn finding(capture: &Capture, t: &Thresholds, kind: Kind, target: &Target, account: &Account<'_>) -> Option<Finding> {
    let (row, is_own) = account.worst()?;
    let subject = account.subject(capture, target);
    let title = format!(
        "{} gets no answer from {}: reverse path filtering drops {} in {}, {}",
        subject.who(),
        subject.whom(),
        words::what(is_own),
        words::netns(capture, row.netns, &subject),
        words::extent(account, kind),
    );
    let next_steps = next_steps(capture, row, &subject);
    Some(Finding {
        cause: cause(capture, row),
        next_steps,
        ..found(t, "net.rp_filter", "filtered_share", account, (subject, title))
    })
}

fn strange(capture: &Capture, t: &Thresholds, them: &Strangers<'_>) -> Option<Finding> {
    let row = *them.rows.iter().max_by_key(|row| row.packets)?;
    let title = format!(
        "reverse path filtering drops {} {} packets of {} in {}: {}",
        them.packets(),
        words::adjective(row.dir),
        count(them.rows.len() as u64, "flow", "flows"),
        words::netns(capture, row.netns, &Subject::default()),
        words::destinations(them),
    );
    let is_tried_again = row.packets >= t.min_ailing;
    Some(Finding {
        severity: if is_tried_again { Severity::Warning } else { Severity::Info },
        cause: cause(capture, row),
        impact: "whoever sent them gets no answer".to_owned(),
        next_steps: next_steps(capture, row, &Subject::default()),
        ..found_strange(t, "net.rp_filter", them, row, title)
    })
}

fn cause(capture: &Capture, row: &DropRow) -> String {
    let from = row.from.addr.map_or_else(|| "their sender".to_owned(), |addr| addr.to_string());
    let setting = state::rp_filter(capture, row).unwrap_or_else(|| "`rp_filter` is on there".to_owned());
    format!(
        "they arrive{}, and the route back to {from} leaves by another interface, or there is none: {setting}",
        words::spot(row).trim_start_matches(',')
    )
}

fn next_steps(capture: &Capture, row: &DropRow, subject: &Subject) -> Vec<Step> {
    let there = |text: &str, command: &str| words::there(capture, row, subject, text, command);
    let back = row.from.addr.map(|addr| {
        there("see by which interface an answer to the sender would leave", &format!("ip route get {addr}"))
    });
    let mut out: Vec<Step> = back.into_iter().collect();
    out.push(there(
        "see where filtering is on: the higher of `all` and the interface's own counts",
        "sysctl -ar 'rp_filter'",
    ));
    out.push(Step::think("then route both ways alike, or set `rp_filter` of that interface to 2 (loose)"));
    out
}
