//! `conntrack.full`: a table of connection tracking that has no room, or hardly any.

use ktrace_bundle::tracking::Table;
use serde::Deserialize;

use super::{gained, highest, name, steps, without_entry};
use crate::capture::{Capture, Evidence, Needs, TrackingNeed};
use crate::detectors::{Rule, nat};
use crate::finding::{Finding, Key, Severity, Signal, Step, Subject};
use crate::units::share;

/// What a table counts when it has no room: packets refused, entries not made, entries thrown out for others.
const LOSSES: [&str; 3] = ["drop", "insert_failed", "early_drop"];

/// See the module.
pub(in crate::detectors) struct Full;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::detectors) struct Thresholds {
    full_share: f64,
}

impl Rule for Full {
    const ID: &'static str = "conntrack.full";
    const TEXT: &'static str = include_str!("../../../kb/conntrack.full.toml");
    type Thresholds = Thresholds;

    fn needs(&self) -> Needs {
        Needs { tracking: TrackingNeed::Tables, ..Needs::NOTHING }
    }

    fn detect(&self, capture: &Capture, t: &Thresholds) -> Vec<Finding> {
        let uses = nat::uses(capture);
        let tables = capture.coverage.tracking.tables();
        let full = tables.filter_map(|table| Some((table, is_full(table, t.full_share)?)));
        full.map(|(table, entries)| finding(t, table, entries, || without_entry(&uses, table))).collect()
    }
}

/// Entries and limit of a table that is full, or nearly: from this share of its limit on, or if it threw entries out.
pub(in crate::detectors) fn is_full(table: &Table, full_share: f64) -> Option<(u64, u64)> {
    let (count, max) = highest(table).zip(table.max).filter(|(_, max)| *max > 0)?;
    (share(count, max) >= full_share || gained(table, "early_drop") > 0).then_some((count, max))
}

fn finding(t: &Thresholds, table: &Table, (count, max): (u64, u64), refused: impl Fn() -> Vec<Key>) -> Finding {
    let lost: Vec<(&str, u64)> = LOSSES.map(|c| (c, gained(table, c))).into_iter().filter(|(_, n)| *n > 0).collect();
    let part = share(count, max);
    let is_losing = !lost.is_empty();
    let words: Vec<String> = lost.iter().map(|(counter, n)| format!("`{counter}` rose by {n}")).collect();
    let title = match is_losing {
        true => format!("{} is full: {count} of {max} entries, and {}", name(table), words.join(", ")),
        false => format!("{} is nearly full: {count} of {max} entries", name(table)),
    };
    let mut next_steps = steps(table);
    next_steps.push(Step::run(
        "see whose entries they are, by source address",
        "conntrack -L 2>/dev/null | grep -o 'src=[^ ]*' | sort | uniq -c | sort -rn | head",
    ));
    next_steps
        .push(Step::think("then shorten the timeouts that keep entries, or raise `net.netfilter.nf_conntrack_max`"));
    Finding {
        rule: "conntrack.full",
        severity: if is_losing { Severity::Critical } else { Severity::Warning },
        title,
        signal: Signal { name: "table_share", value: part * 100.0, unit: "percent", threshold: t.full_share * 100.0 },
        subject: Subject { netns: Some(table.netns), ..Subject::default() },
        cause: "each flow takes an entry until its timeout is over, and there are more flows than the table may hold".to_owned(),
        impact: match is_losing {
            true => "packets of new flows are dropped without a word: connects time out, queries get no reply, whatever the destination",
            false => "once it is full, packets of new flows are dropped without a word",
        }
        .to_owned(),
        next_steps,
        share: part,
        confidence: if part >= t.full_share { 0.97 } else { 0.85 },
        evidence: Evidence::default(),
        symptoms: Vec::new(),
        covers: Some(if is_losing { refused() } else { Vec::new() }),
    }
}
