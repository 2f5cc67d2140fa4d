//! Bounded maps of rows, and the two lists that are made of each.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::Hash;

use super::keys::{Flow, Label, OTHER, TOTAL, Who};
use crate::summary::{MAX_ROWS, RetransmitRow, RowKey, TalkerRow};

/// Rows of a table; what comes after is added to `other`.
pub(super) const MAX_TABLE: usize = 16_384;

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
pub struct Numbers {
    /// Payload bytes sent.
    pub tx_bytes: u64,
    /// Payload bytes received.
    pub rx_bytes: u64,
    /// Events seen.
    pub events: u64,
    /// Those that are lines.
    pub written: u64,
    /// TCP connections that closed, UDP sockets with an event.
    pub connections: u64,
    /// Data and FIN segments sent again.
    pub data: u64,
    /// SYNs sent again.
    pub syn: u64,
    /// SYN-ACKs sent again.
    pub synack: u64,
    /// Tail loss probes.
    pub probe: u64,
    /// Segments sent, of connections whose counters are known.
    pub tx_segs: u64,
}

impl Numbers {
    pub(super) const fn add(&mut self, n: &Self) {
        self.tx_bytes = self.tx_bytes.saturating_add(n.tx_bytes);
        self.rx_bytes = self.rx_bytes.saturating_add(n.rx_bytes);
        self.written += n.written;
        self.events += n.events;
        self.connections += n.connections;
        self.data += n.data;
        self.syn += n.syn;
        self.synack += n.synack;
        self.probe += n.probe;
        self.tx_segs = self.tx_segs.saturating_add(n.tx_segs);
    }

    /// What of a total is in none of the rows that were taken off before.
    const fn take_off(&mut self, n: &Self) {
        self.tx_bytes = self.tx_bytes.saturating_sub(n.tx_bytes);
        self.rx_bytes = self.rx_bytes.saturating_sub(n.rx_bytes);
        self.written = self.written.saturating_sub(n.written);
        self.events = self.events.saturating_sub(n.events);
        self.connections = self.connections.saturating_sub(n.connections);
        self.data = self.data.saturating_sub(n.data);
        self.syn = self.syn.saturating_sub(n.syn);
        self.synack = self.synack.saturating_sub(n.synack);
        self.probe = self.probe.saturating_sub(n.probe);
        self.tx_segs = self.tx_segs.saturating_sub(n.tx_segs);
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
            written_count: self.written,
            connection_count: self.connections,
        }
    }

    pub(super) fn talkers_total(&self) -> TalkerRow {
        self.talker(RowKey { key: TOTAL.to_owned(), ..RowKey::default() })
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
    /// Rows that are part of `other` because the list is full.
    pub(super) folded: u64,
}

impl<K: Hash + Eq + Label> Table<K, Numbers> {
    /// Rows with bytes, most first; with `other` they make up the total.
    pub(super) fn talkers(&self, total: &Numbers) -> Listed<TalkerRow> {
        self.listed(total, Numbers::bytes, |rest| rest.bytes() > 0 || rest.events > 0, Numbers::talker)
    }

    /// Rows with retransmits, most first; with `other` they make up the total.
    pub(super) fn retransmits(&self, total: &Numbers) -> Listed<RetransmitRow> {
        self.listed(total, Numbers::retransmits, |rest| rest.retransmits() > 0, Numbers::retransmit)
    }

    fn listed<T>(
        &self,
        total: &Numbers,
        weight: fn(&Numbers) -> u64,
        is_worth_a_row: fn(&Numbers) -> bool,
        row: fn(&Numbers, RowKey) -> T,
    ) -> Listed<T> {
        let mut found: Vec<(Reverse<u64>, RowKey, &Numbers)> = self
            .rows
            .iter()
            .filter(|(_, n)| weight(n) > 0)
            .map(|(key, n)| (Reverse(weight(n)), key.row_key(), n))
            .collect();
        found.sort_by(|a, b| (a.0, &a.1, a.2.events).cmp(&(b.0, &b.1, b.2.events)));
        let rest = |listed: usize| {
            let mut rest = *total;
            found.iter().take(listed).for_each(|(_, _, n)| rest.take_off(n));
            rest
        };
        let is_whole = found.len() <= MAX_ROWS && !is_worth_a_row(&rest(MAX_ROWS));
        let listed = if is_whole { found.len() } else { found.len().min(MAX_ROWS - 1) };
        let key = RowKey { key: OTHER.to_owned(), ..RowKey::default() };
        let other = (!is_whole).then(|| row(&rest(listed), key));
        let folded = (found.len() - listed) as u64;
        let rows = found.into_iter().take(listed).map(|(_, key, n)| row(n, key)).collect();
        Listed { rows, other, folded }
    }
}

/// The tables that every connection and datagram is added to.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) processes: Table<Who, Numbers>,
    pub(super) flows: Table<Flow, Numbers>,
    /// Of every process and every flow, in a row or not.
    pub(super) total: Numbers,
}

impl Tables {
    pub(super) fn add(&mut self, who: &Who, flow: Flow, n: &Numbers) {
        self.processes.row(who.clone()).add(n);
        self.flows.row(flow).add(n);
        self.total.add(n);
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
