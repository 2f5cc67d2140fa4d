//! Bounded maps of rows, and the two lists that are made of each.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::Hash;

use super::keys::{Flow, Label, OTHER, Who};
use crate::summary::{RetransmitRow, RowKey, TalkerRow};

/// Rows of a table; what comes after is added to `other`.
const MAX_TABLE: usize = 65_536;

/// A map with at most [`MAX_TABLE`] keys.
#[derive(Debug)]
pub(super) struct Table<K, V> {
    rows: HashMap<K, V>,
    other: V,
}

impl<K, V: Default> Default for Table<K, V> {
    fn default() -> Self {
        Self { rows: HashMap::new(), other: V::default() }
    }
}

impl<K: Hash + Eq, V: Default> Table<K, V> {
    /// The row of this key, or `other`.
    pub(super) fn row(&mut self, key: K) -> &mut V {
        if self.rows.len() >= MAX_TABLE && !self.rows.contains_key(&key) {
            return &mut self.other;
        }
        self.rows.entry(key).or_default()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.rows.iter()
    }

    pub(super) const fn other(&self) -> &V {
        &self.other
    }
}

/// What is added up in a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) tx_bytes: u64,
    pub(super) rx_bytes: u64,
    pub(super) events: u64,
    pub(super) connections: u64,
    pub(super) data: u64,
    pub(super) syn: u64,
    pub(super) synack: u64,
    pub(super) probe: u64,
    pub(super) tx_segs: u64,
}

impl Numbers {
    pub(super) const fn add(&mut self, n: &Self) {
        self.tx_bytes = self.tx_bytes.saturating_add(n.tx_bytes);
        self.rx_bytes = self.rx_bytes.saturating_add(n.rx_bytes);
        self.events += n.events;
        self.connections += n.connections;
        self.data += n.data;
        self.syn += n.syn;
        self.synack += n.synack;
        self.probe += n.probe;
        self.tx_segs = self.tx_segs.saturating_add(n.tx_segs);
    }

    const fn bytes(&self) -> u64 {
        self.tx_bytes.saturating_add(self.rx_bytes)
    }

    const fn retransmits(&self) -> u64 {
        self.data + self.syn + self.synack + self.probe
    }

    fn talker(&self, key: RowKey) -> TalkerRow {
        TalkerRow {
            key,
            tx_bytes: self.tx_bytes,
            rx_bytes: self.rx_bytes,
            event_count: self.events,
            connection_count: self.connections,
        }
    }

    fn retransmit(&self, key: RowKey) -> RetransmitRow {
        RetransmitRow {
            key,
            retrans_count: self.retransmits(),
            data_count: self.data,
            syn_count: self.syn,
            synack_count: self.synack,
            probe_count: self.probe,
            tx_segs_count: self.tx_segs,
        }
    }
}

/// Rows in their order, and the row of what the table could not hold.
pub(super) struct Listed<T> {
    pub(super) rows: Vec<T>,
    pub(super) other: Option<T>,
}

impl<K: Hash + Eq + Label> Table<K, Numbers> {
    /// Rows with bytes, most first.
    pub(super) fn talkers(&self) -> Listed<TalkerRow> {
        self.listed(Numbers::bytes, Numbers::talker)
    }

    /// Rows with retransmits, most first.
    pub(super) fn retransmits(&self) -> Listed<RetransmitRow> {
        self.listed(Numbers::retransmits, Numbers::retransmit)
    }

    fn listed<T>(&self, weight: fn(&Numbers) -> u64, row: fn(&Numbers, RowKey) -> T) -> Listed<T> {
        let mut found: Vec<(Reverse<u64>, RowKey, &Numbers)> = self
            .rows
            .iter()
            .filter(|(_, n)| weight(n) > 0)
            .map(|(key, n)| (Reverse(weight(n)), key.row_key(), n))
            .collect();
        found.sort_by(|a, b| (a.0, &a.1, a.2.events).cmp(&(b.0, &b.1, b.2.events)));
        let rows = found.into_iter().map(|(_, key, n)| row(n, key)).collect();
        let key = RowKey { key: OTHER.to_owned(), ..RowKey::default() };
        let other = (weight(&self.other) > 0).then(|| row(&self.other, key));
        Listed { rows, other }
    }
}

/// The tables that every connection and datagram is added to.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) processes: Table<Who, Numbers>,
    pub(super) flows: Table<Flow, Numbers>,
}

impl Tables {
    pub(super) fn add(&mut self, who: &Who, flow: Flow, n: &Numbers) {
        self.processes.row(who.clone()).add(n);
        self.flows.row(flow).add(n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_other_make_up_the_total() {
        let mut table: Table<u64, u64> = Table::default();
        let n = MAX_TABLE as u64 + 10;
        for key in (0..n).chain(0..n) {
            *table.row(key) += 1;
        }
        assert_eq!((table.rows.len(), *table.other()), (MAX_TABLE, 20));
        assert_eq!(table.iter().map(|(_, v)| v).sum::<u64>() + table.other(), 2 * n);
    }
}
