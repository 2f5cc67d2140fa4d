//! The processes of a capture, each once, and whose word counts when events disagree about an owner.

use std::collections::{BTreeMap, HashMap};

use ktrace_bundle::attribution::{Attribution, Owner, OwnerSource};
use ktrace_bundle::event::Identity;
use ktrace_bundle::workload::{Home, WorkloadRecord, Workloads};

/// Most processes that are told apart.
const MAX_PROCESSES: usize = 200_000;

/// Index into the process table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcId(u32);

/// One process under one name; an `exec` makes another.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Process {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Boot time of its start in ns, where known.
    pub start_ns: Option<u64>,
    /// Its name, as the captured machine gave it: hostile.
    pub comm: String,
}

/// In what a process runs, as it was first seen; each is unknown where no event tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Setting {
    /// Its cgroup, as `cgroup_id` of an event.
    pub cgroup_id: Option<u64>,
    /// Its mount namespace, as `ns.mnt`.
    pub mnt_ns: Option<u32>,
}

/// Every process that owned a socket.
#[derive(Debug, Default)]
pub struct Processes {
    by_key: HashMap<Process, ProcId>,
    list: Vec<Process>,
    homes: Vec<Option<Home>>,
    settings: Vec<Setting>,
    /// Records of those whose names are not all known, one of each at most; read again when all is read.
    nameless: BTreeMap<ProcId, Identity>,
    workloads: Workloads,
    overflow: u64,
}

impl Processes {
    /// The process behind this record, and what it belongs to; `None` if it is not known, or the table is full.
    pub fn of(&mut self, id: &Identity) -> Option<ProcId> {
        let proc = self.intern(&id.owner)?;
        if is_nameless(&id.home) {
            self.nameless.entry(proc).or_insert_with(|| id.clone());
        }
        if let (Some(known), Attribution::Resolved(home)) = (self.homes.get_mut(proc.0 as usize), &id.home) {
            // names can come later than ids; of two that tell as much one is chosen in whatever order they come
            if known.as_ref().is_none_or(|known| (names(known), known) < (names(home), home)) {
                *known = Some(home.clone());
            }
        }
        Some(proc)
    }

    /// Takes a line of `workloads.jsonl`.
    pub fn learn(&mut self, workload: WorkloadRecord) {
        self.workloads.add(workload);
    }

    /// Names those of which the workloads tell more than their own lines.
    pub fn join(&mut self) {
        for (proc, id) in std::mem::take(&mut self.nameless) {
            if let (Some(home), Some(known)) = (self.workloads.join(&id), self.homes.get_mut(proc.0 as usize))
                && known.as_ref().is_none_or(|known| names(known) < names(&home))
            {
                *known = Some(home);
            }
        }
    }

    /// What a process belongs to, where that is known.
    pub fn home(&self, id: ProcId) -> Option<&Home> {
        self.homes.get(id.0 as usize)?.as_ref()
    }

    /// In what a process runs.
    pub fn setting(&self, id: ProcId) -> Setting {
        self.settings.get(id.0 as usize).copied().unwrap_or_default()
    }

    /// The processes of a cgroup.
    pub fn in_cgroup(&self, cgroup_id: u64) -> impl Iterator<Item = ProcId> {
        let of = (0..).zip(&self.settings).filter(move |(_, s)| s.cgroup_id == Some(cgroup_id));
        of.map(|(n, _)| ProcId(n))
    }

    fn intern(&mut self, owner: &Attribution<Owner>) -> Option<ProcId> {
        let owner = owner.value()?;
        if owner.source == OwnerSource::Kernel {
            return None;
        }
        let process = process_of(owner);
        if let Some(id) = self.by_key.get(&process) {
            return Some(*id);
        }
        if self.list.len() >= MAX_PROCESSES {
            self.overflow += 1;
            return None;
        }
        let id = ProcId(u32::try_from(self.list.len()).ok()?);
        self.list.push(process.clone());
        self.homes.push(None);
        self.settings.push(Setting { cgroup_id: owner.cgroup_id, mnt_ns: owner.mnt_ns });
        self.by_key.insert(process, id);
        Some(id)
    }

    /// The process behind a record that was pushed before.
    pub(crate) fn find(&self, id: &Identity) -> Option<ProcId> {
        let owner = id.owner.value().filter(|owner| owner.source != OwnerSource::Kernel)?;
        self.by_key.get(&process_of(owner)).copied()
    }

    /// The process with this index.
    pub fn get(&self, id: ProcId) -> Option<&Process> {
        self.list.get(id.0 as usize)
    }

    /// Their names: hostile, and not each once.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|process| process.comm.as_str())
    }

    /// Names of the pods that they run in: hostile, and not each once.
    pub fn pods(&self) -> impl Iterator<Item = &str> {
        self.homes.iter().flatten().filter_map(crate::finding::pod_name)
    }

    /// Number of processes.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether no process was seen.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Owners that no longer found a place.
    pub const fn overflow(&self) -> u64 {
        self.overflow
    }
}

fn process_of(owner: &Owner) -> Process {
    Process { pid: owner.pid, start_ns: owner.proc_start_ns, comm: owner.comm.clone() }
}

/// Whether a pod may be behind it that has names which this does not tell.
fn is_nameless(home: &Attribution<Home>) -> bool {
    match home {
        Attribution::Resolved(Home::Pod(workload)) => workload.pod.is_none() || workload.container.is_none(),
        Attribution::Resolved(Home::Host(_)) => false,
        Attribution::Unresolved(_) => true,
    }
}

/// How many names it has.
fn names(home: &Home) -> usize {
    match home {
        Home::Pod(workload) => workload.names(),
        Home::Host(_) => 0,
    }
}

/// A socket's owner so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OwnerSoFar {
    proc: Option<ProcId>,
    rank: (u8, u64),
}

impl OwnerSoFar {
    /// Weighs another statement: a process in its own context beats a file table, which beats an inherited
    /// owner; among equals the later one counts.
    pub fn weigh(&mut self, proc: Option<ProcId>, owner: &Attribution<Owner>, boot_ns: u64) {
        let (Some(proc), Some(owner)) = (proc, owner.value()) else { return };
        let rank = (trust(owner.source), boot_ns);
        if self.proc.is_none() || rank >= self.rank {
            *self = Self { proc: Some(proc), rank };
        }
    }

    /// The owner, if any statement named one.
    pub const fn get(self) -> Option<ProcId> {
        self.proc
    }
}

const fn trust(source: OwnerSource) -> u8 {
    match source {
        OwnerSource::Current
        | OwnerSource::Connect
        | OwnerSource::Accept
        | OwnerSource::Listen
        | OwnerSource::FirstIo
        | OwnerSource::Close
        | OwnerSource::Unstated => 2,
        OwnerSource::FdTable => 1,
        OwnerSource::Inherited | OwnerSource::Kernel => 0,
    }
}

#[cfg(test)]
mod tests {
    use ktrace_bundle::testing::an_event;
    use ktrace_bundle::workload::Workload;

    use super::*;

    fn owner(pid: u32, source: OwnerSource) -> Attribution<Owner> {
        Attribution::Resolved(Owner {
            source,
            pid,
            tid: None,
            ppid: None,
            uid: None,
            gid: None,
            comm: format!("p{pid}"),
            thread: None,
            proc_start_ns: None,
            mnt_ns: None,
            pid_ns: None,
            user_ns: None,
            sec: None,
            cgroup_id: None,
        })
    }

    #[test]
    fn the_last_process_in_its_own_context_owns_the_connection() {
        let mut processes = Processes::default();
        let mut so_far = OwnerSoFar::default();
        for (at, pid, source) in [
            (1, 10, OwnerSource::Inherited),
            (3, 12, OwnerSource::FirstIo),
            (2, 11, OwnerSource::Accept),
            (4, 10, OwnerSource::Inherited),
            (5, 13, OwnerSource::FdTable),
        ] {
            let owner = owner(pid, source);
            let proc = processes.intern(&owner);
            so_far.weigh(proc, &owner, at);
        }
        assert_eq!(so_far.get().and_then(|id| processes.get(id)).map(|p| p.pid), Some(12));
    }

    #[test]
    fn a_process_is_named_by_what_was_learnt_after_its_lines() {
        let nameless = Workload::of_cgroup("0b1c6c2e-4a77-4d8a-9d2b-3f5e8c7a9b10".into());
        let named = Workload { namespace: Some("shop".into()), pod: Some("api-1".into()), ..nameless.clone() };
        let record = |pid: u32, cgroup_id: u64| {
            let mut id = an_event().by("api", pid).home(Home::Pod(nameless.clone().into())).build().id;
            if let Attribution::Resolved(owner) = &mut id.owner {
                owner.cgroup_id = Some(cgroup_id);
            }
            id
        };
        let mut processes = Processes::default();
        let [mine, other] = [record(1, 7), record(2, 8)].map(|id| processes.of(&id).unwrap());
        let (k8s, why) = (named.clone(), BTreeMap::new());
        processes.learn(WorkloadRecord { v: 1, cgroup_id: 7, k8s, created_at: None, ended_at: None, why });
        assert_eq!(processes.home(mine), Some(&Home::Pod(nameless.clone().into())), "not before all is read");
        processes.join();
        assert_eq!(processes.home(mine), Some(&Home::Pod(named.into())));
        assert_eq!(processes.home(other), Some(&Home::Pod(nameless.clone().into())), "of another cgroup");
    }
}
