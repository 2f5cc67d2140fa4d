//! What this kernel offers to hooks: yes, no, or could not tell, each with the reason.
//!
//! Looked up in BTF and tracefs where that is conclusive; tried with a program that does nothing where it is
//! not. A trial runs once per process and changes nothing on the node.

use std::cell::OnceCell;
use std::path::Path;

use libbpf_rs::btf::{ReferencesType, types};

use super::types::Types;
use super::{tracefs, trial};

/// Where the kernel says how a kprobe is asked for, if it has any; all kernels with ring buffers have this.
const KPROBES: &str = "/sys/bus/event_source/devices/kprobe/type";

/// What a kernel has that keeps a trampoline for as long as a call is in it: 5.12, and later releases of 5.10 ("bpf: Fix fexit
/// trampoline", e21aa341785c). Without it a connect(2) that outlives its fexit program takes the machine down.
const COUNTED_TRAMPOLINE: &str = "bpf_tramp_image";

/// Answer to "can this be used here?".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It can.
    Yes,
    /// It cannot, and why.
    No(String),
    /// It could not be found out, and why; worth a try.
    Unknown(String),
}

/// What a variant needs of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// A typed tracepoint with at least this many arguments of its own.
    TpBtf(&'static str, usize),
    /// fentry and fexit on this function.
    Trampoline(&'static str),
    /// A kprobe on this function.
    Kprobe(&'static str),
    /// A classic tracepoint.
    Tracepoint(&'static str, &'static str),
    /// A BPF iterator over this.
    Iter(&'static str),
    /// A BPF helper.
    Helper(&'static str),
    /// That a program at a cgroup can be put before all others, those of the cgroups below it included (6.17).
    FirstAtCgroup,
}

impl std::fmt::Display for Need {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TpBtf(name, _) => write!(f, "typed tracepoint `{name}`"),
            Self::Trampoline(name) => write!(f, "fentry on `{name}`"),
            Self::Kprobe(name) => write!(f, "kprobe on `{name}`"),
            Self::Tracepoint(category, name) => write!(f, "tracepoint `{category}:{name}`"),
            Self::Iter(name) => write!(f, "iterator `{name}`"),
            Self::Helper(name) => write!(f, "helper `{name}`"),
            Self::FirstAtCgroup => f.write_str("first place among the programs of cgroups"),
        }
    }
}

/// From 7.0 on a tracepoint leaves preemption on ("tracing: Guard __DECLARE_TRACE() use of __DO_TRACE_CALL() with
/// SRCU-fast"), and a kernel that can be preempted at all offers nothing less than doing so lazily.
fn kernel_preempts() -> bool {
    let Ok(uname) = nix::sys::utsname::uname() else { return false };
    preempts(&uname.release().to_string_lossy(), &uname.version().to_string_lossy())
}

/// The same by `uname -r` and `uname -v`.
fn preempts(release: &str, version: &str) -> bool {
    let major = release.split('.').next().and_then(|number| number.parse::<u32>().ok());
    major.is_some_and(|number| number >= 7) && version.contains("PREEMPT")
}

/// The kernel's answers; trials are made on first need.
pub struct Features {
    types: Types,
    tracefs: Answer,
    trampoline: OnceCell<Answer>,
    kprobe: OnceCell<Answer>,
    socket_storage: OnceCell<Answer>,
    first_at_cgroup: OnceCell<Answer>,
    preempts: bool,
}

impl Features {
    /// Reads the kernel's types, and those of `--btf`, and finds tracefs.
    pub fn of_this_kernel(btf: Option<&Path>) -> Self {
        let tracefs = match tracefs::ensure() {
            Ok(()) => Answer::Yes,
            Err(e) => Answer::No(e.to_string()),
        };
        Self {
            types: Types::read(btf),
            tracefs,
            trampoline: OnceCell::new(),
            kprobe: OnceCell::new(),
            socket_storage: OnceCell::new(),
            first_at_cgroup: OnceCell::new(),
            preempts: kernel_preempts(),
        }
    }

    /// What a kernel with the types of this file offers, everything that types do not tell taken as there.
    #[cfg(test)]
    pub fn of_file(file: &Path) -> Self {
        let yes = || OnceCell::from(Answer::Yes);
        Self {
            types: Types::of_kernel(file),
            tracefs: Answer::Yes,
            trampoline: yes(),
            kprobe: yes(),
            socket_storage: yes(),
            first_at_cgroup: yes(),
            preempts: false,
        }
    }

    /// The kernel's types.
    pub const fn types(&self) -> &Types {
        &self.types
    }

    /// Whether tracefs can be read.
    pub const fn tracefs(&self) -> &Answer {
        &self.tracefs
    }

    /// Whether what is remembered of a socket can be kept with it; else a hash has to do.
    pub fn has_socket_storage(&self) -> bool {
        !matches!(self.socket_storage.get_or_init(|| trial::socket_storage(&self.types)), Answer::No(_))
    }

    /// Whether a program that runs can be preempted, so that it is skipped for others meanwhile.
    pub const fn preempts(&self) -> bool {
        self.preempts
    }

    /// Whether fentry and fexit programs load and attach: arm64 loads them from 6.0 on, and attaches them from 6.4
    /// on ("arm64: ftrace: Add direct call support").
    pub fn trampoline(&self) -> &Answer {
        self.trampoline.get_or_init(|| match self.types.own() {
            Some(own) if own.type_by_name::<types::Struct<'_>>(COUNTED_TRAMPOLINE).is_none() => {
                Answer::No("this kernel may free what a call returns through that sleeps in a hooked function".into())
            }
            Some(_) => trial::program(&self.types, "trial_fentry"),
            None => Answer::No(self.types.no_own()),
        })
    }

    /// Whether kprobes attach.
    pub fn kprobe(&self) -> &Answer {
        self.kprobe.get_or_init(|| match Path::new(KPROBES).exists() {
            true => trial::program(&self.types, "trial_kprobe"),
            false => Answer::No(format!("the kernel was built without kprobes (CONFIG_KPROBE_EVENTS): no `{KPROBES}`")),
        })
    }

    /// Answers for one need.
    pub fn answer(&self, need: Need) -> Answer {
        match need {
            Need::TpBtf(name, arguments) => self.typed_tracepoint(name, arguments),
            Need::Trampoline(function) => self.function(function).unwrap_or_else(|| self.trampoline().clone()),
            Need::Kprobe(function) => self.function(function).unwrap_or_else(|| self.kprobe().clone()),
            Need::Tracepoint(category, name) => match &self.tracefs {
                Answer::Yes if tracefs::has_event(category, name) => Answer::Yes,
                Answer::Yes => Answer::No(format!("this kernel has no tracepoint `{category}:{name}`")),
                other => other.clone(),
            },
            Need::Helper(name) => self.of_own(name, || format!("this kernel has no helper `{name}`")),
            Need::FirstAtCgroup => self.first_at_cgroup.get_or_init(|| trial::first_at_cgroup(&self.types)).clone(),
            Need::Iter(name) => {
                let function = format!("bpf_iter_{name}");
                self.of_own(&function, || format!("this kernel has no function `{function}` to hook"))
            }
        }
    }

    fn typed_tracepoint(&self, name: &str, arguments: usize) -> Answer {
        let Some(btf) = self.types.own() else {
            return Answer::No(self.types.no_own());
        };
        let found = btf
            .type_by_name::<types::Typedef<'_>>(&format!("btf_trace_{name}"))
            .and_then(|typedef| types::Ptr::try_from(typedef.referenced_type()).ok())
            .and_then(|pointer| types::FuncProto::try_from(pointer.referenced_type()).ok());
        match found {
            None => Answer::No(format!("this kernel has no tracepoint `{name}`")),
            // the first parameter is the tracing machinery's own
            Some(proto) if proto.len() > arguments => Answer::Yes,
            Some(proto) => Answer::No(format!(
                "tracepoint `{name}` has {} arguments here, not {arguments}",
                proto.len().saturating_sub(1)
            )),
        }
    }

    /// Whether the kernel's own types list this function; helpers of BPF are functions, too.
    pub fn lists(&self, function: &str) -> bool {
        self.types.own().is_some_and(|btf| btf.type_by_name::<types::Func<'_>>(function).is_some())
    }

    /// What the kernel looks up in its own types when it loads a program.
    fn of_own(&self, function: &str, missing: impl FnOnce() -> String) -> Answer {
        match self.types.own() {
            None => Answer::No(self.types.no_own()),
            Some(_) if self.lists(function) => Answer::Yes,
            Some(_) => Answer::No(missing()),
        }
    }

    /// `None` when the kernel has this function, or when that can only be tried; else the answer.
    fn function(&self, function: &str) -> Option<Answer> {
        let missing = || Answer::No(format!("this kernel has no function `{function}` to hook"));
        (self.types.has_function(function) == Some(false)).then(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_preempted_from_linux_7_on_where_the_kernel_is() {
        assert!(preempts("7.3.4+deb13-cloud-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 7.3.4-1"));
        assert!(!preempts("7.3.4", "#1 SMP Debian 7.3.4-1"));
        assert!(!preempts("6.18.44", "#1 SMP PREEMPT_DYNAMIC"));
        assert!(!preempts("", ""));
    }
}
