//! What findings about drops have in common; each rule adds its words.

use super::{Account, Strangers, Thresholds};
use crate::capture::DropRow;
use crate::finding::{Finding, Severity, Signal, Subject};

/// A rule's account of one client and one destination, less what it says of it in words.
pub(super) fn found(
    t: &Thresholds,
    rule: &'static str,
    signal: &'static str,
    account: &Account<'_>,
    (subject, title): (Subject, String),
) -> Finding {
    let severity = account.severity(t);
    let is_share = account.hit > 0;
    let threshold = match (is_share, severity) {
        (false, _) => t.min_ailing as f64,
        (true, Severity::Critical) => t.critical_share * 100.0,
        (true, _) => 0.0,
    };
    let (value, unit) =
        if is_share { (account.share() * 100.0, "percent") } else { (account.packets() as f64, "packets") };
    Finding {
        rule,
        severity,
        title,
        signal: Signal { name: signal, value, unit, threshold },
        cause: String::new(),
        impact: impact(account, severity).to_owned(),
        next_steps: Vec::new(),
        share: account.share(),
        confidence: 0.97,
        evidence: account.evidence(),
        symptoms: Vec::new(),
        covers: None,
        subject,
    }
}

/// The same of strangers.
pub(super) fn found_strange(
    t: &Thresholds,
    rule: &'static str,
    them: &Strangers<'_>,
    row: &DropRow,
    title: String,
) -> Finding {
    Finding {
        rule,
        severity: Severity::Info,
        title,
        signal: Signal {
            name: "strange_packet_count",
            value: them.packets() as f64,
            unit: "packets",
            threshold: t.min_strange as f64,
        },
        cause: String::new(),
        impact: "none that shows on this node: whoever sent them is elsewhere, or gone".to_owned(),
        next_steps: Vec::new(),
        share: 0.0,
        confidence: 0.9,
        evidence: them.evidence(),
        symptoms: Vec::new(),
        covers: Some(Vec::new()),
        subject: Subject { netns: Some(row.netns), ..Subject::default() },
    }
}

fn impact(account: &Account<'_>, severity: Severity) -> &'static str {
    match (account.hit, severity) {
        (0, _) => "connections stand and wait for what is sent again and again",
        (_, Severity::Critical) => "nothing that the process sends there, or nothing that comes back, arrives",
        _ => "some of what the process sends there is lost, and waits for a retry or fails",
    }
}
