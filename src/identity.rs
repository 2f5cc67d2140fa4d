//! Whose a process is, beyond its pid: the pod and container, or the service of the host, by the cgroup that it is in.

mod place;

use std::collections::HashMap;
use std::sync::Arc;

use ktrace_bundle::attribution::{Attribution, Owner};
use ktrace_bundle::event::Identity;
use ktrace_bundle::why::Reason;
use ktrace_bundle::workload::{Home, Via, Workload};

use crate::cgroup::{Hierarchy, Paths};
use place::Place;

/// Cgroups that are remembered; a node has some hundreds. 16,384 paths are some 3 MiB.
const MOST: usize = 1 << 14;

/// What each cgroup is home to.
pub struct Homes {
    paths: Paths,
    known: HashMap<(Hierarchy, u64), Attribution<Home>>,
}

impl Homes {
    /// Nothing known yet.
    pub fn new() -> Self {
        Self { paths: Paths::open(), known: HashMap::new() }
    }

    /// Says in a record what its owner belongs to.
    pub fn settle(&mut self, id: &mut Identity) {
        let Attribution::Resolved(Owner { cgroup_id, .. }) = &id.owner else {
            id.home = Attribution::Unresolved(Reason::NoOwner);
            return;
        };
        id.home = match cgroup_id {
            Some(cgroup) => self.of(Hierarchy::of(id.why.get("cgroup_id")), *cgroup),
            None => Attribution::Unresolved(Reason::NotFound),
        };
    }

    /// A look-up takes some 6 us, once for each cgroup: its path does not change for as long as it lives.
    fn of(&mut self, hierarchy: Hierarchy, cgroup: u64) -> Attribution<Home> {
        if let Some(known) = self.known.get(&(hierarchy, cgroup)) {
            return known.clone();
        }
        if self.known.len() >= MOST {
            self.known.clear();
        }
        let home = match self.paths.path_of(hierarchy, cgroup) {
            Ok(path) => Attribution::Resolved(home_of(&path)),
            Err(reason) => Attribution::Unresolved(reason),
        };
        self.known.insert((hierarchy, cgroup), home.clone());
        home
    }
}

fn home_of(path: &str) -> Home {
    match place::of(path) {
        Place::Pod { uid, container_id } => Home::Pod(Arc::new(Workload {
            pod_uid: uid,
            container_id: container_id.map(str::to_owned),
            via: Via::Cgroup,
        })),
        Place::Host { unit } => Home::Host(Arc::from(unit)),
    }
}
