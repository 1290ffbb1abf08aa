//! What the agent serves: metrics to the network; its health, and the streams that are open, at a socket
//! to whoever is root in its container or on its node.
//!
//! Each agent of a node has a socket of its own in the folder that they share. The port of the metrics
//! is for the one that acts; the kubelet's probes come by the socket, so that no other agent, and no
//! other program that has the port, answers for this one.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::{Body, Bytes, to_bytes},
    extract::State,
    http::{Request, StatusCode, header},
    response::Response,
    routing::get,
};
use futures::future::join_all;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::watch,
};

use super::{claim::Role, metrics::Metrics};
use crate::{
    process::{
        health::{HEALTHZ, Health, READYZ},
        server as http,
        shutdown::Shutdown,
    },
    relay::{Relay, StreamInfo},
};

/// Whoever is asked at a socket has so much time to answer.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Between two attempts at a port that is taken.
const AGAIN: Duration = Duration::from_secs(1);

/// The most that is read of an answer, in bytes: the streams of a full relay fit in.
const ANSWER_MAX: usize = 64 << 20;

/// What follows an agent's name in the name of its socket.
const SOCKET: &str = "sock";

/// Where those who want to see the streams ask.
const STREAMS: &str = "/streams";

/// Why nothing is served, or nothing can be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A socket cannot be made, or asked.
    #[error("{}: {source}", path.display())]
    Socket {
        /// The socket, or its folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The agent has answered something else.
    #[error("the agent's answer cannot be understood: {0}")]
    Answer(#[from] serde_json::Error),
    /// The agent says that it is not so.
    #[error("{0}")]
    Unhealthy(String),
}

impl Error {
    /// A short, stable name.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Socket { .. } => "AgentSocket",
            Self::Answer(_) => "AgentAnswer",
            Self::Unhealthy(_) => "Unhealthy",
        }
    }
}

/// A stream that an agent of this node carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// The stream.
    #[serde(flatten)]
    pub info: StreamInfo,
    /// Whether its agent is about to end, and waits for such streams to end first.
    pub draining: bool,
}

/// What a kubelet wants to know of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Probe {
    /// Its loops turn.
    Alive,
    /// The apiserver holds what it sees.
    Ready,
}

/// The sockets of a node's agents.
#[derive(Clone, Debug)]
pub struct Sockets {
    folder: PathBuf,
    own: PathBuf,
}

impl Sockets {
    /// In this folder, for the agent of this name.
    pub fn new(folder: &Path, name: &str) -> Self {
        Self { folder: folder.to_owned(), own: folder.join(name).with_extension(SOCKET) }
    }

    /// Listens at the own one, where an earlier process may have listened, and takes those away at
    /// which nobody listens any more.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn bind(&self) -> Result<UnixListener, Error> {
        let bind = || {
            fs::create_dir_all(&self.folder)?;
            for path in sockets(&self.folder)? {
                let connected = std::os::unix::net::UnixStream::connect(&path);
                let left = connected.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
                if path == self.own || left {
                    fs::remove_file(&path)?;
                }
            }
            UnixListener::bind(&self.own)
        };
        bind().map_err(|source| Error::Socket { path: self.own.clone(), source })
    }

    /// How many streams the node's other agents still carry before they end.
    async fn draining(&self) -> usize {
        let others = sockets(&self.folder).unwrap_or_default();
        let others = others.into_iter().filter(|path| *path != self.own);
        let streams = join_all(others.map(async |path| streams_at(&path).await)).await;
        // One that is gone meanwhile carries nothing.
        streams.iter().flatten().flatten().filter(|stream| stream.draining).count()
    }
}

fn sockets(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let files = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    let paths = files.into_iter().map(|file| file.path());
    Ok(paths.filter(|path| path.extension().is_some_and(|name| name == SOCKET)).collect())
}

/// What is shown.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The streams.
    pub relay: Relay,
    /// The numbers.
    pub metrics: Metrics,
    /// The answers to probes.
    pub health: Health,
    /// Whether the agent is about to end.
    pub shutdown: Shutdown,
    /// Where the node's other agents are asked.
    pub sockets: Sockets,
}

impl Shown {
    fn streams(&self) -> Vec<Stream> {
        let draining = self.shutdown.is_requested();
        self.relay.streams().into_iter().map(|info| Stream { info, draining }).collect()
    }
}

/// Serves `/metrics`, `/healthz` and `/readyz` at this port of every address, on a node without IPv6
/// of every IPv4 one, once it is free and until another agent acts.
pub async fn serve_metrics(port: u16, shown: Shown, mut role: watch::Receiver<Role>) {
    let mut complained = false;
    let listener = loop {
        match http::bind_everywhere(port).await {
            Ok(listener) => break listener,
            Err(error) => {
                // Another agent of the node has it for as long as it acts.
                let waits = *role.borrow_and_update() == Role::Waiting;
                if !waits && !std::mem::replace(&mut complained, true) {
                    tracing::warn!(reason = error.reason(), %error, "metrics are not served yet");
                }
                tokio::time::sleep(AGAIN).await;
            }
        }
    };
    let succeeded = async move {
        // An error means that this agent is about to end without another one.
        if role.wait_for(|role| *role == Role::Succeeded).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let health = shown.health.router(Instant::now);
    let router = Router::new().route("/metrics", get(metrics)).with_state(shown).merge(health);
    if let Err(error) = http::serve(listener, router, succeeded).await {
        tracing::error!(%error, "metrics are no longer served");
    }
}

/// Serves `/healthz`, `/readyz` and `/streams` at the agent's own socket.
pub async fn serve_socket(listener: UnixListener, shown: Shown) {
    let streams = get(async |State(shown): State<Shown>| Json(shown.streams()));
    let health = shown.health.router(Instant::now);
    let router = Router::new().route(STREAMS, streams).with_state(shown).merge(health);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "streams are no longer shown");
    }
}

async fn metrics(State(shown): State<Shown>) -> Response {
    let own = if shown.shutdown.is_requested() { shown.relay.streams().len() } else { 0 };
    http::metrics(shown.metrics.encode(own + shown.sockets.draining().await))
}

/// Asks the agents that share this folder for their open streams: those of each one oldest first.
///
/// # Errors
/// Where there is no agent, or one answers what nobody understands.
pub async fn streams(folder: &Path) -> Result<Vec<Stream>, Error> {
    let failed = |source| Error::Socket { path: folder.to_owned(), source };
    let (mut all, mut answered) = (Vec::new(), false);
    for path in sockets(folder).map_err(failed)? {
        match streams_at(&path).await {
            Ok(streams) => {
                all.extend(streams);
                answered = true;
            }
            // An agent that was killed has left it there.
            Err(Error::Socket { source, .. })
                if source.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error),
        }
    }
    if answered { Ok(all) } else { Err(failed(io::ErrorKind::ConnectionRefused.into())) }
}

async fn streams_at(path: &Path) -> Result<Vec<Stream>, Error> {
    let (_, body) = ask(path, STREAMS).await?;
    Ok(serde_json::from_slice(&body)?)
}

/// Asks the agent of this name.
///
/// # Errors
/// Where it does not answer, or says no.
pub async fn probed(folder: &Path, name: &str, probe: Probe) -> Result<(), Error> {
    let path = match probe {
        Probe::Alive => HEALTHZ,
        Probe::Ready => READYZ,
    };
    let (status, body) = ask(&Sockets::new(folder, name).own, path).await?;
    if status.is_success() {
        return Ok(());
    }
    Err(Error::Unhealthy(String::from_utf8_lossy(&body).trim_end().to_owned()))
}

async fn ask(socket: &Path, path: &str) -> Result<(StatusCode, Bytes), Error> {
    let asked = async {
        let stream = UnixStream::connect(socket).await?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let request = Request::get(path).header(header::HOST, "agent").body(Body::empty());
        let answer = async {
            let request = request.map_err(io::Error::other)?;
            let response = sender.send_request(request).await.map_err(io::Error::other)?;
            let status = response.status();
            let body = to_bytes(Body::new(response.into_body()), ANSWER_MAX).await;
            Ok((status, body.map_err(io::Error::other)?))
        };
        tokio::select! {
            answer = answer => answer,
            // It ends before the answer only where something went wrong.
            Err(error) = connection => Err(io::Error::other(error)),
        }
    };
    let answer = match tokio::time::timeout(TIMEOUT, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    };
    answer.map_err(|source| Error::Socket { path: socket.to_owned(), source })
}

#[cfg(test)]
mod tests;
