//! `sluice streams`: what the agents of this node carry now.

use std::path::PathBuf;

use jiff::Timestamp;

use super::{
    Exit,
    output::{self, Format, List},
};
use crate::agent::serve;

/// The folder that a node's agents share: each shows its streams at a socket there.
pub const FOLDER: &str = "/run/sluice";

/// Show the streams that this node's agents carry.
///
/// Runs where an agent runs: in its container, or as root on the node. There are two agents while one of
/// them is about to end: its streams are draining.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The folder that the node's agents share.
    #[arg(long, value_name = "FOLDER", default_value = FOLDER)]
    run: PathBuf,

    /// The form of the output.
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

const EXAMPLES: &str = "\
Examples:
  # The streams of one node, through its agent's pod
  kubectl exec -n sluice-system sluice-agent-x7k2p -- /sluice streams

  # In the agent's container, as JSON
  sluice streams -o json

Exit codes:
  0  shown
  1  an error: no agent answers";

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No agent answers.
    #[error("no agent answers here")]
    Agent(#[from] serve::Error),
    /// The streams cannot be printed.
    #[error(transparent)]
    Output(#[from] output::Error),
}

impl Error {
    /// A short, stable name.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Agent(error) => error.reason(),
            Self::Output(error) => error.reason(),
        }
    }
}

/// Asks the agent and prints what it says.
///
/// # Errors
/// Where no agent answers.
pub async fn run(args: Args) -> Result<Exit, Error> {
    let streams = serve::streams(&args.run).await?;
    match args.output {
        Format::Table if streams.is_empty() => anstream::eprintln!("No stream is open."),
        Format::Table => output::print(&output::streams::table(&streams, Timestamp::now()))?,
        Format::Json => output::print(&output::json(&List::new(streams))?)?,
        Format::Yaml => output::print(&output::yaml(&List::new(streams))?)?,
    }
    Ok(Exit::Ok)
}
