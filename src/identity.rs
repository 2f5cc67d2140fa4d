//! Whose a process is, beyond its pid: the pod and container, or the service of the host. The cgroup that it is in tells which
//! pod and container, by their ids; the kubelet's logs tell what these are called.

mod place;
mod pod_logs;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use ktrace_bundle::attribution::{Attribution, Owner};
use ktrace_bundle::event::Identity;
use ktrace_bundle::manifest::SourceReport;
use ktrace_bundle::why::Reason;
use ktrace_bundle::workload::{Home, Via, Workload};

use crate::cgroup::{Hierarchy, Paths};
use place::Place;
use pod_logs::PodLogs;

/// Cgroups that are remembered; a node has some hundreds. 16,384 of them are some 8 MiB.
const MOST: usize = 1 << 14;

/// What each cgroup is home to.
pub struct Homes {
    paths: Paths,
    logs: PodLogs,
    known: HashMap<(Hierarchy, u64), Known>,
    evicted: u64,
}

struct Known {
    home: Attribution<Home>,
    /// Nothing can be added to it.
    is_whole: bool,
}

impl Homes {
    /// Nothing known yet; `pod_logs` is the kubelet's `/var/log`.
    pub fn new(pod_logs: &Path) -> Self {
        Self { paths: Paths::open(), logs: PodLogs::new(pod_logs), known: HashMap::new(), evicted: 0 }
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

    /// What the sources answered.
    pub fn reports(&self) -> Vec<SourceReport> {
        let cgroups = SourceReport {
            name: "cgroup".into(),
            outcome: if self.paths.are_there() { "answered" } else { "absent" }.into(),
            entries: Some(self.known.len() as u64),
            evicted: Some(self.evicted),
        };
        let logs = SourceReport {
            name: Via::PodLogs.as_str().into(),
            outcome: self.logs.outcome().into(),
            entries: Some(self.logs.entries() as u64),
            evicted: None,
        };
        vec![cgroups, logs]
    }

    /// A look-up takes some 6 us, once for each cgroup: its path does not change for as long as it lives. Names may come
    /// later.
    fn of(&mut self, hierarchy: Hierarchy, cgroup: u64) -> Attribution<Home> {
        let key = (hierarchy, cgroup);
        match self.known.get_mut(&key) {
            Some(known) if known.is_whole => return known.home.clone(),
            Some(known) => {
                if self.logs.refresh()
                    && let Attribution::Resolved(Home::Pod(workload)) = &known.home
                {
                    (known.home, known.is_whole) = named(&self.logs, Workload::clone(workload));
                }
                return known.home.clone();
            }
            None => {}
        }
        let (home, is_whole) = match self.paths.path_of(hierarchy, cgroup) {
            Ok(path) => self.home_of(&path),
            Err(reason) => (Attribution::Unresolved(reason), true),
        };
        if self.known.len() >= MOST {
            self.evicted += self.known.len() as u64;
            self.known.clear();
        }
        self.known.insert(key, Known { home: home.clone(), is_whole });
        home
    }

    fn home_of(&mut self, path: &str) -> (Attribution<Home>, bool) {
        match place::of(path) {
            Place::Pod { uid, container_id } => {
                let container_id = container_id.map(str::to_owned);
                let workload = Workload { container_id, ..Workload::of_cgroup(uid) };
                if self.logs.pod(&workload.pod_uid).is_none() {
                    self.logs.refresh();
                }
                named(&self.logs, workload)
            }
            Place::Host { unit } => (Attribution::Resolved(Home::Host(Arc::from(unit))), true),
        }
    }
}

/// The same with its names, as far as they are known, and whether they all are.
fn named(logs: &PodLogs, mut workload: Workload) -> (Attribution<Home>, bool) {
    let Some(pod) = logs.pod(&workload.pod_uid) else {
        return (Attribution::Resolved(Home::Pod(Arc::new(workload))), false);
    };
    workload.via = Via::PodLogs;
    workload.namespace = Some(pod.namespace.clone());
    workload.pod = Some(pod.pod.clone());
    workload.container = workload.container_id.as_deref().and_then(|id| logs.container(pod, id)).map(str::to_owned);
    let is_whole = workload.container_id.is_none() || workload.container.is_some();
    (Attribution::Resolved(Home::Pod(Arc::new(workload))), is_whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0b1c6c2e-4a77-4d8a-9d2b-3f5e8c7a9b10";
    const ID: &str = "4f2a9c1b0d3e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8";

    fn workload(home: &Attribution<Home>) -> &Workload {
        match home {
            Attribution::Resolved(Home::Pod(workload)) => workload,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn ids_come_from_the_cgroup_and_names_from_the_logs() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join(format!("pods/shop_api-1_{UID}"))).unwrap();
        std::fs::create_dir(dir.path().join("containers")).unwrap();
        let mut homes = Homes::new(dir.path());
        let (home, is_whole) = homes.home_of(&format!("/kubepods/pod{UID}/{ID}"));
        let found = workload(&home);
        assert_eq!((found.namespace.as_deref(), found.pod.as_deref()), (Some("shop"), Some("api-1")));
        assert_eq!((found.container.as_deref(), found.container_id.as_deref(), is_whole), (None, Some(ID), false));
        // the kubelet says what it is called once it runs
        std::fs::write(dir.path().join(format!("containers/api-1_shop_api-{ID}.log")), "").unwrap();
        let mut logs = PodLogs::new(dir.path());
        logs.refresh();
        let (home, is_whole) = named(&logs, found.clone());
        assert_eq!((workload(&home).container.as_deref(), is_whole), (Some("api"), true));
    }

    #[test]
    fn without_logs_the_ids_are_there() {
        let mut homes = Homes::new(Path::new("/nonexistent"));
        let (home, is_whole) = homes.home_of(&format!("/kubepods/pod{UID}/{ID}"));
        assert_eq!(workload(&home), &Workload { container_id: Some(ID.into()), ..Workload::of_cgroup(UID.into()) });
        assert!(!is_whole);
        assert_eq!(homes.reports().iter().map(|it| &*it.outcome).collect::<Vec<_>>(), ["answered", "absent"]);
    }
}
