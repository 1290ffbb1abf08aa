//! Whether the remediator is alive, and knows what is wanted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, extract::State, routing::get};

use crate::process::server::probe;

/// A loop that has not turned for so long is stuck. The slowest turn asks the apiserver, and waits
/// for a restart of the kubelet.
const STALL_LIMIT: Duration = Duration::from_secs(180);

/// What the probes are answered from; clones share it. It reads no clock.
#[derive(Clone, Debug)]
pub struct Health(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    origin: Instant,
    /// When the loop last turned, in milliseconds after `origin`.
    turned: AtomicU64,
    told: AtomicBool,
}

impl Health {
    /// The health of a process started at `now`.
    pub fn new(now: Instant) -> Self {
        let (turned, told) = (AtomicU64::new(0), AtomicBool::new(false));
        Self(Arc::new(Inner { origin: now, turned, told }))
    }

    /// The loop has turned.
    pub fn turned(&self, now: Instant) {
        self.0.turned.store(self.millis(now), Ordering::Relaxed);
    }

    /// The apiserver has told what is wanted.
    pub fn told(&self) {
        self.0.told.store(true, Ordering::Relaxed);
    }

    /// Whether the process is alive.
    ///
    /// # Errors
    /// One line on what is stuck.
    pub fn live(&self, now: Instant) -> Result<(), String> {
        let idle = self.millis(now).saturating_sub(self.0.turned.load(Ordering::Relaxed));
        let idle = Duration::from_millis(idle);
        if idle < STALL_LIMIT {
            return Ok(());
        }
        Err(format!("changes have not been looked after for {} s", idle.as_secs()))
    }

    /// Whether a change that is wanted would be noticed.
    ///
    /// # Errors
    /// One line on what is missing.
    pub fn ready(&self) -> Result<(), String> {
        if self.0.told.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err("the apiserver has not told what is wanted".to_owned())
    }

    /// `/healthz` and `/readyz`.
    pub fn router(self) -> Router {
        Router::new()
            .route(
                "/healthz",
                get(async |State(health): State<Self>| probe(health.live(Instant::now()))),
            )
            .route("/readyz", get(async |State(health): State<Self>| probe(health.ready())))
            .with_state(self)
    }

    fn millis(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.0.origin).as_millis();
        u64::try_from(passed).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stuck_is_not_alive_and_untold_not_ready() {
        let start = Instant::now();
        let health = Health::new(start);
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(health.live(after(179)), Ok(()));
        assert!(health.live(after(180)).unwrap_err().contains("180 s"));
        health.turned(after(180));
        assert_eq!(health.live(after(359)), Ok(()));
        assert!(health.ready().is_err());
        health.told();
        assert_eq!(health.ready(), Ok(()));
    }
}
