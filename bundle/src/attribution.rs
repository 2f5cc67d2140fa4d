//! Who owns a socket, how that is known, or why it is not.

use crate::why::Reason;

/// A value together with how it was found, or the reason that there is none. Never a placeholder.
#[derive(Debug, Clone, PartialEq)]
pub enum Attribution<T> {
    /// The value is known.
    Resolved(T),
    /// It is not, and this is why.
    Unresolved(Reason),
}

impl<T> Attribution<T> {
    /// The value, if there is one.
    pub const fn value(&self) -> Option<&T> {
        match self {
            Self::Resolved(v) => Some(v),
            Self::Unresolved(_) => None,
        }
    }
}

/// How an owner was found: the `owner` key.
///
/// A connection's owner is its **last** process-context owner; a reader joins events by socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OwnerSource {
    /// The task was in its own system call on this socket.
    Current,
    /// The task that connected the socket.
    Connect,
    /// The task that accepted the socket.
    Accept,
    /// The task that called `listen(2)`.
    Listen,
    /// The first task of its process that sent or received on the socket.
    FirstIo,
    /// The task that closed the socket.
    Close,
    /// A child that was not accepted yet: its listener's owner.
    Inherited,
    /// Found in the file table of the process when the capture started or ended.
    FdTable,
    /// The kernel itself: no process owns it.
    Kernel,
    /// A line of another writer that does not say.
    #[serde(other)]
    Unstated,
}

impl OwnerSource {
    /// The name as it stands in a bundle.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Connect => "connect",
            Self::Accept => "accept",
            Self::Listen => "listen",
            Self::FirstIo => "first_io",
            Self::Close => "close",
            Self::Inherited => "inherited",
            Self::FdTable => "fd_table",
            Self::Kernel => "kernel",
            Self::Unstated => "unstated",
        }
    }
}

/// The process behind a socket, as it was when it became the owner.
#[derive(Debug, Clone, PartialEq)]
pub struct Owner {
    /// How it was found.
    pub source: OwnerSource,
    /// Process id (thread group id) in the initial pid namespace.
    pub pid: u32,
    /// Thread id.
    pub tid: Option<u32>,
    /// Parent's process id.
    pub ppid: Option<u32>,
    /// Real user id in the initial user namespace.
    pub uid: Option<u32>,
    /// Real group id in the initial user namespace.
    pub gid: Option<u32>,
    /// Name of the process (thread-group leader's `comm`, ≤ 15 bytes).
    pub comm: String,
    /// Name of the thread, only if it differs.
    pub thread: Option<String>,
    /// Boot time in ns at which the process started; with `pid` it names the process uniquely.
    pub proc_start_ns: Option<u64>,
    /// Mount namespace inode.
    pub mnt_ns: Option<u32>,
    /// Pid namespace inode.
    pub pid_ns: Option<u32>,
    /// User namespace inode.
    pub user_ns: Option<u32>,
    /// Security context, unless not asked for.
    pub sec: Option<Security>,
    /// cgroup v2 id, or the v1 id with `why.cgroup_id`.
    pub cgroup_id: Option<u64>,
}

/// Security context of a process at the time it became the owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Security {
    /// 0 disabled, 1 strict, 2 filter (`task->seccomp.mode`).
    pub seccomp_mode: u32,
    /// Effective capabilities, bit n = capability n (`cred->cap_effective`).
    pub caps_eff: u64,
}
