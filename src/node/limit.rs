//! When a look has to end: its own deadline, or an earlier one that somebody who waits for it sets meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A deadline that can come nearer. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Limit {
    begin: Instant,
    micros: Arc<AtomicU64>,
}

impl Limit {
    /// So long from now.
    pub fn after(longest: Duration) -> Self {
        Self { begin: Instant::now(), micros: Arc::new(AtomicU64::new(micros(longest))) }
    }

    /// No longer than this from now.
    pub fn hurry(&self, longest: Duration) {
        self.micros.fetch_min(micros(self.begin.elapsed() + longest), Ordering::Relaxed);
    }

    /// When it is over.
    pub fn until(&self) -> Instant {
        self.begin + Duration::from_micros(self.micros.load(Ordering::Relaxed))
    }
}

fn micros(duration: Duration) -> u64 {
    // a look takes seconds at most
    u64::try_from(duration.as_micros()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_comes_nearer_and_never_goes_back() {
        let limit = Limit::after(Duration::from_secs(60));
        limit.clone().hurry(Duration::from_secs(5));
        limit.hurry(Duration::from_secs(30));
        let left = limit.until() - Instant::now();
        assert!(left <= Duration::from_secs(5) && left > Duration::from_secs(1), "{left:?}");
    }
}
