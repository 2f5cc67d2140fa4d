//! A runtime that answers what it is told to, and tells what it is told to: real gRPC over a unix socket.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use bytes::Bytes;
use containerd_client::types::Envelope;
use h2::SendStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Response};
use prost::Message;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;

use super::cri::{ListContainersResponse, ListPodSandboxResponse, VersionResponse};

/// What it has.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    /// Who it says it is.
    pub name: String,
    /// Its pods.
    pub pods: ListPodSandboxResponse,
    /// Their containers.
    pub containers: ListContainersResponse,
    /// Whether it has the stream of events that containerd has.
    pub has_events: bool,
}

/// Listens until it is dropped.
#[derive(Debug)]
pub struct Fake {
    socket: PathBuf,
    state: Arc<Mutex<State>>,
    over: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    answers: Answers,
    /// Methods that were answered, refused or subscribed to.
    asked: Vec<String>,
    /// Nothing is answered any more.
    hangs: bool,
    unanswered: Vec<SendResponse<Bytes>>,
    /// Those that have heard nothing yet, not even that they are heard, and the others.
    subscribers: Vec<SendResponse<Bytes>>,
    streams: Vec<SendStream<Bytes>>,
}

impl Fake {
    /// Listens at this socket.
    pub fn start(socket: PathBuf, answers: Answers) -> Self {
        let over = Arc::new(Notify::new());
        let until = Arc::clone(&over);
        let state = Arc::new(Mutex::new(State { answers, ..State::default() }));
        let shared = Arc::clone(&state);
        // connections find it from here on
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
            runtime.block_on(async {
                tokio::spawn(listen(UnixListener::from_std(listener).unwrap(), shared));
                until.notified().await;
            });
        });
        Self { socket, state, over, thread: Some(thread) }
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// How often it was asked this.
    pub fn asked(&self, method: &str) -> usize {
        self.state().asked.iter().filter(|asked| *asked == method).count()
    }

    /// From now on it has something else.
    pub fn change(&self, change: impl FnOnce(&mut Answers)) {
        change(&mut self.state().answers);
    }

    /// From now on it answers nothing.
    pub fn hang(&self) {
        self.state().hangs = true;
    }

    /// Tells all subscribers that something has happened to its containers.
    pub fn tell(&self, topic: &str, event: &impl prost::Name) {
        let event = Some(containerd_client::to_any(event));
        let told = Envelope { timestamp: None, namespace: "k8s.io".into(), topic: topic.into(), event };
        let mut state = self.state();
        let waiting = std::mem::take(&mut state.subscribers);
        // those that fail are gone
        state.streams.extend(waiting.into_iter().filter_map(|mut respond| respond.send_response(head(), false).ok()));
        state.streams.retain_mut(|stream| stream.send_data(framed(&told.encode_to_vec()), false).is_ok());
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.over.notify_one();
        self.thread.take().unwrap().join().unwrap();
    }
}

async fn listen(listener: UnixListener, state: Arc<Mutex<State>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(serve(stream, Arc::clone(&state)));
    }
}

async fn serve(stream: UnixStream, state: Arc<Mutex<State>>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        state.lock().unwrap().answer(request.uri().path(), respond);
    }
}

impl State {
    fn answer(&mut self, path: &str, respond: SendResponse<Bytes>) {
        let has = &self.answers;
        let answer = match path {
            _ if self.hangs => return self.unanswered.push(respond),
            "/runtime.v1.RuntimeService/Version" => Some(has.version().encode_to_vec()),
            "/runtime.v1.RuntimeService/ListPodSandbox" => Some(has.pods.encode_to_vec()),
            "/runtime.v1.RuntimeService/ListContainers" => Some(has.containers.encode_to_vec()),
            _ => None,
        };
        self.asked.push(path.rsplit('/').next().unwrap().to_owned());
        if path == "/containerd.services.events.v1.Events/Subscribe" && has.has_events {
            return self.subscribers.push(respond);
        }
        // fails when the other end is gone
        let _ = send(respond, answer);
    }
}

impl Answers {
    fn version(&self) -> VersionResponse {
        VersionResponse {
            version: "0.1.0".into(),
            runtime_name: self.name.clone(),
            runtime_version: "1.0".into(),
            runtime_api_version: "v1".into(),
        }
    }
}

fn head() -> Response<()> {
    Response::builder().header("content-type", "application/grpc").body(()).unwrap()
}

fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], message].concat().into()
}

/// One message, or `UNIMPLEMENTED`: <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.
fn send(mut respond: SendResponse<Bytes>, answer: Option<Vec<u8>>) -> Result<(), h2::Error> {
    let mut body = respond.send_response(head(), false)?;
    if let Some(message) = &answer {
        body.send_data(framed(message), false)?;
    }
    let status = if answer.is_some() { "0" } else { "12" };
    body.send_trailers(HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(status))]))
}
