//! The command line of `ktrace doctor`: flags of a capture with another default or two, and its own.

use clap::builder::{OsStr, Resettable};
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Args, Command, ValueEnum};
use ktrace_analyzer::cli::FailOn;

use super::CaptureArgs;
use super::layers::Layer;
use crate::error::Hint;

/// Name of the command.
pub const NAME: &str = "doctor";
const DURATION: &str = "15s";
/// Flags that its help lists, besides its own; all others work, too.
const LISTED: [&str; 14] = [
    "duration",
    "dns_only",
    "ports",
    "cidr",
    "netns",
    "pid",
    "comm",
    "cgroup",
    "namespace",
    "pod",
    "container",
    "out_dir",
    "degraded_ok",
    "quiet",
];
const REPORT: &str = "Report";

/// What its help says below the flags.
pub const AFTER: &str = "\
Examples:
  ktrace doctor                          what is wrong here? (15 s, or less once it is clear)
  ktrace doctor --dns-only               with DNS, to begin with
  ktrace doctor --namespace shop         with the pods of a namespace
  ktrace doctor --duration 60s --end-early=false --out-dir /var/tmp/incident
                                         look longer, whatever is found, and keep the evidence
  ktrace doctor --format json --fail-on critical   for a pipeline

All other flags of a capture work as well: see `ktrace --help`. The report is on
stdout, how the capture goes on stderr. The capture ends early once a critical
finding stood at two looks in a row and nothing new came, after 6.5 s at the
earliest, so that what was asked in the first second has been judged; the report
says so. It is made of the sealed bundle, which is then removed, unless
`--out-dir` says where to keep it. A signal ends the capture early, too.

Exit codes, as of `analyze`:
  0  a report, whatever it says
  1  nothing could be captured
  2  usage
  3  with `--fail-on`: a critical finding
  4  with `--fail-on warning`: a warning, and nothing worse
  5  a report, but something that was asked for could not be recorded (0 with
     `--degraded-ok`)";

/// The flags of `ktrace doctor`.
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub struct DoctorArgs {
    /// End once the evidence suffices; with `false` watch for the whole duration
    #[arg(long, default_value_t = true, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true", help_heading = REPORT)]
    pub end_early: bool,

    /// A screen for a person, or findings for a program
    #[arg(long, value_enum, default_value_t = Format::Text, help_heading = REPORT)]
    pub format: Format,

    /// Exit with 3 on a critical finding, and with `warning` also with 4 on a warning
    #[arg(long, value_name = "SEVERITY", value_enum, help_heading = REPORT)]
    pub fail_on: Option<FailOn>,

    /// The flags of the capture.
    #[command(flatten)]
    pub capture: CaptureArgs,
}

/// How the report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One screen.
    Text,
    /// `ktrace-findings`, as of `analyze --format json`.
    Json,
}

/// What a capture can do, and `ktrace doctor` cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotHere {
    /// `--stdout`.
    #[error("`ktrace doctor` writes its report to stdout, and no events")]
    Events,
    /// `-- CMD`.
    #[error("`ktrace doctor` runs no command")]
    Command,
}

impl Hint for NotHere {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Events => "leave `--stdout` out, or capture with `ktrace --stdout`".into(),
            Self::Command => "capture while it runs with `ktrace -- CMD`, then `analyze` the bundle".into(),
        })
    }
}

impl NotHere {
    /// The first such thing that was asked for.
    pub fn of(matches: &ArgMatches) -> Option<Self> {
        let given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
        [("stdout", Self::Events), ("command", Self::Command)].into_iter().find_map(|(id, it)| given(id).then_some(it))
    }
}

/// The command as it is asked, from the one that takes all flags of a capture.
pub fn shape(command: Command) -> Command {
    let own = |id: &str| ["end_early", "format", "fail_on", "help"].contains(&id);
    let command = command.mut_args(|arg| {
        let id = arg.get_id().as_str();
        let hidden = !LISTED.contains(&id) && !own(id);
        arg.hide_env(true).hide(hidden)
    });
    command
        .mut_arg("duration", |arg| {
            arg.default_value(DURATION).help("How long at most, such as `30s`, `1m30s`, `500ms`")
        })
        // a variable that is meant for captures says nothing about reports
        .mut_arg("stdout", |arg| arg.env(Resettable::<OsStr>::Reset))
        .mut_arg("out_dir", |arg| {
            arg.hide_default_value(true)
                .help("Keep the bundle in this directory; created if missing [default: it is removed]")
        })
}

/// A layer without what only a capture can do.
pub fn without_events(mut layer: Layer) -> Layer {
    layer.remove("stdout");
    layer
}
