//! Pointers from a finding back to the lines that prove it.

/// Most line numbers that are kept; `total` goes on counting.
const MAX_SEQS: usize = 8;

/// The first few `seq` of the events behind a statement, and how many there were.
///
/// A pointer wide: of hundreds of thousands of flows each has several, and hardly any is not empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Evidence(Option<Box<Inner>>);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Inner {
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
        let inner = self.0.get_or_insert_default();
        inner.total = inner.total.saturating_add(1);
        if inner.seqs.len() < MAX_SEQS && !inner.seqs.contains(&seq) {
            inner.seqs.push(seq);
        }
    }

    /// Adds another's events.
    pub fn merge(&mut self, other: &Self) {
        let Some(more) = &other.0 else { return };
        let total = self.total().saturating_add(more.total);
        more.seqs.iter().for_each(|s| self.add(*s));
        self.0.get_or_insert_default().total = total;
    }

    /// Line numbers in `events.jsonl`, at most eight, rising.
    pub fn seqs(&self) -> Vec<u64> {
        let mut seqs = self.0.as_ref().map(|inner| inner.seqs.clone()).unwrap_or_default();
        seqs.sort_unstable();
        seqs
    }

    /// Number of events behind the statement.
    pub fn total(&self) -> u64 {
        self.0.as_ref().map_or(0, |inner| inner.total)
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
