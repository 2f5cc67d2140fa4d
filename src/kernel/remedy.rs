//! What to do about a program that the kernel refused for want of a right: the sentence that follows the refusal.

use libbpf_rs::{Error, ErrorKind, ProgramType};
use nix::sys::resource::{Resource, getrlimit};

use crate::preflight;

/// From here on the kernel charges maps to the cgroup, before to `RLIMIT_MEMLOCK`.
const WITHOUT_MEMLOCK: (u32, u32) = (5, 11);

const PARANOID: &str = "/proc/sys/kernel/perf_event_paranoid";
/// Above this, which only some distributions have, perf_event_open asks for more than CAP_PERFMON.
const MAX_PARANOID: i32 = 2;

/// For a program of a cgroup, which the kernel refuses at load or at attach.
pub fn of_cgroup() -> Option<String> {
    (preflight::may_attach_to_cgroups() == Some(false)).then(|| "give CAP_NET_ADMIN".into())
}

/// For a program that could not be attached.
pub fn of_attach(program: ProgramType, error: &Error) -> Option<String> {
    match program {
        _ if error.kind() != ErrorKind::PermissionDenied => None,
        ProgramType::CgroupSockAddr => of_cgroup(),
        ProgramType::Tracepoint | ProgramType::Kprobe => Some(of_perf()),
        _ => None,
    }
}

/// Kprobes and classic tracepoints are attached through perf_event_open.
fn of_perf() -> String {
    if preflight::has_seccomp_filter() {
        return "let the seccomp filter that is in force pass `perf_event_open`".into();
    }
    let level = std::fs::read_to_string(PARANOID).ok().and_then(|text| text.trim().parse::<i32>().ok());
    match level {
        Some(level) if level > MAX_PARANOID => {
            format!("`kernel.perf_event_paranoid` is {level}: set it to {MAX_PARANOID}, or give CAP_SYS_ADMIN")
        }
        _ => "a security module may forbid `perf_event_open`: look for `denied` in the audit log".into(),
    }
}

/// For maps and programs that are charged to this process; `None` where that cannot be the reason.
pub fn of_memlock(error: &Error, release: &str) -> Option<String> {
    let (limit, _) = getrlimit(Resource::RLIMIT_MEMLOCK).ok()?;
    let charged = version(release).is_some_and(|it| it < WITHOUT_MEMLOCK);
    let limited = limit != nix::libc::RLIM_INFINITY;
    (error.kind() == ErrorKind::PermissionDenied && charged && limited)
        .then(|| format!("the limit of locked memory is {} KiB: run `ulimit -l unlimited` before", limit >> 10))
}

/// Major and minor number of `uname -r`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_ordered_by_number() {
        assert_eq!(version("5.10.0-38-cloud-amd64"), Some((5, 10)));
        assert_eq!(version("6.18.44-fc"), Some((6, 18)));
        assert_eq!(version("linux"), None);
    }
}
