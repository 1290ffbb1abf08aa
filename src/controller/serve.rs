//! The HTTP server for Prometheus and for the kubelet's probes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use super::metrics::{Kind, Metrics};

/// How long the engine's loop may stand still before the process counts as stuck.
pub const STALL_LIMIT: Duration = Duration::from_secs(60);

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
        source: std::io::Error,
    },
    /// The server ended before it was told to.
    #[error("the metrics server failed: {0}")]
    Serve(#[from] std::io::Error),
}

impl Error {
    /// The error's kind as a metric label.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Bind { .. } => "ServeBind",
            Self::Serve(_) => "Serve",
        }
    }
}

/// What the probes are answered from; clones share it.
///
/// It reads no clock: whoever reports or asks says what time it is.
#[derive(Clone, Debug)]
pub struct Health(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    origin: Instant,
    leading: AtomicBool,
    /// When the engine's loop last turned, in milliseconds after `origin`.
    turned: AtomicU64,
    synced: [AtomicBool; Kind::ALL.len()],
    /// The webhook is to be served, and has no certificate yet.
    uncertified: AtomicBool,
}

impl Health {
    /// The health of a process started at `now`: standby, nothing synced.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self(Arc::new(Inner {
            origin: now,
            leading: AtomicBool::new(false),
            turned: AtomicU64::new(0),
            synced: Kind::ALL.map(|_| AtomicBool::new(false)),
            uncertified: AtomicBool::new(false),
        }))
    }

    /// The process leads from now on, and its engine's loop is about to turn;
    /// or it no longer leads.
    pub fn leading(&self, leading: bool, now: Instant) {
        // First, so that nobody sees a new leader with an old turn.
        self.turned(now);
        self.0.leading.store(leading, Ordering::Release);
    }

    /// The engine's loop has turned. It should do so at least every few
    /// seconds, whether there is work or not.
    pub fn turned(&self, now: Instant) {
        let passed = now.saturating_duration_since(self.0.origin).as_millis();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        self.0.turned.store(passed, Ordering::Release);
    }

    /// Whether the engine has seen every object of this kind.
    pub fn synced(&self, kind: Kind, synced: bool) {
        for (index, other) in Kind::ALL.into_iter().enumerate() {
            if other == kind {
                self.0.synced[index].store(synced, Ordering::Release);
            }
        }
    }

    /// The process serves the webhook too, and cannot do so without a certificate.
    pub fn needs_certificate(&self) {
        self.0.uncertified.store(true, Ordering::Release);
    }

    /// It has a certificate now.
    pub fn certified(&self) {
        self.0.uncertified.store(false, Ordering::Release);
    }

    /// Whether the process is alive.
    ///
    /// # Errors
    ///
    /// One line on what is stuck, once the engine's loop has not turned for
    /// [`STALL_LIMIT`] while leading.
    pub fn live(&self, now: Instant) -> Result<(), String> {
        if !self.0.leading.load(Ordering::Acquire) {
            return Ok(());
        }
        let turned = Duration::from_millis(self.0.turned.load(Ordering::Acquire));
        let idle = now.saturating_duration_since(self.0.origin).saturating_sub(turned);
        if idle < STALL_LIMIT {
            return Ok(());
        }
        Err(format!("the engine has not turned for {} s", idle.as_secs()))
    }

    /// Whether the process can do its part: a standby can once it has what the
    /// webhook needs, a leader has to have seen the whole cluster besides.
    ///
    /// # Errors
    ///
    /// One line on what is missing.
    pub fn ready(&self) -> Result<(), String> {
        if self.0.uncertified.load(Ordering::Acquire) {
            return Err("the webhook has no certificate".to_owned());
        }
        if !self.0.leading.load(Ordering::Acquire) {
            return Ok(());
        }
        let missing: Vec<&str> = Kind::ALL
            .into_iter()
            .zip(&self.0.synced)
            .filter(|(_, synced)| !synced.load(Ordering::Acquire))
            .map(|(kind, _)| kind.as_str())
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(format!("not synced: {}", missing.join(", ")))
    }
}

/// A clock, such as `std::time::Instant::now`.
pub type Clock = fn() -> Instant;

#[derive(Clone)]
struct Served {
    metrics: Metrics,
    health: Health,
    clock: Clock,
}

/// The pages: `/metrics`, `/healthz` and `/readyz`.
///
/// The probes answer 200 with `ok`, or 503 with one line that says why.
pub fn router(metrics: Metrics, health: Health, clock: Clock) -> Router {
    Router::new()
        .route("/metrics", get(metrics_page))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(Served { metrics, health, clock })
}

async fn metrics_page(State(served): State<Served>) -> Response {
    match served.metrics.encode() {
        Ok(body) => ([(header::CONTENT_TYPE, Metrics::CONTENT_TYPE)], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn healthz(State(served): State<Served>) -> Response {
    probe(served.health.live((served.clock)()))
}

async fn readyz(State(served): State<Served>) -> Response {
    probe(served.health.ready())
}

/// What a probe is answered: 200 with `ok`, or 503 with one line that says why.
pub fn probe(result: Result<(), String>) -> Response {
    match result {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
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
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use tower::ServiceExt;

    async fn get(router: &Router, path: &str) -> (StatusCode, String, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let content_type = response.headers().get(header::CONTENT_TYPE);
        let content_type = content_type.map_or("", |value| value.to_str().unwrap());
        let content_type = content_type.to_owned();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, content_type, String::from_utf8(body.to_vec()).unwrap())
    }

    fn clock() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    #[tokio::test(start_paused = true)]
    async fn liveness() {
        let health = Health::new(clock());
        let router = router(Metrics::new(), health.clone(), clock);
        let status = async || get(&router, "/healthz").await;
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(status().await.0, StatusCode::OK, "standby");

        health.leading(true, clock());
        assert_eq!(status().await.0, StatusCode::OK, "just leading");
        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!(status().await.0, StatusCode::OK);
        tokio::time::advance(Duration::from_secs(2)).await;
        let (code, _, body) = status().await;
        assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body, "the engine has not turned for 61 s\n");

        health.turned(clock());
        assert_eq!(status().await.0, StatusCode::OK, "turned");
        tokio::time::advance(Duration::from_secs(61)).await;
        health.leading(false, clock());
        assert_eq!(status().await.0, StatusCode::OK, "standby again");
    }

    #[tokio::test]
    async fn readiness() {
        let health = Health::new(clock());
        let router = router(Metrics::new(), health.clone(), clock);
        assert_eq!(get(&router, "/readyz").await.0, StatusCode::OK, "standby");
        health.needs_certificate();
        let (code, _, body) = get(&router, "/readyz").await;
        assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body, "the webhook has no certificate\n");
        assert_eq!(get(&router, "/healthz").await.0, StatusCode::OK, "a restart would not help");
        health.certified();
        assert_eq!(get(&router, "/readyz").await.0, StatusCode::OK, "standby with certificate");
        health.leading(true, clock());
        health.synced(Kind::StreamingNode, true);
        let (code, _, body) = get(&router, "/readyz").await;
        assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(
            body,
            "not synced: AgentPod, DaemonSet, Endpoints, Flags, KubeadmConfig, Node, Pod, StreamingPolicy\n"
        );
        for kind in Kind::ALL {
            health.synced(kind, true);
        }
        assert_eq!(get(&router, "/readyz").await.0, StatusCode::OK);
        health.synced(Kind::Node, false);
        assert_eq!(get(&router, "/readyz").await.2, "not synced: Node\n");
    }

    #[tokio::test]
    async fn metrics_are_openmetrics() {
        let router = router(Metrics::new(), Health::new(clock()), clock);
        let (code, content_type, body) = get(&router, "/metrics").await;
        assert_eq!(code, StatusCode::OK);
        assert_eq!(content_type, Metrics::CONTENT_TYPE);
        assert!(body.contains("sluice_leader 0\n"));
        assert_eq!(get(&router, "/").await.0, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn serves_until_told_to_end() {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(bind(address).await.unwrap_err().reason(), "ServeBind");
        let router = router(Metrics::new(), Health::new(clock()), clock);
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
        let start = clock();
        end.send(()).unwrap();
        server.await.unwrap().unwrap();
        assert!(clock() - start >= GRACE);
    }
}
