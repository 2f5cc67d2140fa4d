//! Pointers from a finding back to the lines that prove it.

/// Most line numbers that are kept; `total` goes on counting.
const MAX_SEQS: usize = 8;

/// The first few `seq` of the events behind a statement, and how many there were.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Evidence {
    seqs: Vec<u64>,
    total: u64,
}

impl Evidence {
    /// Evidence of these events.
    pub fn of(seqs: impl IntoIterator<Item = u64>) -> Self {
        let mut evidence = Self::default();
        seqs.into_iter().for_each(|s| evidence.add(s));
        evidence
    }

    /// Adds one event.
    pub fn add(&mut self, seq: u64) {
        self.total = self.total.saturating_add(1);
        if self.seqs.len() < MAX_SEQS && !self.seqs.contains(&seq) {
            self.seqs.push(seq);
        }
    }

    /// Adds another's events.
    pub fn merge(&mut self, other: &Self) {
        let total = self.total.saturating_add(other.total);
        other.seqs.iter().for_each(|s| self.add(*s));
        self.total = total;
    }

    /// Line numbers in `events.jsonl`, at most eight, rising.
    pub fn seqs(&self) -> Vec<u64> {
        let mut seqs = self.seqs.clone();
        seqs.sort_unstable();
        seqs
    }

    /// Number of events behind the statement.
    pub const fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_bounded_but_its_total_is_exact() {
        let mut evidence = Evidence::of(1..=6);
        evidence.merge(&Evidence::of(20..=40));
        assert_eq!((evidence.seqs(), evidence.total()), (vec![1, 2, 3, 4, 5, 6, 20, 21], 27));
    }
}
