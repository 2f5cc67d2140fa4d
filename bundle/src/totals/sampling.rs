//! Sums over a sample of the flows → estimates for all of them, with their error.
//!
//! Each flow is in the sample with the probability 1/N, whole or not at all. Then N·Σx estimates the sum over all
//! flows without bias, and √(N·(N−1)·Σx²) its standard error, x being what one sampled flow adds (Horvitz and Thompson,
//! for Bernoulli sampling).

use std::collections::HashMap;

use crate::event::{Datagram, Endpoint, Event, Role};
use crate::summary::{Estimate, SamplingSummary};

/// Flows that are told apart.
const MAX_FLOWS: usize = 1 << 16;

/// What each sampled flow adds: sends, receives, bytes out, bytes in.
type Sums = [u64; 4];

/// The sampled flows so far.
#[derive(Debug, Default)]
pub(super) struct Sampling {
    one_in: u64,
    flows: HashMap<Key, Sums>,
    /// What came when the table was full: in the sums, without an error of its own.
    rest: Sums,
    overflow: bool,
}

/// What the kernel side draws lots for: a client's socket, or one remote end of a server's.
type Key = (u32, Option<u64>, Option<Endpoint>);

impl Sampling {
    /// Adds a datagram that stands for others; any other is left alone.
    pub(super) fn push(&mut self, event: &Event, d: &Datagram, is_sent: bool) {
        let Some(one_in) = d.sample else { return };
        self.one_in = one_in;
        let remote = (event.id.role == Some(Role::Server)).then_some(event.id.remote);
        let key = (event.id.netns, event.id.socket, remote);
        let sums = if self.flows.len() < MAX_FLOWS || self.flows.contains_key(&key) {
            self.flows.entry(key).or_default()
        } else {
            self.overflow = true;
            &mut self.rest
        };
        let bytes = d.bytes.unwrap_or(0);
        let more = if is_sent { [1, 0, bytes, 0] } else { [0, 1, 0, bytes] };
        sums.iter_mut().zip(more).for_each(|(sum, n)| *sum = sum.saturating_add(n));
    }

    /// The estimates; `None` if nothing was sampled.
    pub(super) fn summary(&self) -> Option<SamplingSummary> {
        (self.one_in > 1).then(|| {
            let [udp_send, udp_recv, tx_bytes, rx_bytes] = [0, 1, 2, 3].map(|at| self.estimate(at));
            SamplingSummary {
                one_in: self.one_in,
                flow_count: self.flows.len() as u64,
                error_incomplete: self.overflow,
                udp_send,
                udp_recv,
                tx_bytes,
                rx_bytes,
            }
        })
    }

    fn estimate(&self, at: usize) -> Estimate {
        let of = |sums: &Sums| sums.get(at).copied().unwrap_or(0);
        let measured = self.flows.values().map(of).chain([of(&self.rest)]).fold(0, u64::saturating_add);
        let squares: f64 = self.flows.values().map(|sums| (of(sums) as f64).powi(2)).sum();
        let n = self.one_in as f64;
        Estimate {
            measured,
            estimated: measured.saturating_mul(self.one_in),
            // what is beyond the range of a u64 saturates
            standard_error: (n * (n - 1.0) * squares).sqrt().round() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::an_event;

    fn sampled(cookie: u64, bytes: u64, one_in: u64) -> (Event, Datagram) {
        let d = Datagram { bytes: Some(bytes), sample: Some(one_in), ..Datagram::default() };
        (an_event().socket(cookie).udp_send().build(), d)
    }

    #[test]
    fn sums_are_measured_and_estimated_with_their_error() {
        let mut sampling = Sampling::default();
        for (cookie, bytes) in [(1, 10), (1, 20), (2, 40)] {
            let (event, d) = sampled(cookie, bytes, 10);
            sampling.push(&event, &d, true);
        }
        let summary = sampling.summary().unwrap();
        assert_eq!((summary.one_in, summary.flow_count), (10, 2));
        // sends: x = 2, 1, so the error is sqrt(90 * 5) = 21.2; bytes: x = 30, 40, sqrt(90 * 2500) = 474.3
        assert_eq!(summary.udp_send, Estimate { measured: 3, estimated: 30, standard_error: 21 });
        assert_eq!(summary.tx_bytes, Estimate { measured: 70, estimated: 700, standard_error: 474 });
        assert_eq!(summary.udp_recv, Estimate::default());
    }

    #[test]
    fn without_a_sample_there_is_nothing_to_estimate() {
        let mut sampling = Sampling::default();
        let (event, _) = sampled(1, 10, 1);
        sampling.push(&event, &Datagram { bytes: Some(10), ..Datagram::default() }, true);
        assert_eq!(sampling.summary(), None);
    }

    #[test]
    fn over_many_draws_the_truth_lies_within_four_errors_almost_always() {
        let mut outside = 0;
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        for _ in 0..200 {
            let (mut sampling, mut truth) = (Sampling::default(), 0);
            for cookie in 0..500 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let bytes = 100 + (state >> 40) % 900;
                truth += bytes;
                if (state >> 33).is_multiple_of(10) {
                    let (event, d) = sampled(cookie, bytes, 10);
                    sampling.push(&event, &d, true);
                }
            }
            let bytes = sampling.summary().unwrap().tx_bytes;
            outside += u32::from(bytes.estimated.abs_diff(truth) > 4 * bytes.standard_error);
        }
        assert!(outside <= 2, "{outside} of 200");
    }
}
