//! Where a process runs: in a container of a pod, or on the host; and `workloads.jsonl`, which tells it by cgroup.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize, Serializer};

use crate::attribution::Attribution;
use crate::event::Identity;

/// Lines that `workloads.jsonl` holds at most; more are counted as omitted. A reader remembers as many.
pub const MAX_WORKLOADS: u64 = 1 << 16;

/// What a process belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Home {
    /// A pod: `k8s` of a line.
    Pod(Arc<Workload>),
    /// The host: `unit` of a line, the systemd unit or else the path of the cgroup.
    Host(Arc<str>),
}

/// A container of a pod, as far as its source tells.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Workload {
    /// The pod's uid (`metadata.uid`).
    pub pod_uid: String,
    /// Its namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The container's name in the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Id that the runtime gave the container, 64 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// Name of what keeps the pod running, such as its Deployment: a beginning of the pod's name. It is derived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// The label of the pod that it is derived from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_from: Option<String>,
    /// Who says so.
    pub via: Via,
}

/// Where a workload is known from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// The path of the process's cgroup: ids only.
    Cgroup,
    /// The ids from there, the names from the container runtime, by the Container Runtime Interface.
    Cri,
    /// The ids from there, the names from containerd's own list, where it does not speak that interface.
    Containerd,
    /// The ids from there, the names from the kubelet's directories of logs.
    PodLogs,
    /// The ids from there, the pod's name from the kubelet's own directory: root in the pod can have changed it.
    KubeletDir,
}

impl Workload {
    /// A pod of which nothing else is known.
    pub const fn of_cgroup(pod_uid: String) -> Self {
        Self {
            pod_uid,
            namespace: None,
            pod: None,
            container: None,
            container_id: None,
            workload: None,
            workload_from: None,
            via: Via::Cgroup,
        }
    }

    /// How many of its names are known.
    pub fn names(&self) -> usize {
        [&self.namespace, &self.pod, &self.container, &self.workload].into_iter().flatten().count()
    }
}

impl Via {
    /// The name as it stands in a bundle.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::Cri => "cri",
            Self::Containerd => "containerd",
            Self::PodLogs => "pod_logs",
            Self::KubeletDir => "kubelet_dir",
        }
    }
}

/// A line of `workloads.jsonl`: a cgroup, and what it is by the end of the capture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadRecord {
    /// Version of the contract.
    pub v: u32,
    /// As `cgroup_id` of an event; with `why.cgroup_id` that of a hierarchy of version 1.
    pub cgroup_id: u64,
    /// The pod and container.
    pub k8s: Workload,
    /// When the container was made, by the clock of its runtime; absent where that does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "six_decimals")]
    pub created_at: Option<DateTime<Utc>>,
    /// When it ended meanwhile: by the clock of its runtime, or else when its cgroup was removed.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "six_decimals")]
    pub ended_at: Option<DateTime<Utc>>,
    /// Why a name is absent, and where `cgroup_id` is one, as in an event.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub why: BTreeMap<String, String>,
}

/// As `ts` of an event.
fn six_decimals<S: Serializer>(at: &Option<DateTime<Utc>>, serializer: S) -> Result<S::Ok, S::Error> {
    at.map(|at| at.to_rfc3339_opts(SecondsFormat::Micros, true)).serialize(serializer)
}

/// What the lines of `workloads.jsonl` tell, by cgroup: for the names that came after an event's line.
#[derive(Debug, Default)]
pub struct Workloads(HashMap<(Option<String>, u64), Arc<Workload>>);

impl Workloads {
    /// Remembers a line, unless [`MAX_WORKLOADS`] are known.
    pub fn add(&mut self, mut record: WorkloadRecord) {
        if (self.0.len() as u64) < MAX_WORKLOADS {
            self.0.insert((record.why.remove("cgroup_id"), record.cgroup_id), Arc::new(record.k8s));
        }
    }

    /// The workload in this record's cgroup, if it tells more about the owner than the record itself.
    pub fn join(&self, id: &Identity) -> Option<Home> {
        let hierarchy = id.why.get("cgroup_id").map(|reason| reason.text().into_owned());
        let known = self.0.get(&(hierarchy, id.owner.value()?.cgroup_id?))?;
        let tells_more = match &id.home {
            Attribution::Resolved(Home::Pod(own)) => {
                (&own.pod_uid, &own.container_id) == (&known.pod_uid, &known.container_id)
                    && own.names() < known.names()
            }
            Attribution::Resolved(Home::Host(_)) => false,
            Attribution::Unresolved(_) => true,
        };
        tells_more.then(|| Home::Pod(Arc::clone(known)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::an_event;
    use crate::why::Reason;

    const UID: &str = "0b1c6c2e-4a77-4d8a-9d2b-3f5e8c7a9b10";

    fn named() -> Workload {
        Workload { pod: Some("api-1".into()), via: Via::Cri, ..Workload::of_cgroup(UID.into()) }
    }

    fn workloads(hierarchy: Option<&str>) -> Workloads {
        let why = hierarchy.map(|text| ("cgroup_id".to_owned(), text.to_owned())).into_iter().collect();
        let mut workloads = Workloads::default();
        workloads.add(WorkloadRecord { v: 1, cgroup_id: 7, k8s: named(), created_at: None, ended_at: None, why });
        workloads
    }

    fn joined(workloads: &Workloads, home: Attribution<Home>, hierarchy: Option<&'static str>) -> Option<Home> {
        let mut id = an_event().build().id;
        if let Attribution::Resolved(owner) = &mut id.owner {
            owner.cgroup_id = Some(7);
        }
        id.home = home;
        if let Some(text) = hierarchy {
            id.why.set("cgroup_id", Reason::parse(text));
        }
        workloads.join(&id)
    }

    #[test]
    fn times_of_a_container_are_spelt_as_those_of_events() {
        let at = |text: &str| Some(DateTime::parse_from_rfc3339(text).unwrap().to_utc());
        let (created_at, ended_at) = (at("2026-01-24T21:57:54Z"), at("2026-01-24T21:57:55.326118Z"));
        let record = WorkloadRecord { v: 1, cgroup_id: 7, k8s: named(), created_at, ended_at, why: BTreeMap::new() };
        let text = serde_json::to_string(&record).unwrap();
        let times = r#""created_at":"2026-01-24T21:57:54.000000Z","ended_at":"2026-01-24T21:57:55.326118Z""#;
        assert!(text.contains(times), "{text}");
        assert_eq!(serde_json::from_str::<WorkloadRecord>(&text).unwrap(), record);
        let without = text.replace(times, r#""new":0"#);
        let known = WorkloadRecord { created_at: None, ended_at: None, ..record };
        assert_eq!(serde_json::from_str::<WorkloadRecord>(&without).unwrap(), known);
    }

    #[test]
    fn names_that_came_later_are_joined_by_the_cgroup() {
        let whole = Some(Home::Pod(named().into()));
        let nameless = || Attribution::Resolved(Home::Pod(Workload::of_cgroup(UID.into()).into()));
        assert_eq!(joined(&workloads(None), nameless(), None), whole);
        assert_eq!(joined(&workloads(None), Attribution::Unresolved(Reason::Gone), None), whole);
        assert_eq!(joined(&workloads(Some("v1:memory")), nameless(), Some("v1:memory")), whole);
    }

    #[test]
    fn a_workload_that_came_later_is_joined_and_none_is_lost() {
        let derived = Workload { workload: Some("api".into()), workload_from: Some("job-name".into()), ..named() };
        let mut workloads = Workloads::default();
        workloads.add(WorkloadRecord {
            v: 1,
            cgroup_id: 7,
            k8s: derived.clone(),
            created_at: None,
            ended_at: None,
            why: BTreeMap::new(),
        });
        let [derived, plain] = [derived, named()].map(|it| Home::Pod(it.into()));
        assert_eq!(joined(&workloads, Attribution::Resolved(plain), None), Some(derived.clone()));
        assert_eq!(joined(&self::workloads(None), Attribution::Resolved(derived), None), None);
    }

    #[test]
    fn what_is_known_and_what_is_another_stays() {
        let known = Attribution::Resolved(Home::Pod(named().into()));
        let other = Attribution::Resolved(Home::Pod(Workload::of_cgroup(UID.replace('0', "1")).into()));
        let host = Attribution::Resolved(Home::Host("kubelet.service".into()));
        for home in [known, other, host] {
            assert_eq!(joined(&workloads(None), home, None), None);
        }
        let nameless = Attribution::Resolved(Home::Pod(Workload::of_cgroup(UID.into()).into()));
        assert_eq!(joined(&workloads(Some("v1:memory")), nameless.clone(), None), None, "an id of another hierarchy");
        assert_eq!(joined(&workloads(None), nameless, Some("v1:memory")), None);
    }
}
