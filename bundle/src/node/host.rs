//! What the machine has once, and what its pods have each: pressure, cgroups, resolvers, the clock, the system.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Counters, is_false};

/// See [`super::Item::Pressure`]: shares of time in which tasks waited for it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Pressure {
    /// `cpu`, `memory` or `io`.
    pub resource: String,
    /// v2 id of the cgroup that it is about; absent: the whole machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_id: Option<u64>,
    /// Some task waited, so far, µs.
    pub some_total_us: u64,
    /// All tasks waited, so far, µs; absent where the kernel does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_total_us: Option<u64>,
    /// Percent of the last 10 s, times 100.
    pub some_avg10: u64,
    /// Percent of the last 60 s, times 100.
    pub some_avg60: u64,
    /// At the end: what `some_total_us` gained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub some_rose_us: Option<u64>,
    /// At the end: what `full_total_us` gained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_rose_us: Option<u64>,
    /// At the end: time between the two looks, µs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elapsed_us: Option<u64>,
}

/// See [`super::Item::Cgroup`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Cgroup {
    /// Its id, as on lines of events.
    pub cgroup_id: u64,
    /// Its path.
    pub path: String,
    /// Time that it may run in a period, µs; absent: as much as it likes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_us: Option<u64>,
    /// Length of that period, µs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period_us: Option<u64>,
    /// `cpu.stat` and `memory.events` by their names, with `cpu.` and `memory.` before them; v1's names are told as v2's.
    pub counters: Counters,
    /// At the end: what they gained.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rose: Counters,
}

/// See [`super::Item::Resolver`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Resolver {
    /// Mount namespace in which it stands, as `ns.mnt`.
    pub mnt_ns: u32,
    /// It is the node's own.
    #[serde(skip_serializing_if = "is_false")]
    pub is_node: bool,
    /// A process that sees it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// `nameserver` lines.
    pub nameservers: Vec<String>,
    /// Domains of `search` or `domain`; their names are not told.
    pub search_count: u64,
    /// `options ndots:`; 1 if it is not there.
    pub ndots: u64,
    /// All `options`, at most 16.
    pub options: Vec<String>,
}

/// See [`super::Item::Clock`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Clock {
    /// The kernel believes that it is kept in step (no `STA_UNSYNC`).
    pub synchronized: bool,
    /// Estimated error, µs.
    pub est_error_us: u64,
    /// Largest error, µs.
    pub max_error_us: u64,
    /// `tsc`, `kvm-clock` and so on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clocksource: Option<String>,
}

/// See [`super::Item::System`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct System {
    /// `uname -r`.
    pub kernel: String,
    /// `PRETTY_NAME` of `os-release`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
    /// Machine's make and model, as the firmware has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hardware: Option<String>,
    /// CPUs that are online.
    pub cpu_count: u64,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Id of this boot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
}
