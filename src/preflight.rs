//! Host and privileges, before anything is attached: the reason why a capture cannot start, or the table that
//! `ktrace check` prints. Changes nothing on the host.

use ktrace_bundle::manifest::Host;

use crate::error::Hint;
use crate::hooks::{HOOKS, Hook, Variant};
use crate::kernel::features::{Answer, BTF_PATH, Features};
use crate::kernel::ladder::{Refusals, choose, obstacle};
use crate::report::check::{CheckReport, Fact, HookCheck, State, VariantCheck};

const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Why a capture cannot start on this host.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    /// The kernel would refuse every program.
    #[error("missing {missing}: loading BPF programs needs CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN")]
    Privilege {
        /// The capabilities that are missing.
        missing: String,
    },
    /// The kernel does not publish its types.
    #[error("`{BTF_PATH}` cannot be read: {0}")]
    Btf(std::io::Error),
}

impl Hint for PreflightError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Privilege { .. } => {
                "run as root, or give the container CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN".into()
            }
            Self::Btf(_) => {
                "the kernel must be built with CONFIG_DEBUG_INFO_BTF=y; in a container, mount `/sys`".into()
            }
        })
    }
}

/// Effective capabilities of this process, bit n = capability n; `None` if `/proc` does not say.
fn capabilities() -> Option<u64> {
    procfs::process::Process::myself().ok()?.status().ok().map(|s| s.capeff)
}

/// Whether this process may do what a capture does.
///
/// # Errors
/// The first reason why it may not.
pub fn require() -> Result<(), PreflightError> {
    if let Some(held) = capabilities() {
        let missing = missing(held);
        if !missing.is_empty() {
            return Err(PreflightError::Privilege { missing: missing.join(", ") });
        }
    }
    std::fs::File::open(BTF_PATH).map(drop).map_err(PreflightError::Btf)
}

/// CAP_NET_ADMIN is not among them: without it only the cgroup programs are refused, which degrades `udp`.
fn missing(held: u64) -> Vec<&'static str> {
    let has = |cap: u32| held >> cap & 1 == 1;
    if has(CAP_SYS_ADMIN) {
        return Vec::new();
    }
    [(CAP_BPF, "CAP_BPF"), (CAP_PERFMON, "CAP_PERFMON")]
        .into_iter()
        .filter(|(cap, _)| !has(*cap))
        .map(|(_, name)| name)
        .collect()
}

/// Whether this process lives in the initial pid namespace (`PROC_PID_INIT_INO` of the kernel). In any other the
/// file tables of the node's processes cannot be read.
pub fn sees_all_processes() -> bool {
    const INITIAL: u64 = 0xEFFF_FFFC;
    std::fs::metadata("/proc/self/ns/pid").is_ok_and(|ns| std::os::unix::fs::MetadataExt::ino(&ns) == INITIAL)
}

/// The machine, for the manifest.
pub fn host() -> Host {
    let uname = nix::sys::utsname::uname().ok();
    let text = |s: &std::ffi::OsStr| s.to_string_lossy().into_owned();
    Host {
        kernel: uname.as_ref().map(|u| text(u.release())).unwrap_or_default(),
        arch: uname.as_ref().map(|u| text(u.machine())).unwrap_or_default(),
        boot_id: std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|s| s.trim().to_owned()),
        btf: std::path::Path::new(BTF_PATH).exists().then(|| BTF_PATH.into()),
    }
}

/// What `ktrace check` prints. Nothing is tried where the privileges to try it are missing.
pub fn check() -> CheckReport {
    let host = host();
    let missing = capabilities().map(missing).unwrap_or_default();
    if !missing.is_empty() {
        let why = format!("not tried: missing {}", missing.join(", "));
        let facts = vec![fact("privileges", privileges()), fact("btf", btf(true))];
        return CheckReport { kernel: host.kernel, arch: host.arch, facts, hooks: untried(&why) };
    }
    let features = Features::of_this_kernel();
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
    CheckReport { kernel: host.kernel, arch: host.arch, facts: facts(&features), hooks: hooks.collect() }
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

fn btf(parsed: bool) -> (State, String) {
    match std::fs::File::open(BTF_PATH) {
        Ok(_) if parsed => (State::Yes, format!("`{BTF_PATH}`")),
        Ok(_) => (State::No, format!("`{BTF_PATH}` cannot be parsed")),
        Err(e) => (State::No, format!("`{BTF_PATH}`: {e}")),
    }
}

fn net_admin() -> (State, String) {
    match capabilities() {
        None => (State::Unknown, "`/proc/self/status` cannot be read".into()),
        Some(held) if held >> CAP_NET_ADMIN & 1 == 1 || held >> CAP_SYS_ADMIN & 1 == 1 => {
            (State::Yes, "the remote end of unconnected UDP sockets".into())
        }
        Some(_) => (State::No, "a capture is degraded: no remote end of unconnected UDP sockets (exit 4)".into()),
    }
}

fn facts(features: &Features) -> Vec<Fact> {
    vec![
        fact("privileges", privileges()),
        fact("cap_net_admin", net_admin()),
        fact("btf", btf(features.has_btf())),
        fact("fentry", told(features.trampoline(), "the best variants of udp, connect and owner")),
        fact("kprobes", told(features.kprobe(), "")),
        fact("tracefs", told(features.tracefs(), "classic tracepoints")),
    ]
}

fn privileges() -> (State, String) {
    match capabilities() {
        None => (State::Unknown, "`/proc/self/status` cannot be read".into()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_missing_capabilities_are_named() {
        assert_eq!(missing(0), ["CAP_BPF", "CAP_PERFMON"]);
        assert_eq!(missing(1 << CAP_BPF), ["CAP_PERFMON"]);
        assert_eq!(missing(1 << CAP_SYS_ADMIN), [""; 0]);
    }
}
