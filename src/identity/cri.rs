//! The container runtime, by the Container Runtime Interface (`runtime.v1.RuntimeService`): containerd, CRI-O and
//! cri-dockerd speak it over a unix socket. Asked are its version and its lists of pods and containers, nothing else, and
//! nothing of it is changed.

mod messages;

use std::time::Duration;

use http::uri::PathAndQuery;
use prost::Message;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

use super::derived::Derived;
use super::names::{Names, PodName};
use super::source::Failure;
use messages::{Container, Everything, List, PodSandbox, VersionRequest, VersionResponse};

/// Where runtimes listen if nobody has told them otherwise: containerd, the one of k3s and rke2, those of k0s and MicroK8s,
/// CRI-O, cri-dockerd.
pub const WELL_KNOWN: &[&str] = &[
    "/run/containerd/containerd.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/k0s/containerd.sock",
    "/var/snap/microk8s/common/run/containerd.sock",
    "/run/crio/crio.sock",
    "/run/cri-dockerd.sock",
];

/// The largest list that is read. A container is some 2 KiB in it, so that this is for some 8,000; gRPC's own 4 MiB would do
/// for 2,000.
const LARGEST: usize = 16 << 20;
/// The longest that is waited for the socket and for all answers of one look.
pub const LONGEST: Duration = Duration::from_secs(2);

/// A connection to a runtime.
pub struct Runtime {
    grpc: Grpc<Channel>,
    /// Its name and version.
    pub version: String,
}

impl Runtime {
    /// Connects, and asks who it is.
    ///
    /// # Errors
    /// Nobody listens there, or he does not speak CRI v1.
    pub async fn connect(socket: &str) -> Result<Self, Failure> {
        let endpoint = Endpoint::from_shared(format!("unix://{socket}")).map_err(|e| failure(&e))?;
        let channel = endpoint.connect().await.map_err(|e| failure(&e))?;
        let grpc = Grpc::new(channel).max_decoding_message_size(LARGEST);
        let mut runtime = Self { grpc, version: String::new() };
        let question = VersionRequest { version: "v1".into() };
        let answer: VersionResponse = runtime.ask("/runtime.v1.RuntimeService/Version", question).await?;
        runtime.version = format!("{} {}", answer.runtime_name, answer.runtime_version);
        Ok(runtime)
    }

    /// What its pods and containers are called, those that have ended included until they are removed.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn names(&mut self) -> Result<Names, Failure> {
        // in this order every container that is listed has its pod in the other list
        let containers: List<Container> = self.ask("/runtime.v1.RuntimeService/ListContainers", Everything {}).await?;
        let pods: List<PodSandbox> = self.ask("/runtime.v1.RuntimeService/ListPodSandbox", Everything {}).await?;
        Ok(named(&pods, &containers))
    }

    async fn ask<Q, A>(&mut self, method: &'static str, question: Q) -> Result<A, Failure>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        self.grpc.ready().await.map_err(|e| failure(&e))?;
        let codec = ProstCodec::<Q, A>::default();
        let answer = self.grpc.unary(Request::new(question), PathAndQuery::from_static(method), codec).await;
        match answer {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) => match status.code() {
                Code::Unimplemented => Err(Failure::error("it does not speak CRI v1")),
                Code::OutOfRange => Err(Failure::error(status.message())),
                Code::DeadlineExceeded => Err(Failure::timeout(LONGEST)),
                Code::PermissionDenied => Err(Failure::error(status.message())),
                _ => Err(failure(&status)),
            },
        }
    }
}

fn named(pods: &List<PodSandbox>, containers: &List<Container>) -> Names {
    let mut names = Names::default();
    let mut by_sandbox = std::collections::HashMap::new();
    for sandbox in &pods.0 {
        let Some(metadata) = &sandbox.metadata else { continue };
        let Some(name) = PodName::new(&metadata.namespace, &metadata.name) else { continue };
        names.add_pod(&metadata.uid, name.clone());
        Derived::of(&name.pod, &sandbox.labels).into_iter().for_each(|it| names.add_workload(&metadata.uid, it));
        names.add_sandbox(&sandbox.id, name.clone());
        by_sandbox.insert(&sandbox.id, name);
    }
    for container in &containers.0 {
        let of = by_sandbox.get(&container.pod_sandbox_id).cloned();
        if let (Some(of), Some(metadata)) = (of, &container.metadata) {
            names.add_container(&container.id, of, &metadata.name);
        }
    }
    names
}

/// What lies below an error of the transport is what the system says, if it says anything.
fn failure(error: &(dyn std::error::Error + 'static)) -> Failure {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(cause) = below {
        if let Some(error) = cause.downcast_ref::<std::io::Error>() {
            return Failure::io(error);
        }
        text = cause.to_string();
        below = cause.source();
    }
    Failure::error(&text)
}

#[cfg(test)]
mod tests {
    use super::super::names::Called;
    use super::messages::{Container, ContainerMetadata, PodSandbox, PodSandboxMetadata};
    use super::*;

    const UID: &str = "0b1c6c2e-4a77-4d8a-9d2b-3f5e8c7a9b10";

    fn sandbox(id: char, uid: &str, name: &str) -> PodSandbox {
        let metadata = PodSandboxMetadata { name: name.into(), uid: uid.into(), namespace: "shop".into() };
        PodSandbox { id: id.to_string().repeat(64), metadata: Some(metadata), ..PodSandbox::default() }
    }

    fn container(id: char, of: char, name: &str) -> Container {
        let metadata = Some(ContainerMetadata { name: name.into() });
        Container { id: id.to_string().repeat(64), pod_sandbox_id: of.to_string().repeat(64), metadata }
    }

    #[test]
    fn a_pod_has_the_workload_that_its_labels_and_its_name_agree_on() {
        let workload = |name: &str| {
            let mut sandbox = sandbox('a', UID, name);
            sandbox.labels.add(b"pod-template-hash", b"7d9f8c6b5");
            let names = named(&List(vec![sandbox]), &List::default());
            assert_eq!(names.pod(UID).map(|it| &*it.pod), Some(name));
            names.workload(UID).map(|(name, from)| (name.to_owned(), from))
        };
        assert_eq!(workload("api-7d9f8c6b5-x2x4z"), Some(("api".to_owned(), "pod-template-hash")));
        assert_eq!(workload("api-6c5b4d3f2-x2x4z"), None);
    }

    #[test]
    fn containers_get_the_name_of_the_pod_that_their_sandbox_is() {
        let pods = List(vec![
            sandbox('a', UID, "api-1"),
            sandbox('b', "not a uid", "api-2"),
            sandbox('c', UID, "api\u{1b}[31m"),
            PodSandbox { id: "d".repeat(64), ..PodSandbox::default() },
        ]);
        let containers = List(vec![
            container('1', 'a', "api"),
            container('2', 'e', "api"),
            container('3', 'a', &"x".repeat(1 << 20)),
            container('4', 'c', "api"),
        ]);
        let names = named(&pods, &containers);
        let pod = names.pod(UID).unwrap();
        assert_eq!((&*pod.namespace, &*pod.pod), ("shop", "api-1"));
        let called = |id: char| names.container(pod, &id.to_string().repeat(64));
        assert_eq!(called('1'), Some(Called::Container("api")));
        assert_eq!(called('a'), Some(Called::Sandbox));
        assert_eq!([called('2'), called('3'), called('4')], [None; 3]);
    }
}
