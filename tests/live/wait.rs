//! The only place where the live tests wait: for a condition, with a deadline. No test body sleeps.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// Long enough for everything that does not hang, on a busy machine; times [`PATIENCE`].
pub const DEADLINE: Duration = Duration::from_secs(30);

/// How many times slower than a real machine this one may be: `KTRACE_LIVE_PATIENCE`, for machines that are emulated.
/// Only limits of what may not hang are multiplied by it, never a time that a test is about.
pub static PATIENCE: LazyLock<u32> =
    LazyLock::new(|| std::env::var("KTRACE_LIVE_PATIENCE").map_or(1, |text| text.parse().unwrap()));

const STEP: Duration = Duration::from_millis(2);

/// Asks `probe` until it has an answer; panics with `what` when `within`, times [`PATIENCE`], is over.
pub fn until<T>(what: &str, within: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let within = within * *PATIENCE;
    let end = Instant::now() + within;
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(Instant::now() < end, "waited {within:?} in vain: {what}");
        std::thread::sleep(STEP);
    }
}

/// `CLOCK_BOOTTIME` in ns: the clock of `boot_ns`.
pub fn boot_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap();
    u64::try_from(now.tv_sec() * 1_000_000_000 + now.tv_nsec()).unwrap()
}

/// Lets a capture go on until this boot time: for rules that are about time itself, such as
/// "a query without an answer for 5 s".
pub fn until_boot_ns(at: u64) {
    let missing = Duration::from_nanos(at.saturating_sub(boot_ns()));
    until("the boot clock", missing + DEADLINE, || (boot_ns() >= at).then_some(()));
}
