//! The command line: argv and `KTRACE_*` → raw values with their origin.
//!
//! Values stay text here. [`crate::plan`] parses and checks them, so that a bad flag and a bad
//! variable read the same, and so that `ktrace check` never trips over a value it does not use.

pub mod capture;
pub mod doctor;
pub mod help;
pub mod layers;
pub mod nearest;
pub mod origins;
pub mod usage;
pub mod variables;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::LazyLock;

use clap::{ArgAction, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

pub use capture::CaptureArgs;
use doctor::{DoctorArgs, NotHere};
use layers::{Layer, LayerError};
pub use origins::Origins;

/// Source commit, set by the build; `None` when built from a tarball.
pub const COMMIT: Option<&str> = option_env!("KTRACE_COMMIT");

static VERSION: LazyLock<String> = LazyLock::new(|| {
    let release = env!("CARGO_PKG_VERSION");
    COMMIT.map_or_else(|| release.to_owned(), |commit| format!("{release} ({commit})"))
});

#[derive(Debug, Parser)]
#[command(
    name = "ktrace",
    about = "Record what the kernel does on the network into one bundle, and account for every event",
    version = VERSION.as_str(),
    after_help = help::AFTER,
    disable_help_subcommand = true,
    args_conflicts_with_subcommands = true,
    args_override_self = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    capture: CaptureArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Capture for a moment, and say on one screen what is wrong: the first thing to try
    Doctor(Box<DoctorArgs>),
    /// Print what this machine supports; changes nothing
    Check(CheckArgs),
    /// Print what can be watched, and what each hook sees, needs and costs
    Hooks {
        /// What about them [default: list]
        #[command(subcommand)]
        about: Option<About>,
    },
    /// Look at a capture that goes on, for `ktrace doctor`
    #[command(hide = true)]
    Look(LookArgs),
}

/// What the companion of `ktrace doctor` is told.
#[derive(Debug, Args)]
pub struct LookArgs {
    /// The loose files
    pub dir: PathBuf,
    /// Process that captures
    pub parent: i32,
}

/// The flags of `ktrace check`, as text; each as for a capture.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Types of this kernel
    #[arg(long, env = "KTRACE_BTF", value_name = "FILE")]
    pub btf: Option<String>,

    /// Socket of the container runtime [default: where containerd, k3s, CRI-O and others listen]
    #[arg(long, env = "KTRACE_CRI_SOCKET", value_name = "PATH")]
    pub cri_socket: Option<String>,

    /// The host's root directory, where ktrace runs in a container: for the default above
    #[arg(long, env = "KTRACE_HOST_ROOT", default_value = "/", value_name = "DIR")]
    pub host_root: String,
}

/// What `ktrace hooks` prints.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum About {
    /// One line per hook
    List,
    /// All about one hook
    Show {
        /// Name, as `list` has it
        name: String,
    },
}

/// What the user wants.
#[derive(Debug)]
pub enum Request {
    /// `ktrace check [flags]`.
    Check(CheckArgs, Origins),
    /// `ktrace hooks …`.
    Hooks(About),
    /// `ktrace doctor [flags]`.
    Doctor(Box<DoctorArgs>, Origins),
    /// `ktrace look`, which `ktrace doctor` runs.
    Look(LookArgs),
    /// `ktrace [flags]`.
    Capture(Box<CaptureArgs>, Origins),
}

/// Why a command line, or what stands below it, cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// An unknown or malformed flag, and also `--help` and `--version`.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// `--config` or `--profile`.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// What `ktrace doctor` cannot do.
    #[error(transparent)]
    NotHere(#[from] NotHere),
}

/// Reads the command line, the environment, and what these name. The first item is the program's name.
///
/// # Errors
/// See [`CliError`]: hand it to [`usage::report`].
pub fn parse<I, T>(args: I) -> Result<Request, CliError>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    let matches = command().try_get_matches_from(&args)?;
    let cli = Cli::from_arg_matches(&matches)?;
    match cli.command {
        Some(Command::Check(args)) => {
            let origins = matches.subcommand().map(|(_, of_check)| Origins::of(of_check, &Layer::new()));
            Ok(Request::Check(args, origins.unwrap_or_default()))
        }
        Some(Command::Hooks { about }) => Ok(Request::Hooks(about.unwrap_or(About::List))),
        Some(Command::Doctor(asked)) => of_doctor(&args, &matches, asked),
        Some(Command::Look(args)) => Ok(Request::Look(args)),
        None => {
            let layer = layer(&cli.capture)?;
            if layer.is_empty() {
                return Ok(Request::Capture(Box::new(cli.capture), Origins::of(&matches, &layer)));
            }
            // what is found there are further defaults, for which the command line is read once more
            let matches = below(command(), &layer).try_get_matches_from(&args)?;
            let cli = Cli::from_arg_matches(&matches)?;
            Ok(Request::Capture(Box::new(cli.capture), Origins::of(&matches, &layer)))
        }
    }
}

/// The same as for a capture, one command further down.
fn of_doctor(args: &[OsString], matches: &ArgMatches, asked: Box<DoctorArgs>) -> Result<Request, CliError> {
    let of = |matches: &ArgMatches| matches.subcommand().map(|(_, own)| own.clone()).unwrap_or_default();
    let own = of(matches);
    if let Some(not_here) = NotHere::of(&own) {
        return Err(not_here.into());
    }
    let layer = doctor::without_events(layer(&asked.capture)?);
    if layer.is_empty() {
        return Ok(Request::Doctor(asked, Origins::of(&own, &layer)));
    }
    let command = command().mut_subcommand(doctor::NAME, |doctor| below(doctor, &layer));
    let own = of(&command.try_get_matches_from(args)?);
    Ok(Request::Doctor(Box::new(DoctorArgs::from_arg_matches(&own)?), Origins::of(&own, &layer)))
}

/// The values of `--config` and `--profile`. A file may name a profile, but no other file.
fn layer(args: &CaptureArgs) -> Result<Layer, LayerError> {
    let mut layer = match &args.config {
        Some(path) => {
            let flags = flags().filter(|(name, _)| name != "config").collect();
            layers::of_file(path, &flags)?
        }
        None => Layer::new(),
    };
    let in_file = layer.get("profile").and_then(|(texts, _)| texts.first().cloned());
    if let Some(name) = args.profile.clone().or(in_file) {
        layers::add_profile(&mut layer, &name)?;
    }
    Ok(layer)
}

/// Flags of a capture, and whether each may be repeated.
fn flags() -> impl Iterator<Item = (String, bool)> {
    let args: Vec<_> = Cli::command().get_arguments().cloned().collect();
    args.into_iter().filter_map(|arg| Some((arg.get_long()?.to_owned(), matches!(arg.get_action(), ArgAction::Append))))
}

fn below(command: clap::Command, layer: &Layer) -> clap::Command {
    command.mut_args(|arg| match arg.get_long().and_then(|flag| layer.get(flag)) {
        Some((texts, _)) => arg.default_values(texts.clone()),
        None => arg,
    })
}

/// The help names the rule for variables once, instead of one variable per flag.
fn command() -> clap::Command {
    let command = Cli::command().mut_args(|arg| arg.hide_env(true)).mut_subcommand(doctor::NAME, doctor::shape);
    command.after_help(help::AFTER.replace("PROFILES\n", &profiles()))
}

fn profiles() -> String {
    let line = |profile: &layers::Profile| {
        let values: Vec<_> = profile.values.iter().map(|(flag, value)| format!("{flag}={value}")).collect();
        format!("  {:8} {}\n", profile.name, values.join(" "))
    };
    layers::PROFILES.iter().map(line).collect()
}

#[cfg(test)]
#[path = "cli/cli_tests.rs"]
mod tests;
