//! Host and privileges, before anything is attached: the reason why a capture cannot start, or the table that
//! `ktrace check` prints. Changes nothing on the host.

mod privileges;

use std::io;
use std::path::{Path, PathBuf};

use ktrace_bundle::manifest::Host;

use crate::error::Hint;
use crate::hooks::{HOOKS, Hook, Variant};
use crate::identity;
use crate::kernel::features::{Answer, Features};
use crate::kernel::ladder::{Refusals, choose, obstacle};
use crate::kernel::lockdown::{self, FILE as LOCKDOWN};
use crate::kernel::trial::{self, Reading};
use crate::kernel::types::{BTF_PATH, Types};
use crate::plan::looking::Looking;
use crate::report::check::{CheckReport, Fact, HookCheck, State, VariantCheck};
use privileges::{capabilities, in_user_namespace, missing};
pub use privileges::{has_seccomp_filter, may_attach_to_cgroups, sees_all_processes};

/// Why a capture cannot start on this host.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    /// The kernel would refuse every program.
    #[error("missing {missing}: loading BPF programs needs CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN")]
    Privilege {
        /// The capabilities that are missing.
        missing: String,
    },
    /// Root, but not of the host.
    #[error("in a user namespace capabilities do not count: loading BPF programs needs those of the host")]
    UserNamespace,
    /// Capabilities, and yet no bpf(2).
    #[error("the kernel refuses bpf(2), although the capabilities for it are there")]
    Refused {
        /// A seccomp filter is in force.
        filtered: bool,
        /// What the kernel says.
        source: io::Error,
    },
    /// The kernel does not publish its types, and no file was named.
    #[error("the types of this kernel, `{BTF_PATH}`, cannot be read")]
    Btf(#[source] io::Error),
    /// The kernel publishes something that is no BTF.
    #[error("`{BTF_PATH}` cannot be parsed")]
    Unparsed,
    /// `--btf` names the types of another kernel.
    #[error("`{}` does not describe this kernel, {kernel}: {what} is laid out otherwise here", .path.display())]
    OtherKernel {
        /// The file.
        path: PathBuf,
        /// `uname -r`.
        kernel: String,
        /// What was read wrong.
        what: &'static str,
    },
    /// `--btf` names types that lack what the programs read.
    #[error("`{}` lacks types that ktrace needs, or is not of this kernel, {kernel}: {why}", .path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// `uname -r`.
        kernel: String,
        /// The verifier's words.
        why: String,
    },
    /// Lockdown.
    #[error("the kernel does not let BPF programs read its memory: {why}")]
    Locked {
        /// The verifier's words.
        why: String,
        /// The line of the lockdown file, if it can be read.
        lockdown: Option<String>,
    },
}

impl Hint for PreflightError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Privilege { .. } => {
                "run as root, or give the container CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN".into()
            }
            Self::UserNamespace => "run as root of the host: not rootless, not under `unshare --user`, and in \
                                    Kubernetes with `hostUsers: true`"
                .into(),
            Self::Refused { filtered: true, .. } => "a seccomp filter is in force: let it pass `bpf` and \
                                                     `perf_event_open`, in Kubernetes by `seccompProfile: {type: \
                                                     Unconfined}`"
                .into(),
            Self::Refused { source, .. } if source.raw_os_error() == Some(libc::ENOSYS) => {
                "the kernel must be built with CONFIG_BPF_SYSCALL=y".into()
            }
            Self::Refused { .. } => "a security module may forbid it: look for `denied` in the audit log and in \
                                     `dmesg`"
                .into(),
            Self::Btf(_) | Self::Unparsed => "in a container, mount `/sys/kernel/btf`; where the kernel was built \
                                              without CONFIG_DEBUG_INFO_BTF=y, pass its BTF with `--btf PATH` (BTFHub \
                                              keeps those of distributions)"
                .into(),
            Self::OtherKernel { kernel, .. } | Self::Unfit { kernel, .. } => {
                format!("pass the BTF of exactly `{kernel}` with `--btf`")
            }
            Self::Locked { lockdown: Some(line), .. } if line.contains("[confidentiality]") => {
                format!("`{LOCKDOWN}` says `{line}`: boot with `lockdown=integrity`, which still protects the kernel")
            }
            Self::Locked { .. } => format!(
                "see `{LOCKDOWN}` (`mount -t securityfs none /sys/kernel/security`): if it is `[confidentiality]`, boot \
                 with `lockdown=integrity`"
            ),
        })
    }
}

/// Whether this process may do what a capture does, with the types of `--btf` if it is given.
///
/// # Errors
/// The first reason why it may not.
pub fn require(btf: Option<&Path>) -> Result<(), PreflightError> {
    if let Some(missing) = capabilities().map(missing).filter(|missing| !missing.is_empty()) {
        return Err(PreflightError::Privilege { missing: missing.join(", ") });
    }
    if in_user_namespace() {
        return Err(PreflightError::UserNamespace);
    }
    trial::bpf().map_err(|source| PreflightError::Refused { filtered: has_seccomp_filter(), source })?;
    if btf.is_none() {
        std::fs::File::open(BTF_PATH).map_err(PreflightError::Btf)?;
    }
    let types = Types::read(btf);
    if btf.is_none() && types.own().is_none() {
        return Err(PreflightError::Unparsed);
    }
    match trial::reading(&types) {
        Reading::Refused(why) => Err(PreflightError::Locked { why, lockdown: lockdown::line() }),
        Reading::Wrong(what) => {
            let path = btf.map(Path::to_owned).unwrap_or_default();
            Err(PreflightError::OtherKernel { path, kernel: release(), what })
        }
        Reading::Unfit(why) if btf.is_some() => {
            let path = btf.map(Path::to_owned).unwrap_or_default();
            Err(PreflightError::Unfit { path, kernel: release(), why })
        }
        // what could not be tried here is tried by the hooks themselves
        Reading::Right | Reading::Unfit(_) | Reading::Unknown(_) => Ok(()),
    }
}

/// `uname -r`; empty where even that is refused.
pub fn release() -> String {
    nix::sys::utsname::uname().map(|it| it.release().to_string_lossy().into_owned()).unwrap_or_default()
}

/// The machine, for the manifest.
pub fn host(btf: Option<&Path>) -> Host {
    let uname = nix::sys::utsname::uname().ok();
    let text = |s: &std::ffi::OsStr| s.to_string_lossy().into_owned();
    let own = || Path::new(BTF_PATH).exists().then(|| BTF_PATH.into());
    Host {
        kernel: release(),
        arch: uname.as_ref().map(|u| text(u.machine())).unwrap_or_default(),
        boot_id: std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|s| s.trim().to_owned()),
        btf: btf.map(|path| text(path.as_os_str())).or_else(own),
    }
}

/// What `ktrace check` prints, and why no capture could start, if so. Nothing is tried then.
pub fn check(looking: &Looking) -> (CheckReport, Option<PreflightError>) {
    let btf = looking.btf.as_deref();
    let host = host(btf);
    if let Err(error) = require(btf) {
        let facts = vec![fact("privileges", privileges()), fact("btf", types(btf))];
        let hooks = untried(&format!("not tried: {error}"));
        return (CheckReport { kernel: host.kernel, arch: host.arch, facts, hooks }, Some(error));
    }
    let features = Features::of_this_kernel(btf);
    let hooks = choose(None, &features, &Refusals::default());
    let hooks = hooks.iter().map(|choice| HookCheck {
        name: choice.hook.name().into(),
        question: choice.hook.question().into(),
        chosen: choice.variant.map(|v| v.name.into()),
        variants: choice
            .hook
            .variants()
            .iter()
            .map(|variant| {
                let why = obstacle(variant.needs, &features);
                VariantCheck { name: variant.name.into(), usable: why.is_none(), why: why.unwrap_or_default() }
            })
            .collect(),
        limits: choice.limits.clone(),
    });
    let report =
        CheckReport { kernel: host.kernel, arch: host.arch, facts: facts(looking, &features), hooks: hooks.collect() };
    (report, None)
}

fn untried(why: &str) -> Vec<HookCheck> {
    let untried = |variant: &Variant| VariantCheck { name: variant.name.into(), usable: false, why: why.into() };
    let hook = |hook: &&'static dyn Hook| HookCheck {
        name: hook.name().into(),
        question: hook.question().into(),
        chosen: None,
        variants: hook.variants().iter().map(untried).collect(),
        limits: Vec::new(),
    };
    HOOKS.iter().map(hook).collect()
}

fn fact(name: &str, (state, detail): (State, String)) -> Fact {
    Fact { name: name.into(), state, detail }
}

fn types(btf: Option<&Path>) -> (State, String) {
    match (btf, std::fs::File::open(BTF_PATH)) {
        (Some(path), Ok(_)) => (State::Yes, format!("`{}` instead of `{BTF_PATH}`", path.display())),
        (Some(path), Err(e)) => (State::Yes, format!("`{}`; `{BTF_PATH}`: {e}", path.display())),
        (None, Ok(_)) => (State::Yes, format!("`{BTF_PATH}`")),
        (None, Err(e)) => (State::No, format!("`{BTF_PATH}`: {e}")),
    }
}

fn net_admin() -> (State, String) {
    match may_attach_to_cgroups() {
        None => (State::Unknown, "`/proc/self/status` cannot be read".into()),
        Some(true) => (State::Yes, "the remote end of unconnected UDP sockets".into()),
        Some(false) => (State::No, "a capture is degraded: no remote end of unconnected UDP sockets (exit 4)".into()),
    }
}

fn pid_namespace() -> (State, String) {
    if sees_all_processes() {
        return (State::Yes, "the host's".into());
    }
    let lost = "sockets of processes outside of this one have no owner and are not listed";
    (State::No, format!("a capture is degraded: {lost} (exit 4); in Kubernetes set `hostPID: true`"))
}

/// Who would say what pods and containers are called.
fn runtime(sockets: &[String]) -> (State, String) {
    match identity::runtimes(sockets) {
        Ok(found) => (State::Yes, format!("names of pods and containers by {found}")),
        Err(why) => (State::No, format!("{why}: names of pods by the kubelet's logs, if it keeps any")),
    }
}

fn facts(looking: &Looking, features: &Features) -> Vec<Fact> {
    vec![
        fact("privileges", privileges()),
        fact("cap_net_admin", net_admin()),
        fact("btf", types(looking.btf.as_deref())),
        fact("fentry", told(features.trampoline(), "the best variants of udp, connect and owner")),
        fact("kprobes", told(features.kprobe(), "")),
        fact("tracefs", told(features.tracefs(), "classic tracepoints")),
        fact("pid_namespace", pid_namespace()),
        fact("runtime", runtime(&looking.sockets)),
    ]
}

fn privileges() -> (State, String) {
    match capabilities() {
        None => (State::Unknown, "`/proc/self/status` cannot be read".into()),
        Some(_) if in_user_namespace() => (State::No, "those of a user namespace do not count".into()),
        Some(held) => match missing(held).as_slice() {
            [] => (State::Yes, "may load BPF programs".into()),
            missing => (State::No, format!("missing {}", missing.join(", "))),
        },
    }
}

fn told(answer: &Answer, meaning: &str) -> (State, String) {
    match answer {
        Answer::Yes => (State::Yes, meaning.into()),
        Answer::No(why) => (State::No, why.clone()),
        Answer::Unknown(why) => (State::Unknown, why.clone()),
    }
}
