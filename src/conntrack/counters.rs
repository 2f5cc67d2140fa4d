//! What the kernel counts of connection tracking in one network namespace.

/// Sums over all CPUs since the namespace began, and the table's size. What a kernel does not tell is absent. Each CPU's
/// part has 32 bits and wraps: see [`Counters::since`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Entries in the table now.
    pub count: Option<u64>,
    /// Most entries that it takes: the machine's, or the namespace's own where the kernel has one for each.
    pub max: Option<u64>,
    /// Look-ups that found one.
    pub found: Option<u64>,
    /// Packets that belong to no connection and may not begin one.
    pub invalid: Option<u64>,
    /// Entries put in. Of the packets' path only old kernels count this.
    pub insert: Option<u64>,
    /// Entries that could not be put in, mostly since another packet's entry has the same addresses.
    pub insert_failed: Option<u64>,
    /// Packets dropped: the table was full and nothing could be given up, or a new entry clashed with another.
    pub drop: Option<u64>,
    /// Entries that are not assured and were given up for new ones in a full table.
    pub early_drop: Option<u64>,
    /// Packets that are themselves broken, such as ICMP errors with a wrong checksum.
    pub error: Option<u64>,
    /// Look-ups that began anew since the table was resized or an entry moved.
    pub search_restart: Option<u64>,
    /// Clashes of new entries that were solved without a loss; from Linux 5.10 on.
    pub clash_resolve: Option<u64>,
    /// Entries refused for too long a hash chain; from Linux 5.15 on.
    pub chain_toolong: Option<u64>,
}

impl Counters {
    /// All that only grow.
    fn growing(&mut self) -> [&mut Option<u64>; 10] {
        [
            &mut self.found,
            &mut self.invalid,
            &mut self.insert,
            &mut self.insert_failed,
            &mut self.drop,
            &mut self.early_drop,
            &mut self.error,
            &mut self.search_restart,
            &mut self.clash_resolve,
            &mut self.chain_toolong,
        ]
    }

    /// What was counted between `earlier` and this; `count` and `max` stay. Right as long as less than 2^32 were counted.
    pub fn since(mut self, mut earlier: Self) -> Self {
        for (now, then) in self.growing().into_iter().zip(earlier.growing()) {
            *now = now.zip(*then).map(|(now, then)| now.wrapping_sub(then) & u64::from(u32::MAX));
        }
        self
    }
}

/// Adds a CPU's part.
pub fn add(sum: &mut Option<u64>, part: u64) {
    *sum = Some(sum.unwrap_or_default().saturating_add(part));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_wrapped_has_still_grown() {
        let earlier =
            Counters { drop: Some(u64::from(u32::MAX)), found: Some(3), count: Some(9), ..Counters::default() };
        let now = Counters { drop: Some(1), found: Some(5), invalid: Some(1), count: Some(2), ..Counters::default() };
        let grown = Counters { drop: Some(2), found: Some(2), count: Some(2), ..Counters::default() };
        assert_eq!(now.since(earlier), grown);
    }
}
