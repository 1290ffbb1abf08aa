//! Whether a process is alive and ready, and the pages that say so.
//!
//! The parts of a process register what they have to do again and again, and what they need. Nothing
//! here reads a clock: whoever reports or asks says what time it is.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, extract::State, routing::get};

use super::server::probe;

/// The page that tells whether the process is alive.
pub const HEALTHZ: &str = "/healthz";

/// The page that tells whether it is ready.
pub const READYZ: &str = "/readyz";

/// A clock, such as `std::time::Instant::now`.
pub type Clock = fn() -> Instant;

/// What the probes are answered from; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    alive: Mutex<Vec<Pulse>>,
    fresh: Mutex<Vec<Pulse>>,
    needs: Mutex<Vec<Need>>,
}

/// Something that has to happen again and again; clones are the same.
#[derive(Clone, Debug)]
pub struct Pulse(Arc<Beats>);

#[derive(Debug)]
struct Beats {
    stopped: &'static str,
    limit: Duration,
    origin: Instant,
    /// The last one, in milliseconds after `origin`.
    last: AtomicU64,
}

/// Something without which a process is not ready; clones are the same.
#[derive(Clone, Debug)]
pub struct Need(Arc<Wanted>);

#[derive(Debug)]
struct Wanted {
    missing: String,
    met: AtomicBool,
}

impl Health {
    /// From `now` on the process is alive while the pulse beats at least once in `limit`. `stopped`
    /// says what has not happened otherwise, such as "the engine has not turned".
    #[must_use]
    pub fn alive_while(&self, stopped: &'static str, limit: Duration, now: Instant) -> Pulse {
        register(&self.0.alive, Pulse::new(stopped, limit, now))
    }

    /// From `now` on the process is ready only while the pulse beats at least once in `limit`.
    #[must_use]
    pub fn ready_while(&self, stopped: &'static str, limit: Duration, now: Instant) -> Pulse {
        register(&self.0.fresh, Pulse::new(stopped, limit, now))
    }

    /// From now on the process is ready only while the need is met. `missing` says what is wrong
    /// otherwise, such as "the webhook has no certificate".
    #[must_use]
    pub fn ready_with(&self, missing: impl Into<String>) -> Need {
        let need = Wanted { missing: missing.into(), met: AtomicBool::new(false) };
        register(&self.0.needs, Need(Arc::new(need)))
    }

    /// Whether the process is alive.
    ///
    /// # Errors
    /// One line on what is stuck.
    pub fn live(&self, now: Instant) -> Result<(), String> {
        one_line(lock(&self.0.alive).iter().filter_map(|pulse| pulse.stopped(now)))
    }

    /// Whether the process can do its part.
    ///
    /// # Errors
    /// One line on what is missing.
    pub fn ready(&self, now: Instant) -> Result<(), String> {
        let (needs, fresh) = (lock(&self.0.needs), lock(&self.0.fresh));
        let missing = needs.iter().filter_map(Need::missing);
        one_line(missing.chain(fresh.iter().filter_map(|pulse| pulse.stopped(now))))
    }

    /// `/healthz` and `/readyz`: 200 with `ok`, or 503 with one line that says why.
    pub fn router(&self, clock: Clock) -> Router {
        let live = async move |State(health): State<Self>| probe(health.live(clock()));
        let ready = async move |State(health): State<Self>| probe(health.ready(clock()));
        Router::new().route(HEALTHZ, get(live)).route(READYZ, get(ready)).with_state(self.clone())
    }
}

impl Pulse {
    fn new(stopped: &'static str, limit: Duration, now: Instant) -> Self {
        Self(Arc::new(Beats { stopped, limit, origin: now, last: AtomicU64::new(0) }))
    }

    /// It has happened.
    pub fn beat(&self, now: Instant) {
        let passed = now.saturating_duration_since(self.0.origin).as_millis();
        self.0.last.store(u64::try_from(passed).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn stopped(&self, now: Instant) -> Option<String> {
        let last = Duration::from_millis(self.0.last.load(Ordering::Relaxed));
        let idle = now.saturating_duration_since(self.0.origin).saturating_sub(last);
        let stopped = || format!("{} for {} s", self.0.stopped, idle.as_secs());
        (idle >= self.0.limit).then(stopped)
    }
}

impl Need {
    /// Whether it is met now.
    pub fn met(&self, met: bool) {
        self.0.met.store(met, Ordering::Release);
    }

    fn missing(&self) -> Option<String> {
        (!self.0.met.load(Ordering::Acquire)).then(|| self.0.missing.clone())
    }
}

fn register<T: Clone>(all: &Mutex<Vec<T>>, one: T) -> T {
    lock(all).push(one.clone());
    one
}

fn one_line(wrong: impl Iterator<Item = String>) -> Result<(), String> {
    let wrong: Vec<String> = wrong.collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{
        body::{Body, to_bytes},
        http::{Request, StatusCode},
    };
    use tower::ServiceExt;

    async fn page(router: &Router, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    fn clock() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_is_alive_while_every_pulse_beats() {
        let health = Health::default();
        let router = health.router(clock);
        let live = async || page(&router, "/healthz").await;
        assert_eq!(live().await, (StatusCode::OK, "ok\n".to_owned()), "nothing runs yet");
        tokio::time::advance(Duration::from_secs(3600)).await;

        let engine =
            health.alive_while("the engine has not turned", Duration::from_secs(60), clock());
        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!(live().await.0, StatusCode::OK);
        tokio::time::advance(Duration::from_secs(2)).await;
        let stuck =
            (StatusCode::SERVICE_UNAVAILABLE, "the engine has not turned for 61 s\n".to_owned());
        assert_eq!(live().await, stuck);
        assert_eq!(page(&router, "/readyz").await.0, StatusCode::OK);
        engine.beat(clock());
        assert_eq!(live().await.0, StatusCode::OK);
        // One that beats does not answer for another.
        let _other = health.alive_while("it stands", Duration::from_secs(10), clock());
        tokio::time::advance(Duration::from_secs(10)).await;
        engine.beat(clock());
        assert_eq!(live().await.1, "it stands for 10 s\n");
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_is_ready_while_every_need_is_met() {
        let health = Health::default();
        let router = health.router(clock);
        let ready = async || page(&router, "/readyz").await;
        assert_eq!(ready().await.0, StatusCode::OK);
        let certificate = health.ready_with("the webhook has no certificate");
        let nodes = health.ready_with(format!("{} is not synced", "Node"));
        let looked = health.ready_while("nobody looked", Duration::from_secs(10), clock());
        let missing = "the webhook has no certificate; Node is not synced\n".to_owned();
        assert_eq!(ready().await, (StatusCode::SERVICE_UNAVAILABLE, missing));
        assert_eq!(page(&router, "/healthz").await.0, StatusCode::OK, "a restart would not help");
        certificate.met(true);
        assert_eq!(ready().await.1, "Node is not synced\n");
        nodes.met(true);
        assert_eq!(ready().await.0, StatusCode::OK);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(ready().await.1, "nobody looked for 10 s\n");
        looked.beat(clock());
        certificate.met(false);
        assert_eq!(ready().await.1, "the webhook has no certificate\n");
    }
}
