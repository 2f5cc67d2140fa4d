//! What the kernel is asked for by more than one kind of traffic: identity, clock, output, and the two guards
//! that keep a program from outliving its test (a death signal and an alarm).

use std::io::{self, Write};

use ktrace_traffic::Truth;
use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{alarm, gettid};

/// Dies with the parent, and after `limit_s` seconds in any case. Not inherited by `fork`: call it again there.
pub fn guard(limit_s: u32) -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    alarm::set(limit_s);
    Ok(())
}

/// Own process id.
pub fn pid() -> u32 {
    std::process::id()
}

/// Own thread id.
pub fn tid() -> u32 {
    u32::try_from(gettid().as_raw()).unwrap_or_default()
}

/// `CLOCK_BOOTTIME` in ns.
pub fn boot_ns() -> io::Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME)?;
    let ns = i128::from(now.tv_sec()) * 1_000_000_000 + i128::from(now.tv_nsec());
    u64::try_from(ns).map_err(io::Error::other)
}

/// Prints one line with one `write(2)`, so that the lines of several processes never mix.
pub fn tell(truth: &Truth) -> io::Result<()> {
    let mut line = serde_json::to_vec(truth)?;
    line.push(b'\n');
    io::stdout().lock().write_all(&line)?;
    io::stdout().lock().flush()
}
