//! `sluice controller`: the options of the operator.

use std::net::SocketAddr;

use super::{Exit, connect};

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
    #[arg(long, value_name = "NAME", default_value = "sluice-controller")]
    pub lease_name: String,

    /// This replica's name in the lease [default: the host's name and a random suffix].
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    pub identity: Option<String>,

    /// What is logged: a level, or directives such as info,sluice=debug.
    #[arg(long, value_name = "FILTER", env = "SLUICE_LOG", default_value = "info")]
    pub log: String,

    /// The form of the log.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,

    /// Which cluster.
    #[command(flatten)]
    pub cluster: connect::Args,
}

const EXAMPLES: &str = "\
Examples:
  # Against the cluster of the current kubeconfig, readable, with the lease in kube-system
  sluice controller --lease-namespace kube-system --log debug --log-format text";

/// The form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// Lines for people.
    Text,
}

/// Why the controller ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not there yet.
    #[error("not wired yet")]
    NotWired,
}

impl Error {
    /// A short, stable name.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotWired => "NotWired",
        }
    }
}

/// Runs the controller until it is told to stop.
///
/// # Errors
/// Where it cannot start, or loses its lease.
pub async fn run(_args: Args) -> Result<Exit, Error> {
    Err(Error::NotWired)
}
