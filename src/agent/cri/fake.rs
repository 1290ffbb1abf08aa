//! A runtime that is played over a real socket.

use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::stream;
use tokio::net::UnixListener;
use tonic::{Code, Request, Response, Status, body::Body, server, transport::Server};
use tonic_prost::ProstCodec;
use tower::service_fn;

use super::{
    CONTAINER_NAME, POD_UID, RUNNING, SERVICES,
    messages::{
        Container, ExecRequest, ExecResponse, ListContainersRequest, ListContainersResponse,
        VersionRequest, VersionResponse,
    },
};

/// The container that it knows.
const OWN: &str = "0123";

/// The uid of that container's pod, and its name there.
pub const POD: (&str, &str) = ("uid", "agent");

/// How it behaves.
#[derive(Clone, Debug)]
pub struct Played {
    /// The one service that it offers.
    pub service: &'static str,
    /// Whether it knows the container, if the labels are right.
    pub ours: bool,
    /// What it answers an Exec with.
    pub url: Result<String, Code>,
    /// How long it takes for each call.
    pub slow: Duration,
}

impl Played {
    /// One as most are, whose answer to an Exec is this.
    pub fn of(url: &str) -> Self {
        Self { service: SERVICES[0], ours: true, url: Ok(url.to_owned()), slow: Duration::ZERO }
    }

    /// Answers at a socket until what is returned is dropped; the task ends with the test.
    pub fn start(self) -> Playing {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("runtime.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let incoming = stream::unfold(listener, |listener| async {
            let accepted = listener.accept().await.map(|(stream, _)| stream);
            Some((accepted, listener))
        });
        let played = Arc::new(Mutex::new(self));
        let playing = Playing { _folder: folder, socket, played: Arc::clone(&played) };
        let service = service_fn(move |request| {
            let now = played.lock().unwrap().clone();
            async move { Ok::<_, Infallible>(now.answer(request).await) }
        });
        tokio::spawn(Server::builder().serve_with_incoming(service, Box::pin(incoming)));
        playing
    }

    async fn answer(self, request: http::Request<Body>) -> http::Response<Body> {
        tokio::time::sleep(self.slow).await;
        let path = request.uri().path().to_owned();
        let call = path.strip_prefix(&format!("/{}/", self.service)).unwrap_or_default();
        match call {
            "Version" => {
                unary(request, |_: VersionRequest| {
                    Ok(VersionResponse {
                        runtime_name: "played".into(),
                        runtime_version: "1".into(),
                    })
                })
                .await
            }
            "ListContainers" => {
                unary(request, move |request: ListContainersRequest| {
                    let filter = request.filter.unwrap_or_default();
                    let label = |name: &str| filter.label_selector.get(name).map(String::as_str);
                    let asked =
                        (label(POD_UID), label(CONTAINER_NAME), filter.state.unwrap().state);
                    let ours = self.ours && asked == (Some(POD.0), Some(POD.1), RUNNING);
                    let containers = ours.then(|| Container { id: OWN.into() });
                    Ok(ListContainersResponse { containers: containers.into_iter().collect() })
                })
                .await
            }
            "Exec" => {
                unary(request, move |request: ExecRequest| {
                    assert!(
                        request.stdout,
                        "containerd and CRI-O refuse an Exec without any stream"
                    );
                    assert_eq!(request.container_id, OWN);
                    match &self.url {
                        Ok(url) => Ok(ExecResponse { url: url.clone() }),
                        Err(code) => Err(Status::new(*code, "played")),
                    }
                })
                .await
            }
            _ => Status::unimplemented("unknown service").into_http(),
        }
    }
}

/// One that answers.
#[derive(Debug)]
pub struct Playing {
    _folder: tempfile::TempDir,
    socket: PathBuf,
    played: Arc<Mutex<Played>>,
}

impl Playing {
    /// Where it does.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Behaves otherwise from now on.
    pub fn change(&self, change: impl FnOnce(&mut Played)) {
        change(&mut self.played.lock().unwrap());
    }
}

async fn unary<Q, A>(
    request: http::Request<Body>,
    answer: impl Fn(Q) -> Result<A, Status> + Clone,
) -> http::Response<Body>
where
    Q: prost::Message + Default + Send + 'static,
    A: prost::Message + Default + Send + 'static,
{
    let service = service_fn(move |request: Request<Q>| {
        let answer = answer(request.into_inner());
        async move { answer.map(Response::new) }
    });
    server::Grpc::new(ProstCodec::<A, Q>::default()).unary(service, request).await
}
