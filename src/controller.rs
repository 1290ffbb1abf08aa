//! The controller: one leader that watches the cluster and keeps the statuses true.
//!
//! `state` is what it knows, and decides what to write, without I/O; `engine` is the loop around
//! it. kube's own `Controller` keeps every watched object and wakes for every heartbeat; this one
//! keeps a projection and wakes for what it uses. The rest is the process around the engine: who
//! leads, when to stop, what is said to Prometheus, to the kubelet's probes and to people.

pub mod agents;
mod canary_runner;
pub mod changes;
mod engine;
pub(crate) mod event_records;
pub mod metrics;
mod published;
mod state;
pub(crate) mod watch;
mod write;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use axum::{Router, routing::get};
use kube::{Client, Config};
use tokio::task::JoinHandle;

use crate::{
    canary,
    kubernetes::{
        events::Publisher,
        lease::{self, Elector, lease_client},
    },
    process::{
        health::Health,
        server,
        shutdown::{self, Shutdown},
    },
};
use engine::Engine;
use metrics::{Kind, Metrics};

/// How long the engine's loop may stand still before the process counts as stuck.
const STALL_LIMIT: Duration = Duration::from_secs(60);

/// How the controller is started.
#[derive(Clone, Debug)]
pub struct ControllerSettings {
    /// Where metrics and probes are served.
    pub listen: SocketAddr,
    /// The Lease for which replicas compete, its timing, and this replica's name.
    pub lease: lease::LeaseSettings,
    /// How agents are rolled out; `None` for a controller that only judges.
    pub agents: Option<agents::AgentsSettings>,
    /// What is changed or published beside our own objects.
    pub changes: changes::ChangesSettings,
    /// Where the canary's pods are, if there are any.
    pub canary: Option<canary::CanarySettings>,
}

/// What the controller has in common with what runs beside it in its process; clones share it.
#[derive(Clone, Debug)]
pub struct Shared {
    /// What is told to Prometheus.
    pub metrics: Metrics,
    /// What probes are answered from.
    pub health: Health,
    /// When the process is to end.
    pub shutdown: Shutdown,
}

impl Shared {
    /// That of a process that starts now, and ends on signals. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// When signals cannot be waited for.
    pub fn start() -> Result<Self, Error> {
        let shutdown = Shutdown::on_signals()?;
        Ok(Self { metrics: Metrics::new(), health: Health::default(), shutdown })
    }
}

/// A client that does not retry by itself: the client's own retries take minutes, and would repeat
/// writes that a later judgement has overtaken.
///
/// # Errors
/// When the configuration does not make a client.
pub fn client(mut config: Config) -> Result<Client, Error> {
    config.default_retry = false;
    Client::try_from(config).map_err(Error::Client)
}

/// Why the controller ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No client can be made from the configuration.
    #[error("cannot make a client for the apiserver: {0}")]
    Client(#[source] kube::Error),
    /// The Lease cannot be competed for, or was lost.
    #[error(transparent)]
    Lease(#[from] lease::Error),
    /// Metrics and probes cannot be served.
    #[error(transparent)]
    Serve(#[from] server::Error),
    /// Signals cannot be waited for.
    #[error(transparent)]
    Shutdown(#[from] shutdown::Error),
}

impl Error {
    /// A short, stable name for logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Client(_) => "ClientConfig",
            Self::Lease(error) => error.reason(),
            Self::Serve(error) => error.reason(),
            Self::Shutdown(error) => error.reason(),
        }
    }
}

/// Runs one replica: waits for the Lease, leads, and gives the Lease back when asked to stop.
///
/// # Errors
/// When it cannot start, and when it has lost the Lease: another replica may lead already, so the
/// process ends rather than judge on.
pub async fn run(
    config: Config,
    settings: ControllerSettings,
    shared: Shared,
) -> Result<(), Error> {
    let Shared { metrics, health, shutdown } = shared;
    let listener = server::bind(settings.listen).await?;
    let router = router(metrics.clone(), &health);
    let server = tokio::spawn(server::serve(listener, router, shutdown.requested()));

    let identity = settings.lease.identity.clone();
    let client = client(config.clone())?;
    let mut direct = config.clone();
    direct.default_retry = false;
    let canary = canary_runner::CanaryRunner::new(direct, settings.canary);
    let changes = settings.changes;
    let elector = Elector::new(lease_client(config)?, settings.lease, metrics.clone())?;
    tracing::info!(identity, "waiting for the lease");
    let mut leadership = match elector.acquire(shutdown.requested()).await {
        Ok(leadership) => leadership,
        Err(lease::Error::Shutdown) => return finish(server).await,
        Err(error) => return Err(error.into()),
    };
    tracing::info!(identity, "leading");
    metrics.leader(true);
    let stopped = "the engine has not turned";
    let turns = health.alive_while(stopped, STALL_LIMIT, Instant::now());
    // A standby is ready without them.
    let synced =
        Kind::ALL.map(|kind| (kind, health.ready_with(format!("{} is not synced", kind.as_str()))));
    let publisher = Publisher::new(client.clone(), identity, metrics.clone());
    let fence = leadership.fence();
    let agents = settings.agents;
    let engine =
        Engine { client, fence, publisher, metrics, turns, synced, agents, changes, canary };
    tokio::select! {
        biased;
        error = leadership.lost() => return Err(error.into()),
        () = engine.run(shutdown.requested()) => {}
    }
    if let Err(error) = leadership.release().await {
        tracing::warn!(error = %error, "the lease was not given back and will expire by itself");
    }
    finish(server).await
}

/// The pages: `/metrics`, `/healthz` and `/readyz`.
fn router(metrics: Metrics, health: &Health) -> Router {
    let page = async move || server::metrics(metrics.encode());
    Router::new().route("/metrics", get(page)).merge(health.router(Instant::now))
}

async fn finish(server: JoinHandle<Result<(), server::Error>>) -> Result<(), Error> {
    match server.await {
        Ok(result) => Ok(result?),
        // Only a panic in the server ends it so, and we are leaving anyway.
        Err(_) => Ok(()),
    }
}
