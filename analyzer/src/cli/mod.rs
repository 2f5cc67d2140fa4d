//! The command line of `analyze`: arguments → what to read and what to say about it.

mod ask;
mod events;
mod explain;
mod kb;
mod node;
mod schema;
mod story;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use ktrace_bundle::reader::{self, Limits, ReadReport};

use crate::capture::{Builder, Capture};
use crate::error::{Error, Exit};
use crate::finding::Severity;
use crate::kb::Kb;
use crate::report::{Report, json, markdown, text};

/// Where bundles are looked for when none is named.
const OUT_DIR: &str = "./out";

const EXAMPLES: &str = "\
Examples:
  analyze                                        the newest bundle in ./out
  analyze out/ktrace.node-1.20260124T215754Z.bundle.tgz
  analyze BUNDLE --format json --fail-on warning for a pipeline
  analyze ask BUNDLE 'why is postgres slow?'     what is known about a question
  analyze kb show dns.no_reply                   how a rule decides
  analyze BUNDLE --set dns.slow.p95_ms=50        judge by another threshold
  analyze events BUNDLE --seq 48213              the line behind `#48213`
  analyze story BUNDLE --seq 48213               what became of the connection of that line
  analyze story BUNDLE --pod shop/web-1 --flow 10.96.0.80:80
  analyze node BUNDLE                            the machine's network and pressure, what is unusual first
  dmesg | analyze explain -                      what the kernel said
  analyze events BUNDLE --where type=udp_send --where rport=53 --limit 5

Exit codes:
  0 done   1 nothing readable   2 usage   5 the bundle is cut, not sealed or does not agree with itself
  with --fail-on: 3 a critical finding   4 a warning   (5 comes first)";

/// Read a ktrace bundle and name the cause.
#[derive(Debug, Parser)]
#[command(name = "analyze", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    analyze: Analyze,
}

#[derive(Debug, Args)]
struct Analyze {
    /// A `.bundle.tgz`, a bundle directory, a bare `events.jsonl`, or a directory of bundles, of which the newest is
    /// read [default: ./out]
    bundle: Option<PathBuf>,
    /// How to write the report
    #[arg(long, value_enum, default_value_t = ReportFormat::Text)]
    format: ReportFormat,
    /// Exit with 3 on a critical finding, and with `warning` also with 4 on a warning
    #[arg(long, value_name = "SEVERITY", value_enum)]
    fail_on: Option<FailOn>,
    /// Judge by another threshold than the release's, as in `dns.slow.p95_ms=50`; may be repeated
    #[arg(long, value_name = "RULE.THRESHOLD=NUMBER")]
    set: Vec<String>,
    /// Report every finding in full
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print events of a bundle, one line of JSON each
    Events(events::Events),
    /// Say what lines of the kernel's log mean
    Explain(explain::Explain),
    /// Say what the machine looked like, what is unusual first
    Node(node::Node),
    /// Answer a question in plain words from a bundle, or say what would have to be captured
    Ask(ask::Ask),
    /// List the rules, show what one knows, or find those that some words are about
    #[command(subcommand)]
    Kb(kb::KbCommand),
    /// Tell connections and DNS attempts as timelines: who, what went wrong on the way, and who closed first
    Story(story::Story),
    /// Print a JSON Schema: of a bundle, or of findings
    Schema(schema::Schema),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ReportFormat {
    Text,
    Json,
    /// For a ticket: 3,000 characters at most, unless `--all`
    Markdown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// From which severity on findings decide the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FailOn {
    /// Warnings and what is worse.
    Warning,
    /// Critical findings.
    Critical,
}

impl FailOn {
    /// The exit code for findings of which this is the worst; `None` if there is nothing to fail on.
    pub const fn exit(self, worst: Option<Severity>) -> Option<Exit> {
        match (worst, self) {
            (Some(Severity::Critical), _) => Some(Exit::Critical),
            (Some(Severity::Warning), Self::Warning) => Some(Exit::Warning),
            _ => None,
        }
    }
}

/// Runs the program.
///
/// # Errors
/// [`Error`] when there is nothing to report; the caller prints it.
pub fn run(args: impl IntoIterator<Item = OsString>, out: &mut dyn Write, err: &mut dyn Write) -> Result<Exit, Error> {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => return usage(&e, out, err),
    };
    match cli.command {
        Some(Command::Events(args)) => events::run(&args, out, err),
        Some(Command::Explain(args)) => explain::run(&args, out, err),
        Some(Command::Node(args)) => node::run(&args, out, err),
        Some(Command::Ask(args)) => ask::run(&args, out, err),
        Some(Command::Kb(command)) => kb::run(&command, out, err),
        Some(Command::Story(args)) => story::run(&args, out, err),
        Some(Command::Schema(args)) => schema::run(&args, out),
        None => analyze(&cli.analyze, out, err),
    }
}

/// Help and version go to stdout and are no errors; everything else is one, with a hint.
fn usage(e: &clap::Error, out: &mut dyn Write, err: &mut dyn Write) -> Result<Exit, Error> {
    let text = e.render();
    if e.use_stderr() {
        write!(err, "{text}")?;
        writeln!(err, "hint: `analyze --help` shows examples")?;
        return Ok(Exit::Usage);
    }
    write!(out, "{text}")?;
    Ok(Exit::Done)
}

fn analyze(args: &Analyze, out: &mut dyn Write, err: &mut dyn Write) -> Result<Exit, Error> {
    let kb = knowledge(&args.set)?;
    let path = bundle(args.bundle.as_deref(), err)?;
    let (capture, read) = load(&path, &kb)?;
    let source = path.to_string_lossy();
    let report = Report::new(&capture, &kb, &source)?;
    match args.format {
        ReportFormat::Text => text::write(out, &report, args.all)?,
        ReportFormat::Json => json::write(out, &report, args.all)?,
        ReportFormat::Markdown => markdown::write(out, &report, args.all)?,
    }
    out.flush()?;
    talk(&capture, &read, err)?;
    Ok(exit(&capture, &report, args.fail_on))
}

/// What the rules know, with these thresholds changed.
fn knowledge(assignments: &[String]) -> Result<Kb, Error> {
    let mut kb = Kb::new()?;
    assignments.iter().try_for_each(|assignment| kb.set(assignment))?;
    Ok(kb)
}

/// Reads a whole bundle into the model.
///
/// # Errors
/// [`Error::Read`] if this is no bundle.
pub fn load(path: &Path, kb: &Kb) -> Result<(Capture, ReadReport), Error> {
    let mut builder = Builder::new(kb.cutoffs()?);
    let read = reader::read(path, &Limits::default(), &mut |record| builder.push(record)).map_err(Error::Read)?;
    Ok((builder.finish(&read), read))
}

/// The bundle that was named; of a directory of bundles the newest, which is then told.
fn bundle(named: Option<&Path>, err: &mut dyn Write) -> Result<PathBuf, Error> {
    let newest = match named {
        Some(path) => match reader::newest_bundle(path) {
            Some(newest) => newest,
            None => return Ok(path.to_owned()),
        },
        None => reader::newest_bundle(Path::new(OUT_DIR)).ok_or_else(|| Error::NoBundle(OUT_DIR.into()))?,
    };
    writeln!(err, "note: reading `{}`", crate::escape::line(&newest.to_string_lossy()))?;
    Ok(newest)
}

fn exit(capture: &Capture, report: &Report<'_>, fail_on: Option<FailOn>) -> Exit {
    if is_cut(capture) {
        return Exit::Cut;
    }
    fail_on.and_then(|fail_on| fail_on.exit(report.worst())).unwrap_or(Exit::Done)
}

/// What the reader had to say, on stderr.
fn talk(capture: &Capture, read: &ReadReport, err: &mut dyn Write) -> Result<(), Error> {
    if let Some(cut) = &capture.coverage.cut {
        writeln!(err, "warning: {cut}")?;
    }
    for sentence in &capture.coverage.integrity {
        writeln!(err, "warning: {sentence}")?;
    }
    for bad in &read.first_bad_lines {
        let error = crate::escape::line(&bad.error);
        writeln!(err, "warning: line {} of `{}` cannot be read: {error}", bad.line, bad.member)?;
    }
    let unknown = read.unknown_types.values().fold(0_u64, |a, b| a.saturating_add(*b));
    if unknown > 0 || read.unknown_members > 0 {
        writeln!(err, "note: skipped {unknown} events of unknown types and {} unknown members", read.unknown_members)?;
    }
    Ok(())
}

/// Whether the bundle is not whole, or does not agree with itself.
const fn is_cut(capture: &Capture) -> bool {
    capture.coverage.cut.is_some() || !capture.coverage.integrity.is_empty()
}
