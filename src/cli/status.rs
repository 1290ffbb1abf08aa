//! `sluice status`: the controller's verdict, waited for, and followed on request.
//!
//! `watched` keeps what the watches show, `follow` tells what changes of it, and
//! [`crate::cli::output::status`] prints it.

mod follow;
mod watched;

use std::time::Duration;

use jiff::Timestamp;
use kube::{
    Api,
    api::{DynamicObject, ListParams},
    runtime::watcher,
};

use super::{
    Exit,
    connect::{self, Cluster},
    output::{self, List},
};
use crate::kubernetes::{failure::Failure, pages::list};
use watched::Watched;

/// Show what the controller says to the policies, once it has judged them.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The policy [default: all].
    name: Option<String>,

    /// How long to wait for the controller's judgement, such as 60s or 5m.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = connect::duration)]
    timeout: Duration,

    /// The form of the output; JSON and YAML are the policies as they are stored.
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,

    /// Go on and show what changes, until interrupted: on a terminal the whole anew each time, elsewhere a
    /// line for each change.
    #[arg(short, long)]
    watch: bool,

    #[command(flatten)]
    pub(super) cluster: connect::UserArgs,
}

/// The form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people.
    #[default]
    Table,
    /// The same with every condition, apiserver and change.
    Wide,
    /// A v1 List as JSON; with --watch an object a line.
    Json,
    /// A v1 List as YAML; with --watch a document for each object.
    Yaml,
}

const EXAMPLES: &str = "\
Examples:
  # All policies
  sluice status

  # One policy, after a change to it
  kubectl apply -f policy.yaml
  sluice status default --timeout 2m

  # How a migration goes on
  sluice status -o wide --watch

Exit codes:
  0  every policy is judged, whatever the verdict
  1  an error, or no verdict in time";

/// Why there is no status to show.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no way to the cluster.
    #[error(transparent)]
    Connect(#[from] connect::Error),
    /// The policies cannot be read.
    #[error("cannot watch StreamingPolicies")]
    Watch(#[source] Box<watcher::Error>),
    /// The cluster does not know the kind.
    #[error(
        "the cluster has no StreamingPolicies: install the CustomResourceDefinitions (sluice crds)"
    )]
    NoCrd,
    /// The policy does not exist.
    #[error("there is no StreamingPolicy {0:?}")]
    NotFound(String),
    /// The controller has not judged in time.
    #[error(
        "after {0:?} no controller has judged {1}: is it running, and has one replica the lease?"
    )]
    NotJudged(Duration, String),
    /// Nothing could be watched in time.
    #[error("nothing could be read within {0:?}")]
    NothingRead(Duration, #[source] Option<Box<watcher::Error>>),
    /// The watch ended.
    #[error("the watch ended")]
    Ended,
    /// The result cannot be printed.
    #[error(transparent)]
    Output(#[from] output::Error),
}

impl Error {
    /// A short, stable name.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Connect(error) => error.reason(),
            Self::Watch(_) => "Watch",
            Self::NoCrd => "NoCrd",
            Self::NotFound(_) => "NotFound",
            Self::NotJudged(..) => "NotJudged",
            Self::NothingRead(..) => "NothingRead",
            Self::Ended => "Ended",
            Self::Output(error) => error.reason(),
        }
    }
}

/// Waits for the controller's judgement and prints it, and with `--watch` what becomes of it.
///
/// # Errors
/// Where there is none in time.
pub async fn run(args: Args, cluster: Cluster) -> Result<Exit, Error> {
    let client = cluster.watching_client()?;
    if args.watch {
        follow::follow(client, &args).await?;
        return Ok(Exit::Ok);
    }
    let mut seen = Watched::new(args.name.clone());
    match tokio::time::timeout(args.timeout, watched::wait(client, &mut seen)).await {
        Ok(result) => result?,
        Err(_) => return Err(seen.late(args.timeout)),
    }
    if args.output == Format::Wide {
        // What is changed on nodes is beside the verdict: without it the rest is shown.
        let nodes = Api::<DynamicObject>::all_with(cluster.client()?, &watched::node_resource());
        match list(&nodes, ListParams::default()).await {
            Ok(nodes) => nodes.iter().for_each(|node| seen.take_node(node)),
            Err(error) => anstream::eprintln!(
                "warning: the StreamingNodes cannot be read, so no change is shown: {}",
                Failure::of(&error)
            ),
        }
    }
    let text = match args.output {
        Format::Table | Format::Wide if seen.policies().is_empty() => {
            anstream::eprintln!("There is no StreamingPolicy.");
            return Ok(Exit::Ok);
        }
        Format::Table => output::status::table(&seen.rows(), output::width()),
        Format::Wide => {
            let changes: Vec<_> = seen.changes().collect();
            output::status::wide(&seen.rows(), &changes, Timestamp::now(), output::width())
        }
        Format::Json => output::json(&List::new(seen.policies().values().collect()))?,
        Format::Yaml => output::yaml(&List::new(seen.policies().values().collect()))?,
    };
    output::print(&text)?;
    Ok(Exit::Ok)
}
