//! containerd by its own API (`containerd.services.*.v1`), which it has beside the Container Runtime Interface. Its
//! stream of events says that a container is about to run before it does, and when one has ended. Where it does not
//! speak CRI v1, its list of containers says by their labels what they are called. Nothing else is asked, and nothing of
//! it is changed.

mod messages;

use chrono::{DateTime, Utc};
use containerd_client::events::{TaskCreate, TaskExit, TaskStart};
use containerd_client::services::v1::events_client::EventsClient;
use containerd_client::services::v1::version_client::VersionClient;
use containerd_client::services::v1::{ListContainersRequest, SubscribeRequest};
use containerd_client::types::Envelope;
use http::uri::PathAndQuery;
use prost::Message;
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::derived::Derived;
use super::names::{MOST, Names, PodName, instant};
use messages::{Container, Kind, ListContainerMessage};

/// What of its containers is the kubelet's.
const NAMESPACE: &str = "k8s.io";
/// A container is about to run: it is listed by then. That it is made (`/containers/create`) comes before it is listed.
const CREATED: &str = "/tasks/create";
/// It runs: for those that are not listed before, such as the sandbox of a pod.
const STARTED: &str = "/tasks/start";
/// A process of a container has ended, the container with its first one.
const ENDED: &str = "/tasks/exit";
/// The largest message of the stream that is read: the mounts of a container of a hundred layers are some 10 KiB.
const LARGEST: usize = 256 << 10;

/// What the stream tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The container of this id runs in a moment, or has begun to.
    Begins(String),
    /// It has ended.
    Ended(String, DateTime<Utc>),
}

/// Its version; `None`: it is not containerd.
pub async fn version(channel: Channel) -> Option<String> {
    let answer = VersionClient::new(channel).version(()).await.ok()?.into_inner();
    Some(format!("containerd {}", answer.version))
}

/// What its pods and containers are called, those that have ended included until they are removed.
///
/// # Errors
/// It does not answer.
pub async fn names(grpc: &mut Grpc<Channel>) -> Result<Names, Status> {
    grpc.ready().await.map_err(|e| Status::from_error(e.into()))?;
    // one message for each, as large as its specification; what is no pod's is not even sent
    let filters = vec![r#"labels."io.kubernetes.pod.uid""#.to_owned()];
    let mut request = Request::new(ListContainersRequest { filters });
    request.metadata_mut().insert("containerd-namespace", MetadataValue::from_static(NAMESPACE));
    let method = PathAndQuery::from_static("/containerd.services.containers.v1.Containers/ListStream");
    let codec = ProstCodec::<ListContainersRequest, ListContainerMessage>::default();
    let mut stream = grpc.server_streaming(request, method, codec).await?.into_inner();
    let mut names = Names::default();
    for _ in 0..2 * MOST {
        let Some(message) = stream.message().await? else { break };
        if let Some(container) = message.container {
            add(&mut names, &container);
        }
    }
    Ok(names)
}

fn add(names: &mut Names, container: &Container) {
    let Some(of) = PodName::new(&container.pod_namespace, &container.pod) else { return };
    match container.kind {
        Some(Kind::Sandbox) => {
            names.add_pod(&container.pod_uid, of.clone());
            let derived = Derived::of(&of.pod, &container.labels);
            derived.into_iter().for_each(|it| names.add_workload(&container.pod_uid, it));
            names.add_sandbox(&container.id, of);
        }
        Some(Kind::Container) => names.add_container(&container.id, of, &container.name),
        None => return,
    }
    let at = container.created_at.as_ref().and_then(|at| instant(at.seconds, at.nanos.into()));
    names.set_created(&container.id, at);
}

/// Its stream of events. Its server sends nothing, not even that it has understood, before there is an event: this comes
/// back with the first one.
///
/// # Errors
/// It does not have one, or is not there.
pub async fn subscribe(channel: Channel) -> Result<Streaming<Envelope>, Status> {
    let of = |topic| format!(r#"namespace=="{NAMESPACE}",topic=="{topic}""#);
    let request = SubscribeRequest { filters: [CREATED, STARTED, ENDED].map(of).into() };
    let mut events = EventsClient::new(channel).max_decoding_message_size(LARGEST);
    Ok(events.subscribe(request).await?.into_inner())
}

/// What an event tells; `None`: nothing that matters.
pub fn notice(envelope: Envelope) -> Option<Notice> {
    if envelope.namespace != NAMESPACE {
        return None;
    }
    let event = &*envelope.event?.value;
    match &*envelope.topic {
        CREATED => Some(Notice::Begins(TaskCreate::decode(event).ok()?.container_id)),
        STARTED => Some(Notice::Begins(TaskStart::decode(event).ok()?.container_id)),
        ENDED => {
            let exit = TaskExit::decode(event).ok()?;
            let at = exit.exited_at.and_then(|at| instant(at.seconds, at.nanos.into()))?;
            // what is executed in it beside its first process has an id of its own
            (exit.id == exit.container_id).then_some(Notice::Ended(exit.container_id, at))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use containerd_client::to_any;
    use prost::Name;

    use super::super::derived::Labels;
    use super::super::names::{Called, Span};
    use super::messages::Timestamp;
    use super::*;

    const UID: &str = "0b1c6c2e-4a77-4d8a-9d2b-3f5e8c7a9b10";

    fn id(digit: char) -> String {
        digit.to_string().repeat(64)
    }

    fn told(namespace: &str, topic: &str, event: &impl Name) -> Option<Notice> {
        let (namespace, topic, event) = (namespace.to_owned(), topic.to_owned(), Some(to_any(event)));
        notice(Envelope { timestamp: None, namespace, topic, event })
    }

    #[test]
    fn a_container_begins_when_its_task_is_made_and_ends_with_its_first_process() {
        let create = TaskCreate { container_id: id('1'), bundle: "/run".into(), ..TaskCreate::default() };
        let start = TaskStart { container_id: id('1'), pid: 7 };
        let mut exit = TaskExit { container_id: id('1'), id: id('1'), pid: 7, ..TaskExit::default() };
        let begins = Some(Notice::Begins(id('1')));
        assert_eq!(told(NAMESPACE, CREATED, &create), begins);
        assert_eq!(told(NAMESPACE, STARTED, &start), begins);
        assert_eq!(told(NAMESPACE, ENDED, &exit), None, "no time");
        let at = exit.exited_at.get_or_insert_default();
        (at.seconds, at.nanos) = (1_769_291_874, 326_118_000);
        let end = instant(1_769_291_874, 326_118_000).unwrap();
        assert_eq!(told(NAMESPACE, ENDED, &exit), Some(Notice::Ended(id('1'), end)));
        exit.id = "a probe".into();
        assert_eq!(told(NAMESPACE, ENDED, &exit), None, "only something in it has ended");
    }

    #[test]
    fn what_was_not_asked_for_tells_nothing() {
        let start = TaskStart { container_id: id('1'), pid: 7 };
        assert_eq!(told("moby", STARTED, &start), None);
        assert_eq!(told(NAMESPACE, "/tasks/oom", &start), None);
        assert_eq!(told(NAMESPACE, CREATED, &start), None, "another message");
        assert_eq!(
            notice(Envelope { namespace: NAMESPACE.into(), topic: STARTED.into(), ..Envelope::default() }),
            None
        );
    }

    fn container(id: char, kind: Option<Kind>, pod: &str, name: &str) -> Container {
        Container {
            id: id.to_string().repeat(64),
            pod_namespace: "shop".into(),
            pod: pod.into(),
            pod_uid: UID.into(),
            name: name.into(),
            kind,
            labels: Labels::default(),
            created_at: Some(Timestamp { seconds: 5, nanos: 0 }),
        }
    }

    #[test]
    fn labels_name_what_kubernetes_would_name_so() {
        let mut names = Names::default();
        let mut containers = [
            container('a', Some(Kind::Sandbox), "api-1", ""),
            container('1', Some(Kind::Container), "api-1", "api"),
            container('2', Some(Kind::Container), "api\u{1b}[31m", "api"),
            container('3', Some(Kind::Container), "api-1", &"x".repeat(1 << 20)),
            // not a pod's sandbox: what a pod is called is not its to say
            container('4', Some(Kind::Container), "api-2", "api"),
            container('5', None, "api-1", "api"),
        ];
        for container in &mut containers {
            container.labels.add(b"job-name", b"api");
            add(&mut names, container);
        }
        assert_eq!(names.workload(UID), Some(("api", "job-name")));
        let pod = names.pod(UID).unwrap();
        assert_eq!((&*pod.namespace, &*pod.pod), ("shop", "api-1"));
        assert_eq!(names.container(pod, &id('a')), Some(Called::Sandbox));
        assert_eq!(names.container(pod, &id('1')), Some(Called::Container("api")));
        assert_eq!(['2', '3', '4', '5'].map(|it| names.container(pod, &id(it))), [None; 4]);
        assert_eq!(names.span(&id('1')), Span { created_at: instant(5, 0), ended_at: None });
    }
}
