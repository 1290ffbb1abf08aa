//! `sluice agent`: the options of the node agent.

use std::{path::PathBuf, time::Duration};

use super::{Exit, connect};
use crate::{
    agent,
    controller::agents::{GRACE, HTTP_PORT},
    process::log,
};

/// Run the agent of a node; the controller's DaemonSet does that.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The node's name.
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    pub node: String,

    /// The uid of the agent's own pod, by which the runtime knows its container.
    #[arg(long, value_name = "UID", env = "POD_UID")]
    pub pod_uid: String,

    /// The folder with the node's own /proc, /run, /etc and /var/lib/kubelet.
    #[arg(long, value_name = "FOLDER", default_value = "/host")]
    pub host: PathBuf,

    /// The folder in which the last wish is kept.
    #[arg(long, value_name = "FOLDER", default_value = "/var/lib/sluice")]
    pub state: PathBuf,

    /// The folder that the node's agents share; its lock says which of them acts.
    #[arg(long, value_name = "FOLDER", default_value = super::streams::FOLDER)]
    pub run: PathBuf,

    /// A token that names the agent's pod; else the service account's own.
    #[arg(long, value_name = "FILE")]
    pub token: Option<PathBuf>,

    /// The runtime's socket on the node [default: the kubelet's own, or a usual one].
    #[arg(long, value_name = "FILE")]
    pub cri_socket: Option<String>,

    /// Only tell how the kubelet is set: leave the runtime and the kernel's rules alone.
    #[arg(long, conflicts_with = "cri_socket")]
    pub evidence_only: bool,

    /// The port of the loopback at which streams are taken from the kernel; 0 is any that is free.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub relay_port: u16,

    /// The port of metrics.
    #[arg(long, value_name = "PORT", default_value_t = HTTP_PORT)]
    pub port: u16,

    /// The nft program.
    #[arg(long, value_name = "FILE", default_value = "nft")]
    pub nft: PathBuf,

    /// How many seconds running streams may go on once the agent is told to end.
    #[arg(long, value_name = "SECONDS", default_value_t = GRACE)]
    pub grace: u32,

    /// What is logged.
    #[command(flatten)]
    pub log: log::Args,

    /// Which cluster.
    #[command(flatten)]
    pub cluster: connect::Args,
}

const EXAMPLES: &str = "\
Examples:
  # On a node, without a pod: evidence only, since the runtime does not know the process
  sluice agent --node worker-1 --pod-uid none --host / --state /tmp --run /tmp/sluice

Exit codes:
  0  it was told to stop
  1  an error";

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no way to a cluster.
    #[error(transparent)]
    Connect(#[from] connect::Error),
    /// What is to be logged cannot be understood.
    #[error(transparent)]
    Log(#[from] log::Error),
    /// It could not start.
    #[error(transparent)]
    Agent(#[from] agent::Error),
}

impl Error {
    /// A short, stable name.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Connect(error) => error.reason(),
            Self::Log(error) => error.reason(),
            Self::Agent(error) => error.reason(),
        }
    }
}

/// Runs the agent until it is told to stop.
///
/// # Errors
/// Where it cannot start.
pub async fn run(args: Args) -> Result<Exit, Error> {
    args.log.start()?;
    let mut config = args.cluster.config().await?;
    if let Some(token) = args.token {
        config.auth_info.token = None;
        config.auth_info.token_file = Some(token.display().to_string());
    }
    let settings = agent::AgentSettings {
        node: args.node,
        pod_uid: args.pod_uid,
        host: args.host,
        state: args.state,
        run: args.run,
        relay_port: args.relay_port,
        port: args.port,
        nft: args.nft,
        cri_socket: args.cri_socket,
        evidence_only: args.evidence_only,
        grace: Duration::from_secs(args.grace.into()),
    };
    agent::run(config, settings).await?;
    Ok(Exit::Ok)
}
