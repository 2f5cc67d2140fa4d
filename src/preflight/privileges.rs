//! What this process may do, as the kernel's own files tell: capabilities, and what makes them void.

use procfs::process::Process;

const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// `PROC_USER_INIT_INO` of the kernel.
const INITIAL_USER: u64 = 0xEFFF_FFFD;
/// `PROC_PID_INIT_INO` of the kernel.
const INITIAL_PID: u64 = 0xEFFF_FFFC;

fn inode(namespace: &str) -> Option<u64> {
    let meta = std::fs::metadata(format!("/proc/self/ns/{namespace}")).ok()?;
    Some(std::os::unix::fs::MetadataExt::ino(&meta))
}

/// Whether this process lives in the initial pid namespace. In any other the file tables of the node's processes
/// cannot be read.
pub fn sees_all_processes() -> bool {
    inode("pid") == Some(INITIAL_PID)
}

/// Whether this process lives in a user namespace of its own, where capabilities count for what that namespace owns and
/// for nothing else.
pub fn in_user_namespace() -> bool {
    inode("user").is_some_and(|inode| inode != INITIAL_USER)
}

/// Effective capabilities of this process, bit n = capability n; `None` if `/proc` does not say.
pub fn capabilities() -> Option<u64> {
    Process::myself().ok()?.status().ok().map(|s| s.capeff)
}

/// Whether a seccomp filter stands between this process and the kernel.
pub fn has_seccomp_filter() -> bool {
    const FILTER: u32 = 2;
    Process::myself().ok().and_then(|it| it.status().ok()?.seccomp) == Some(FILTER)
}

/// CAP_NET_ADMIN is not among them: without it only the cgroup programs are refused, which degrades `udp`.
pub fn missing(held: u64) -> Vec<&'static str> {
    if has(held, CAP_SYS_ADMIN) {
        return Vec::new();
    }
    [(CAP_BPF, "CAP_BPF"), (CAP_PERFMON, "CAP_PERFMON")]
        .into_iter()
        .filter(|(cap, _)| !has(held, *cap))
        .map(|(_, name)| name)
        .collect()
}

/// Whether programs may be attached to cgroups; `None` if `/proc` does not say.
pub fn may_attach_to_cgroups() -> Option<bool> {
    capabilities().map(|held| has(held, CAP_NET_ADMIN) || has(held, CAP_SYS_ADMIN))
}

const fn has(held: u64, capability: u32) -> bool {
    held >> capability & 1 == 1
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
