//! Samples into the table that `make bench` prints.

use std::io::Write;
use std::time::Duration;

use crate::load::{Kind, Slice};
use crate::stats::Summary;
use crate::tools::{Account, Tool};

/// Above this share of spread in the slices without a tool, the machine was not quiet enough to judge by.
const QUIET_SPREAD: f64 = 0.10;

/// A slice with a tool, and its neighbours without one.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Who watched.
    pub tool: Tool,
    /// Without a tool, just before.
    pub before: Slice,
    /// With the tool.
    pub with: Slice,
    /// Without a tool, just after.
    pub after: Slice,
    /// CPU time of the tool itself, µs per operation.
    pub own_us: f64,
    /// What it says about itself.
    pub account: Option<Account>,
}

impl Sample {
    fn added_wall(&self) -> f64 {
        self.with.wall_us - f64::midpoint(self.before.wall_us, self.after.wall_us)
    }

    fn added_cpu(&self) -> f64 {
        self.with.cpu_us - f64::midpoint(self.before.cpu_us, self.after.cpu_us)
    }
}

/// What one operation may cost more under ktrace, µs.
const fn goal_us(kind: Kind) -> f64 {
    match kind {
        Kind::Tcp => 4.0,
        Kind::Udp => 3.0,
    }
}

const fn title(kind: Kind) -> &'static str {
    match kind {
        Kind::Tcp => "TCP connect, echo 100 bytes, close",
        Kind::Udp => "UDP round trip of 100 bytes (2 sends, 2 receives)",
    }
}

/// Prints one table to stdout.
///
/// # Errors
/// Whatever stdout said.
pub fn print(
    kind: Kind,
    rounds: u32,
    time: Duration,
    samples: &[Sample],
    absent: &[(Tool, String)],
) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}: us per operation, {rounds} slices of {} ms each", title(kind), time.as_millis())?;
    writeln!(out, "  {:<26}{:>9}{:>9}   {:<18}{:>9}{:>10}", "", "median", "added", "(middle half)", "cpu", "own cpu")?;
    let base = Summary::of(samples.iter().flat_map(|s| [s.before.wall_us, s.after.wall_us]));
    if let Some(base) = base {
        writeln!(out, "  {:<26}{:>9.2}", "no tool", base.median)?;
    }
    for &tool in Tool::for_kind(kind) {
        match absent.iter().find(|(t, _)| *t == tool) {
            Some((_, why)) => writeln!(out, "  {:<26} not measured: {why}", tool.name())?,
            None => row(&mut out, tool, samples)?,
        }
    }
    verdict(&mut out, kind, base, samples)?;
    writeln!(out)
}

fn of(samples: &[Sample], tool: Tool, value: impl Fn(&Sample) -> f64) -> Option<Summary> {
    Summary::of(samples.iter().filter(|s| s.tool == tool).map(value))
}

fn row(out: &mut impl Write, tool: Tool, samples: &[Sample]) -> std::io::Result<()> {
    let (Some(wall), Some(added), Some(cpu), Some(own)) = (
        of(samples, tool, |s| s.with.wall_us),
        of(samples, tool, Sample::added_wall),
        of(samples, tool, Sample::added_cpu),
        of(samples, tool, |s| s.own_us),
    ) else {
        return Ok(());
    };
    let spread = format!("({:+.2} .. {:+.2})", added.low, added.high);
    writeln!(
        out,
        "  {:<26}{:>9.2}{:>+9.2}   {spread:<18}{:>+9.2}{:>10.2}",
        tool.name(),
        wall.median,
        added.median,
        cpu.median,
        own.median
    )
}

fn verdict(out: &mut impl Write, kind: Kind, base: Option<Summary>, samples: &[Sample]) -> std::io::Result<()> {
    if let (Some(base), Some(added)) = (base, of(samples, Tool::Ktrace, Sample::added_wall)) {
        writeln!(out, "  goal: ktrace adds at most {:.0} us: {}", goal_us(kind), judge(base, added, goal_us(kind)))?;
    }
    let accounts = || samples.iter().filter_map(|s| s.account);
    let (seen, lost) = accounts().fold((0, 0), |(seen, lost), a| (seen + a.seen, lost + a.lost));
    writeln!(out, "  ktrace lost {lost} of the {seen} events that it saw")
}

fn judge(base: Summary, added: Summary, goal_us: f64) -> String {
    if base.high - base.low > QUIET_SPREAD * base.median {
        let Summary { low, high, .. } = base;
        return format!("not judged, as the machine was not quiet (no tool: {low:.2} .. {high:.2} us)");
    }
    let met = if added.median <= goal_us { "met" } else { "not met" };
    format!("{met} ({:+.2} us)", added.median)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(wall_us: f64) -> Slice {
        Slice { wall_us, cpu_us: wall_us, ops: 1 }
    }

    #[test]
    fn a_sample_is_compared_with_the_mean_of_its_neighbours() {
        let tool = Tool::Ktrace;
        let (before, with, after) = (slice(30.0), slice(35.0), slice(32.0));
        let sample = Sample { tool, before, with, after, own_us: 0.0, account: None };
        assert_eq!((sample.added_wall(), sample.added_cpu()), (4.0, 4.0));
    }

    #[test]
    fn a_restless_machine_judges_nothing() {
        let base = Summary { median: 30.0, low: 28.0, high: 32.0 };
        let added = Summary { median: 1.0, low: 0.9, high: 1.1 };
        assert_eq!(judge(base, added, 4.0), "not judged, as the machine was not quiet (no tool: 28.00 .. 32.00 us)");
    }

    #[test]
    fn the_median_decides_on_a_quiet_machine() {
        let base = Summary { median: 30.0, low: 29.9, high: 30.1 };
        let added = Summary { median: 4.5, low: 3.9, high: 5.0 };
        assert_eq!(judge(base, added, 4.0), "not met (+4.50 us)");
    }
}
