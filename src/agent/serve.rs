//! What the agent serves: metrics and probes to the network, the open streams to whoever is root in
//! its container.

use std::{
    fs, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UnixListener, UnixStream},
};

use super::{health::Health, metrics::Metrics};
use crate::{
    controller::{metrics::Metrics as ControllerMetrics, serve::probe},
    relay::{Relay, StreamInfo},
};

/// Whoever asks for the streams has so much time to take them.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why nothing is served, or nothing can be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port cannot be listened on.
    #[error("cannot listen on port {port}: {source}")]
    Bind {
        /// The port.
        port: u16,
        /// What the operating system said.
        source: io::Error,
    },
    /// The socket for the streams cannot be made, or asked.
    #[error("{}: {source}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The agent has answered something else.
    #[error("the agent's answer cannot be understood: {0}")]
    Answer(#[from] serde_json::Error),
}

impl Error {
    /// A short, stable name.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Bind { .. } => "ServeBind",
            Self::Socket { .. } => "StreamsSocket",
            Self::Answer(_) => "StreamsAnswer",
        }
    }
}

/// Listens on a port of every address; on a node without IPv6, of every IPv4 one.
///
/// # Errors
/// Where the port is taken.
pub async fn bind(port: u16) -> Result<TcpListener, Error> {
    let all = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let listener = match TcpListener::bind(all).await {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
        }
        bound => bound,
    };
    listener.map_err(|source| Error::Bind { port, source })
}

#[derive(Clone)]
struct Served {
    metrics: Metrics,
    health: Health,
}

/// `/metrics`, `/healthz` and `/readyz`.
pub fn router(metrics: Metrics, health: Health) -> Router {
    Router::new()
        .route("/metrics", get(metrics_page))
        .route(
            "/healthz",
            get(async |State(served): State<Served>| probe(served.health.live(Instant::now()))),
        )
        .route(
            "/readyz",
            get(async |State(served): State<Served>| probe(served.health.ready(Instant::now()))),
        )
        .with_state(Served { metrics, health })
}

async fn metrics_page(State(served): State<Served>) -> Response {
    match served.metrics.encode() {
        Ok(body) => {
            ([(header::CONTENT_TYPE, ControllerMetrics::CONTENT_TYPE)], body).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// Listens for those who want to see the streams, where an earlier process may have listened.
///
/// # Errors
/// Where the socket cannot be made.
pub fn bind_streams(path: &Path) -> Result<UnixListener, Error> {
    let bind = || {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        UnixListener::bind(path)
    };
    bind().map_err(|source| Error::Socket { path: path.to_owned(), source })
}

/// Gives the open streams, as JSON, to each who connects.
pub async fn serve_streams(listener: UnixListener, relay: Relay) {
    loop {
        match listener.accept().await {
            Ok((mut stream, _)) => {
                let streams = serde_json::to_vec(&relay.streams()).unwrap_or_default();
                // One at a time: whoever asks is a person.
                let _ = tokio::time::timeout(TIMEOUT, stream.write_all(&streams)).await;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot show the streams");
                tokio::time::sleep(TIMEOUT).await;
            }
        }
    }
}

/// Asks a running agent for its open streams.
///
/// # Errors
/// Where there is none.
pub async fn streams(path: &Path) -> Result<Vec<StreamInfo>, Error> {
    let asked = async {
        let mut stream = UnixStream::connect(path).await?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await?;
        Ok(bytes)
    };
    let bytes = match tokio::time::timeout(TIMEOUT, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    };
    let bytes = bytes.map_err(|source| Error::Socket { path: path.to_owned(), source })?;
    Ok(serde_json::from_slice(&bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::{Settings, Upstream};

    #[tokio::test]
    async fn streams_are_shown_over_the_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        let missing = streams(&path).await.unwrap_err();
        assert!(missing.to_string().starts_with(&path.display().to_string()), "{missing}");
        // An earlier process has left its own.
        drop(bind_streams(&path).unwrap());
        let listener = bind_streams(&path).unwrap();
        let relay = Relay::new(Settings::new(Upstream::Fixed("127.0.0.1:1".parse().unwrap())));
        tokio::spawn(serve_streams(listener, relay));
        assert_eq!(streams(&path).await.unwrap(), []);
        assert_eq!(streams(&path).await.unwrap(), []);
    }
}
