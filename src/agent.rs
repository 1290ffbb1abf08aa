//! The node agent: carries the node's streams at no more than the limits, and tells what its kubelet
//! and its runtime are.
//!
//! Nothing here decides about the gate; the report is evidence for those who do. Whatever fails
//! here, the node's streams go on without it.

mod claim;
mod cri;
mod desired;
mod kubelet;
mod metrics;
mod redirect;
mod report;
pub mod serve;
pub mod sweep;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::{Duration, Instant},
};

use kube::{Client, Config};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    api::Proxy,
    cluster::AGENT_CONTAINER,
    node::{host::Host, machine::Machine},
    process::{
        health::Health,
        shutdown::{self, Shutdown},
    },
    relay::{self, Listener, Relay, Upstream},
};
use claim::{Claim, Role};
use desired::{Memory, Stored};
use kubelet::Kubelet;
use metrics::Metrics;
use redirect::{Channels, DETACH_GRACE, RELAY_MARK, RuntimeSettings, Standing, Want};

/// A loop that has not turned for so long is stuck. The slowest turn is a few time-outs in a row.
const STALL_LIMIT: Duration = Duration::from_secs(60);

/// So old may the last look at the kubelet be.
const LOOK_LIMIT: Duration = Duration::from_secs(10);

/// What the probes say until the report in the StreamingNode is what this process sees.
const UNREPORTED: &str = "the apiserver does not hold what this agent sees";

/// How the agent is started.
#[derive(Clone, Debug)]
pub struct AgentSettings {
    /// The node's name.
    pub node: String,
    /// The uid of the agent's pod, by which the runtime knows its container.
    pub pod_uid: String,
    /// Where the node's own `/proc`, `/run`, `/etc` and `/var/lib/kubelet` are mounted.
    pub host: PathBuf,
    /// Where the last desired state is kept.
    pub state: PathBuf,
    /// The folder that the node's agents share: their sockets, and the lock that says which of them
    /// acts.
    pub run: PathBuf,
    /// The port at which the relay takes streams; 0 for any that is free.
    pub relay_port: u16,
    /// The port of metrics.
    pub port: u16,
    /// The nft program.
    pub nft: PathBuf,
    /// The runtime's socket on the node, where the kubelet's own word is not enough.
    pub cri_socket: Option<String>,
    /// It only tells how the kubelet is set: it has no right to the runtime and to the kernel's rules.
    pub evidence_only: bool,
    /// How long running streams may go on once the agent is told to end.
    pub grace: Duration,
}

/// Why the agent ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No client can be made from the configuration.
    #[error("cannot make a client for the apiserver: {0}")]
    Client(#[source] kube::Error),
    /// Streams and probes cannot be served.
    #[error(transparent)]
    Serve(#[from] serve::Error),
    /// The node cannot be claimed.
    #[error(transparent)]
    Claim(#[from] claim::Error),
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
            Self::Claim(error) => error.reason(),
            Self::Shutdown(error) => error.reason(),
        }
    }
}

/// Runs the agent until it is told to end and the streams that it carries have, or the grace is
/// over. Beside another agent it waits until that one ends.
///
/// # Errors
/// When it cannot start.
pub async fn run(mut config: Config, settings: AgentSettings) -> Result<(), Error> {
    let shutdown = Shutdown::on_signals()?;
    relay::raise_descriptors();
    let relay = Relay::new(relay::RelaySettings::new(Upstream::Destination { mark: RELAY_MARK }));
    let host = match settings.evidence_only {
        true => Host::without_run(settings.host.clone()),
        false => Host::new(settings.host.clone()),
    };
    let memory = Memory::new(&settings.state);
    let last = memory.recall();
    // Before the first connection, whose buffers follow the limits that it meets.
    relay.set_limits(redirect::limits(last.as_ref()));
    let (standing, stands) = watch::channel(Standing::new(Want::of(last.as_ref())));
    let (health, metrics) = (Health::default(), Metrics::new(relay.clone(), stands));
    let (wishes, wish) = watch::channel(last);
    let (stored, stores) = watch::channel(Stored::default());
    let (kubelets, kubelet) = watch::channel(Kubelet::default());
    let (attaching, attached) = watch::channel(None);
    let (roles, role) = watch::channel(Role::Waiting);
    // The client's own retries take minutes; what is late is said again.
    config.default_retry = false;
    let client = Client::try_from(config).map_err(Error::Client)?;

    let mut tasks = JoinSet::new();
    let shown = serve::Shown {
        relay: relay.clone(),
        metrics: metrics.clone(),
        health: health.clone(),
        shutdown: shutdown.clone(),
        sockets: serve::Sockets::new(&settings.run, &settings.pod_uid),
    };
    tasks.spawn(serve::serve_socket(shown.sockets.bind()?, shown.clone()));
    tasks.spawn(serve::serve_metrics(settings.port, shown, role.clone()));
    tasks.spawn(desired::follow(client.clone(), settings.node.clone(), memory, wishes, stored));
    let looked =
        health.ready_while("the kubelet has not been looked at", LOOK_LIMIT, Instant::now());
    tasks.spawn(kubelet::observe(host.clone(), kubelets, move || looked.beat(Instant::now())));
    tasks.spawn(limit(wish.clone(), relay.clone()));
    let mut unwanted = wish.clone();
    let sources = report::Sources {
        kubelet: kubelet.clone(),
        attached,
        remote: relay.remote_peers(),
        stored: stores,
        role: role.clone(),
    };
    let reporter = report::Reporter::new(client, settings.node, Machine::read(&host));
    // The controller believes no other agent that says a kubelet does not redirect.
    let reported = health.ready_with(UNREPORTED);
    let reporting = tasks.spawn(reporter.clone().keep(sources, reported, metrics));

    let claim = tokio::select! {
        claim = Claim::wait(&settings.run) => claim?,
        () = shutdown.requested() => return Ok(()),
    };
    let attaches =
        health.alive_while("the streams have not been looked after", STALL_LIMIT, Instant::now());
    roles.send_replace(Role::Acting);
    let mut carrying = JoinSet::new();
    // Connections are taken for as long as the kernel brings any.
    let (unattached, stop_taking) = Shutdown::triggered();
    let mut takes = Vec::new();
    let listening = (!settings.evidence_only).then(|| listeners(settings.relay_port));
    for (address, listener) in listening.into_iter().flatten() {
        takes.push(address);
        let (relay, stop) = (relay.clone(), stop_taking.requested());
        carrying.spawn(async move { relay.serve(listener, stop).await });
    }
    let own = cri::Own { pod_uid: settings.pod_uid, container: AGENT_CONTAINER.to_owned() };
    let attachment = redirect::RedirectSettings {
        listeners: takes,
        nft: settings.nft,
        runtime: RuntimeSettings { cri_socket: settings.cri_socket, own },
    };
    let channels =
        Channels { wishes: wish, kubelet, attached: attaching, standing, unattached, role: roles };
    let turned = move || attaches.beat(Instant::now());
    let stop = shutdown.requested();
    let attaching = if settings.evidence_only {
        tokio::spawn(redirect::untouched::run(channels, claim, turned, stop))
    } else {
        let relay = relay.clone();
        tokio::spawn(redirect::run(attachment, relay, host, channels, claim, turned, stop))
    };

    shutdown.requested().await;
    let open = relay.streams().len();
    tracing::info!(open, grace_seconds = settings.grace.as_secs(), "ending when the streams have");
    let ended = async {
        // What nobody keeps true any more is not left behind.
        let gone = unwanted.wait_for(Option::is_none);
        let gone = matches!(tokio::time::timeout(DETACH_GRACE, gone).await, Ok(Ok(_)));
        if gone && *role.borrow() != Role::Succeeded {
            reporting.abort();
            reporter.withdraw().await;
        }
        while carrying.join_next().await.is_some() {}
        // Only a panic ends it otherwise, and then there is nothing to wait for.
        let _ = attaching.await;
    };
    if tokio::time::timeout(settings.grace, ended).await.is_err() {
        tracing::warn!(open = relay.streams().len(), "streams are cut");
    }
    Ok(())
}

/// One for each address family that there is, on loopback: the kernel brings connections there whatever
/// their own address is, and nobody else has a way to it.
fn listeners(port: u16) -> Vec<(SocketAddr, Listener)> {
    let addresses: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let listen = |address| {
        let listener = Listener::transparent(SocketAddr::new(address, port), RELAY_MARK)?;
        let address = listener.local_addr().map_err(|source| {
            let address = SocketAddr::new(address, port);
            relay::Error::Bind { address, source }
        })?;
        Ok((address, listener))
    };
    let listening = addresses.into_iter().map(listen);
    let told = listening.inspect(|listening: &Result<_, relay::Error>| {
        if let Err(error) = listening {
            tracing::warn!(reason = error.reason(), %error, "streams of this family are not taken");
        }
    });
    told.flatten().collect()
}

/// Has the relay keep the limits of the desired state.
async fn limit(mut wish: watch::Receiver<Option<Proxy>>, relay: Relay) {
    while wish.changed().await.is_ok() {
        relay.set_limits(redirect::limits(wish.borrow_and_update().as_ref()));
    }
}
