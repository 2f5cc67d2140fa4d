//! Numbers for people: durations, shares and counts with their unit.

/// Nanoseconds in a second.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// Nanoseconds in a millisecond.
pub(crate) const MILLI: u64 = 1_000_000;

/// A duration in the unit that suits it, three digits at most: `812 µs`, `35.0 ms`, `1.02 s`.
pub(crate) fn duration(ns: u64) -> String {
    let (value, unit) = match ns {
        0..=999 => return format!("{ns} ns"),
        1_000..=999_999 => (ns as f64 / 1e3, "µs"),
        1_000_000..=999_999_999 => (ns as f64 / 1e6, "ms"),
        _ => (ns as f64 / 1e9, "s"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

/// A number of bytes in the unit that suits it: `812 B`, `35.0 KiB`, `1.02 GiB`.
pub(crate) fn bytes(n: u64) -> String {
    let (value, unit) = match n {
        0..=1023 => return format!("{n} B"),
        1024..=0xF_FFFF => (n as f64 / 1024.0, "KiB"),
        0x10_0000..=0x3FFF_FFFF => (n as f64 / 1_048_576.0, "MiB"),
        _ => (n as f64 / 1_073_741_824.0, "GiB"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

/// A share between 0 and 1 as percent.
pub(crate) fn percent(share: f64) -> String {
    let p = share * 100.0;
    if p == p.trunc() { format!("{p:.0} %") } else { format!("{p:.1} %") }
}

/// `part` of `whole` between 0 and 1; 0 of 0 is 0.
pub(crate) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 / whole as f64).min(1.0) }
}

/// `1 query`, `2 queries`.
pub(crate) fn count(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// The value below which `per_100` percent of the sorted values lie (nearest rank).
pub(crate) fn percentile(sorted: &[u64], per_100: usize) -> Option<u64> {
    let rank = (sorted.len() * per_100).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_carry_their_unit() {
        assert_eq!(duration(5), "5 ns");
        assert_eq!(duration(812_345), "812 µs");
        assert_eq!(duration(35_000_000), "35.0 ms");
        assert_eq!(duration(1_020_672_000), "1.02 s");
    }

    #[test]
    fn bytes_carry_their_unit() {
        assert_eq!([812, 35 << 10, 5 << 20, 8 << 30].map(bytes), ["812 B", "35.0 KiB", "5.00 MiB", "8.00 GiB"]);
    }

    #[test]
    fn a_share_of_nothing_is_nothing() {
        assert_eq!((share(0, 0), percent(share(1, 3))), (0.0, "33.3 %".to_owned()));
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let values: Vec<u64> = (1..=100).collect();
        assert_eq!(percentile(&values, 95), Some(95));
        assert_eq!(percentile(&[7], 95), Some(7));
        assert_eq!(percentile(&[], 50), None);
    }
}
