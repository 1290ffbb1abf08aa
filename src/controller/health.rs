//! Whether the controller is alive and ready, and the pages that say so.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

use super::metrics::{Kind, Metrics};
use crate::process::server::{OPENMETRICS, probe};

/// How long the engine's loop may stand still before the process counts as stuck.
pub const STALL_LIMIT: Duration = Duration::from_secs(60);

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
        Ok(body) => ([(header::CONTENT_TYPE, OPENMETRICS)], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn healthz(State(served): State<Served>) -> Response {
    probe(served.health.live((served.clock)()))
}

async fn readyz(State(served): State<Served>) -> Response {
    probe(served.health.ready())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
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
        assert_eq!(content_type, OPENMETRICS);
        assert!(body.contains("sluice_leader 0\n"));
        assert_eq!(get(&router, "/").await.0, StatusCode::NOT_FOUND);
    }
}
