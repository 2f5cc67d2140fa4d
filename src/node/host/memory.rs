//! `/proc/meminfo` and `vmstat` → groups of counters.

use ktrace_bundle::node::{CounterGroup, Counters};

/// Names of `vmstat` that are kept begin so: they tell of memory that was looked for in vain.
const TELLING: [&str; 9] = [
    "allocstall",
    "compact_stall",
    "compact_fail",
    "oom_kill",
    "pgmajfault",
    "pgscan_direct",
    "pgsteal_direct",
    "pswp",
    "workingset_refault",
];
const MOST: usize = 256;

fn group(name: &str, counters: impl Iterator<Item = (String, u64)>) -> Vec<CounterGroup> {
    let counters: Counters = counters.filter(|(_, value)| *value > 0).take(MOST).collect();
    vec![CounterGroup { group: name.to_owned(), counters, ..CounterGroup::default() }]
}

/// `MemTotal:  1024 kB` → `meminfo`, bytes; without a unit it is a number of pages.
pub fn meminfo(text: &str) -> Vec<CounterGroup> {
    let pairs = text.lines().filter_map(|line| {
        let (name, rest) = line.split_once(':')?;
        let mut words = rest.split_ascii_whitespace();
        let value: u64 = words.next()?.parse().ok()?;
        let unit = if words.next() == Some("kB") { 1024 } else { 1 };
        Some((name.to_owned(), value.checked_mul(unit)?))
    });
    group("meminfo", pairs)
}

/// What of `vmstat` tells of pressure.
pub fn vmstat(text: &str) -> Vec<CounterGroup> {
    let pairs = text.lines().filter_map(|line| {
        let (name, value) = line.split_once(' ')?;
        let tells = TELLING.iter().any(|telling| name.starts_with(telling));
        tells.then(|| Some((name.to_owned(), value.trim().parse().ok()?)))?
    });
    group("vmstat", pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_in_bytes_and_what_tells_of_pressure_is_kept() {
        let groups = meminfo("MemTotal:       2048 kB\nHugePages_Total:       3\nOdd: x kB\nZero: 0 kB\n");
        let expected = [("HugePages_Total".to_owned(), 3), ("MemTotal".to_owned(), 2 << 20)];
        assert_eq!(groups[0].counters, expected.into());
        let groups = vmstat("nr_free_pages 99\nallocstall_normal 4\noom_kill 1\npgmajfault 0\nodd\n");
        assert_eq!(groups[0].counters, [("allocstall_normal".to_owned(), 4), ("oom_kill".to_owned(), 1)].into());
    }
}
