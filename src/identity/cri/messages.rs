//! The messages of CRI v1 (`k8s.io/cri-api/pkg/apis/runtime/v1/api.proto`), as far as their fields are read. What else is in
//! them, labels and annotations above all, is skipped without being kept: it may be large.

use prost::Message;

/// `VersionRequest`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct VersionRequest {
    /// Version of the interface.
    #[prost(string, tag = "1")]
    pub version: String,
}

/// `VersionResponse`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct VersionResponse {
    /// Such as `containerd`.
    #[prost(string, tag = "2")]
    pub runtime_name: String,
    /// Its version.
    #[prost(string, tag = "3")]
    pub runtime_version: String,
}

/// `ListPodSandboxRequest` and `ListContainersRequest` without a filter.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Everything {}

/// `ListPodSandboxResponse`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ListPodSandboxResponse {
    /// Pods, one sandbox for each.
    #[prost(message, repeated, tag = "1")]
    pub items: Vec<PodSandbox>,
}

/// `PodSandbox`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PodSandbox {
    /// Of the sandbox.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Of the pod.
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<PodSandboxMetadata>,
}

/// `PodSandboxMetadata`: as the kubelet has it from the pod.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PodSandboxMetadata {
    /// `metadata.name`.
    #[prost(string, tag = "1")]
    pub name: String,
    /// `metadata.uid`.
    #[prost(string, tag = "2")]
    pub uid: String,
    /// `metadata.namespace`.
    #[prost(string, tag = "3")]
    pub namespace: String,
}

/// `ListContainersResponse`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ListContainersResponse {
    /// All but the sandboxes.
    #[prost(message, repeated, tag = "1")]
    pub containers: Vec<Container>,
}

/// `Container`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Container {
    /// Its id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Of the sandbox of its pod.
    #[prost(string, tag = "2")]
    pub pod_sandbox_id: String,
    /// Its name.
    #[prost(message, optional, tag = "3")]
    pub metadata: Option<ContainerMetadata>,
}

/// `ContainerMetadata`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ContainerMetadata {
    /// `name` in the pod's specification.
    #[prost(string, tag = "1")]
    pub name: String,
}
