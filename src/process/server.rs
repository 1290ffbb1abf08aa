//! The HTTP server for Prometheus and for the kubelet's probes.

use std::{
    fmt, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use axum::{
    Router,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use tokio::net::TcpListener;

/// The content type of metrics in the OpenMetrics text format.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How long requests in progress may take once the process is to end.
const GRACE: Duration = Duration::from_secs(5);

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// The port cannot be listened on.
    #[error("cannot listen on port {port}: {source}")]
    Port {
        /// The port.
        port: u16,
        /// What the operating system said.
        source: io::Error,
    },
    /// The server ended before it was told to.
    #[error("the metrics server failed: {0}")]
    Serve(#[from] io::Error),
}

impl Error {
    /// The error's kind as a metric label.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Bind { .. } | Self::Port { .. } => "ServeBind",
            Self::Serve(_) => "Serve",
        }
    }
}

/// What a probe is answered: 200 with `ok`, or 503 with one line that says why.
pub fn probe(result: Result<(), String>) -> Response {
    match result {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

/// The page of metrics.
pub fn metrics(encoded: Result<String, fmt::Error>) -> Response {
    match encoded {
        Ok(body) => ([(header::CONTENT_TYPE, OPENMETRICS)], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// Listens on `address`; port 0 takes a free one.
///
/// # Errors
///
/// [`Error::Bind`] when the operating system refuses.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Bind { address, source })
}

/// Listens on a port of every address; on a node without IPv6, of every IPv4 one.
///
/// # Errors
/// Where the port is taken.
pub async fn bind_everywhere(port: u16) -> Result<TcpListener, Error> {
    let all = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let listener = match TcpListener::bind(all).await {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
        }
        bound => bound,
    };
    listener.map_err(|source| Error::Port { port, source })
}

/// Serves `router` until `shutdown` resolves, and requests in progress for five
/// more seconds.
///
/// # Errors
///
/// [`Error::Serve`] when the listener fails.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let (told, mut ending) = tokio::sync::watch::channel(false);
    let server = axum::serve(listener, router).with_graceful_shutdown(async move {
        shutdown.await;
        told.send_replace(true);
    });
    let overtime = async {
        // An error means that the server has ended, and so has its future.
        if ending.wait_for(|ending| *ending).await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        result = server => Ok(result?),
        () = overtime => {
            tracing::warn!("requests were still in progress");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    #[tokio::test]
    async fn metrics_are_openmetrics() {
        let page = metrics(Ok("sluice_leader 0\n".to_owned()));
        assert_eq!(page.status(), StatusCode::OK);
        assert_eq!(page.headers()[header::CONTENT_TYPE], OPENMETRICS);
        assert_eq!(metrics(Err(fmt::Error)).status(), StatusCode::INTERNAL_SERVER_ERROR);
    }

    #[tokio::test]
    async fn serves_until_told_to_end() {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(bind(address).await.unwrap_err().reason(), "ServeBind");
        let healthz = axum::routing::get(async || probe(Ok(())));
        let router = Router::new().route("/healthz", healthz);
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let server = tokio::spawn(serve(listener, router, async {
            let _ = ended.await;
        }));

        let asking = tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            let request = b"GET /healthz HTTP/1.1\r\nHost: sluice\r\nConnection: close\r\n\r\n";
            stream.write_all(request).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });
        let answer = asking.await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");

        end.send(()).unwrap();
        server.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_request_in_progress_does_not_hold_up_the_end_for_long() {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (arrive, mut arrived) = tokio::sync::mpsc::channel(1);
        let never = axum::routing::get(async move || {
            arrive.send(()).await.unwrap();
            std::future::pending::<()>().await;
        });
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let router = Router::new().route("/", never);
        let server = tokio::spawn(serve(listener, router, async {
            let _ = ended.await;
        }));
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: sluice\r\n\r\n").unwrap();
        arrived.recv().await.unwrap();

        tokio::time::pause();
        let start = tokio::time::Instant::now();
        end.send(()).unwrap();
        server.await.unwrap().unwrap();
        assert!(start.elapsed() >= GRACE);
    }
}
