//! A runtime that answers what it is told to: real gRPC over a unix socket.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Response};
use prost::Message;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;

use super::cri::{ListContainersResponse, ListPodSandboxResponse, VersionResponse};

/// What it has.
#[derive(Debug, Clone)]
pub struct Answers {
    /// Who it says it is.
    pub name: String,
    /// Its pods.
    pub pods: ListPodSandboxResponse,
    /// Their containers.
    pub containers: ListContainersResponse,
}

/// Listens until it is dropped.
#[derive(Debug)]
pub struct Fake {
    socket: PathBuf,
    over: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    /// Listens at this socket.
    pub fn start(socket: PathBuf, answers: Answers) -> Self {
        let over = Arc::new(Notify::new());
        let until = Arc::clone(&over);
        // connections find it from here on
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
            runtime.block_on(async {
                tokio::spawn(listen(UnixListener::from_std(listener).unwrap(), Arc::new(answers)));
                until.notified().await;
            });
        });
        Self { socket, over, thread: Some(thread) }
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.over.notify_one();
        self.thread.take().unwrap().join().unwrap();
    }
}

async fn listen(listener: UnixListener, answers: Arc<Answers>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(serve(stream, Arc::clone(&answers)));
    }
}

async fn serve(stream: UnixStream, answers: Arc<Answers>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default();
        let answer = match method {
            "Version" => Some(answers.version().encode_to_vec()),
            "ListPodSandbox" => Some(answers.pods.encode_to_vec()),
            "ListContainers" => Some(answers.containers.encode_to_vec()),
            _ => None,
        };
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

/// One message, or `UNIMPLEMENTED`: <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.
fn send(mut respond: SendResponse<Bytes>, answer: Option<Vec<u8>>) -> Result<(), h2::Error> {
    let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let mut body = respond.send_response(head, false)?;
    if let Some(message) = &answer {
        let mut framed = vec![0];
        framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        framed.extend(message);
        body.send_data(framed.into(), false)?;
    }
    let status = if answer.is_some() { "0" } else { "12" };
    body.send_trailers(HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(status))]))
}
