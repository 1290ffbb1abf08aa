//! `sluice canary`: what runs in a canary's pod.

use super::{
    Exit,
    output::{self, print},
};
use crate::canary::{PORT, serve};

/// Answer in a canary's pod; the chart's DaemonSet runs it on each node.
///
/// Says one line to each who connects, which is what `sluice check` and the controller come for.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    say: Option<Say>,

    /// The pod's name.
    #[arg(long, value_name = "NAME", env = "POD_NAME", required = true)]
    pod: Option<String>,

    /// The port at which it answers, in the pod's own network.
    #[arg(long, value_name = "PORT", default_value_t = PORT)]
    port: u16,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Say {
    /// Print a word, to whoever execs into the pod.
    Say {
        /// The word.
        word: String,
    },
}

const EXAMPLES: &str = "\
Examples:
  # By hand, and what it says
  sluice canary --pod me --port 8081 &
  nc localhost 8081

  # What is executed in the pod
  sluice canary say word

Exit codes:
  0  it was told to stop, or has said its word
  1  an error";

/// Why a canary ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot answer.
    #[error(transparent)]
    Serve(#[from] serve::Error),
    /// The word cannot be printed.
    #[error(transparent)]
    Output(#[from] output::Error),
}

impl Error {
    /// A short, stable name.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Serve(error) => error.reason(),
            Self::Output(error) => error.reason(),
        }
    }
}

/// Answers until it is told to stop, or says its word.
///
/// # Errors
/// Where it cannot.
pub async fn run(args: Args) -> Result<Exit, Error> {
    match args.say {
        Some(Say::Say { word }) => print(&format!("{word}\n"))?,
        None => serve::run(&args.pod.unwrap_or_default(), args.port).await?,
    }
    Ok(Exit::Ok)
}
