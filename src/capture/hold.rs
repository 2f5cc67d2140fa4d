//! Records that wait between the rings and the writer: of connections of which it is not known yet whose they are, only
//! with filters by owner; and of containers of which it is not known yet what they are called.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::hooks::wire::{Doubt, Mark};

/// How long a record waits at most: once for who accepts its connection, and once for what that is called. With the time
/// between flushes a killed run may miss two seconds of these, and one of all others.
const LONGEST: Duration = Duration::from_millis(500);
/// Records that are held: 4 MiB.
const MOST: usize = 1 << 14;

/// Records that wait, by socket, each with what it waits for.
#[derive(Debug)]
pub struct Waiting<T> {
    by_socket: HashMap<u64, Wait<T>>,
    /// Since when each socket waits, oldest first; a wait that is over is not in `by_socket` any more.
    since: VecDeque<(u64, u64)>,
    count: usize,
}

#[derive(Debug)]
struct Wait<T> {
    what_for: T,
    since: u64,
    records: Vec<Vec<u8>>,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self { by_socket: HashMap::new(), since: VecDeque::new(), count: 0 }
    }
}

impl<T: Copy> Waiting<T> {
    /// Keeps a record of this socket. `now` is the boot time, ns.
    pub fn add(&mut self, cookie: u64, record: &[u8], what_for: T, now: u64) {
        let wait = self.by_socket.entry(cookie).or_insert_with(|| {
            self.since.push_back((now, cookie));
            Wait { what_for, since: now, records: Vec::new() }
        });
        wait.records.push(record.to_vec());
        self.count += 1;
    }

    /// Whether nothing waits.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// What the records of this socket wait for, if there are any.
    pub fn of(&self, cookie: u64) -> Option<T> {
        // as a rule nothing waits
        if self.is_empty() { None } else { self.by_socket.get(&cookie).map(|wait| wait.what_for) }
    }

    /// The records of this socket, which wait no longer.
    pub fn take(&mut self, cookie: u64) -> Vec<Vec<u8>> {
        let records = self.by_socket.remove(&cookie).map(|wait| wait.records).unwrap_or_default();
        self.count -= records.len();
        records
    }

    /// The sockets whose records have waited for something that is there, the first one first.
    pub fn ready(&self, mut is_there: impl FnMut(T) -> bool) -> Vec<u64> {
        let waits = self.since.iter().filter_map(|at| Some((at.1, self.wait(*at)?.what_for)));
        waits.filter(|(_, what_for)| is_there(*what_for)).map(|(cookie, _)| cookie).collect()
    }

    /// A wait of the row that is not over.
    fn wait(&self, (since, cookie): (u64, u64)) -> Option<&Wait<T>> {
        self.by_socket.get(&cookie).filter(|wait| wait.since == since)
    }

    /// The next socket that cannot wait any longer, with what it waited for and its records. Without a time none can.
    pub fn overdue(&mut self, now: Option<u64>) -> Option<(u64, T, Vec<Vec<u8>>)> {
        loop {
            let (since, cookie) = *self.since.front()?;
            let what_for = self.wait((since, cookie)).map(|wait| wait.what_for);
            let waited = now.map_or(Duration::MAX, |now| Duration::from_nanos(now.saturating_sub(since)));
            if what_for.is_some() && waited < LONGEST && self.count <= MOST {
                return None;
            }
            self.since.pop_front();
            if let Some(what_for) = what_for {
                return Some((cookie, what_for, self.take(cookie)));
            }
        }
    }
}

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

/// The records about which filters have doubts.
///
/// The kernel marks them. The first event of the same socket that it does not mark so settles them: they are written
/// before it, or dropped with it. Those that wait too long, or too many, are settled by who accepted the connection,
/// and written if nobody did.
#[derive(Debug, Default)]
pub struct Hold(Waiting<()>);

impl Hold {
    /// What this record means for itself and for those that wait. `now` is the boot time, ns.
    pub fn settle(&mut self, record: &[u8], mark: Mark, now: u64) -> Settled {
        match mark.doubt {
            Doubt::None | Doubt::Unnamed if self.0.is_empty() => Settled::Written(Vec::new()),
            Doubt::None | Doubt::Unnamed => Settled::Written(self.0.take(mark.cookie)),
            Doubt::Refused => Settled::Refused(self.0.take(mark.cookie)),
            Doubt::Undecided => {
                self.0.add(mark.cookie, record, (), now);
                Settled::Held
            }
        }
    }

    /// The sockets that have records here.
    pub fn sockets(&self) -> Vec<u64> {
        self.0.by_socket.keys().copied().collect()
    }

    /// See [`Waiting::overdue`].
    pub fn overdue(&mut self, now: Option<u64>) -> Option<(u64, Vec<Vec<u8>>)> {
        self.0.overdue(now).map(|(cookie, (), records)| (cookie, records))
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

    #[test]
    fn what_waits_for_the_same_is_ready_together_and_in_order() {
        let mut waiting = Waiting::default();
        for (cookie, what_for) in [(3, 'a'), (1, 'b'), (2, 'a'), (3, 'a')] {
            waiting.add(cookie, &[cookie as u8], what_for, 0);
        }
        assert_eq!((waiting.of(1), waiting.of(9)), (Some('b'), None));
        assert_eq!(waiting.ready(|it| it == 'a'), [3, 2]);
        assert_eq!(waiting.take(3), [vec![3], vec![3]]);
        // a second wait of the same socket stands at its own place in the row
        waiting.add(3, b"x", 'a', 1);
        assert_eq!(waiting.ready(|it| it == 'a'), [2, 3]);
        assert_eq!(waiting.ready(|_| false), [0_u64; 0]);
    }

    #[test]
    fn a_second_wait_is_as_long_as_the_first() {
        let mut waiting = Waiting::default();
        waiting.add(1, b"a", (), 0);
        assert_eq!(waiting.take(1), [b"a"]);
        waiting.add(1, b"b", (), 400 * MS);
        assert_eq!(waiting.overdue(Some(899 * MS)), None);
        assert_eq!(waiting.overdue(Some(900 * MS)), Some((1, (), vec![b"b".to_vec()])));
    }
}
