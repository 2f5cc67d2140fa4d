//! What the capture itself cost.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::time::Duration;

use ktrace_bundle::manifest::Cost;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// Until now, with the longest turn of the event path.
pub fn cost(longest_turn: Duration) -> Cost {
    let longest_stall_ns = Some(u64::try_from(longest_turn.as_nanos()).unwrap_or(u64::MAX));
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return Cost { longest_stall_ns, ..Cost::default() } };
    Cost {
        longest_stall_ns,
        cpu_ns: (usage.user_time() + usage.system_time()).num_nanoseconds().unsigned_abs(),
        // `ru_maxrss` survives `execve(2)`: it may be the peak of the program that started this one
        peak_rss_bytes: peak_rss_bytes().unwrap_or_else(|| usage.max_rss().unsigned_abs() * 1024),
    }
}

/// Peak resident set of this program alone, from `/proc/self/status`.
fn peak_rss_bytes() -> Option<u64> {
    let lines = BufReader::new(File::open("/proc/self/status").ok()?).lines();
    lines.map_while(Result::ok).find_map(|line| kib_of_peak(&line))?.checked_mul(1024)
}

/// Of `VmHWM:     49152 kB`.
fn kib_of_peak(line: &str) -> Option<u64> {
    line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_read_in_kib() {
        assert_eq!(kib_of_peak("VmHWM:\t   49152 kB"), Some(49_152));
        for other in ["VmRSS:\t 49152 kB", "VmHWM:\t49152", "VmHWM:\t-1 kB", "VmHWM:", ""] {
            assert_eq!(kib_of_peak(other), None, "{other}");
        }
    }

    #[test]
    fn memory_that_was_used_stays_counted() {
        let before = peak_rss_bytes().unwrap();
        drop(std::hint::black_box(vec![1_u8; 64 << 20]));
        let after = peak_rss_bytes().unwrap();
        assert!(after >= 64 << 20 && after >= before, "{before} {after}");
    }
}
