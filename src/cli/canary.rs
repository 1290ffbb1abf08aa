//! `sluice canary`: what runs in a canary's pod.

use std::io::{self, Read as _};

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
    task: Option<Task>,

    /// The pod's name.
    #[arg(long, value_name = "NAME", env = "POD_NAME", required = true)]
    pod: Option<String>,

    /// The port at which it answers, in the pod's own network.
    #[arg(long, value_name = "PORT", default_value_t = PORT)]
    port: u16,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Task {
    /// Print what comes on standard input, once that ends, to whoever execs into the pod.
    Repeat,
}

/// So much is repeated. A word is asked for.
const REPEATED: u64 = 4 << 10;

const EXAMPLES: &str = "\
Examples:
  # By hand, and what it says
  sluice canary --pod me --port 8081 &
  nc localhost 8081

  # What is executed in the pod
  printf word | sluice canary repeat

Exit codes:
  0  it was told to stop, or the input has ended
  1  an error";

/// Why a canary ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot answer.
    #[error(transparent)]
    Serve(#[from] serve::Error),
    /// Standard input cannot be read.
    #[error("cannot read standard input as text: {0}")]
    Input(#[from] io::Error),
    /// What came cannot be printed.
    #[error(transparent)]
    Output(#[from] output::Error),
}

impl Error {
    /// A short, stable name.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Serve(error) => error.reason(),
            Self::Input(_) => "Input",
            Self::Output(error) => error.reason(),
        }
    }
}

/// Answers until it is told to stop, or repeats what it is told.
///
/// # Errors
/// Where it cannot.
pub async fn run(args: Args) -> Result<Exit, Error> {
    match args.task {
        Some(Task::Repeat) => {
            let mut text = String::new();
            // Nothing else runs that would have to wait for this.
            io::stdin().take(REPEATED).read_to_string(&mut text)?;
            print(&format!("{text}\n"))?;
        }
        None => serve::run(&args.pod.unwrap_or_default(), args.port).await?,
    }
    Ok(Exit::Ok)
}
