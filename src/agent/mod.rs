//! The node agent: carries the node's streams at no more than the limits, and tells what its kubelet
//! and its runtime are.
//!
//! Nothing here decides about the gate; the report is evidence for those who do. Whatever fails
//! here, the node's streams go on without it.

mod attach;
mod cri;
mod health;
mod kubelet;
mod metrics;
mod report;
pub mod serve;
mod wish;

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::{Duration, Instant},
};

use kube::{Client, Config};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    controller::{serve as http, shutdown, shutdown::Shutdown},
    node::{host::Host, machine::Machine},
    relay::{self, Listener, Relay, Upstream},
};
use attach::{Attachment, FAREWELL, RELAY_MARK, Streams};
use health::Health;
use kubelet::Kubelet;
use metrics::Metrics;
use wish::{Memory, Stored};

/// The name of the agent's container in its pod.
pub const CONTAINER: &str = "agent";

/// An agent before this one gives its ports back soon after it is told to end.
const PORTS: Duration = Duration::from_secs(30);
const PORTS_AGAIN: Duration = Duration::from_secs(1);

/// How the agent is started.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The node's name.
    pub node: String,
    /// The uid of the agent's pod, by which the runtime knows its container.
    pub pod_uid: String,
    /// Where the node's own `/proc`, `/run`, `/etc` and `/var/lib/kubelet` are mounted.
    pub host: PathBuf,
    /// Where the last wish is kept.
    pub state: PathBuf,
    /// The socket at which open streams are shown.
    pub socket: PathBuf,
    /// The port to which the kernel sends streams.
    pub relay_port: u16,
    /// The port of metrics and probes.
    pub port: u16,
    /// The nft program.
    pub nft: PathBuf,
    /// The runtime's socket on the node, where the kubelet's own word is not enough.
    pub cri_socket: Option<String>,
    /// How long running streams may go on once the agent is told to end.
    pub grace: Duration,
}

/// Why the agent ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No client can be made from the configuration.
    #[error("cannot make a client for the apiserver: {0}")]
    Client(#[source] kube::Error),
    /// Streams cannot be taken.
    #[error(transparent)]
    Relay(#[from] relay::Error),
    /// Metrics and probes cannot be served.
    #[error(transparent)]
    Serve(#[from] serve::Error),
    /// Signals cannot be waited for.
    #[error(transparent)]
    Shutdown(#[from] shutdown::Error),
}

impl Error {
    /// A short, stable name for logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Client(_) => "ClientConfig",
            Self::Relay(error) => error.reason(),
            Self::Serve(error) => error.reason(),
            Self::Shutdown(error) => error.reason(),
        }
    }
}

/// Runs the agent until it is told to end and the streams that it carries have, or the grace is
/// over.
///
/// # Errors
/// When it cannot start.
pub async fn run(mut config: Config, settings: Settings) -> Result<(), Error> {
    let shutdown = Shutdown::on_signals()?;
    relay::raise_descriptors();
    let relay =
        Relay::new(relay::Settings::new(Upstream::OriginalDestination { mark: RELAY_MARK }));
    let (health, metrics) = (Health::new(Instant::now()), Metrics::new(relay.clone()));
    let host = Host::new(settings.host.clone());
    let memory = Memory::new(&settings.state);
    let last = memory.recall();
    // Before the first connection, whose buffers follow the limits that it meets.
    relay.set_limits(attach::limits(last.as_ref()));
    let (wishes, wish) = watch::channel(last);
    let (stored, stores) = watch::channel(Stored::default());
    let (kubelets, kubelet) = watch::channel(Kubelet::default());
    let (attaching, attached) = watch::channel(None);
    // The client's own retries take minutes; what is late is said anew.
    config.default_retry = false;
    let client = Client::try_from(config).map_err(Error::Client)?;

    let mut carrying = JoinSet::new();
    // Connections are taken for as long as the kernel sends any: one that it sends to nobody fails.
    let (unattached, stop_taking) = Shutdown::triggered();
    let listener = when_free(async || serve::bind(settings.port).await).await?;
    for listener in when_free(async || listeners(settings.relay_port)).await? {
        let (relay, stop) = (relay.clone(), stop_taking.requested());
        carrying.spawn(async move { relay.serve(listener, stop).await });
    }
    let mut tasks = JoinSet::new();
    let router = serve::router(metrics.clone(), health.clone());
    // Nobody probes a pod that ends, and the next agent's probes need the port.
    let stop = shutdown.requested();
    tasks.spawn(async move {
        if let Err(error) = http::serve(listener, router, stop).await {
            tracing::error!(%error, "metrics and probes are no longer served");
        }
    });
    tasks.spawn(serve::serve_streams(serve::bind_streams(&settings.socket)?, relay.clone()));
    tasks.spawn(wish::follow(client.clone(), settings.node.clone(), memory, wishes, stored));
    let looked = health.clone();
    tasks.spawn(kubelet::observe(host.clone(), kubelets, move || looked.looked(Instant::now())));
    tasks.spawn(watch_relaying(attached.clone(), metrics.clone()));
    let mut unwanted = wish.clone();
    let sources = report::Sources {
        kubelet: kubelet.clone(),
        attached,
        remote: relay.remote_peers(),
        stored: stores,
    };
    let reporter = report::Reporter::new(client, settings.node, Machine::read(&host));
    let reporting = tasks.spawn(reporter.clone().keep(sources, health.clone(), metrics));

    let own = cri::Own { pod_uid: settings.pod_uid, container: CONTAINER.to_owned() };
    let attachment = attach::Settings {
        relay_port: settings.relay_port,
        nft: settings.nft,
        cri_socket: settings.cri_socket,
        own,
    };
    let attachment = Attachment::new(attachment, host, relay.clone());
    let turned = move || health.attached(Instant::now());
    let stop = shutdown.requested();
    let attaching =
        tokio::spawn(attachment.run(wish, kubelet, attaching, turned, stop, unattached));

    shutdown.requested().await;
    let open = relay.streams().len();
    tracing::info!(open, grace_seconds = settings.grace.as_secs(), "ending when the streams have");
    let ended = async {
        // What nobody keeps true any more is not left behind.
        let gone = unwanted.wait_for(Option::is_none);
        if matches!(tokio::time::timeout(FAREWELL, gone).await, Ok(Ok(_))) {
            reporting.abort();
            reporter.withdraw().await;
        }
        relay.drained().await;
        while carrying.join_next().await.is_some() {}
        // Only a panic ends it otherwise, and then there is nothing to wait for.
        let _ = attaching.await;
    };
    if tokio::time::timeout(settings.grace, ended).await.is_err() {
        tracing::warn!(open = relay.streams().len(), "streams are cut");
    }
    Ok(())
}

/// Waits for ports that an agent which is about to end still has, for a while.
async fn when_free<T, E: std::fmt::Display>(bind: impl AsyncFn() -> Result<T, E>) -> Result<T, E> {
    let deadline = Instant::now() + PORTS;
    loop {
        match bind().await {
            Err(error) if Instant::now() < deadline => {
                tracing::info!(%error, "waiting for the port");
                tokio::time::sleep(PORTS_AGAIN).await;
            }
            bound => return bound,
        }
    }
}

/// One for each address family: a socket for both does not tell original destinations of IPv4.
fn listeners(port: u16) -> Result<Vec<Listener>, Error> {
    let first = Listener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
    let mut listeners = vec![first];
    match Listener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))) {
        Ok(second) => listeners.push(second),
        Err(error) => tracing::info!(%error, "streams over IPv6 are not taken"),
    }
    Ok(listeners)
}

async fn watch_relaying(mut attached: watch::Receiver<Option<attach::Attached>>, metrics: Metrics) {
    while attached.changed().await.is_ok() {
        let relaying = attached
            .borrow_and_update()
            .as_ref()
            .is_some_and(|attached| attached.outcome.streams == Streams::Relayed);
        metrics.relaying(relaying);
    }
}
