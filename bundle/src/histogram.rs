//! Durations → percentiles, in bounded memory and with a stated error.
//!
//! Log-linear: each power of two is cut into 64 equal buckets, so a percentile is the lower bound of a
//! bucket, never too high and at most 1/64 (1.6 %) too low. Count and maximum are exact; the maximum of values that
//! the kernel counted in the same buckets is as a percentile.

use crate::summary::Quantiles;

const SUB_BITS: u32 = 6;
const SUBS: u64 = 1 << SUB_BITS;
/// More than any value has.
const MAX_BUCKETS: usize = 3840;

/// Counts values of any size; empty it takes no memory, at most 30 KiB.
#[derive(Debug, Clone, Default)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    n: u64,
    max: u64,
}

impl Histogram {
    /// Counts one value in ns.
    pub(crate) fn add(&mut self, ns: u64) {
        let at = bucket(ns);
        if self.buckets.len() <= at {
            self.buckets.resize(at + 1, 0);
        }
        if let Some(count) = self.buckets.get_mut(at) {
            *count += 1;
        }
        self.n += 1;
        self.max = self.max.max(ns);
    }

    /// Counts values of which only the bucket is known: their maximum is its lower bound.
    pub(crate) fn add_bucket(&mut self, at: usize, n: u64) {
        if n == 0 || at >= MAX_BUCKETS {
            return;
        }
        if self.buckets.len() <= at {
            self.buckets.resize(at + 1, 0);
        }
        if let Some(count) = self.buckets.get_mut(at) {
            *count = count.saturating_add(n);
        }
        self.n = self.n.saturating_add(n);
        self.max = self.max.max(lower_bound(at));
    }

    /// The percentiles in µs.
    pub(crate) fn quantiles_us(&self) -> Quantiles {
        if self.n == 0 {
            return Quantiles::default();
        }
        let us = |percent| Some(self.percentile(percent) / 1000);
        Quantiles { n: self.n, p50: us(50), p90: us(90), p99: us(99), max: Some(self.max / 1000) }
    }

    fn percentile(&self, percent: u64) -> u64 {
        let rank = (self.n.saturating_mul(percent)).div_ceil(100).max(1);
        let mut below = 0;
        for (at, count) in self.buckets.iter().enumerate() {
            below += count;
            if below >= rank {
                return lower_bound(at);
            }
        }
        self.max
    }
}

fn bucket(value: u64) -> usize {
    let power = value.max(1).ilog2().max(SUB_BITS);
    let shift = power - SUB_BITS;
    let at = u64::from(shift) * SUBS + (value >> shift);
    usize::try_from(at).unwrap_or(usize::MAX)
}

const fn lower_bound(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    match bucket / SUBS {
        0 | 1 => bucket,
        octave => (bucket % SUBS + SUBS) << (octave - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_s_lower_bound_is_at_most_one_64th_too_low() {
        let mut value = 1_u64;
        while value < u64::MAX / 3 {
            let low = lower_bound(bucket(value));
            assert!(low <= value && value - low <= value / 64, "{value} became {low}");
            value += value / 16 + 1;
        }
        assert_eq!(lower_bound(bucket(u64::MAX)), 127 << 57);
        assert!(bucket(u64::MAX) < 3800);
    }

    #[test]
    fn percentiles_are_within_the_stated_error_and_the_maximum_is_exact() {
        let mut h = Histogram::default();
        for ms in 1..=1000 {
            h.add(ms * 1_000_000);
        }
        let q = h.quantiles_us();
        assert_eq!((q.n, q.max), (1000, Some(1_000_000)));
        for (found, exact) in [(q.p50, 500_000), (q.p90, 900_000), (q.p99, 990_000)] {
            let found = found.unwrap();
            assert!(found <= exact && exact - found <= exact / 64, "{found} for {exact}");
        }
    }

    #[test]
    fn nothing_counted_has_no_percentiles() {
        assert_eq!(Histogram::default().quantiles_us(), Quantiles::default());
    }
}
