//! What the tables of connection tracking say of themselves.

pub(super) mod full;
pub(super) mod insert_failed;

use std::collections::BTreeMap;

use ktrace_bundle::tracking::Table;

use super::nat::Use;
use crate::capture::Target;
use crate::finding::{Key, Step};

/// How much a counter of a table gained.
pub(super) fn gained(table: &Table, counter: &str) -> u64 {
    table.difference.get(counter).copied().unwrap_or(0)
}

/// The most entries that were seen.
pub(super) fn highest(table: &Table) -> Option<u64> {
    let counts = [&table.start, &table.end].into_iter().filter_map(|c| c.as_ref()?.count);
    counts.chain(table.highest_count).max()
}

/// A table in a sentence.
pub(super) fn name(table: &Table) -> String {
    if table.is_node {
        "the node's table of connection tracking".to_owned()
    } else {
        format!("the table of connection tracking of network namespace {}", table.netns)
    }
}

/// Clients that got no answer, and of whose failed flows there is no entry in any table: their first packets can be what this
/// table refused. The node's table is passed by the flows of all namespaces.
pub(super) fn without_entry(all: &[Use<'_>], table: &Table) -> Vec<Key> {
    let mut silent: BTreeMap<&Target, (u64, u64)> = BTreeMap::new();
    for it in all.iter().filter(|it| table.is_node || it.target.netns == table.netns) {
        let n = silent.entry(&it.target).or_default();
        let has_none = it.socket.way().nat.is_none();
        *n = (n.0.saturating_add(it.failed), n.1.saturating_add(if has_none { it.silent } else { 0 }));
    }
    let theirs = silent
        .into_iter()
        .filter(|(_, (failed, without))| *without > 0 && without.saturating_mul(10) > failed.saturating_mul(9));
    theirs.map(|(target, _)| Key::from(target)).collect()
}

/// Steps that read a table.
pub(super) fn steps(table: &Table) -> Vec<Step> {
    let place = if table.is_node { "on the node" } else { "in that network namespace" };
    vec![
        Step::run(format!("{place}: see the counters, by CPU"), "conntrack -S"),
        Step::run(
            format!("{place}: see how full the table is"),
            "sysctl net.netfilter.nf_conntrack_count net.netfilter.nf_conntrack_max",
        ),
    ]
}

#[cfg(test)]
mod tests;
