//! What watching costs the watched: the added time per TCP connection and per UDP round trip, tool by tool.
//!
//! Each slice with a tool stands between two slices without any, and is compared with their mean: a machine
//! that gets slower or faster meanwhile changes both. Prints medians and the spread; judges only ktrace, by its
//! goals. Runs where `scripts/bench.sh` put it: as root, in network and mount namespaces of its own.

mod load;
mod stats;
mod table;
mod tools;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::load::{Kind, Server};
use crate::table::Sample;
use crate::tools::{Place, Tool, Watching};

/// Traffic before a measured slice, so that caches and clocks have settled.
const WARM_UP: Duration = Duration::from_millis(100);

#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Measure all tools and print the tables.
    Compare {
        /// The ktrace program to measure.
        #[arg(long)]
        ktrace: PathBuf,
        /// Empty folder for what the tools write, best in memory.
        #[arg(long)]
        work: PathBuf,
        /// Slices of each tool.
        #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=1000))]
        rounds: u32,
        /// Length of a slice in milliseconds.
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(10..=60_000))]
        slice_ms: u64,
    },
    /// Be the server (started by `compare`).
    #[command(hide = true)]
    Serve {
        /// What to serve.
        kind: Kind,
    },
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
enum BenchError {
    /// The benchmark itself failed.
    #[error("{what}: {source}")]
    Io {
        /// What it was doing.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A tool did not do its part.
    #[error("{name}: {why}")]
    Tool {
        /// Which one.
        name: &'static str,
        /// Its failure, with its last words.
        why: String,
    },
}

impl BenchError {
    fn io(what: &'static str) -> impl Fn(std::io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}

fn main() -> ExitCode {
    let done = match Args::parse().command {
        What::Serve { kind } => load::serve(kind).map_err(BenchError::io("serve")),
        What::Compare { ktrace, work, rounds, slice_ms } => {
            compare(&Place { work, ktrace }, rounds, Duration::from_millis(slice_ms))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(place: &Place, rounds: u32, time: Duration) -> Result<(), BenchError> {
    for kind in [Kind::Tcp, Kind::Udp] {
        let mut server = Server::start(kind)?;
        let mut samples = Vec::new();
        let mut absent = Vec::new();
        for _ in 0..rounds {
            for &tool in Tool::for_kind(kind) {
                if absent.iter().any(|(t, _)| *t == tool) {
                    continue;
                }
                match sample(tool, kind, place, &mut server, time) {
                    Ok(sample) => samples.push(sample),
                    // without the tool that it is about there is no result; without a peer there is
                    Err(BenchError::Tool { why, .. }) if tool != Tool::Ktrace => absent.push((tool, why)),
                    Err(error) => return Err(error),
                }
            }
        }
        table::print(kind, rounds, time, &samples, &absent).map_err(BenchError::io("print"))?;
    }
    Ok(())
}

/// One slice with the tool, between two without.
fn sample(tool: Tool, kind: Kind, place: &Place, server: &mut Server, time: Duration) -> Result<Sample, BenchError> {
    server.slice(WARM_UP)?;
    let before = server.slice(time)?;
    let watching = Watching::start(tool, kind, place, || server.slice(Duration::ZERO).map(|_| ()))?;
    server.slice(WARM_UP)?;
    let own_before = watching.cpu_time()?;
    let with = server.slice(time)?;
    let own = watching.cpu_time()?.saturating_sub(own_before);
    let account = watching.stop()?;
    server.slice(WARM_UP)?;
    let after = server.slice(time)?;
    Ok(Sample { tool, before, with, after, own_us: own.as_secs_f64() * 1e6 / with.ops as f64, account })
}
