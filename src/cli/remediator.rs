//! `sluice remediator`: the options of a node's remediator and of its guard.

use std::{path::PathBuf, time::Duration};

use super::{Exit, connect};
use crate::{
    api::ChangeKind,
    process::log,
    remediator::{
        self,
        guard::{self, PullPolicy},
    },
};

/// Run the remediator of a node; the chart's DaemonSets do that.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub struct Args {
    /// What is done instead.
    #[command(subcommand)]
    pub command: Option<Commands>,

    /// What is changed.
    #[arg(long, value_name = "KIND", value_enum, required = true)]
    pub kind: Option<Kind>,

    /// The node's name.
    #[arg(long, value_name = "NAME", env = "NODE_NAME", required = true)]
    pub node: Option<String>,

    /// The folder with the node's own /etc, /var, /run, /proc and /usr.
    #[arg(long, value_name = "FOLDER", default_value = "/host")]
    pub host: PathBuf,

    /// The folder on the node in which attempts are written down.
    #[arg(long, value_name = "FOLDER", default_value = STATE)]
    pub state: PathBuf,

    /// The manifest of the node's kube-apiserver.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/kubernetes/manifests/kube-apiserver.yaml"
    )]
    pub manifest: String,

    /// The systemd unit of the node's kubelet.
    #[arg(long, value_name = "UNIT", default_value = "kubelet.service")]
    pub unit: String,

    /// The image of the guard; needed for ApiserverGate.
    #[arg(long, value_name = "IMAGE", required_if_eq("kind", "ApiserverGate"))]
    pub image: Option<String>,

    /// When the guard's image is pulled.
    #[arg(long, value_name = "POLICY", value_enum, default_value_t)]
    pub pull_policy: PullPolicy,

    /// A token that names the remediator's pod; else the service account's own.
    #[arg(long, value_name = "FILE")]
    pub token: Option<PathBuf>,

    /// The port of the probes.
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    pub port: u16,

    /// What is logged.
    #[command(flatten)]
    pub log: log::Args,

    /// Which cluster.
    #[command(flatten)]
    pub cluster: connect::Args,
}

/// What is done instead.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Commands {
    /// Watch over a change of the apiserver's manifest; the remediator starts it as a static pod.
    Guard(Guard),
}

/// The options of a guard.
#[derive(Clone, Debug, clap::Args)]
pub struct Guard {
    /// The id of the change.
    #[arg(long, value_name = "ID")]
    pub change: String,

    /// The folder in which attempts are written down.
    #[arg(long, value_name = "FOLDER", default_value = STATE)]
    pub state: PathBuf,

    /// The folder of the guard's own manifest.
    #[arg(long, value_name = "FOLDER", default_value = "/etc/kubernetes/manifests")]
    pub manifests: PathBuf,

    /// The folder below which the node's paths are.
    #[arg(long, value_name = "FOLDER", default_value = "/")]
    pub host: PathBuf,

    /// What is logged.
    #[command(flatten)]
    pub log: log::Args,
}

/// What is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum Kind {
    /// The gate in the manifest of the apiserver's static pod.
    ApiserverGate,
    /// The redirect flag of the kubelet.
    KubeletFlag,
}

/// The state folder.
const STATE: &str = "/var/lib/sluice/remediator";

/// A guard that the remediator does not take away goes after this long.
const LEAVE: Duration = Duration::from_secs(60);

const EXAMPLES: &str = "\
Examples:
  # On a control-plane node, without a pod
  sluice remediator --kind ApiserverGate --node cp1 --host / --image localhost/sluice:0.1.0

  # What the remediator's static pod runs
  sluice remediator guard --change 1

Exit codes:
  0  it was told to stop
  1  an error";

/// Why the remediator ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no way to a cluster.
    #[error(transparent)]
    Connect(#[from] connect::Error),
    /// What is to be logged cannot be understood.
    #[error(transparent)]
    Log(#[from] log::Error),
    /// The remediator could not start.
    #[error(transparent)]
    Remediator(#[from] remediator::Error),
    /// The guard could not start.
    #[error(transparent)]
    Guard(#[from] guard::Error),
}

impl Error {
    /// A short, stable name.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Connect(error) => error.reason(),
            Self::Log(error) => error.reason(),
            Self::Remediator(error) => error.reason(),
            Self::Guard(error) => error.reason(),
        }
    }
}

/// Runs the remediator, or its guard, until it is told to stop.
///
/// # Errors
/// Where it cannot start.
pub async fn run(args: Args) -> Result<Exit, Error> {
    if let Some(Commands::Guard(guard)) = args.command {
        guard.log.start()?;
        let Guard { change, state, manifests, host, .. } = guard;
        let tick = Duration::from_secs(1);
        let settings = guard::GuardSettings { change, state, manifests, host, tick, leave: LEAVE };
        guard::run(settings).await?;
        return Ok(Exit::Ok);
    }
    args.log.start()?;
    let mut config = args.cluster.config().await?;
    if let Some(token) = args.token {
        config.auth_info.token = None;
        config.auth_info.token_file = Some(token.display().to_string());
    }
    let manifests = args.manifest.rsplit_once('/').map_or("/", |(folder, _)| folder).to_owned();
    let settings = remediator::RemediatorSettings {
        kind: match args.kind {
            Some(Kind::KubeletFlag) => ChangeKind::KubeletFlag,
            // The parser asks for one.
            Some(Kind::ApiserverGate) | None => ChangeKind::ApiserverGate,
        },
        node: args.node.unwrap_or_default(),
        host: args.host,
        guard: guard::Template {
            image: args.image.unwrap_or_default(),
            pull_policy: args.pull_policy,
            state: args.state.display().to_string(),
            manifests,
            log: args.log.log,
            log_format: args.log.log_format.as_str().to_owned(),
        },
        state: args.state,
        port: args.port,
        manifest: args.manifest,
        unit: args.unit,
    };
    remediator::run(config, settings).await?;
    Ok(Exit::Ok)
}
