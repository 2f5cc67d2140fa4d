//! Where a process runs: in a container of a pod, or on the host.

use std::sync::Arc;

/// What a process belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Home {
    /// A pod: `k8s` of a line.
    Pod(Arc<Workload>),
    /// The host: `unit` of a line, the systemd unit or else the path of the cgroup.
    Host(Arc<str>),
}

/// A container of a pod, as far as its source tells.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Workload {
    /// The pod's uid (`metadata.uid`).
    pub pod_uid: String,
    /// Its namespace.
    pub namespace: Option<String>,
    /// Its name.
    pub pod: Option<String>,
    /// The container's name in the pod.
    pub container: Option<String>,
    /// Id that the runtime gave the container, 64 hexadecimal digits.
    pub container_id: Option<String>,
    /// Who says so.
    pub via: Via,
}

/// Where a workload is known from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// The path of the process's cgroup: ids only.
    Cgroup,
    /// The ids from there, the names from the kubelet's directories of logs.
    PodLogs,
}

impl Workload {
    /// A pod of which nothing else is known.
    pub const fn of_cgroup(pod_uid: String) -> Self {
        Self { pod_uid, namespace: None, pod: None, container: None, container_id: None, via: Via::Cgroup }
    }
}

impl Via {
    /// The name as it stands in a bundle.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::PodLogs => "pod_logs",
        }
    }
}
