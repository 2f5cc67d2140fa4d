//! What could be learnt from connection tracking: its source, its tables, and the flows that it could not be asked about.

use std::collections::BTreeMap;

use ktrace_bundle::manifest::{Head, SourceReport};
use ktrace_bundle::tracking::{MAX_TABLES, Table, TrackingReport};

use crate::escape;
use crate::units::count;

/// Name of the source in the manifest.
const SOURCE: &str = "conntrack";
/// Longest reason that is repeated, in characters.
const MAX_WHY: usize = 200;
/// Reasons of a flow without an entry that say nothing about whether there is one.
const UNTOLD: [&str; 5] = ["source_error", "source_timeout", "no_permission", "overflow", "truncated"];
/// The same, where the kernel had more to tell than there was room for.
const UNTOLD_BY_OVERRUN: [&str; 2] = ["not_found", "gone"];
/// How a source says that there is no connection tracking to ask.
const INACTIVE: [&str; 4] = ["inactive", "not active", "not loaded", "no module"];

/// What a rule needs of connection tracking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TrackingNeed {
    /// Nothing.
    #[default]
    Nothing,
    /// The entries of flows.
    Flows,
    /// Entries and limits of tables.
    Tables,
    /// The counters of tables, too.
    Counters,
    /// The entries of flows, and the counters of tables.
    FlowsAndCounters,
}

impl TrackingNeed {
    /// What that is, for whoever asks for the rule.
    pub const fn in_words(self) -> Option<&'static str> {
        match self {
            Self::Nothing => None,
            Self::Flows => Some("the entries of flows"),
            Self::Tables => Some("entries and limits of tables"),
            Self::Counters => Some("the counters of tables"),
            Self::FlowsAndCounters => Some("the entries of flows, and the counters of tables"),
        }
    }
}

/// What connection tracking told.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TrackingCoverage {
    /// What the manifest says of the source; `None` if it knows of none.
    pub source: Option<SourceReport>,
    /// Its tables.
    pub report: Option<TrackingReport>,
    /// Flows without an entry, by reason.
    pub without: BTreeMap<String, u64>,
}

impl TrackingCoverage {
    pub(super) fn source_of(head: Option<&Head>) -> Option<SourceReport> {
        head?.sources.iter().find(|s| s.name == SOURCE).cloned()
    }

    /// Tables that were read.
    pub fn tables(&self) -> impl Iterator<Item = &Table> {
        self.report.iter().flat_map(|r| &r.tables).take(MAX_TABLES).filter(|t| t.via.is_some())
    }

    /// What a counter gained, in the table of this network namespace and in that of the node, through which flows of others pass.
    pub fn gained(&self, counter: &str, netns: u32) -> u64 {
        let theirs = self.tables().filter(|t| t.is_node || t.netns == netns);
        theirs.filter_map(|t| t.difference.get(counter)).fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// Why this need was not met, if it was not.
    pub(super) fn gap(&self, need: TrackingNeed) -> Option<String> {
        let (flows, tables, counters) = match need {
            TrackingNeed::Nothing => return None,
            TrackingNeed::Flows => (true, false, false),
            TrackingNeed::Tables => (false, true, false),
            TrackingNeed::Counters => (false, true, true),
            TrackingNeed::FlowsAndCounters => (true, true, true),
        };
        self.unanswered()
            .or_else(|| if flows { self.untold() } else { None })
            .or_else(|| if tables { self.unread() } else { None })
            .or_else(|| if counters { self.uncounted() } else { None })
    }

    /// Whether the gap hides nothing by itself: nobody asked, or there is no connection tracking that could go wrong.
    pub(super) fn gap_is_by_plan(&self, need: TrackingNeed) -> bool {
        if need == TrackingNeed::Nothing {
            return false;
        }
        self.source.as_ref().is_none_or(|s| s.outcome == "not_requested" || is_inactive(s))
    }

    /// Why nobody could tell of any flow.
    pub(crate) fn unanswered(&self) -> Option<String> {
        let Some(source) = &self.source else {
            return Some("this capture did not ask connection tracking".to_owned());
        };
        let said = match source.outcome.as_str() {
            "answered" => return None,
            "not_requested" => return Some("connection tracking was not requested".to_owned()),
            "absent" => "there is no connection tracking",
            "not_asked" => "connection tracking was not asked",
            _ => "connection tracking could not be read",
        };
        Some(format!("{said}{}", because(source.error.as_deref())))
    }

    /// Flows of which nobody knows whether they are translated.
    fn untold(&self) -> Option<String> {
        let is_overrun = self.report.iter().flat_map(|r| &r.tables).any(|t| t.overrun_count > 0);
        let is_untold = |why: &str| UNTOLD.contains(&why) || (is_overrun && UNTOLD_BY_OVERRUN.contains(&why));
        let untold = self.without.iter().filter(|(why, _)| is_untold(why));
        let n = untold.fold(0_u64, |sum, (_, n)| sum.saturating_add(*n));
        let more = if is_overrun { ": the kernel had more to tell than there was room for" } else { "" };
        (n > 0).then(|| format!("connection tracking could not tell of {}{more}", count(n, "flow", "flows")))
    }

    /// Tables that matter and were not read: that of the node, or all.
    fn unread(&self) -> Option<String> {
        let Some(report) = &self.report else {
            return Some("the tables of connection tracking are not in this bundle".to_owned());
        };
        let of_node = report.tables.iter().find(|t| t.is_node && t.via.is_none());
        if let Some(table) = of_node {
            return Some(format!(
                "the node's table of connection tracking could not be read{}",
                because(table.error.as_deref())
            ));
        }
        let none = self.tables().next().is_none();
        none.then(|| {
            let why = report.tables.iter().find_map(|t| t.error.as_deref());
            format!("no table of connection tracking could be read{}", because(why))
        })
    }

    /// A table whose counters nobody read, the node's first.
    fn uncounted(&self) -> Option<String> {
        let is_counted =
            |t: &&Table| [&t.start, &t.end].iter().all(|c| c.as_ref().is_some_and(|c| !c.counters.is_empty()));
        let node = self.tables().find(|t| t.is_node);
        let table = node.or_else(|| self.tables().find(|t| !is_counted(t)))?;
        let why = because(table.error.as_deref());
        (!is_counted(&table)).then(|| format!("the counters of connection tracking could not be read{why}"))
    }
}

fn is_inactive(source: &SourceReport) -> bool {
    let why = source.error.as_deref().unwrap_or_default();
    source.outcome == "absent" && INACTIVE.iter().any(|text| why.contains(text))
}

/// `: why`, or nothing; escaped.
fn because(why: Option<&str>) -> String {
    why.map_or_else(String::new, |why| format!(": {}", escape::line(&why.chars().take(MAX_WHY).collect::<String>())))
}
