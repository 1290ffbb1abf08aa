//! `sluice controller`: the options of the operator.

mod agent;
mod canary;
mod webhook;

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    net::SocketAddr,
};

use super::{Exit, connect};
use crate::{
    controller::{
        self, Shared,
        changes::{self, Published},
    },
    kubernetes::lease,
    process::log,
};

/// Run the controller.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Where metrics and probes are served.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,

    /// The namespace of the lease by which one replica is chosen.
    #[arg(long, value_name = "NAMESPACE", env = "POD_NAMESPACE")]
    pub lease_namespace: String,

    /// The lease's name.
    #[arg(long, value_name = "NAME", default_value = LEASE)]
    pub lease_name: String,

    /// This replica's name in the lease [default: the host's name and a random suffix].
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    pub identity: Option<String>,

    /// What is logged.
    #[command(flatten)]
    pub log: log::Args,

    /// Where the operator runs: the namespace of the agents and of the webhook's objects [default:
    /// that of the lease].
    #[arg(long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,

    /// The ServiceAccount of the agents, in that namespace.
    #[arg(long, value_name = "NAME", default_value = "sluice-agent")]
    pub agent_service_account: String,

    /// The ConfigMap in which the flags that ought to be set are published; without it none is.
    #[arg(long, value_name = "NAME")]
    pub flags_configmap: Option<String>,

    /// Have kubeadm's configuration follow the gate that a policy with spec.apply StaticPod turns.
    #[arg(long, num_args = 0..=1, default_value_t = false, default_missing_value = "true")]
    pub kubeadm_config: bool,

    /// The agents on the nodes.
    #[command(flatten)]
    pub agent: agent::Args,

    /// The admission webhook.
    #[command(flatten)]
    pub webhook: webhook::Args,

    /// Where the canaries are.
    #[command(flatten)]
    pub canary: canary::CanaryArgs,

    /// Which cluster.
    #[command(flatten)]
    pub cluster: connect::Args,
}

/// The usual name of the lease.
pub const LEASE: &str = "sluice-controller";

const EXAMPLES: &str = "\
Examples:
  # Against the cluster of the current kubeconfig, readable, with the lease in kube-system
  sluice controller --lease-namespace kube-system --log debug --log-format text

Exit codes:
  0  it was told to stop
  1  an error, or the lease is lost";

/// Why the controller ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no way to a cluster.
    #[error(transparent)]
    Connect(#[from] connect::Error),
    /// What is to be logged cannot be understood.
    #[error(transparent)]
    Log(#[from] log::Error),
    /// It could not start, or lost its lease.
    #[error(transparent)]
    Controller(#[from] controller::Error),
    /// The webhook cannot be served.
    #[error(transparent)]
    Webhook(#[from] crate::webhook::Error),
}

impl Error {
    /// A short, stable name.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Connect(error) => error.reason(),
            Self::Log(error) => error.reason(),
            Self::Controller(error) => error.reason(),
            Self::Webhook(error) => error.reason(),
        }
    }
}

/// Runs the controller until it is told to stop.
///
/// # Errors
/// Where it cannot start, or loses its lease.
pub async fn run(args: Args) -> Result<Exit, Error> {
    args.log.start()?;
    let namespace = args.namespace.unwrap_or_else(|| args.lease_namespace.clone());
    let flags = args.flags_configmap.filter(|name| !name.is_empty());
    let flags = flags.map(|name| Published { namespace: namespace.clone(), name });
    let changes = changes::ChangesSettings { flags, kubeadm: args.kubeadm_config };
    let agent = args.agent_service_account;
    let settings = controller::ControllerSettings {
        listen: args.listen,
        lease: lease::LeaseSettings {
            namespace: args.lease_namespace,
            name: args.lease_name,
            identity: args.identity.unwrap_or_else(own_name),
            timing: lease::Timing::default(),
        },
        agents: args.agent.settings(&namespace, &agent),
        changes,
        canary: args.canary.settings(),
    };
    let config = args.cluster.config().await?;
    let shared = Shared::start()?;
    let webhook = match args.webhook.settings(namespace, agent) {
        Some(settings) => {
            let Shared { metrics, health, shutdown } = &shared;
            let client = controller::client(config.clone())?;
            Some(crate::webhook::start(settings, &client, metrics, health, shutdown).await?)
        }
        None => None,
    };
    controller::run(config, settings, shared).await?;
    if let Some(webhook) = webhook {
        // Others' writes come by here; the Lease is free for a successor already.
        let _ = webhook.await;
    }
    Ok(Exit::Ok)
}

/// A name that no other process has: two with one name would both believe that they lead.
fn own_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "sluice" } else { host.trim() };
    // The standard library seeds its hashers from the system's random source.
    let random = RandomState::new().build_hasher().finish();
    format!("{host}_{random:016x}")
}
