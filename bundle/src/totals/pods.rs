//! Rows by pod: those of its processes, added up at the end.

use std::collections::HashMap;
use std::sync::Arc;

use super::keys::{Label, Who};
use super::table::{MAX_TABLE, Numbers, Table};
use crate::attribution::Attribution;
use crate::event::Identity;
use crate::summary::RowKey;
use crate::workload::{Home, Workload};

/// What each process belongs to, by pid and start.
#[derive(Debug, Default)]
pub(super) struct Homes(HashMap<(u32, Option<u64>), Home>);

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
        let key = (owner.pid, owner.proc_start_ns);
        let is_room = self.0.len() < MAX_TABLE;
        match self.0.get_mut(&key) {
            Some(known) if is_named(known) || !is_named(home) => {}
            Some(known) => *known = home.clone(),
            None if is_room => drop(self.0.insert(key, home.clone())),
            None => {}
        }
    }

    /// The rows of processes by what these belong to.
    pub(super) fn sums(&self, processes: &Table<Who, Numbers>) -> Table<impl Label + std::hash::Hash + Eq, Numbers> {
        let mut sums: Table<Place, Numbers> = Table::default();
        for (who, numbers) in processes.iter() {
            sums.row(self.place(who)).add(numbers);
        }
        sums
    }

    fn place(&self, who: &Who) -> Place {
        match who.process().and_then(|process| self.0.get(&process)) {
            Some(Home::Pod(workload)) => Place::Pod { uid: workload.pod_uid.clone(), name: self.name(workload) },
            Some(Home::Host(_)) => Place::Host,
            None => Place::Unknown,
        }
    }

    /// Of the pod: one process of it may have been seen before the name was known.
    fn name(&self, of: &Arc<Workload>) -> Option<String> {
        let of_it = |home: &Home| match home {
            Home::Pod(workload) if workload.pod_uid == of.pod_uid => name(workload),
            _ => None,
        };
        name(of).or_else(|| self.0.values().find_map(of_it))
    }
}

fn is_named(home: &Home) -> bool {
    matches!(home, Home::Pod(workload) if workload.pod.is_some())
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
