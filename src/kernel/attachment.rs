//! One attached program, and what the kernel says of it: what its verification took, and how often it was skipped.
//!
//! Whether a kernel knows a number shows in the length of the record that it returns. Nothing is derived from versions.

use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use ktrace_bundle::manifest::ProgramReport;
use libbpf_rs::{Link, ProgramAttachType, ProgramMut, ProgramType, libbpf_sys};
use libbpf_sys::{bpf_link_info, bpf_prog_info};

/// A program that runs until this is dropped.
pub struct Attachment {
    /// Hook that it belongs to.
    pub hook: &'static str,
    /// Name in the BPF object.
    pub name: &'static str,
    /// Whether an event is lost each time that it is skipped.
    pub is_recording: bool,
    /// Whether it runs only when its link is read.
    pub is_iterator: bool,
    kind: ProgramType,
    /// Valid as long as the object that the program is part of, which outlives the session's attachments.
    program: RawFd,
    link: Link,
}

impl Attachment {
    /// Takes over the link of this program.
    pub fn new(
        (hook, name): (&'static str, &'static str),
        is_recording: bool,
        program: &ProgramMut<'_>,
        link: Link,
    ) -> Self {
        let is_iterator = matches!(program.attach_type(), ProgramAttachType::TraceIter);
        let (kind, program) = (program.prog_type(), program.as_fd().as_raw_fd());
        Self { hook, name, is_recording, is_iterator, kind, program, link }
    }

    /// Its link.
    pub const fn link(&self) -> &Link {
        &self.link
    }

    /// What the manifest says of it.
    pub fn report(&self, missed: Option<u64>) -> ProgramReport {
        let (info, length) = self.info();
        let known = length >= offset_of!(bpf_prog_info, verified_insns) + size_of::<u32>();
        ProgramReport { name: self.name.into(), verified_insns: known.then_some(info.verified_insns), missed }
    }

    /// How often the kernel skipped it since it was attached; `None` if this kernel skips such programs uncounted.
    ///
    /// Probes and classic tracepoints are skipped on top of each other, and a return probe also when too many calls are
    /// under way; both are counted since 6.7. Others are skipped on top of themselves, if at all, and each kernel that
    /// does so counts it.
    pub fn missed(&self) -> Option<u64> {
        let (info, _) = self.info();
        match self.kind {
            ProgramType::Kprobe => Some(info.recursion_misses + self.unreached()?),
            ProgramType::Tracepoint => self.unreached().map(|_| info.recursion_misses),
            _ => Some(info.recursion_misses),
        }
    }

    /// How often its probe was hit and could not run it, 0 for what is no probe; `None` if this kernel does not count.
    fn unreached(&self) -> Option<u64> {
        let mut info = bpf_link_info::default();
        let mut length = size_of::<bpf_link_info>() as u32;
        // SAFETY: `info` is a plain struct of the length that is passed; the kernel writes no more than that.
        let result = unsafe {
            libbpf_sys::bpf_link_get_info_by_fd(self.link.as_fd().as_raw_fd(), &raw mut info, &raw mut length)
        };
        let counted = offset_of!(bpf_link_info, __bindgen_anon_1.perf_event.__bindgen_anon_1.kprobe.cookie);
        if result != 0 || (length as usize) < counted {
            return None;
        }
        // SAFETY: all members of these unions are integers; where the kernel filled in another one, this is not read.
        let missed = unsafe { info.__bindgen_anon_1.perf_event.__bindgen_anon_1.kprobe.missed };
        Some(if self.kind == ProgramType::Kprobe { missed } else { 0 })
    }

    /// The kernel's record of the program, zero beyond the length that this kernel knows.
    fn info(&self) -> (bpf_prog_info, usize) {
        let mut info = bpf_prog_info::default();
        let mut length = size_of::<bpf_prog_info>() as u32;
        // SAFETY: `info` is a plain struct of the length that is passed; the kernel writes no more than that.
        let result = unsafe { libbpf_sys::bpf_prog_get_info_by_fd(self.program, &raw mut info, &raw mut length) };
        if result == 0 { (info, length as usize) } else { (bpf_prog_info::default(), 0) }
    }
}
