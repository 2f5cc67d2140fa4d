//! What counters were at the start → how much more they are at the end. One number is kept for each, by a hash of what it counts,
//! so that a node with 200 namespaces takes half a MiB.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};

use ktrace_bundle::event::When;
use ktrace_bundle::node::Counters;

/// Numbers that are kept; those beyond have no difference. One more would double the table.
const MOST: usize = (1 << 15) / 8 * 7;

/// All of them.
#[derive(Debug, Default)]
pub struct Rose {
    known: HashMap<u64, u64>,
    hashes: RandomState,
}

impl Rose {
    /// At the start remembers the counters of a thing; at the end says what they gained. Those that are 0 need not be given.
    /// What was not there at the start, or went back, is left out.
    pub fn counters(&mut self, when: When, thing: impl Hash, now: &Counters) -> Counters {
        let thing = self.hashes.hash_one(thing);
        if when == When::Start {
            self.remember((thing, ""), 0);
            now.iter().for_each(|(name, value)| self.remember((thing, name), *value));
            return Counters::new();
        }
        if !self.is_known((thing, "")) {
            return Counters::new();
        }
        let gained = |(name, value): (&String, &u64)| {
            let gained = value.checked_sub(self.get((thing, name)).unwrap_or(0))?;
            (gained > 0).then(|| (name.clone(), gained))
        };
        now.iter().filter_map(gained).collect()
    }

    /// The same of a single counter: at the end 0, too, if it was there at the start.
    pub fn one(&mut self, when: When, thing: impl Hash, now: u64) -> Option<u64> {
        let thing = self.hashes.hash_one(thing);
        if when == When::Start {
            self.remember((thing, ""), now);
            return None;
        }
        now.checked_sub(self.get((thing, ""))?)
    }

    fn key(&self, of: (u64, &str)) -> u64 {
        self.hashes.hash_one(of)
    }

    fn remember(&mut self, of: (u64, &str), value: u64) {
        if self.known.len() < MOST {
            self.known.insert(self.key(of), value);
        }
    }

    fn get(&self, of: (u64, &str)) -> Option<u64> {
        self.known.get(&self.key(of)).copied()
    }

    fn is_known(&self, of: (u64, &str)) -> bool {
        self.known.contains_key(&self.key(of))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(pairs: &[(&str, u64)]) -> Counters {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
    }

    #[test]
    fn only_what_was_there_at_the_start_and_did_not_go_back_has_risen() {
        let mut rose = Rose::default();
        assert_eq!(
            rose.counters(When::Start, (1, "eth0"), &counters(&[("a", 5), ("b", 7), ("same", 1)])),
            counters(&[])
        );
        let now = counters(&[("a", 8), ("b", 2), ("new", 3), ("same", 1)]);
        assert_eq!(rose.counters(When::End, (1, "eth0"), &now), counters(&[("a", 3), ("new", 3)]));
        assert_eq!(rose.counters(When::End, (2, "eth0"), &now), counters(&[]));
    }

    #[test]
    fn a_single_counter_that_stood_still_has_risen_by_0() {
        let mut rose = Rose::default();
        assert_eq!(rose.one(When::Start, 7, 3), None);
        assert_eq!([3, 9, 2].map(|now| rose.one(When::End, 7, now)), [Some(0), Some(6), None]);
        assert_eq!(rose.one(When::End, 8, 3), None);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut rose = Rose::default();
        (0..2 * MOST as u64).for_each(|n| _ = rose.one(When::Start, n, n));
        assert_eq!(rose.known.len(), MOST);
    }
}
