//! The remediator: carries out changes of a node's configuration, and takes them back by itself.
//!
//! What is wanted comes with the node's StreamingNode (`desired`). Before anything is touched the
//! decision behind it is held against what the apiserver stores now (`permit`), and the attempt is
//! written down on the node, with the originals (`journal`). From then on what comes next follows
//! from what is written down alone (`step`), so that a process that is killed, or a node that
//! loses its power, at whatever point ends in the old state or in the new one. A change that is not
//! confirmed in time goes back, also while the apiserver, the controller or the remediator are
//! away: for the apiserver's manifest a static pod watches over that (`guard`).

mod attributes;
mod cluster_reader;
mod desired;
mod executor;
mod file;
mod foreign;
pub mod gate;
pub mod guard;
mod handler;
pub mod journal;
mod kubelet;
mod permit;
mod report;
mod step;
pub mod sweep;
#[cfg(test)]
mod test_support;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use kube::{Client, Config};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    api::ChangeKind,
    node::{
        host::Host,
        machine::Machine,
        status::Writer,
        systemd::{self, Bus},
        watch::{PATIENCE, Pace},
    },
    process::{
        health::Health,
        server as http,
        shutdown::{self, Shutdown},
    },
};
use cluster_reader::Apiserver;
use desired::DesiredChange;
use executor::{Executor, ExecutorTiming};
use gate::ApiserverGate;
use handler::ChangeHandler;
use journal::{Store, store};
use kubelet::KubeletFlag;

/// A loop that has not turned for so long is stuck. The slowest turn asks the apiserver, and waits
/// for a restart of the kubelet.
const STALL_LIMIT: Duration = Duration::from_secs(180);

/// A connection on which nothing comes for so long leads nowhere: a watch is ended before that.
const READ: Duration = Duration::from_secs(PATIENCE as u64 + 10);

/// How the remediator is started.
#[derive(Clone, Debug)]
pub struct RemediatorSettings {
    /// What it changes.
    pub kind: ChangeKind,
    /// The node's name.
    pub node: String,
    /// Where the node's own folders are mounted.
    pub host: PathBuf,
    /// The remediators' state folder, on the node.
    pub state: PathBuf,
    /// The port of the probes.
    pub port: u16,
    /// The apiserver's manifest: its path on the node.
    pub manifest: String,
    /// The kubelet's unit.
    pub unit: String,
    /// What the guard is started with.
    pub guard: guard::Template,
}

/// Why the remediator ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No client can be made from the configuration.
    #[error("cannot make a client for the apiserver: {0}")]
    Client(#[source] kube::Error),
    /// Probes cannot be served.
    #[error(transparent)]
    Serve(#[from] http::Error),
    /// Its state folder cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Signals cannot be waited for.
    #[error(transparent)]
    Shutdown(#[from] shutdown::Error),
}

impl Error {
    /// A short, stable name for logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Client(_) => "ClientConfig",
            Self::Serve(error) => error.reason(),
            Self::Store(error) => error.reason(),
            Self::Shutdown(error) => error.reason(),
        }
    }
}

/// Runs the remediator until it is told to end, which it does at once: what is under way goes on
/// from the journal.
///
/// # Errors
/// When it cannot start.
pub async fn run(mut config: Config, settings: RemediatorSettings) -> Result<(), Error> {
    let shutdown = Shutdown::on_signals()?;
    // The client's own retries take minutes; what is late is said again.
    config.default_retry = false;
    let pace = match settings.kind {
        ChangeKind::ApiserverGate => Pace::Few,
        ChangeKind::KubeletFlag => Pace::Many,
    };
    if pace == Pace::Few {
        config.read_timeout = Some(READ);
    }
    let client = Client::try_from(config).map_err(Error::Client)?;
    let host = Host::new(settings.host.clone());
    let store = Store::open(&settings.state, settings.kind, host.clone())?;
    let machine = Machine::read(&host);
    let listener = http::bind_everywhere(settings.port).await?;
    let health = Health::default();
    let stopped = "changes have not been looked after";
    let turns = health.alive_while(stopped, STALL_LIMIT, Instant::now());
    let told_what = health.ready_with("the apiserver has not told what is wanted");

    let mut tasks = JoinSet::new();
    let (router, stop) = (health.router(Instant::now), shutdown.requested());
    tasks.spawn(async move {
        if let Err(error) = http::serve(listener, router, stop).await {
            tracing::error!(%error, "probes are no longer served");
        }
    });
    let (desired_sender, mut desired_changes) = watch::channel(DesiredChange::default());
    tasks.spawn(desired::follow(client.clone(), settings.node.clone(), pace, desired_sender));
    let (telling, told) = watch::channel(None);
    let writer = Writer::new(client.clone(), settings.node.clone(), report::MANAGER, "change");
    tasks.spawn(report::keep(writer, told, desired_changes.clone()));
    let mut first = desired_changes.clone();
    tasks.spawn(async move {
        if first.wait_for(|desired| *desired != DesiredChange::Nothing).await.is_ok() {
            told_what.met(true);
        }
    });

    let ask = Apiserver::new(client, settings.node.clone());
    desired_changes.mark_changed();
    let turned = move || turns.beat(Instant::now());
    let carrying = async {
        match settings.kind {
            ChangeKind::ApiserverGate => {
                let handler = ApiserverGate {
                    manifest: settings.manifest,
                    host,
                    state: store.folder().to_owned(),
                    guard: settings.guard,
                };
                let executor = executor(store, handler, ask, settings.node, telling);
                executor.on(machine).run(desired_changes, turned).await;
            }
            ChangeKind::KubeletFlag => {
                let bus = Bus::new(&host.path(systemd::SOCKET), settings.unit);
                let handler = KubeletFlag::new(host, bus);
                let executor = executor(store, handler, ask, settings.node, telling);
                executor.on(machine).run(desired_changes, turned).await;
            }
        }
    };
    tokio::select! {
        () = shutdown.requested() => {}
        () = carrying => {}
    }
    Ok(())
}

fn executor<T: ChangeHandler>(
    store: Store,
    handler: T,
    ask: Apiserver,
    node: String,
    told: watch::Sender<Option<crate::api::ChangeReport>>,
) -> Executor<T, Apiserver> {
    Executor::new(store, handler, ask, node, ExecutorTiming::default(), told)
}
