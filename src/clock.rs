//! The kernel's clocks: boot time, which events carry, and UTC, which people read.
//!
//! Events are dated by one mapping, taken at the start, so their times rise with boot time whatever happens to the
//! wall clock; that it was stepped is noticed and told.

use std::sync::OnceLock;

use chrono::{DateTime, TimeDelta, Utc};
use ktrace_bundle::manifest::{ClockSample, Clocks};
use nix::time::{ClockId, clock_gettime};

/// UTC that moves this far against boot time between two readings was stepped: slewing moves it by 50 ms in half a
/// second at the very most (`adjtimex` with the largest tick), and by 0.25 ms at the rate of NTP.
const STEP_NS: u64 = 100_000_000;
/// Steps of which the readings on both sides are kept.
const MAX_STEPS_KEPT: usize = 16;

/// `CLOCK_BOOTTIME` of the machine in nanoseconds, as programs in the kernel read it, also from within a time
/// namespace; 0 if the kernel has no such clock, which Linux always has.
pub fn boot_ns() -> u64 {
    let here = clock_gettime(ClockId::CLOCK_BOOTTIME).ok().and_then(|t| nanoseconds(t.tv_sec(), t.tv_nsec()));
    here.unwrap_or(0).saturating_add_signed(offset_ns().saturating_neg())
}

/// What this process's time namespace adds to boot time, ns.
pub fn offset_ns() -> i64 {
    static OFFSET: OnceLock<i64> = OnceLock::new();
    *OFFSET.get_or_init(|| {
        let own = std::fs::read_link("/proc/self/ns/time").ok();
        // what the file says is about the children's namespace
        if own.is_none() || own != std::fs::read_link("/proc/self/ns/time_for_children").ok() {
            return 0;
        }
        boottime_offset_ns(&std::fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default())
    })
}

/// What this time namespace adds to boot time, from `/proc/self/timens_offsets`: lines of clock, seconds,
/// nanoseconds. 0 if it does not say.
fn boottime_offset_ns(text: &str) -> i64 {
    let of = |line: &str| -> Option<i64> {
        let mut words = line.split_whitespace();
        // kernels before 5.7 write the clock's number
        words.next().filter(|clock| ["boottime", "7"].contains(clock))?;
        let (seconds, rest): (i64, i64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        seconds.checked_mul(1_000_000_000)?.checked_add(rest)
    };
    text.lines().find_map(of).unwrap_or(0)
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

/// UTC at a boot time, by one reading of both.
pub fn utc_of(sample: &ClockSample, boot_ns: u64) -> DateTime<Utc> {
    let ns = i64::try_from(i128::from(boot_ns) - i128::from(sample.boot_ns)).unwrap_or(0);
    sample.utc.checked_add_signed(TimeDelta::nanoseconds(ns)).unwrap_or(sample.utc)
}

/// How far UTC moved against boot time between two samples, ns.
fn step_ns(from: &ClockSample, to: &ClockSample) -> u64 {
    let utc = (to.utc - from.utc).num_nanoseconds().unwrap_or(i64::MAX);
    let boot = i64::try_from(to.boot_ns.saturating_sub(from.boot_ns)).unwrap_or(i64::MAX);
    utc.saturating_sub(boot).unsigned_abs()
}

/// The readings of one capture. Memory does not grow with their number.
#[derive(Debug)]
pub struct Readings {
    first: ClockSample,
    last: ClockSample,
    around_steps: Vec<ClockSample>,
    max_step_ns: u64,
    step_count: u64,
}

impl Readings {
    /// Starts with the reading that dates all events.
    pub fn new(first: ClockSample) -> Self {
        Self { last: first.clone(), first, around_steps: Vec::new(), max_step_ns: 0, step_count: 0 }
    }

    /// The reading that dates all events.
    pub const fn first(&self) -> &ClockSample {
        &self.first
    }

    /// Takes the next reading.
    pub fn take(&mut self, next: ClockSample) {
        let step = step_ns(&self.last, &next);
        self.max_step_ns = self.max_step_ns.max(step);
        if step >= STEP_NS {
            self.step_count += 1;
            if self.around_steps.len() < 2 * MAX_STEPS_KEPT {
                self.around_steps.extend([self.last.clone(), next.clone()]);
            }
        }
        self.last = next;
    }

    /// Enters what was read.
    pub fn finish(self, clocks: &mut Clocks) {
        let mut samples = vec![self.first];
        samples.extend(self.around_steps);
        samples.push(self.last);
        samples.dedup();
        clocks.samples = samples;
        clocks.max_step_ns = self.max_step_ns;
        clocks.step_count = Some(self.step_count);
    }
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
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// A reading `seconds` into a capture, with UTC off by `off_ms`.
    fn at(seconds: u64, off_ms: i64) -> ClockSample {
        let boot_ns = 100 * SECOND + seconds * SECOND;
        let utc = DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds.try_into().unwrap());
        ClockSample { boot_ns, utc: utc + TimeDelta::milliseconds(off_ms) }
    }

    fn clocks(readings: &[ClockSample]) -> Clocks {
        let mut taken = Readings::new(readings[0].clone());
        readings[1..].iter().for_each(|r| taken.take(r.clone()));
        let mut clocks = Clocks::default();
        taken.finish(&mut clocks);
        clocks
    }

    #[test]
    fn a_stepped_clock_shows_against_boot_time() {
        let from = ClockSample { boot_ns: 1_000, utc: DateTime::UNIX_EPOCH };
        let to = ClockSample { boot_ns: 3_000, utc: DateTime::UNIX_EPOCH - TimeDelta::hours(1) };
        assert_eq!(step_ns(&from, &to), 3_600_000_002_000);
    }

    #[test]
    fn steps_that_cancel_out_are_both_noticed() {
        let hour = 3_600_000;
        let readings = [at(0, 0), at(1, 0), at(2, hour), at(3, hour), at(4, 0), at(5, 0)];
        let clocks = clocks(&readings);
        assert_eq!((clocks.step_count, clocks.max_step_ns), (Some(2), 3600 * SECOND));
        assert_eq!(clocks.samples, [at(0, 0), at(1, 0), at(2, hour), at(3, hour), at(4, 0), at(5, 0)]);
    }

    #[test]
    fn a_slewed_clock_is_not_stepped() {
        let readings: Vec<_> = (0..1000).map(|s| at(s, i64::try_from(s).unwrap() / 2)).collect();
        let clocks = clocks(&readings);
        assert_eq!((clocks.step_count, clocks.max_step_ns), (Some(0), 1_000_000));
        assert_eq!(clocks.samples, [at(0, 0), at(999, 499)]);
    }

    #[test]
    fn a_clock_that_never_rests_fills_no_memory() {
        let clocks = clocks(&(0..10_000).map(|s| at(s, if s % 2 == 0 { 0 } else { 500 })).collect::<Vec<_>>());
        assert_eq!(clocks.step_count, Some(9_999));
        assert!(clocks.samples.len() <= 2 * MAX_STEPS_KEPT + 2);
    }

    #[test]
    fn times_of_events_follow_the_first_reading_only() {
        let first = at(0, 0);
        assert_eq!(utc_of(&first, 107 * SECOND), DateTime::UNIX_EPOCH + TimeDelta::seconds(7));
        assert_eq!(utc_of(&first, 99 * SECOND), DateTime::UNIX_EPOCH - TimeDelta::seconds(1));
    }

    #[test]
    fn a_time_namespace_says_what_it_adds() {
        let hour = 3600 * 1_000_000_000;
        assert_eq!(boottime_offset_ns("monotonic           0         0\nboottime         3600        5\n"), hour + 5);
        assert_eq!(boottime_offset_ns("monotonic 7 0\nboottime -3600 0\n"), -hour);
        assert_eq!(boottime_offset_ns("1 0 0\n7 3600 0\n"), hour);
        for odd in ["", "boottime", "boottime x 0", "boottime 1", "boottime 9223372036854775807 0"] {
            assert_eq!(boottime_offset_ns(odd), 0, "{odd}");
        }
    }

    #[test]
    fn both_clocks_are_read_close_together() {
        let (first, second) = (sample(), sample());
        assert!(second.boot_ns > first.boot_ns);
        assert!(step_ns(&first, &second) < 1_000_000, "{first:?} {second:?}");
    }
}
