//! What this kernel offers to hooks: yes, no, or could not tell, each with the reason.
//!
//! Looked up in BTF and tracefs where that is conclusive; tried with a program that does nothing where it is
//! not. A trial runs once per process and changes nothing on the node.

use std::cell::OnceCell;
use std::mem::MaybeUninit;

use libbpf_rs::btf::{Btf, ReferencesType, types};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};

use super::preflight_skel::PreflightSkelBuilder;
use super::{log, tracefs};

/// Where the kernel publishes its types.
pub const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";

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
        }
    }
}

/// The kernel's answers; trials are made on first need.
pub struct Features {
    btf: Option<Btf<'static>>,
    tracefs: Answer,
    trampoline: OnceCell<Answer>,
    kprobe: OnceCell<Answer>,
}

impl Features {
    /// Reads the kernel's types and finds tracefs.
    pub fn of_this_kernel() -> Self {
        let tracefs = match tracefs::ensure() {
            Ok(()) => Answer::Yes,
            Err(e) => Answer::No(format!("tracefs is not mounted and cannot be: {e}")),
        };
        Self { btf: Btf::from_path(BTF_PATH).ok(), tracefs, trampoline: OnceCell::new(), kprobe: OnceCell::new() }
    }

    /// Whether the kernel's types could be read.
    pub const fn has_btf(&self) -> bool {
        self.btf.is_some()
    }

    /// Whether tracefs can be read.
    pub const fn tracefs(&self) -> &Answer {
        &self.tracefs
    }

    /// Whether fentry and fexit programs load and attach: arm64 loads them from 6.0 on, and attaches them from 6.4
    /// on ("arm64: ftrace: Add direct call support").
    pub fn trampoline(&self) -> &Answer {
        self.trampoline.get_or_init(|| trial("trial_fentry"))
    }

    /// Whether kprobes attach.
    pub fn kprobe(&self) -> &Answer {
        self.kprobe.get_or_init(|| trial("trial_kprobe"))
    }

    /// Answers for one need.
    pub fn answer(&self, need: Need) -> Answer {
        match need {
            Need::TpBtf(name, arguments) => self.typed_tracepoint(name, arguments),
            Need::Trampoline(function) => self.in_btf(function).unwrap_or_else(|| self.trampoline().clone()),
            Need::Kprobe(function) => self.in_btf(function).unwrap_or_else(|| self.kprobe().clone()),
            Need::Tracepoint(category, name) => match &self.tracefs {
                Answer::Yes if tracefs::has_event(category, name) => Answer::Yes,
                Answer::Yes => Answer::No(format!("this kernel has no tracepoint `{category}:{name}`")),
                other => other.clone(),
            },
            Need::Helper(name) => match self.in_btf(name) {
                Some(_) if self.has_btf() => Answer::No(format!("this kernel has no helper `{name}`")),
                answer => answer.unwrap_or(Answer::Yes),
            },
            Need::Iter(name) => self.in_btf(&format!("bpf_iter_{name}")).unwrap_or(Answer::Yes),
        }
    }

    fn typed_tracepoint(&self, name: &str, arguments: usize) -> Answer {
        let Some(btf) = &self.btf else {
            return Answer::No(format!("`{BTF_PATH}` cannot be read"));
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

    /// Whether the kernel's types list this function; helpers of BPF are functions, too.
    pub fn has_function(&self, function: &str) -> bool {
        self.btf.as_ref().is_some_and(|btf| btf.type_by_name::<types::Func<'_>>(function).is_some())
    }

    /// `None` when the kernel has this function, else the answer.
    fn in_btf(&self, function: &str) -> Option<Answer> {
        if self.btf.is_none() {
            return Some(Answer::No(format!("`{BTF_PATH}` cannot be read")));
        }
        let missing = || Answer::No(format!("this kernel has no function `{function}` to hook"));
        (!self.has_function(function)).then(missing)
    }
}

/// Loads one program that does nothing, and attaches it for a moment.
fn trial(program: &str) -> Answer {
    let _ = log::take();
    let mut slot = MaybeUninit::uninit();
    let open = match PreflightSkelBuilder::default().open(&mut slot) {
        Ok(open) => open,
        Err(e) => return Answer::Unknown(format!("the trial object cannot be opened: {}", log::chain(&e))),
    };
    let mut open = open;
    for mut candidate in open.open_object_mut().progs_mut() {
        let chosen = candidate.name() == program;
        candidate.set_autoload(chosen);
    }
    let loaded = match open.load() {
        Ok(loaded) => loaded,
        Err(e) => return Answer::No(refusal("load", &e)),
    };
    let result = libbpf_rs::skel::Skel::object(&loaded).progs_mut().find(|p| p.name() == program).map(|p| p.attach());
    match result {
        Some(Ok(_link)) => Answer::Yes,
        Some(Err(e)) => Answer::No(refusal("attach", &e)),
        None => Answer::Unknown("the trial program is not in its object".into()),
    }
}

fn refusal(step: &str, error: &libbpf_rs::Error) -> String {
    format!("the kernel refuses to {step} it: {}", log::chain(error))
}
