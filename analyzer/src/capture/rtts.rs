//! How long the replies of one UDP flow took.

use ktrace_bundle::event::Datagram;

use super::evidence::Evidence;
use crate::units::MILLI;

/// From where on the model keeps the lines of what is slow, as it cannot keep all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cutoffs {
    /// Replies at least this slow count as slow, ns.
    pub slow_reply_ns: u64,
    /// Replies at least this slow count as very slow, ns.
    pub very_slow_reply_ns: u64,
}

/// What comes so long after its question came with a resolver's retry after its default of 5 s.
pub const RETRY_CLUSTER_NS: std::ops::RangeInclusive<u64> = 4_900 * MILLI..=5_500 * MILLI;
/// Round trips of one flow that are kept one by one.
pub const MAX_SAMPLES: usize = 64;

/// Replies whose round trip time is exact.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rtts {
    /// How many there were.
    pub n: u64,
    /// Slow ones.
    pub slow: Evidence,
    /// Very slow ones.
    pub very_slow: Evidence,
    /// About 5 s: the resolver had asked again.
    pub near_5s: u64,
    /// The slowest, ns.
    pub max_ns: u64,
    /// Line of the slowest.
    pub slowest: Option<u64>,
    /// Some of them, spread evenly over all, µs.
    pub samples: Vec<u32>,
    /// One sample stands for two to the power of this many.
    halvings: u32,
}

impl Rtts {
    /// Adds the reply of this line, if its time is exact.
    pub(super) fn push(&mut self, seq: u64, datagram: &Datagram, cutoffs: Cutoffs) {
        let Some(rtt) = datagram.dns_rtt_ns else { return };
        self.sample(rtt);
        self.n = self.n.saturating_add(1);
        if self.slowest.is_none() || rtt > self.max_ns {
            (self.max_ns, self.slowest) = (rtt, Some(seq));
        }
        self.near_5s = self.near_5s.saturating_add(u64::from(RETRY_CLUSTER_NS.contains(&rtt)));
        if rtt >= cutoffs.slow_reply_ns {
            self.slow.add(seq);
        }
        if rtt >= cutoffs.very_slow_reply_ns {
            self.very_slow.add(seq);
        }
    }

    /// Of a long flow every second, fourth, … reply is kept.
    fn sample(&mut self, rtt_ns: u64) {
        if !self.n.is_multiple_of(1 << self.halvings.min(63)) {
            return;
        }
        if self.samples.len() >= MAX_SAMPLES {
            let mut is_kept = false;
            self.samples.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
            self.halvings += 1;
        }
        self.samples.push(u32::try_from(rtt_ns / 1000).unwrap_or(u32::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_a_long_flow_are_few_and_spread_over_all_of_it() {
        let cutoffs = Cutoffs { slow_reply_ns: 5_000_000, very_slow_reply_ns: 9_000_000 };
        let mut rtts = Rtts::default();
        for n in 0..10_000_u64 {
            rtts.push(n, &Datagram { dns_rtt_ns: Some(n * 1000), ..Datagram::default() }, cutoffs);
        }
        assert_eq!((rtts.n, rtts.slowest, rtts.max_ns), (10_000, Some(9_999), 9_999_000));
        assert!((MAX_SAMPLES / 2..=MAX_SAMPLES).contains(&rtts.samples.len()), "{:?}", rtts.samples.len());
        assert_eq!((rtts.slow.total(), rtts.very_slow.total()), (5_000, 1_000));
        assert!(rtts.samples.is_sorted());
        assert!(rtts.samples[0] < 300 && rtts.samples.last().is_some_and(|s| *s > 9_000), "{:?}", rtts.samples);
    }
}
