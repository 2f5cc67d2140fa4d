//! The command line: argv and `KTRACE_*` → raw values with their origin.
//!
//! Values stay text here. [`crate::plan`] parses and checks them, so that a bad flag and a bad
//! variable read the same, and so that `ktrace check` never trips over a value it does not use.

pub mod help;
pub mod layers;
pub mod nearest;
pub mod origins;
pub mod usage;
pub mod variables;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::LazyLock;

use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use layers::{Layer, LayerError};
pub use origins::Origins;

/// Source commit, set by the build; `None` when built from a tarball.
pub const COMMIT: Option<&str> = option_env!("KTRACE_COMMIT");

static VERSION: LazyLock<String> = LazyLock::new(|| {
    let release = env!("CARGO_PKG_VERSION");
    COMMIT.map_or_else(|| release.to_owned(), |commit| format!("{release} ({commit})"))
});

const WHAT: &str = "What to capture";
const FILTERS: &str = "Filters: values separated by commas, `!` excludes; all of the filters must pass";
const LIMITS: &str = "Limits";
const OUTPUT: &str = "Output";
const IDENTITY: &str = "Identity";
const TRIAGE: &str = "Troubleshooting";

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
    /// Print what this machine supports; changes nothing
    Check(CheckArgs),
    /// Print what can be watched, and what each hook sees, needs and costs
    Hooks {
        /// What about them [default: list]
        #[command(subcommand)]
        about: Option<About>,
    },
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

/// The flags of a capture, as text.
#[derive(Debug, Args)]
pub struct CaptureArgs {
    /// How long, such as `30s`, `1m30s`, `500ms`
    #[arg(long, env = "KTRACE_DURATION", default_value = "30s", help_heading = WHAT)]
    pub duration: String,

    /// Only DNS: UDP and TCP on `--dns-ports`
    #[arg(long, env = "KTRACE_DNS_ONLY", default_value = "false", value_name = "BOOL", help_heading = WHAT,
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub dns_only: String,

    /// Ports that speak DNS, such as `53,5353`
    #[arg(long, env = "KTRACE_DNS_PORTS", default_value = "53", value_name = "PORTS", help_heading = WHAT)]
    pub dns_ports: String,

    /// Only these ports, at either end, such as `80,443` or `!22` [default: all]
    #[arg(long, env = "KTRACE_PORTS", help_heading = FILTERS)]
    pub ports: Vec<String>,

    /// Only these addresses, at either end, such as `10.0.0.0/8,!10.1.0.0/16`
    #[arg(long, env = "KTRACE_CIDR", value_name = "PREFIXES", help_heading = FILTERS)]
    pub cidr: Vec<String>,

    /// Only sockets of these network namespaces: inode, `/proc/PID/ns/net`, `/run/netns/NAME`
    #[arg(long, env = "KTRACE_NETNS", help_heading = FILTERS)]
    pub netns: Vec<String>,

    /// Only sockets of these processes, such as `1234,!5678`
    #[arg(long, env = "KTRACE_PID", value_name = "PIDS", help_heading = FILTERS)]
    pub pid: Vec<String>,

    /// Only sockets of processes or threads with these names, 15 bytes of each
    #[arg(long, env = "KTRACE_COMM", value_name = "NAMES", help_heading = FILTERS)]
    pub comm: Vec<String>,

    /// Only sockets of processes in these cgroups and below: path or `cgroup_id`
    #[arg(long, env = "KTRACE_CGROUP", value_name = "CGROUPS", help_heading = FILTERS)]
    pub cgroup: Vec<String>,

    /// Only sockets of pods in these namespaces, such as `shop,!kube-system`
    #[arg(long, env = "KTRACE_NAMESPACE", value_name = "NAMES", help_heading = FILTERS)]
    pub namespace: Vec<String>,

    /// Only sockets of these pods, such as `'api-*'`; those that start in mid-capture included
    #[arg(long, env = "KTRACE_POD", value_name = "NAMES", help_heading = FILTERS)]
    pub pod: Vec<String>,

    /// Only sockets of containers with these names in their pods, such as `'!istio-proxy'`
    #[arg(long, env = "KTRACE_CONTAINER", value_name = "NAMES", help_heading = FILTERS)]
    pub container: Vec<String>,

    /// Time connect calls and handshakes
    #[arg(long, env = "KTRACE_WITH_CONNECT_LATENCY", default_value = "true", value_name = "BOOL", help_heading = WHAT,
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub with_connect_latency: String,

    /// Record TCP retransmits
    #[arg(long, env = "KTRACE_WITH_RETRANSMITS", default_value = "true", value_name = "BOOL", help_heading = WHAT,
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub with_retransmits: String,

    /// Record which packets the kernel throws away, and why
    #[arg(long, env = "KTRACE_WITH_DROPS", default_value = "true", value_name = "BOOL", help_heading = WHAT,
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub with_drops: String,

    /// Record seccomp mode and capabilities
    #[arg(long, env = "KTRACE_WITH_SECURITY", default_value = "true", value_name = "BOOL", help_heading = WHAT,
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub with_security: String,

    /// Record the arguments of processes, which may hold secrets
    #[arg(long, env = "KTRACE_WITH_CMDLINE", default_value = "false", value_name = "BOOL", help_heading = WHAT,
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub with_cmdline: String,

    /// Record how the network of the node and the pressure on it are when the capture begins and ends
    #[arg(long, env = "KTRACE_WITH_NODE", default_value = "true", value_name = "BOOL", help_heading = WHAT,
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub with_node: String,

    /// Events to keep, a quarter for what is not UDP; later ones are counted only
    #[arg(long, env = "KTRACE_MAX_EVENTS", default_value = "500000", value_name = "COUNT", help_heading = LIMITS)]
    pub max_events: String,

    /// Bytes of `events.jsonl` to keep, a quarter for what is not UDP; later events are counted only
    #[arg(long, env = "KTRACE_MAX_BYTES", default_value = "512MiB", value_name = "SIZE", help_heading = LIMITS)]
    pub max_bytes: String,

    /// Record one in N flows of UDP, each whole; TCP is never sampled. Counted are all
    #[arg(long, env = "KTRACE_SAMPLE", default_value = "1", value_name = "N", help_heading = LIMITS)]
    pub sample: String,

    /// Share of the volume of `--out-dir` that `events.jsonl` takes at most; the smaller of both bounds holds
    #[arg(long, env = "KTRACE_MAX_DISK_SHARE", default_value = "30%", value_name = "PERCENT", help_heading = LIMITS)]
    pub max_disk_share: String,

    /// Buffer between kernel and collector, a power of two; UDP has one of its own, a quarter as large
    #[arg(long, env = "KTRACE_RING_BYTES", default_value = "16MiB", value_name = "SIZE", help_heading = LIMITS)]
    pub ring_bytes: String,

    /// Directory for the bundle; created if missing
    #[arg(long, env = "KTRACE_OUT_DIR", default_value = "./out", value_name = "DIR", help_heading = OUTPUT)]
    pub out_dir: PathBuf,

    /// Write the events to stdout as well, line by line as they come
    #[arg(long, env = "KTRACE_STDOUT", default_value = "false", value_name = "BOOL", help_heading = OUTPUT,
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub stdout: String,

    /// Keep only the tgz, not the same files beside it
    #[arg(long, env = "KTRACE_NO_LOOSE", default_value = "false", value_name = "BOOL", help_heading = OUTPUT,
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub no_loose: String,

    /// Exit with 0 instead of 4 when something that was asked for is missing
    #[arg(long, env = "KTRACE_DEGRADED_OK", default_value = "false", value_name = "BOOL", help_heading = OUTPUT,
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub degraded_ok: String,

    /// File to create once events are being recorded
    #[arg(long, env = "KTRACE_READY_FILE", value_name = "FILE", help_heading = OUTPUT)]
    pub ready_file: Option<PathBuf>,

    /// No progress and no closing lines on stderr, only errors
    #[arg(long, env = "KTRACE_QUIET", default_value = "false", value_name = "BOOL", help_heading = OUTPUT,
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub quiet: String,

    /// Ask the container runtime what pods and containers are called: with `true` a capture without its answer is degraded
    #[arg(long, env = "KTRACE_WITH_CRI", default_value = "auto", value_name = "auto|BOOL", help_heading = IDENTITY,
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub with_cri: String,

    /// Ask connection tracking who really got what was sent to a Service: with `true` a capture without its answer is degraded
    #[arg(long, env = "KTRACE_WITH_CONNTRACK", default_value = "auto", value_name = "auto|BOOL", help_heading = IDENTITY,
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub with_conntrack: String,

    /// Socket of the runtime [default: where containerd, k3s, CRI-O and others listen]
    #[arg(long, env = "KTRACE_CRI_SOCKET", value_name = "PATH", help_heading = IDENTITY)]
    pub cri_socket: Option<String>,

    /// Where the kubelet keeps `pods` and `containers`, by which pods and containers are named, too [default: /var/log]
    #[arg(long, env = "KTRACE_POD_LOGS", value_name = "DIR", help_heading = IDENTITY)]
    pub pod_logs: Option<PathBuf>,

    /// Where the kubelet keeps `pods`, by which pods are named whom nothing above knows [default: /var/lib/kubelet]
    #[arg(long, env = "KTRACE_KUBELET_DIR", value_name = "DIR", help_heading = IDENTITY)]
    pub kubelet_dir: Option<PathBuf>,

    /// The host's root directory, where ktrace runs in a container: for the defaults above
    #[arg(long, env = "KTRACE_HOST_ROOT", default_value = "/", value_name = "DIR", help_heading = IDENTITY)]
    pub host_root: String,

    /// Node name to record [default: host name]
    #[arg(long, env = "KTRACE_NODE", value_name = "NAME", help_heading = IDENTITY)]
    pub node: Option<String>,

    /// Cluster name to record
    #[arg(long, env = "KTRACE_CLUSTER", value_name = "NAME", help_heading = IDENTITY)]
    pub cluster: Option<String>,

    /// Label to record; may be repeated
    #[arg(long, env = "KTRACE_LABEL", value_name = "KEY=VALUE", help_heading = IDENTITY)]
    pub label: Vec<String>,

    /// Attach a hook this way or not at all, such as `tcp_state=tracepoint`; may be repeated. `ktrace check` lists
    /// the ways
    #[arg(long, env = "KTRACE_HOOK_VARIANT", value_name = "HOOK=VARIANT", help_heading = TRIAGE)]
    pub hook_variant: Vec<String>,

    /// Types of exactly this kernel, where it does not publish them itself: raw BTF, or a `vmlinux` with a `.BTF` section
    #[arg(long, env = "KTRACE_BTF", value_name = "FILE", help_heading = TRIAGE)]
    pub btf: Option<String>,

    /// File of flags, a line each, such as `duration = "60s"` (TOML); names without the dashes in front
    #[arg(long, env = "KTRACE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Values for a purpose: `dns`, `connect`, `service` or `full`, see below
    #[arg(long, env = "KTRACE_PROFILE", value_name = "NAME")]
    pub profile: Option<String>,

    /// Capture while this runs: from before its start to its end
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// What the user wants.
#[derive(Debug)]
pub enum Request {
    /// `ktrace check [flags]`.
    Check(CheckArgs, Origins),
    /// `ktrace hooks …`.
    Hooks(About),
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
    Cli::command().mut_args(|arg| arg.hide_env(true)).after_help(help::AFTER.replace("PROFILES\n", &profiles()))
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
