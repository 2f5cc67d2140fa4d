//! Events of connections of which it is not known yet whose they are, held until it is: between the rings and the
//! writer, only with filters by owner.
//!
//! The kernel marks them. The first event of the same socket that it does not mark so settles them: they are written
//! before it, or dropped with it. Those that wait too long, or too many, are settled by who accepted the connection,
//! and written if nobody did.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::hooks::wire::{Doubt, Mark};

/// How long an event waits at most. With the time between flushes it stays within the second that a killed run may
/// miss.
const LONGEST: Duration = Duration::from_millis(500);
/// Records that are held: 4 MiB.
const MOST: usize = 1 << 14;

/// What becomes of a record and of those that were held for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// It has to wait.
    Held,
    /// These and it are written, in this order.
    Written(Vec<Vec<u8>>),
    /// These and it were refused.
    Refused(Vec<Vec<u8>>),
}

/// The records that wait.
#[derive(Debug, Default)]
pub struct Hold {
    by_socket: HashMap<u64, Vec<Vec<u8>>>,
    /// Since when a socket waits, oldest first; one that was settled meanwhile is not in `by_socket` any more.
    since: VecDeque<(u64, u64)>,
    count: usize,
}

impl Hold {
    /// What this record means for itself and for those that wait. `now` is the boot time, ns.
    pub fn settle(&mut self, record: &[u8], mark: Mark, now: u64) -> Settled {
        match mark.doubt {
            Doubt::None if self.count == 0 => Settled::Written(Vec::new()),
            Doubt::None => Settled::Written(self.take(mark.cookie)),
            Doubt::Refused => Settled::Refused(self.take(mark.cookie)),
            Doubt::Undecided => {
                let waiting = self.by_socket.entry(mark.cookie).or_default();
                if waiting.is_empty() {
                    self.since.push_back((now, mark.cookie));
                }
                waiting.push(record.to_vec());
                self.count += 1;
                Settled::Held
            }
        }
    }

    /// The next socket that cannot wait any longer, with its records. Without a time none can.
    pub fn overdue(&mut self, now: Option<u64>) -> Option<(u64, Vec<Vec<u8>>)> {
        loop {
            let (since, cookie) = *self.since.front()?;
            let is_gone = !self.by_socket.contains_key(&cookie);
            let waited = now.map_or(Duration::MAX, |now| Duration::from_nanos(now.saturating_sub(since)));
            if !is_gone && waited < LONGEST && self.count <= MOST {
                return None;
            }
            self.since.pop_front();
            if !is_gone {
                return Some((cookie, self.take(cookie)));
            }
        }
    }

    fn take(&mut self, cookie: u64) -> Vec<Vec<u8>> {
        let records = self.by_socket.remove(&cookie).unwrap_or_default();
        self.count -= records.len();
        records
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn mark(cookie: u64, doubt: Doubt) -> Mark {
        Mark { cookie, doubt }
    }

    fn held(hold: &mut Hold, cookie: u64, record: &[u8], now: u64) {
        assert_eq!(hold.settle(record, mark(cookie, Doubt::Undecided), now), Settled::Held);
    }

    #[test]
    fn what_waits_is_settled_by_the_next_event_of_the_same_socket() {
        let mut hold = Hold::default();
        held(&mut hold, 1, b"a", 0);
        held(&mut hold, 2, b"b", 0);
        held(&mut hold, 1, b"c", 0);
        assert_eq!(hold.settle(b"d", mark(3, Doubt::None), 0), Settled::Written(vec![]));
        assert_eq!(hold.settle(b"e", mark(1, Doubt::None), 0), Settled::Written(vec![b"a".to_vec(), b"c".to_vec()]));
        assert_eq!(hold.settle(b"f", mark(2, Doubt::Refused), 0), Settled::Refused(vec![b"b".to_vec()]));
        assert_eq!(hold.overdue(None), None);
    }

    #[test]
    fn nothing_waits_longer_than_half_a_second() {
        let mut hold = Hold::default();
        held(&mut hold, 1, b"a", 100 * MS);
        held(&mut hold, 2, b"b", 200 * MS);
        held(&mut hold, 1, b"c", 550 * MS);
        assert_eq!(hold.overdue(Some(599 * MS)), None);
        assert_eq!(hold.overdue(Some(600 * MS)), Some((1, vec![b"a".to_vec(), b"c".to_vec()])));
        assert_eq!(hold.overdue(Some(600 * MS)), None);
        // its second wait begins anew
        held(&mut hold, 1, b"d", 650 * MS);
        assert_eq!(hold.overdue(Some(700 * MS)), Some((2, vec![b"b".to_vec()])));
        assert_eq!(hold.overdue(Some(1149 * MS)), None);
        assert_eq!(hold.overdue(Some(1150 * MS)), Some((1, vec![b"d".to_vec()])));
    }

    #[test]
    fn at_the_end_nothing_waits() {
        let mut hold = Hold::default();
        held(&mut hold, 1, b"a", 0);
        held(&mut hold, 2, b"b", 0);
        let left: Vec<_> = std::iter::from_fn(|| hold.overdue(None)).map(|(cookie, _)| cookie).collect();
        assert_eq!(left, [1, 2]);
    }

    #[test]
    fn beyond_its_bound_the_oldest_are_settled_at_once() {
        let mut hold = Hold::default();
        for cookie in 0..=(MOST as u64) {
            held(&mut hold, cookie, b"x", 0);
        }
        assert_eq!(hold.overdue(Some(0)).map(|(cookie, _)| cookie), Some(0));
        assert_eq!(hold.overdue(Some(0)), None);
    }
}
