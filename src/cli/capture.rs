//! The flags of a capture.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

const WHAT: &str = "What to capture";
const FILTERS: &str = "Filters: values separated by commas, `!` excludes; all of the filters must pass";
const LIMITS: &str = "Limits";
const OUTPUT: &str = "Output";
const IDENTITY: &str = "Identity";
const TRIAGE: &str = "Troubleshooting";

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
