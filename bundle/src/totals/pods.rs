//! Rows by pod: those of its processes, added up at the end.

use std::collections::HashMap;
use std::sync::Arc;

use super::keys::{Label, Who};
use super::table::{MAX_TABLE, Numbers, Table};
use crate::attribution::Attribution;
use crate::event::Identity;
use crate::summary::RowKey;
use crate::workload::{Home, Workload};

/// What the processes belong to, and what pods are called that had no name when these were seen.
#[derive(Debug, Default)]
pub(super) struct Homes {
    /// By pid and start, or 0; nothing stands for the host. Small, as there is one for each process.
    of: HashMap<(u32, u64), Option<Arc<Workload>>>,
    /// By the pod's uid.
    late: HashMap<String, String>,
}

/// What a row is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Place {
    Pod { uid: String, name: Option<String> },
    Host,
    Unknown,
}

impl Homes {
    /// Remembers what the owner belongs to; names can come later than ids.
    pub(super) fn note(&mut self, id: &Identity) {
        let (Attribution::Resolved(owner), Attribution::Resolved(home)) = (&id.owner, &id.home) else { return };
        let key = (owner.pid, owner.proc_start_ns.unwrap_or(0));
        let pod = match home {
            Home::Pod(workload) => Some(workload),
            Home::Host(_) => None,
        };
        let is_room = self.of.len() < MAX_TABLE;
        match self.of.get_mut(&key) {
            Some(known) if is_named(known.as_ref()) || !is_named(pod) => {}
            Some(known) => *known = pod.cloned(),
            None if is_room => drop(self.of.insert(key, pod.cloned())),
            None => {}
        }
    }

    /// Takes over what a pod is called.
    pub(super) fn learn(&mut self, workload: &Workload) {
        if self.late.len() < MAX_TABLE
            && let Some(name) = name(workload)
        {
            self.late.insert(workload.pod_uid.clone(), name);
        }
    }

    /// The rows of processes by what these belong to.
    pub(super) fn sums(&self, processes: &Table<Who, Numbers>) -> Table<impl Label + std::hash::Hash + Eq, Numbers> {
        // one process of a pod may have been seen before the name was known
        let pods = self.of.values().flatten();
        let mut names: HashMap<&str, String> = pods.filter_map(|it| Some((&*it.pod_uid, name(it)?))).collect();
        names.extend(self.late.iter().map(|(uid, name)| (&**uid, name.clone())));
        let mut sums: Table<Place, Numbers> = Table::default();
        for (who, numbers) in processes.iter() {
            sums.row(self.place(who, &names)).add(numbers);
        }
        sums
    }

    fn place(&self, who: &Who, names: &HashMap<&str, String>) -> Place {
        let key = who.process().map(|(pid, start_ns)| (pid, start_ns.unwrap_or(0)));
        match key.and_then(|key| self.of.get(&key)) {
            Some(Some(it)) => Place::Pod { uid: it.pod_uid.clone(), name: names.get(&*it.pod_uid).cloned() },
            Some(None) => Place::Host,
            None => Place::Unknown,
        }
    }
}

fn is_named(pod: Option<&Arc<Workload>>) -> bool {
    pod.is_some_and(|workload| workload.pod.is_some())
}

fn name(workload: &Workload) -> Option<String> {
    Some(format!("{}/{}", workload.namespace.as_deref()?, workload.pod.as_deref()?))
}

impl Label for Place {
    fn row_key(&self) -> RowKey {
        let (key, pod_uid) = match self {
            Self::Pod { uid, name } => (name.clone().unwrap_or_else(|| format!("pod {uid}")), Some(uid.clone())),
            Self::Host => ("host".to_owned(), None),
            Self::Unknown => ("unattributed".to_owned(), None),
        };
        RowKey { key, pod_uid, ..RowKey::default() }
    }
}
