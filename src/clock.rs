//! The kernel's clocks: boot time, which events carry, and UTC, which people read.

use chrono::{DateTime, Utc};
use ktrace_bundle::manifest::ClockSample;
use nix::time::{ClockId, clock_gettime};

/// `CLOCK_BOOTTIME` in nanoseconds; 0 if the kernel has no such clock, which Linux always has.
pub fn boot_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).ok().and_then(|t| nanoseconds(t.tv_sec(), t.tv_nsec())).unwrap_or(0)
}

fn nanoseconds(seconds: i64, rest: i64) -> Option<u64> {
    u64::try_from(seconds).ok()?.checked_mul(1_000_000_000)?.checked_add(u64::try_from(rest).ok()?)
}

/// Reads both clocks as close together as can be: UTC between two readings of boot time, best of five.
pub fn sample() -> ClockSample {
    let read = |_| {
        let before = boot_ns();
        let utc: DateTime<Utc> = Utc::now();
        let after = boot_ns();
        (after - before, ClockSample { boot_ns: before + (after - before) / 2, utc })
    };
    let best = (1..5).map(read).fold(read(0), |best, next| if next.0 < best.0 { next } else { best });
    best.1
}

/// How far UTC moved against boot time between two samples, ns.
pub fn step_ns(from: &ClockSample, to: &ClockSample) -> u64 {
    let utc = (to.utc - from.utc).num_nanoseconds().unwrap_or(i64::MAX);
    let boot = i64::try_from(to.boot_ns.saturating_sub(from.boot_ns)).unwrap_or(i64::MAX);
    utc.saturating_sub(boot).unsigned_abs()
}

/// Whether the kernel believes that its clock follows a reference (`adjtimex(2)`).
pub fn synchronized() -> Option<bool> {
    let mut timex = std::mem::MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: all-zero is a valid `timex`; with `modes` 0 the call only fills it in.
    let state = unsafe { libc::adjtimex(timex.as_mut_ptr()) };
    (state >= 0).then_some(state != libc::TIME_ERROR)
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn a_stepped_clock_shows_against_boot_time() {
        let from = ClockSample { boot_ns: 1_000, utc: DateTime::UNIX_EPOCH };
        let to = ClockSample { boot_ns: 3_000, utc: DateTime::UNIX_EPOCH - TimeDelta::hours(1) };
        assert_eq!(step_ns(&from, &to), 3_600_000_002_000);
    }

    #[test]
    fn both_clocks_are_read_close_together() {
        let (first, second) = (sample(), sample());
        assert!(second.boot_ns > first.boot_ns);
        assert!(step_ns(&first, &second) < 1_000_000, "{first:?} {second:?}");
    }
}
