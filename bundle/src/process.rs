//! `processes.jsonl`: the processes that a capture met, and those above them.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::event::LINE_VERSION;

/// Lines that `processes.jsonl` holds at most; more are counted as omitted.
pub const MAX_PROCESSES: u64 = 1 << 14;
/// Longest path or command line that is written, bytes.
pub const LONGEST_TEXT: usize = 256;

/// A line of `processes.jsonl`: a process that owned a socket, or one above such a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// Version of the contract.
    pub v: u32,
    /// Process id (thread group id) in the initial pid namespace.
    pub pid: u32,
    /// Boot time at which it started, ns: as in its events. Of one that owned no socket in steps of 10 ms
    /// (`/proc/PID/stat`, field 22).
    pub proc_start_ns: u64,
    /// Its parent as of when it was looked up; 0: it has none that this machine shows.
    pub ppid: u32,
    /// Name (thread-group leader's `comm`) as of its first line, or of the last execve(2) since.
    pub comm: String,
    /// Its executable (`/proc/PID/exe`), or with `is_as_called` what was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
    /// It was gone when it was looked up: `exe` is the path that execve(2) was called with, of a script its own.
    #[serde(default, rename = "exe_as_called", skip_serializing_if = "is_false")]
    pub is_as_called: bool,
    /// Real user id in the initial user namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// As in an event; with `why.cgroup_id` that of a hierarchy of version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup_id: Option<u64>,
    /// When its last thread exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_at: Option<DateTime<Utc>>,
    /// Its arguments, separated by spaces, if they were asked for (`/proc/PID/cmdline`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmdline: Option<String>,
    /// Why a key is absent, and where `cgroup_id` is one, as in an event.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub why: BTreeMap<String, String>,
}

impl ProcessRecord {
    /// One of which nothing else is known.
    pub const fn new(pid: u32, proc_start_ns: u64, ppid: u32, comm: String) -> Self {
        Self {
            v: LINE_VERSION,
            pid,
            proc_start_ns,
            ppid,
            comm,
            exe: None,
            is_as_called: false,
            uid: None,
            cgroup_id: None,
            exit_at: None,
            cmdline: None,
            why: BTreeMap::new(),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}
