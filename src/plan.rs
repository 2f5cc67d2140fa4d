//! Raw flags → the validated plan of a capture.
//!
//! Everything is parsed once, here; behind this point no option stands for "default" and no value is
//! text that still has to be understood. Refuses requests that contradict themselves. Each effective
//! value is kept with its origin for the manifest. Sits between the command line and preflight.

pub mod behind;
pub mod btf;
pub mod bytes;
pub mod command;
pub mod duration;
pub mod error;
pub mod filters;
pub mod looking;
pub mod names;
pub mod naming;
pub mod out_dir;
pub mod ports;
pub mod scalar;
pub mod share;
pub mod variants;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ktrace_bundle::manifest::{PlanEntry, PlanSource};
use serde_json::{Value, json};

use crate::cli::{CaptureArgs, Origins};
use behind::Behind;
pub use command::Asked;
pub use error::PlanError;
use error::ValueError;
use filters::home::HomeFilters;
use filters::{Filters, Listed};
use naming::{Choice, Naming};
use share::Share;
use variants::Variants;

const MAX_EVENTS: u64 = 1_000_000_000;
const MAX_SAMPLE: u64 = 1_000_000;
/// Below this, the quarter of the cap that is kept for rare events holds no line of full length.
const MIN_BYTES: u64 = 16 << 10;
const MAX_BYTES: u64 = 1 << 40;
/// A multiple of every page size, 64 KiB included.
pub const MIN_RING_BYTES: u32 = 256 << 10;
const MAX_RING_BYTES: u64 = 1 << 30;

/// Which traffic is recorded, by the port at either end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortFilter {
    /// All.
    All,
    /// `--ports`: 1 to [`filters::MAX`] ports.
    Ports(Listed<u16>),
    /// `--dns-only`: the ports of `--dns-ports`.
    Dns(BTreeSet<u16>),
}

/// What a capture does.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Length of the window: above zero, 24 h at most.
    pub duration: Duration,
    /// Where the bundle goes.
    pub out_dir: PathBuf,
    /// Which traffic is recorded.
    pub filter: PortFilter,
    /// What NAT rules add to that, once they have been looked at.
    pub behind: Behind,
    /// Which of that is recorded.
    pub filters: Filters,
    /// Ports on which UDP sends and receives are paired as DNS: 1 to [`ports::MAX`].
    pub dns_ports: BTreeSet<u16>,
    /// Lines of `events.jsonl` at most.
    pub max_events: u64,
    /// N: one in N flows of UDP is recorded; 1: all.
    pub sample: u64,
    /// Bytes of `events.jsonl` at most.
    pub max_bytes: u64,
    /// Share of the volume of `out_dir` that `events.jsonl` takes at most.
    pub max_disk_share: Share,
    /// Run the `connect` hook.
    pub with_connect_latency: bool,
    /// Run the `tcp_retransmit` hook.
    pub with_retransmits: bool,
    /// Run the `drop` hook.
    pub with_drops: bool,
    /// Record `sec`.
    pub with_security: bool,
    /// Record the arguments of processes.
    pub with_cmdline: bool,
    /// Where the names of pods and containers come from.
    pub naming: Naming,
    /// Whether connection tracking is asked.
    pub with_conntrack: Choice,
    /// Look at the node's network and the pressure on it.
    pub with_node: bool,
    /// Node name: letters, digits, `.`, `_` and `-`, so that it is harmless in a file name.
    pub node: String,
    /// Cluster name, if given.
    pub cluster: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Size of the ring: a power of two, a multiple of the page size.
    pub ring_bytes: u32,
    /// Hooks that may use one variant only.
    pub variants: Variants,
    /// File to create once the window is open, if given.
    pub ready_file: Option<PathBuf>,
    /// Say nothing but errors.
    pub quiet: bool,
    /// Write the events to stdout as well.
    pub stdout: bool,
    /// Keep the tgz only.
    pub no_loose: bool,
    /// A degraded capture counts as a success.
    pub degraded_ok: bool,
    /// Types of this kernel from a file, instead of the kernel's own.
    pub btf: Option<PathBuf>,
    /// What to run while the window is open, if anything.
    pub command: Option<Asked>,
    /// Effective value and origin by flag, for the manifest; a flag without a value is absent.
    pub entries: BTreeMap<String, PlanEntry>,
}

impl Plan {
    /// Parses and checks all flags; looks up namespaces. Changes nothing on disk: see [`Plan::prepare`].
    ///
    /// # Errors
    /// The first value that cannot be used, or two that exclude each other.
    pub fn from_args(args: &CaptureArgs, origins: &Origins) -> Result<Self, PlanError> {
        let mut draft = Draft { origins, entries: BTreeMap::new() };
        if let Some(path) = &args.config {
            draft.path("config", path);
        }
        if let Some(name) = &args.profile {
            draft.enter("profile", json!(name));
        }
        let dns_ports = draft.value("dns-ports", &args.dns_ports, ports::parse, |it| json!(it))?;
        let filter = draft.filter(args, &dns_ports)?;
        let ring = |text: &str| bytes::parse_power_of_two(text, MIN_RING_BYTES.into(), MAX_RING_BYTES);
        let ring_bytes = draft.value("ring-bytes", &args.ring_bytes, ring, |it| json!(it))?;
        Ok(Self {
            duration: draft.duration(args)?,
            out_dir: draft.path("out-dir", &args.out_dir),
            filter,
            behind: Behind::default(),
            filters: draft.filters(args)?,
            dns_ports,
            max_events: draft.value(
                "max-events",
                &args.max_events,
                |t| scalar::count(t, MAX_EVENTS),
                |it| json!(it),
            )?,
            max_bytes: draft.value(
                "max-bytes",
                &args.max_bytes,
                |text| bytes::parse(text, MIN_BYTES, MAX_BYTES),
                |it| json!(it),
            )?,
            sample: draft.value("sample", &args.sample, |t| scalar::sample(t, MAX_SAMPLE), |it| json!(it))?,
            max_disk_share: draft
                .value("max-disk-share", &args.max_disk_share, share::parse, |it| json!(it.to_string()))?,
            with_connect_latency: draft.boolean("with-connect-latency", &args.with_connect_latency)?,
            with_retransmits: draft.boolean("with-retransmits", &args.with_retransmits)?,
            with_drops: draft.boolean("with-drops", &args.with_drops)?,
            with_security: draft.boolean("with-security", &args.with_security)?,
            with_cmdline: draft.boolean("with-cmdline", &args.with_cmdline)?,
            naming: draft.naming(args)?,
            with_conntrack: draft
                .value("with-conntrack", &args.with_conntrack, naming::choice, |it| json!(it.as_str()))?,
            with_node: draft.boolean("with-node", &args.with_node)?,
            node: draft.node(args.node.as_deref())?,
            cluster: draft.optional("cluster", args.cluster.as_deref(), names::cluster, |it| json!(it))?,
            labels: draft.labels(&args.label)?,
            // within the bounds above, so it fits
            ring_bytes: u32::try_from(ring_bytes).unwrap_or(u32::MAX),
            variants: draft.variants(&args.hook_variant)?,
            ready_file: args.ready_file.as_ref().map(|path| draft.path("ready-file", path)),
            quiet: draft.boolean("quiet", &args.quiet)?,
            stdout: draft.boolean("stdout", &args.stdout)?,
            no_loose: draft.boolean("no-loose", &args.no_loose)?,
            degraded_ok: draft.boolean("degraded-ok", &args.degraded_ok)?,
            btf: draft.optional("btf", args.btf.as_deref(), btf::parse, |it| json!(it.to_string_lossy()))?,
            command: Asked::from_args(&args.command)?,
            entries: draft.entries,
        })
    }

    /// How long the user wants the window to be; `None` if he leaves that to his command.
    pub fn stated_duration(&self) -> Option<Duration> {
        (self.command.is_none() || self.is_given("duration")).then_some(self.duration)
    }

    /// Whether anybody but ktrace itself chose the value of `flag`.
    pub fn is_given(&self, flag: &str) -> bool {
        self.entries.get(flag).is_some_and(|entry| entry.from != PlanSource::Default)
    }

    /// Has the bundle written there, where nobody has said where.
    pub fn write_to(&mut self, dir: &Path) {
        self.out_dir = dir.to_owned();
        let entry = PlanEntry { value: json!(dir.to_string_lossy()), from: PlanSource::Default };
        self.entries.insert("out-dir".into(), entry);
    }

    /// Creates the output directory, proves that it and the ready file can be written, and removes an
    /// old ready file. To be called before anything is attached.
    ///
    /// # Errors
    /// [`PlanError::OutDir`] or [`PlanError::ReadyFile`].
    pub fn prepare(&self) -> Result<(), PlanError> {
        out_dir::prepare(&self.out_dir).map_err(|source| PlanError::OutDir { path: self.out_dir.clone(), source })?;
        match &self.ready_file {
            Some(path) => out_dir::clear(path).map_err(|source| PlanError::ReadyFile { path: path.clone(), source }),
            None => Ok(()),
        }
    }
}

/// The plan while it is being made: each value that is read also becomes an entry.
struct Draft<'a> {
    origins: &'a Origins,
    entries: BTreeMap<String, PlanEntry>,
}

impl Draft<'_> {
    fn value<T, E: Into<ValueError>>(
        &mut self,
        flag: &'static str,
        raw: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
        show: impl FnOnce(&T) -> Value,
    ) -> Result<T, PlanError> {
        if raw.is_empty() {
            return Err(self.refuse(flag, raw, ValueError::Empty));
        }
        let value = parse(raw).map_err(|error| self.refuse(flag, raw, error))?;
        self.enter(flag, show(&value));
        Ok(value)
    }

    fn optional<T, E: Into<ValueError>>(
        &mut self,
        flag: &'static str,
        raw: Option<&str>,
        parse: impl FnOnce(&str) -> Result<T, E>,
        show: impl FnOnce(&T) -> Value,
    ) -> Result<Option<T>, PlanError> {
        raw.map(|raw| self.value(flag, raw, parse, show)).transpose()
    }

    fn boolean(&mut self, flag: &'static str, raw: &str) -> Result<bool, PlanError> {
        self.value(flag, raw, scalar::boolean, |it| json!(it))
    }

    fn path(&mut self, flag: &'static str, path: &Path) -> PathBuf {
        self.enter(flag, json!(path.to_string_lossy()));
        path.to_owned()
    }

    /// With a command and no other word the window lasts as long as the command, within a bound.
    fn duration(&mut self, args: &CaptureArgs) -> Result<Duration, PlanError> {
        let by_command = !args.command.is_empty() && self.origins.get("duration") == PlanSource::Default;
        let raw = if by_command { command::LONGEST } else { &args.duration };
        self.value("duration", raw, duration::parse, |it| json!(duration::show(*it)))
    }

    fn filter(&mut self, args: &CaptureArgs, dns_ports: &BTreeSet<u16>) -> Result<PortFilter, PlanError> {
        let dns_only = self.boolean("dns-only", &args.dns_only)?;
        let ports = self.listed("ports", &args.ports, filters::ports, Listed::show_ports)?;
        match ports.is_off() {
            false if dns_only => Err(PlanError::DnsOnlyWithPorts),
            false => Ok(PortFilter::Ports(ports)),
            true if dns_only => Ok(PortFilter::Dns(dns_ports.clone())),
            true => Ok(PortFilter::All),
        }
    }

    fn filters(&mut self, args: &CaptureArgs) -> Result<Filters, PlanError> {
        Ok(Filters {
            cidr: self.listed("cidr", &args.cidr, filters::cidr, Listed::show)?,
            netns: self.listed("netns", &args.netns, filters::netns, Listed::show)?.map(|it| it.inode),
            pid: self.listed("pid", &args.pid, filters::pid, Listed::show)?,
            comm: self.listed("comm", &args.comm, filters::comm, Listed::show)?,
            cgroup: self.listed("cgroup", &args.cgroup, filters::cgroup, Listed::show)?,
            homes: HomeFilters {
                namespace: self.listed("namespace", &args.namespace, filters::name, Listed::show)?,
                pod: self.listed("pod", &args.pod, filters::name, Listed::show)?,
                container: self.listed("container", &args.container, filters::name, Listed::show)?,
            },
        })
    }

    /// The socket of `--cri-socket`, and the root below which others are looked for.
    fn runtime(&mut self, socket: Option<&str>, root: &str) -> Result<(Option<String>, PathBuf), PlanError> {
        let socket = self.optional("cri-socket", socket, naming::socket, |it| json!(it))?;
        let root = self.value("host-root", root, naming::host_root, |it| json!(it.to_string_lossy()))?;
        Ok((socket, root))
    }

    fn naming(&mut self, args: &CaptureArgs) -> Result<Naming, PlanError> {
        let with_cri = self.value("with-cri", &args.with_cri, naming::choice, |it| json!(it.as_str()))?;
        let (socket, root) = self.runtime(args.cri_socket.as_deref(), &args.host_root)?;
        let pod_logs = args.pod_logs.clone().unwrap_or_else(|| naming::below(&root, "/var/log"));
        let kubelet_dir = args.kubelet_dir.clone().unwrap_or_else(|| naming::below(&root, "/var/lib/kubelet"));
        let sockets = match (with_cri, socket) {
            (Choice::False, Some(_)) => return Err(PlanError::SocketWithoutCri),
            (Choice::False, None) => Vec::new(),
            (_, Some(socket)) => vec![socket],
            (_, None) => naming::well_known(&root),
        };
        Ok(Naming {
            sockets,
            is_runtime_required: with_cri == Choice::True,
            pod_logs: self.path("pod-logs", &pod_logs),
            kubelet_dir: self.path("kubelet-dir", &kubelet_dir),
            host_root: root,
        })
    }

    /// A flag that may be repeated and takes a list each time; without values it is off and no entry.
    fn listed<T: Ord>(
        &mut self,
        flag: &'static str,
        raw: &[String],
        parse: impl FnOnce(&str) -> Result<Listed<T>, filters::FilterError>,
        show: impl FnOnce(&Listed<T>) -> Value,
    ) -> Result<Listed<T>, PlanError> {
        let raw = (!raw.is_empty()).then(|| raw.join(","));
        Ok(self.optional(flag, raw.as_deref(), parse, show)?.unwrap_or_default())
    }

    fn node(&mut self, given: Option<&str>) -> Result<String, PlanError> {
        let host_name = match given {
            Some(_) => String::new(),
            None => {
                let name = nix::unistd::gethostname().map_err(|errno| PlanError::HostName(errno.into()))?;
                name.to_string_lossy().into_owned()
            }
        };
        self.value("node", given.unwrap_or(&host_name), names::node, |it| json!(it))
    }

    /// The items of a flag that may be repeated; in its variable they are separated by commas.
    fn items(&self, flag: &str, given: &[String]) -> Vec<String> {
        match self.origins.get(flag) {
            PlanSource::Env => given.iter().flat_map(|text| text.split(',')).map(|it| it.trim().to_owned()).collect(),
            _ => given.to_vec(),
        }
    }

    fn variants(&mut self, given: &[String]) -> Result<Variants, PlanError> {
        let mut variants = Variants::new();
        for text in self.items("hook-variant", given) {
            variants::add(&mut variants, &text).map_err(|error| self.refuse("hook-variant", &text, error))?;
        }
        if !variants.is_empty() {
            self.enter("hook-variant", json!(variants));
        }
        Ok(variants)
    }

    fn labels(&mut self, given: &[String]) -> Result<BTreeMap<String, String>, PlanError> {
        let mut labels = BTreeMap::new();
        for text in self.items("label", given) {
            names::label(&mut labels, &text).map_err(|error| self.refuse("label", &text, error))?;
        }
        if !labels.is_empty() {
            self.enter("label", json!(labels));
        }
        Ok(labels)
    }

    fn enter(&mut self, flag: &'static str, value: Value) {
        self.entries.insert(flag.into(), PlanEntry { value, from: self.origins.get(flag) });
    }

    fn refuse(&self, flag: &'static str, raw: &str, error: impl Into<ValueError>) -> PlanError {
        PlanError::Value { flag, raw: raw.into(), from: self.origins.get(flag), source: error.into() }
    }
}

#[cfg(test)]
#[path = "plan/plan_tests.rs"]
mod tests;
