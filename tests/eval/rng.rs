//! Numbers that look random and are the same again for the same seed: splitmix64.

use std::ops::RangeInclusive;

/// A stream of numbers of its own for each scenario, so that one scenario alone draws what it draws among all.
#[derive(Debug)]
pub struct Rng(u64);

impl Rng {
    /// The stream of this scenario in the run with this seed.
    pub fn of(seed: u64, scenario: &str) -> Self {
        // FNV-1a, as any hash that is the same on every machine would do
        let hash = scenario
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Self(seed ^ hash)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of this range, ends included.
    pub fn range(&mut self, range: RangeInclusive<u64>) -> u64 {
        range.start() + self.next() % (range.end() - range.start() + 1)
    }

    /// One of these.
    pub fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.range(0..=all.len() as u64 - 1)).unwrap()]
    }
}
