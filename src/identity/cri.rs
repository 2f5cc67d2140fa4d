//! The container runtime, by the Container Runtime Interface (`runtime.v1.RuntimeService`): containerd, CRI-O and
//! cri-dockerd speak it over a unix socket. Asked are its version and its lists of pods and containers, nothing else, and
//! nothing of it is changed. A containerd that does not speak it is asked by its own API.

mod messages;
mod status;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use http::uri::PathAndQuery;
use ktrace_bundle::workload::Via;
use prost::Message;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::containerd;
use super::derived::Derived;
use super::names::{Names, PodName, instant};
use super::peers::Addresses;
use super::source::Failure;
use messages::{Container, Everything, List, PodSandbox, VersionRequest, VersionResponse};
use status::{StatusRequest, StatusResponse};

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
/// What one call may send before it is read. hyper's 2 MiB would let a stream of events that is read slowly lie in memory.
const WINDOW: u32 = 256 << 10;
/// Pods whose addresses are asked for at a time, one call for each.
const STATUSES: usize = 256;
/// The longest that is waited for the socket and for all answers of one look.
pub const LONGEST: Duration = Duration::from_secs(2);

/// A connection to a runtime.
pub struct Runtime {
    channel: Channel,
    grpc: Grpc<Channel>,
    /// Its name and version.
    pub version: String,
    /// How it is asked: by CRI, or as containerd.
    pub via: Via,
    /// The sandboxes of the last list that run, with their pods.
    running: Vec<(String, PodName)>,
    /// The addresses of those that were asked for: a sandbox keeps them for as long as it runs.
    addresses: HashMap<String, Vec<IpAddr>>,
    tells_addresses: bool,
}

impl Runtime {
    /// Connects, and asks who it is.
    ///
    /// # Errors
    /// Nobody listens there, or he speaks neither CRI v1 nor as containerd does.
    pub async fn connect(socket: &str) -> Result<Self, Failure> {
        let endpoint = Endpoint::from_shared(format!("unix://{socket}")).map_err(|e| failure(&e))?;
        let channel = endpoint.initial_stream_window_size(WINDOW).connect().await.map_err(|e| failure(&e))?;
        let grpc = Grpc::new(channel.clone()).max_decoding_message_size(LARGEST);
        let mut runtime = Self {
            channel,
            grpc,
            version: String::new(),
            via: Via::Cri,
            running: Vec::new(),
            addresses: HashMap::new(),
            tells_addresses: true,
        };
        let question = VersionRequest { version: "v1".into() };
        match runtime.ask::<_, VersionResponse>("/runtime.v1.RuntimeService/Version", question).await {
            Ok(answer) => runtime.version = format!("{} {}", answer.runtime_name, answer.runtime_version),
            Err(status) if status.code() == Code::Unimplemented => {
                let version = containerd::version(runtime.channel.clone()).await;
                runtime.version = version.ok_or_else(|| refusal(&status))?;
                runtime.via = Via::Containerd;
            }
            Err(status) => return Err(refusal(&status)),
        }
        Ok(runtime)
    }

    /// Where it tells by itself what begins and ends: only containerd does.
    pub fn events(&self) -> Option<Channel> {
        self.version.starts_with("containerd ").then(|| self.channel.clone())
    }

    /// What its pods and containers are called, those that have ended included until they are removed.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn names(&mut self) -> Result<Names, Failure> {
        let names = match self.via {
            Via::Containerd => containerd::names(&mut self.grpc).await,
            _ => self.listed().await,
        };
        names.map_err(|status| refusal(&status))
    }

    async fn listed(&mut self) -> Result<Names, Status> {
        // in this order every container that is listed has its pod in the other list
        let containers: List<Container> = self.ask("/runtime.v1.RuntimeService/ListContainers", Everything {}).await?;
        let pods: List<PodSandbox> = self.ask("/runtime.v1.RuntimeService/ListPodSandbox", Everything {}).await?;
        self.running = running(&pods);
        Ok(named(&pods, &containers))
    }

    /// Asks for the addresses of the pods that ran at the last list, as far as they are not known; returns whether it was asked
    /// for all. One that is not told now is asked for by the next look.
    pub async fn ask_for_addresses(&mut self) -> bool {
        let running: HashSet<_> = self.running.iter().map(|(id, _)| id.as_str()).collect();
        self.addresses.retain(|id, _| running.contains(id.as_str()));
        let is_missing = |id: &String| !self.addresses.contains_key(id);
        let missing: Vec<_> = self.running.iter().map(|(id, _)| id.clone()).filter(is_missing).collect();
        for id in missing.iter().take(STATUSES) {
            if !self.tells_addresses {
                return true;
            }
            let question = StatusRequest { pod_sandbox_id: id.clone() };
            match self.ask::<_, StatusResponse>("/runtime.v1.RuntimeService/PodSandboxStatus", question).await {
                Ok(StatusResponse { status }) => {
                    let addresses = status.and_then(|it| it.addresses());
                    self.addresses.extend(addresses.map(|it| (id.clone(), it)));
                }
                Err(status) if status.code() == Code::Unimplemented => self.tells_addresses = false,
                Err(_) => {}
            }
        }
        missing.len() <= STATUSES
    }

    /// Who has which address, as far as that was asked.
    pub fn addresses(&self) -> Addresses {
        let mut known = Addresses::default();
        for (id, pod) in &self.running {
            self.addresses.get(id).into_iter().flatten().for_each(|address| known.add(*address, pod));
        }
        known
    }

    async fn ask<Q, A>(&mut self, method: &'static str, question: Q) -> Result<A, Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        self.grpc.ready().await.map_err(|e| Status::from_error(e.into()))?;
        let codec = ProstCodec::<Q, A>::default();
        Ok(self.grpc.unary(Request::new(question), PathAndQuery::from_static(method), codec).await?.into_inner())
    }
}

fn refusal(status: &Status) -> Failure {
    match status.code() {
        Code::Unimplemented => Failure::error("it does not speak CRI v1"),
        Code::OutOfRange | Code::PermissionDenied => Failure::error(status.message()),
        Code::DeadlineExceeded => Failure::timeout(LONGEST),
        _ => failure(status),
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
        names.set_created(&sandbox.id, of_nanos(sandbox.created_at));
        by_sandbox.insert(&sandbox.id, name);
    }
    for container in &containers.0 {
        let of = by_sandbox.get(&container.pod_sandbox_id).cloned();
        if let (Some(of), Some(metadata)) = (of, &container.metadata) {
            names.add_container(&container.id, of, &metadata.name);
            names.set_created(&container.id, of_nanos(container.created_at));
        }
    }
    names
}

/// Those in state `SANDBOX_READY`.
fn running(pods: &List<PodSandbox>) -> Vec<(String, PodName)> {
    let running = pods.0.iter().filter(|sandbox| sandbox.state == 0);
    let named = running.filter_map(|sandbox| {
        let metadata = sandbox.metadata.as_ref()?;
        Some((sandbox.id.clone(), PodName::new(&metadata.namespace, &metadata.name)?))
    });
    named.collect()
}

fn of_nanos(since_1970: i64) -> Option<DateTime<Utc>> {
    const SECOND: i64 = 1_000_000_000;
    instant(since_1970.div_euclid(SECOND), since_1970.rem_euclid(SECOND))
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
        let id = id.to_string().repeat(64);
        PodSandbox { id, metadata: Some(metadata), created_at: 5_000_000_007, ..PodSandbox::default() }
    }

    fn container(id: char, of: char, name: &str) -> Container {
        let metadata = Some(ContainerMetadata { name: name.into() });
        Container { id: id.to_string().repeat(64), pod_sandbox_id: of.to_string().repeat(64), metadata, created_at: -1 }
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
        let created = |id: char| names.span(&id.to_string().repeat(64)).created_at;
        assert_eq!([created('a'), created('1'), created('d')], [instant(5, 7), None, None]);
    }
}
