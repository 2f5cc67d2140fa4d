//! Names that a resolver asks for under one search domain after the other: queries in a row of which each is sent as the answer to
//! the one before comes, and is shorter.
//!
//! Payload is never read. What tells such a row is its shape: the search domains of a cluster get shorter, and the name itself, which
//! comes last, is the shortest. Questions for A and AAAA have the same length and are one step. Rows of several threads that
//! overlap break each other, so what is counted is the least that there was.

use std::collections::BTreeMap;

use ktrace_bundle::event::{Endpoint, Event, Payload, Role};

use super::evidence::Evidence;
use super::process::ProcId;
use super::udp::PAIR_NS;

/// The next name is asked for this soon after the answer to the one before, ns.
const NEXT_NS: u64 = PAIR_NS;
/// Fewer steps are no row: programs ask for two names in a row every day.
pub const MIN_STEPS: u64 = 3;
/// Most pairs of a process and a server that are told apart.
const MAX_ASKERS: usize = 65_536;

/// What a process asked of a server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Asked {
    /// Queries.
    pub queries: u64,
    /// Rows of [`MIN_STEPS`] or more.
    pub rows: u64,
    /// Queries of these rows.
    pub row_queries: u64,
    /// Those of them that were not for the last name of their row.
    pub wasted: u64,
    /// Steps of the longest row.
    pub longest: u64,
    /// The first queries of rows.
    pub evidence: Evidence,
    row: Row,
}

/// The row that is going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Row {
    first_seq: u64,
    steps: u64,
    queries: u64,
    step_at: u64,
    step_bytes: u64,
    step_queries: u64,
    answered_at: Option<u64>,
}

impl Asked {
    fn send(&mut self, at: u64, seq: u64, bytes: u64) {
        self.queries = self.queries.saturating_add(1);
        let row = &mut self.row;
        let is_same = row.step_bytes == bytes && at.saturating_sub(row.step_at) <= PAIR_NS;
        let follows = row.answered_at.is_some_and(|answered| at.saturating_sub(answered) <= NEXT_NS);
        if row.steps > 0 && is_same && row.answered_at.is_none() {
            row.queries += 1;
            row.step_queries += 1;
        } else if row.steps > 0 && follows && bytes < row.step_bytes {
            let (steps, queries) = (row.steps + 1, row.queries + 1);
            *row = Row { steps, queries, first_seq: row.first_seq, ..Row::step(at, bytes) };
        } else {
            self.end();
            self.row = Row { steps: 1, queries: 1, first_seq: seq, ..Row::step(at, bytes) };
        }
    }

    /// Adds what another process asked.
    pub fn merge(&mut self, other: &Self) {
        let sums = [
            (&mut self.queries, other.queries),
            (&mut self.rows, other.rows),
            (&mut self.row_queries, other.row_queries),
            (&mut self.wasted, other.wasted),
        ];
        sums.into_iter().for_each(|(sum, n)| *sum = sum.saturating_add(n));
        self.longest = self.longest.max(other.longest);
        self.evidence.merge(&other.evidence);
    }

    /// Adds what the row that goes on comes to.
    fn end(&mut self) {
        let row = std::mem::take(&mut self.row);
        if row.steps >= MIN_STEPS {
            self.rows = self.rows.saturating_add(1);
            self.row_queries = self.row_queries.saturating_add(row.queries);
            self.wasted = self.wasted.saturating_add(row.queries - row.step_queries);
            self.longest = self.longest.max(row.steps);
            self.evidence.add(row.first_seq);
        }
    }
}

impl Row {
    fn step(at: u64, bytes: u64) -> Self {
        Self { step_at: at, step_bytes: bytes, step_queries: 1, ..Self::default() }
    }
}

/// By process and server; servers of all ports, as which are those of DNS is known last.
#[derive(Debug, Default)]
pub struct Lookups {
    /// What was asked.
    pub by_asker: BTreeMap<(ProcId, Endpoint), Asked>,
}

impl Lookups {
    /// Adds a datagram.
    pub(super) fn push(&mut self, event: &Event, owner: Option<ProcId>) {
        let (Some(owner), id) = (owner, &event.id) else { return };
        if id.role == Some(Role::Server) || id.remote.addr.is_none() {
            return;
        }
        let key = (owner, id.remote);
        let has_room = self.by_asker.len() < MAX_ASKERS;
        match &event.payload {
            Payload::UdpSend(d) => {
                let Some(bytes) = d.bytes else { return };
                if has_room || self.by_asker.contains_key(&key) {
                    self.by_asker.entry(key).or_default().send(event.boot_ns, event.seq, bytes);
                }
            }
            Payload::UdpRecv(d) if d.error.is_none() => {
                if let Some(asked) = self.by_asker.get_mut(&key) {
                    asked.row.answered_at = Some(event.boot_ns);
                }
            }
            _ => {}
        }
    }

    /// Ends the rows that go on, and forgets who never had one.
    pub(super) fn finish(mut self) -> Self {
        self.by_asker.values_mut().for_each(Asked::end);
        self.by_asker.retain(|_, asked| asked.rows > 0);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::tests::capture;
    use ktrace_bundle::testing::{EventBuilder, an_event};

    /// A name is asked for, A and AAAA, and answered 2 ms later.
    fn step(ms: u64, socket: u64, bytes: u64) -> [EventBuilder; 4] {
        let send = || an_event().udp_send().bytes(bytes).socket(socket);
        let recv = || an_event().udp_recv().socket(socket);
        [send().at_ms(ms), send().at_us(ms * 1000 + 20), recv().at_ms(ms + 2), recv().at_us(ms * 1000 + 2050)]
    }

    fn asked(steps: impl IntoIterator<Item = (u64, u64)>) -> Option<Asked> {
        let events = (1..).zip(steps).flat_map(|(socket, (ms, bytes))| step(ms, socket, bytes));
        capture(events).lookups.by_asker.into_values().next()
    }

    #[test]
    fn a_name_that_is_asked_for_under_each_search_domain_is_a_row() {
        let asked = asked([(0, 60), (3, 56), (6, 52), (9, 38), (500, 60), (503, 56), (506, 52), (509, 38)]).unwrap();
        assert_eq!((asked.queries, asked.rows, asked.row_queries, asked.wasted), (16, 2, 16, 12));
        assert_eq!((asked.longest, asked.evidence.total()), (4, 2));
    }

    #[test]
    fn names_without_haste_and_names_that_get_longer_are_none() {
        assert_eq!(asked([(0, 60), (300, 56), (600, 52), (900, 38)]), None);
        assert_eq!(asked([(0, 38), (3, 52), (6, 56), (9, 60)]), None);
        assert_eq!(asked([(0, 60), (3, 38)]), None);
    }
}
