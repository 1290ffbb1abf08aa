//! `sluice probe`: what the kubelet asks the agent of a pod.

use std::path::PathBuf;

use super::Exit;
use crate::agent::serve::{self, Probe};

/// Ask the agent of this pod whether it is alive, or ready; the kubelet does that.
///
/// The exit code is 0 where it is, and 1 where it is not or does not answer.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What is asked.
    #[arg(value_enum)]
    probe: Probe,

    /// The uid of the agent's pod.
    #[arg(long, value_name = "UID", env = "POD_UID")]
    pod_uid: String,

    /// The folder that the node's agents share.
    #[arg(long, value_name = "FOLDER", default_value = super::streams::FOLDER)]
    run: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  # Does the apiserver hold what this agent sees of its node?
  kubectl exec -n sluice-system sluice-agent-x7k2p -- /sluice probe ready

Exit codes:
  0  it is so
  1  it is not, or nobody answers";

/// Why the agent is not as it ought to be.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(#[from] serve::Error);

impl Error {
    /// A short, stable name.
    pub fn reason(&self) -> &'static str {
        self.0.reason()
    }
}

/// Asks the agent.
///
/// # Errors
/// Where it does not answer, or is not so.
pub async fn run(args: Args) -> Result<Exit, Error> {
    serve::probed(&args.run, &args.pod_uid, args.probe).await?;
    Ok(Exit::Ok)
}
