//! The container runtime, asked as a kubelet asks it: who it is, and where it streams.
//!
//! tonic is a client that every runtime understands. (It could not be a server for every kubelet:
//! those before 1.21 send the socket's path as `:authority`, which its HTTP/2 refuses.)

mod address;
mod messages;

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use address::Host;
pub use address::UrlForm;
use messages::{
    ContainerFilter, ContainerStateValue, ExecRequest, ExecResponse, ListContainersRequest,
    ListContainersResponse, VersionRequest, VersionResponse,
};

/// One question must not take longer; a runtime under load may take a second.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The services that answer, newest first: kubelets up to 1.22 know only the second.
const SERVICES: [&str; 2] = ["runtime.v1.RuntimeService", "runtime.v1alpha2.RuntimeService"];

/// `CONTAINER_RUNNING`.
const RUNNING: i32 = 1;

/// The labels that the kubelet gives to the containers that it makes
/// (`pkg/kubelet/types/labels.go`).
const POD_UID: &str = "io.kubernetes.pod.uid";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";

/// Which container is our own.
#[derive(Clone, Debug)]
pub struct Own {
    /// The uid of its pod.
    pub pod_uid: String,
    /// Its name in the pod.
    pub container: String,
}

/// A container runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// Its name, such as containerd.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its streaming server; `None` where it streams through the kubelet's own port, as dockershim
    /// does while the kubelet redirects.
    pub server: Option<Server>,
}

/// A runtime's streaming server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where it may listen: each address that its host has.
    pub addresses: Vec<SocketAddr>,
    /// Its host, as the runtime's URL has it: an address, or a name.
    pub host: String,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// The form of the runtime's URL.
    pub form: UrlForm,
}

/// Why the runtime does not tell where it streams.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens at the socket.
    #[error("cannot reach the container runtime at {}: {source}", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// What failed.
        source: tonic::transport::Error,
    },
    /// It has refused a question.
    #[error("the container runtime refuses {call}: {}", source.message())]
    Refused {
        /// What was asked.
        call: &'static str,
        /// Its answer.
        source: Box<Status>,
    },
    /// It did not answer in time.
    #[error("the container runtime has not answered {0} within {TIMEOUT:?}")]
    Timeout(&'static str),
    /// It does not know the container that asks, so it is not the one that runs it.
    #[error("the container runtime does not know this container, so it is not the node's")]
    NotOurs,
    /// The answer to Exec names no streaming server. It is not shown, since it lets people in.
    #[error("the container runtime's answer to Exec is no URL that names a streaming server")]
    Url,
    /// The streaming server's host has no address.
    #[error("cannot look up the streaming server's host {0}")]
    Lookup(String),
}

impl Error {
    /// A short, stable name for the report, the log and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "RuntimeUnreachable",
            Self::Refused { .. } => "RuntimeRefuses",
            Self::Timeout(_) => "RuntimeSlow",
            Self::NotOurs => "RuntimeNotOurs",
            Self::Url => "StreamingUrlUnreadable",
            Self::Lookup(_) => "StreamingHostUnknown",
        }
    }
}

/// Asks at each of these sockets, the likeliest first, until the node's runtime is found: the one that
/// knows our own container. Returns the socket, too.
///
/// # Errors
/// Where none does: what is wrong with the first that anybody listens at.
pub async fn find(sockets: Vec<PathBuf>, own: &Own) -> Result<(PathBuf, Runtime), Error> {
    let mut worst: Option<Error> = None;
    for socket in sockets {
        let error = match ask(&socket, own).await {
            Ok(runtime) => return Ok((socket, runtime)),
            Err(error) => error,
        };
        // It is the runtime, whatever its answer is.
        if matches!(error, Error::Url | Error::Lookup(_)) {
            return Err(error);
        }
        if matches!(worst, None | Some(Error::Connect { .. })) {
            worst = Some(error);
        }
    }
    Err(worst.unwrap_or(Error::NotOurs))
}

/// Asks the runtime at this socket who it is and where it streams. What it runs stays untouched:
/// the answer to an Exec is only a URL, and its token expires unused.
///
/// # Errors
/// Where it cannot be reached, refuses, or answers something else.
async fn ask(socket: &Path, own: &Own) -> Result<Runtime, Error> {
    let mut client = Client::connect(socket).await?;
    let version = client.version().await?;
    let labels = HashMap::from([
        (POD_UID.to_owned(), own.pod_uid.clone()),
        (CONTAINER_NAME.to_owned(), own.container.clone()),
    ]);
    let state = Some(ContainerStateValue { state: RUNNING });
    let filter = Some(ContainerFilter { state, label_selector: labels });
    let list: ListContainersResponse =
        client.call("ListContainers", ListContainersRequest { filter }).await?;
    let container = list.containers.into_iter().next().ok_or(Error::NotOurs)?;
    let exec =
        ExecRequest { container_id: container.id, cmd: vec!["/sluice".into()], stdout: true };
    let ExecResponse { url } = client.call("Exec", exec).await?;
    let (name, version) = (version.runtime_name, version.runtime_version);
    if address::is_relative(&url) {
        return Ok(Runtime { name, version, server: None });
    }
    let address = address::read(&url).ok_or(Error::Url)?;
    let (addresses, host) = match address.host {
        Host::Ip(ip) => (vec![SocketAddr::new(ip, address.port)], ip.to_string()),
        Host::Name(name) => match look_up(&name, address.port).await {
            Some(addresses) => (addresses, name),
            None => return Err(Error::Lookup(name)),
        },
    };
    let server = Server { addresses, host, tls: address.tls, form: address.form };
    Ok(Runtime { name, version, server: Some(server) })
}

/// All addresses of a host, each once: which of them the kubelet tries first is its own affair.
async fn look_up(name: &str, port: u16) -> Option<Vec<SocketAddr>> {
    let found = tokio::time::timeout(TIMEOUT, tokio::net::lookup_host((name, port))).await;
    let addresses: BTreeSet<SocketAddr> = found.ok()?.ok()?.collect();
    (!addresses.is_empty()).then(|| addresses.into_iter().collect())
}

struct Client {
    grpc: Grpc<Channel>,
    service: &'static str,
}

impl Client {
    async fn connect(socket: &Path) -> Result<Self, Error> {
        let path = socket.to_owned();
        let connector = tower::service_fn(move |_: http::Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        // The name is sent as :authority and means nothing to a runtime.
        let endpoint = Endpoint::from_static("http://localhost").connect_timeout(TIMEOUT);
        let channel = endpoint
            .connect_with_connector(connector)
            .await
            .map_err(|source| Error::Connect { socket: socket.to_owned(), source })?;
        Ok(Self { grpc: Grpc::new(channel), service: SERVICES[0] })
    }

    /// Asks for the version, and so for the service that the runtime offers.
    async fn version(&mut self) -> Result<VersionResponse, Error> {
        let request = VersionRequest { version: "0.1.0".to_owned() };
        match self.call("Version", request.clone()).await {
            Err(Error::Refused { source, .. }) if source.code() == Code::Unimplemented => {
                self.service = SERVICES[1];
                self.call("Version", request).await
            }
            other => other,
        }
    }

    async fn call<Q, A>(&mut self, call: &'static str, request: Q) -> Result<A, Error>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let path = format!("/{}/{call}", self.service);
        let refused = |source| Error::Refused { call, source: Box::new(source) };
        let path =
            PathAndQuery::try_from(path).map_err(|e| refused(Status::internal(e.to_string())))?;
        let answer = async {
            let ready = self.grpc.ready().await;
            ready.map_err(|e| refused(Status::unavailable(e.to_string())))?;
            let codec = ProstCodec::<Q, A>::default();
            let answer = self.grpc.unary(Request::new(request), path, codec).await;
            answer.map(tonic::Response::into_inner).map_err(refused)
        };
        tokio::time::timeout(TIMEOUT, answer).await.map_err(|_| Error::Timeout(call))?
    }
}

#[cfg(test)]
pub(super) mod fake;
#[cfg(test)]
mod tests;
