//! `sluice streams`: what the agent of this node carries now.

use std::path::PathBuf;

use jiff::Timestamp;

use super::{
    Exit,
    output::{self, Format, List},
};
use crate::agent::serve;

/// Where an agent shows its streams.
pub const SOCKET: &str = "/run/sluice/agent.sock";

/// Show the streams that this node's agent carries.
///
/// Runs where the agent runs: in its container, or on the node with --socket.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The agent's socket.
    #[arg(long, value_name = "FILE", default_value = SOCKET)]
    socket: PathBuf,

    /// The form of the output.
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

const EXAMPLES: &str = "\
Examples:
  # The streams of one node, through its agent's pod
  kubectl exec -n sluice-system sluice-agent-x7k2p -- /sluice streams

  # In the agent's container, as JSON
  sluice streams -o json";

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
    let streams = serve::streams(&args.socket).await?;
    match args.output {
        Format::Table if streams.is_empty() => anstream::eprintln!("No stream is open."),
        Format::Table => output::print(&output::streams::table(&streams, Timestamp::now()))?,
        Format::Json => output::print(&output::json(&List::new(streams))?)?,
        Format::Yaml => output::print(&output::yaml(&List::new(streams))?)?,
    }
    Ok(Exit::Ok)
}
