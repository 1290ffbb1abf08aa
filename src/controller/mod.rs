//! The controller: one leader that watches the cluster and keeps the statuses true.
//!
//! `world` is its state and decides what to write, without I/O; `engine` is the loop around
//! it. kube's own `Controller` keeps every watched object and wakes for every heartbeat; this one
//! keeps a projection and wakes for what it uses. The rest is the process around the engine: who
//! leads, when to stop, what is said to Prometheus, to the kubelet's probes and to people.

pub mod agents;
pub mod changes;
mod engine;
pub mod events;
pub mod lease;
pub mod metrics;
mod occurrences;
mod published;
pub mod serve;
pub mod shutdown;
mod trial;
pub(crate) mod watch;
mod world;
mod write;

use std::{net::SocketAddr, time::Instant};

use kube::{Client, Config};
use tokio::task::JoinHandle;

use engine::Engine;
use events::Publisher;
use lease::{Elector, lease_client};
use metrics::Metrics;
use serve::Health;
use shutdown::Shutdown;

use crate::{canary, webhook};

/// How the controller is started.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where metrics and probes are served.
    pub listen: SocketAddr,
    /// The Lease for which replicas compete, its timing, and this replica's name.
    pub lease: lease::Settings,
    /// How agents are rolled out; `None` for a controller that only judges.
    pub agents: Option<agents::Settings>,
    /// What is changed or published beside our own objects.
    pub changes: changes::Settings,
    /// Where the canary's pods are, if there are any.
    pub canary: Option<canary::Settings>,
    /// How the webhook is served, if it is.
    pub webhook: Option<webhook::Settings>,
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
    Serve(#[from] serve::Error),
    /// The webhook cannot be served.
    #[error(transparent)]
    Webhook(#[from] webhook::Error),
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
            Self::Webhook(error) => error.reason(),
            Self::Shutdown(error) => error.reason(),
        }
    }
}

/// Runs one replica: waits for the Lease, leads, and gives the Lease back when asked to stop.
///
/// # Errors
/// When it cannot start, and when it has lost the Lease: another replica may lead already, so the
/// process ends rather than judge on.
pub async fn run(config: Config, settings: Settings) -> Result<(), Error> {
    let shutdown = Shutdown::on_signals()?;
    let metrics = Metrics::new();
    let health = Health::new(Instant::now());
    let listener = serve::bind(settings.listen).await?;
    let router = serve::router(metrics.clone(), health.clone(), Instant::now);
    let server = tokio::spawn(serve::serve(listener, router, shutdown.requested()));

    let identity = settings.lease.identity.clone();
    // The client's own retries take minutes, and repeat what has long been judged anew.
    let mut quick = config.clone();
    quick.default_retry = false;
    let client = Client::try_from(quick).map_err(Error::Client)?;
    let webhook = match settings.webhook {
        Some(of) => Some(webhook::start(of, &client, &metrics, &health, &shutdown).await?),
        None => None,
    };
    let mut direct = config.clone();
    direct.default_retry = false;
    let canary = trial::Canary::new(direct, settings.canary);
    let changes = settings.changes;
    let elector = Elector::new(lease_client(config)?, settings.lease, metrics.clone())?;
    tracing::info!(identity, "waiting for the lease");
    let mut leadership = match elector.acquire(shutdown.requested()).await {
        Ok(leadership) => leadership,
        Err(lease::Error::Shutdown) => return finish(server, webhook).await,
        Err(error) => return Err(error.into()),
    };
    tracing::info!(identity, "leading");
    metrics.leader(true);
    health.leading(true, Instant::now());
    let publisher = Publisher::new(client.clone(), identity, metrics.clone());
    let fence = leadership.fence();
    let agents = settings.agents;
    let engine = Engine { client, fence, publisher, metrics, health, agents, changes, canary };
    tokio::select! {
        biased;
        error = leadership.lost() => return Err(error.into()),
        () = engine.run(shutdown.requested()) => {}
    }
    if let Err(error) = leadership.release().await {
        tracing::warn!(error = %error, "the lease was not given back and will expire by itself");
    }
    finish(server, webhook).await
}

async fn finish(
    server: JoinHandle<Result<(), serve::Error>>,
    webhook: Option<JoinHandle<()>>,
) -> Result<(), Error> {
    if let Some(webhook) = webhook {
        // Others' writes come by here; the Lease is free for a successor already.
        let _ = webhook.await;
    }
    match server.await {
        Ok(result) => Ok(result?),
        // Only a panic in the server ends it so, and we are leaving anyway.
        Err(_) => Ok(()),
    }
}
