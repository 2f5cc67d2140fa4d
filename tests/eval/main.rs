//! The fault corpus: scenarios that run live in network namespaces, each with what `analyze` must say first and must not say.
//!
//! `make eval` runs it with a fresh seed, `make eval SEED=n` again with the same addresses, ports, names, rates and times. Without
//! `--seed` it does nothing, so that `cargo test` stays short. It fails where a target is missed: see [`table::Totals`].

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a broken scenario fails by panicking"
)]
#![allow(clippy::print_stdout, reason = "its output is the result")]

#[allow(dead_code, reason = "the live tests use the rest")]
#[path = "../live/capture.rs"]
mod capture;
#[path = "../live/cgroups.rs"]
mod cgroups;
mod judge;
#[allow(dead_code, reason = "the live tests use the rest")]
#[path = "../live/net.rs"]
mod net;
#[allow(dead_code, reason = "the live tests use the rest")]
#[path = "../live/program.rs"]
mod program;
#[allow(dead_code, reason = "the live tests use the rest")]
#[path = "../live/requirements.rs"]
mod requirements;
mod rng;
mod scenarios;
mod stage;
mod subject;
mod table;
#[allow(dead_code, reason = "the live tests use the rest")]
#[path = "../live/wait.rs"]
mod wait;
#[allow(dead_code, reason = "the live tests use the rest")]
#[path = "../live/workdir.rs"]
mod workdir;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

use crate::capture::Bundle;
use crate::judge::Verdict;
use crate::rng::Rng;
use crate::scenarios::{Expect, Scenario};
use crate::stage::Stage;
use crate::subject::Report;
use crate::table::{Row, Totals};

/// Runs the fault corpus.
#[derive(Debug, Parser)]
struct Args {
    /// What addresses, ports, names, rates and times are drawn from.
    #[arg(long)]
    seed: u64,
    /// Only scenarios whose name contains one of these.
    #[arg(long)]
    only: Vec<String>,
    /// Print the scenarios and run none.
    #[arg(long)]
    list: bool,
    /// Put the results into the table of this page, beside those of other seeds.
    #[arg(long, value_name = "PAGE", num_args = 0..=1, default_missing_value = "docs/eval.md")]
    write: Option<PathBuf>,
    /// Where bundles of scenarios go that were not judged as expected.
    #[arg(long, default_value = concat!(env!("CARGO_TARGET_TMPDIR"), "/eval-failures"))]
    keep: PathBuf,
}

fn main() -> ExitCode {
    // libtest's own arguments reach every test target
    if !std::env::args().any(|arg| arg == "--seed" || arg.starts_with("--seed=")) {
        println!("eval: not run: `make eval` runs the fault corpus, in a quarter of an hour");
        return ExitCode::SUCCESS;
    }
    let args = Args::parse();
    let wanted = |s: &&Scenario| args.only.is_empty() || args.only.iter().any(|part| s.name.contains(part.as_str()));
    let chosen: Vec<_> = scenarios::all().filter(wanted).collect();
    if args.list {
        chosen.iter().for_each(|s| println!("{:40} {}", s.name, s.what));
        return ExitCode::SUCCESS;
    }
    if let Some(reason) = requirements::reason_to_skip() {
        println!("eval: not run: {reason}");
        return ExitCode::SUCCESS;
    }
    requirements::check().unwrap_or_else(|missing| panic!("{missing}"));
    let alone = requirements::have_the_machine().expect("a lock file");
    net::sweep();
    workdir::sweep();
    let code = run_all(&args, &chosen);
    drop(alone);
    code
}

fn run_all(args: &Args, chosen: &[&'static Scenario]) -> ExitCode {
    println!("seed {}: {} scenarios; `make eval SEED={0}` repeats it", args.seed, chosen.len());
    let begin = Instant::now();
    let mut rows = Vec::new();
    for (place, scenario) in chosen.iter().enumerate() {
        let begin = Instant::now();
        let row = run(scenario, args);
        println!("[{}/{}] {:5.1} s  {}", place + 1, chosen.len(), begin.elapsed().as_secs_f32(), row.line());
        rows.push(row);
    }
    let totals = Totals::of(&rows);
    println!("\n{totals}\n{:.0} s in all, seed {}", begin.elapsed().as_secs_f32(), args.seed);
    if let Some(page) = &args.write {
        table::write(page, args.seed, &rows).unwrap_or_else(|e| panic!("{}: {e}", page.display()));
    }
    if totals.is_met() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A scenario from its namespaces to its verdict; one that cannot be played has none.
fn run(scenario: &'static Scenario, args: &Args) -> Row {
    let played = catch_unwind(AssertUnwindSafe(|| {
        let has_twin = !matches!(scenario.expect, Expect::Healthy);
        let mut stage = Stage::new(Rng::of(args.seed, scenario.name), has_twin);
        let subjects = (scenario.play)(&mut stage);
        let (bundle, twin) = stage.close();
        let report = Report::of(&bundle.path);
        let twin_report = twin.as_ref().map(|twin| Report::of(&twin.path));
        let verdict = Verdict::of(scenario, &subjects, &stage.inodes(), &report, twin_report.as_ref());
        if !verdict.is_met() {
            keep(args, scenario, "", &bundle);
            twin.iter().for_each(|twin| keep(args, scenario, "-twin", twin));
        }
        let wanted = subjects.iter().map(subject::Subject::text).collect();
        (stage.drawn(), wanted, verdict)
    }));
    match played {
        Ok((drawn, wanted, verdict)) => Row { scenario, drawn, wanted, verdict: Some(verdict) },
        Err(_) => Row { scenario, drawn: String::new(), wanted: Vec::new(), verdict: None },
    }
}

fn keep(args: &Args, scenario: &Scenario, what: &str, bundle: &Bundle) {
    let path = args.keep.join(format!("{}-{}{what}.bundle.tgz", scenario.name, args.seed));
    let copy = || std::fs::create_dir_all(&args.keep).and_then(|()| std::fs::copy(&bundle.path, &path));
    match copy() {
        Ok(_) => println!("kept: {}", shown(&path)),
        Err(e) => println!("cannot keep {}: {e}", shown(&path)),
    }
}

fn shown(path: &Path) -> std::path::Display<'_> {
    path.display()
}
