//! Runtimes of several kinds, played over a real socket.

use std::convert::Infallible;

use futures::stream;
use tokio::net::UnixListener;
use tonic::{Response, body::Body, server, transport::Server};
use tower::service_fn;

use super::{messages::Container, *};

/// A runtime that is played.
#[derive(Clone)]
struct Played {
    /// The one service that it offers.
    service: &'static str,
    /// The container that it knows, if the labels are right.
    container: Option<&'static str>,
    /// What it answers an Exec with.
    url: Result<&'static str, Code>,
}

const OWN: &str = "0123";
const CONTAINERD: Played = Played {
    service: SERVICES[0],
    container: Some(OWN),
    url: Ok("http://127.0.0.1:34567/exec/t0k3n"),
};

fn own() -> Own {
    Own { pod_uid: "uid".into(), container: "agent".into() }
}

impl Played {
    /// Answers at a socket until the folder is dropped; the task ends with the test.
    fn start(self) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("runtime.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let incoming = stream::unfold(listener, |listener| async {
            let accepted = listener.accept().await.map(|(stream, _)| stream);
            Some((accepted, listener))
        });
        let service = service_fn(move |request| {
            let played = self.clone();
            async move { Ok::<_, Infallible>(played.answer(request).await) }
        });
        tokio::spawn(Server::builder().serve_with_incoming(service, Box::pin(incoming)));
        (folder, socket)
    }

    async fn answer(self, request: http::Request<Body>) -> http::Response<Body> {
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
                    let ours = asked == (Some("uid"), Some("agent"), RUNNING);
                    let containers =
                        self.container.filter(|_| ours).map(|id| Container { id: id.into() });
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
                    match self.url {
                        Ok(url) => Ok(ExecResponse { url: url.into() }),
                        Err(code) => Err(Status::new(code, "played")),
                    }
                })
                .await
            }
            _ => Status::unimplemented("unknown service").into_http(),
        }
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

#[tokio::test]
async fn runtimes_tell_where_they_stream() {
    let old = Played { service: SERVICES[1], ..CONTAINERD };
    let tls = Played { url: Ok("https://[::1]:41173/exec/t0k3n"), ..CONTAINERD };
    let cri_dockerd = Played { url: Ok("127.0.0.1:39017/cri/exec/t0k3n"), ..CONTAINERD };
    let named = Played { url: Ok("http://localhost:10010/exec/t0k3n"), ..CONTAINERD };
    for (played, streaming, tls) in [
        (CONTAINERD, "127.0.0.1:34567", false),
        (old, "127.0.0.1:34567", false),
        (tls, "[::1]:41173", true),
        (cri_dockerd, "127.0.0.1:39017", false),
        (named, ":10010", false),
    ] {
        let (_folder, socket) = played.start();
        let runtime = ask(&socket, &own()).await.unwrap();
        assert_eq!((runtime.name.as_str(), runtime.version.as_str()), ("played", "1"));
        let server = runtime.server.unwrap();
        assert!(server.address.to_string().ends_with(streaming), "{server:?}");
        assert_eq!(server.tls, tls, "{streaming}");
    }
}

#[tokio::test]
async fn dockershim_streams_through_the_kubelet_while_it_redirects() {
    let (_folder, socket) = Played { url: Ok("/cri/exec/t0k3n"), ..CONTAINERD }.start();
    let runtime = ask(&socket, &own()).await.unwrap();
    assert_eq!((runtime.name.as_str(), runtime.server), ("played", None));
}

#[tokio::test]
async fn the_runtime_is_the_one_that_knows_the_container() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = folder.path().join("none.sock");
    let (_beside, other) = Played { container: None, ..CONTAINERD }.start();
    let (_ours, ours) = CONTAINERD.start();
    let (_odd, odd) = Played { url: Ok("mailto:t0k3n"), ..CONTAINERD }.start();
    for (sockets, expected) in [
        (vec![&ours], ""),
        (vec![&nobody, &other, &ours, &odd], ""),
        (vec![&nobody, &other], "RuntimeNotOurs"),
        (vec![&other, &nobody], "RuntimeNotOurs"),
        (vec![&nobody], "RuntimeUnreachable"),
        (vec![&other, &odd, &ours], "StreamingUrlUnreadable"),
    ] {
        let sockets: Vec<PathBuf> = sockets.into_iter().cloned().collect();
        let found = find(sockets.clone(), &own()).await;
        assert_eq!(found.err().map_or("", |error| error.reason()), expected, "{sockets:?}");
    }
}

#[tokio::test]
async fn whatever_is_wrong_is_named_and_never_with_the_token() {
    for (played, reason) in [
        (Played { container: None, ..CONTAINERD }, "RuntimeNotOurs"),
        (Played { url: Ok("mailto:t0k3n"), ..CONTAINERD }, "StreamingUrlUnreadable"),
        (Played { url: Err(Code::FailedPrecondition), ..CONTAINERD }, "RuntimeRefuses"),
        (Played { service: "runtime.v2.RuntimeService", ..CONTAINERD }, "RuntimeRefuses"),
    ] {
        let (_folder, socket) = played.start();
        let error = ask(&socket, &own()).await.unwrap_err();
        assert_eq!(error.reason(), reason);
        assert!(!format!("{error} {error:?}").contains("t0k3n"), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let error = ask(&folder.path().join("none.sock"), &own()).await.unwrap_err();
    assert_eq!(error.reason(), "RuntimeUnreachable");
}
