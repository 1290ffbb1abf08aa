//! `sluice check`: whether exec, attach and port-forward reach each node through each apiserver.
//!
//! [`choose()`] says which nodes are tried, [`crate::canary`] tries them, and
//! [`crate::cli::output::check`] prints what came of it.

pub mod choose;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal as _, Write as _};

use kube::{Api, Client, ResourceExt as _, api::ListParams, core::DeserializeGuard};

use super::{
    Exit,
    connect::{self, Cluster},
    output::{self, Format, List, check::CheckOutcome},
};
use crate::{
    api::StreamingNode,
    canary::{self, SELECTOR},
    cluster::NodeView,
    decision::redirects::node::Verdict,
    kubernetes::{failure::Failure, pages::list},
};
use choose::{Choice, Known, OS_LABEL, choose};

/// Try exec, attach and port-forward on each node, through each apiserver.
///
/// Makes a real exec, attach and port-forward into a pod of Sluice's own on each node (the chart's
/// canaries), through each apiserver on its own, and through the kubeconfig's server where that is
/// something in front of them: four at once, ten a second at most. Nothing is changed.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The namespace of the canaries.
    #[arg(short, long, value_name = "NAMESPACE", default_value = "sluice-system-canary")]
    namespace: String,

    /// The labels of the canaries.
    #[arg(short = 'l', long, value_name = "LABELS", default_value = SELECTOR)]
    selector: String,

    /// Try only this node; repeatable.
    #[arg(long, value_name = "NAME")]
    node: Vec<String>,

    /// How many nodes are tried at most: those that stand in the way of turning the gate off first,
    /// then a sample.
    #[arg(long, value_name = "COUNT", default_value = "100")]
    max_nodes: usize,

    /// Where an apiserver answers, instead of the endpoints of the Service kubernetes; repeatable.
    #[arg(long, value_name = "URL")]
    apiserver: Vec<String>,

    /// The form of the output; JSON and YAML are a v1 List with an item for each node and apiserver.
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    pub(super) cluster: connect::UserArgs,
}

const EXAMPLES: &str = "\
Examples:
  # Every node of the current kubeconfig's cluster
  sluice check

  # One node, before and after its kubelet's flag is changed
  sluice check --node old1

  # From where only tunnels lead to the apiservers
  sluice check --apiserver https://127.0.0.1:16443 --apiserver https://127.0.0.1:26443

  # The nodes that did not answer, for a script
  sluice check -o json | jq -r '.items[] | select(.exec != \"Answered\") | .node'

Exit codes:
  0  every node answered
  1  an error: nothing could be tried
  2  a node did not answer, or could not be tried";

/// Why nothing could be tried.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no way to the cluster.
    #[error(transparent)]
    Connect(#[from] connect::Error),
    /// The apiservers or the canaries cannot be found.
    #[error(transparent)]
    Canary(#[from] canary::Error),
    /// The nodes cannot be read.
    #[error("cannot read the cluster's nodes")]
    Nodes(#[source] Box<kube::Error>),
    /// A node that was asked for does not exist.
    #[error("there is no Node {0:?}")]
    NoNode(String),
    /// There is nothing to try it with.
    #[error(
        "there is no canary in namespace {0}: install the chart with canary.enabled, or name \
         another namespace with --namespace"
    )]
    NoCanary(String),
    /// The result cannot be printed.
    #[error(transparent)]
    Output(#[from] output::Error),
}

impl Error {
    /// A short, stable name.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Connect(error) => error.reason(),
            Self::Canary(error) => error.reason(),
            Self::Nodes(_) => "Nodes",
            Self::NoNode(_) => "NoNode",
            Self::NoCanary(_) => "NoCanary",
            Self::Output(error) => error.reason(),
        }
    }
}

/// Tries the nodes and prints what came of it.
///
/// # Errors
/// Where nothing can be tried.
pub async fn run(args: Args, cluster: Cluster) -> Result<Exit, Error> {
    let (format, progress) = (args.output, progress());
    let outcome = outcome(&cluster, args, progress).await?;
    match format {
        Format::Table => output::print(&output::check::table(&outcome))?,
        Format::Json => output::print(&output::json(&List::new(outcome.rows()))?)?,
        Format::Yaml => output::print(&output::yaml(&List::new(outcome.rows()))?)?,
    }
    Ok(if outcome.passed() { Exit::Ok } else { Exit::Refused })
}

async fn outcome(
    cluster: &Cluster,
    args: Args,
    progress: impl FnMut(usize, usize),
) -> Result<CheckOutcome, Error> {
    let (client, config) = (cluster.client()?, &cluster.config);
    let known = known(&client, &args).await?;
    let Choice { asked, untested, left_out } = choose(&known, &args.node, args.max_nodes)?;
    let instances = if args.apiserver.is_empty() {
        let mut instances = canary::instances(config, &client).await?;
        // As every kubectl goes.
        let server = config.cluster_url.to_string();
        instances.extend(canary::in_front(config, &server, &instances)?);
        instances
    } else {
        canary::instances_at(config, &client, &args.apiserver).await?
    };
    let probes = canary::run(&instances, &asked, progress).await;
    Ok(CheckOutcome::new(probes, untested, left_out))
}

async fn known(client: &Client, args: &Args) -> Result<Known, Error> {
    let canaries = canary::pods(client, &args.namespace, &args.selector).await?;
    if canaries.is_empty() {
        return Err(Error::NoCanary(args.namespace.clone()));
    }
    let nodes = list(&Api::<NodeView>::all(client.clone()), ListParams::default()).await;
    let nodes = nodes.map_err(|error| Error::Nodes(Box::new(error)))?;
    Ok(Known {
        nodes: nodes
            .iter()
            .map(|node| (node.name_any(), node.labels().get(OS_LABEL).cloned()))
            .collect(),
        canaries: canary::by_node(canaries),
        blocking: blocking(client).await.into_iter().collect(),
    })
}

/// The nodes that the controller says are in the way. Without a controller there are none.
async fn blocking(client: &Client) -> Vec<String> {
    let api = Api::<DeserializeGuard<StreamingNode>>::all(client.clone());
    let nodes = match list(&api, ListParams::default()).await {
        Ok(nodes) => nodes,
        Err(kube::Error::Api(status)) if status.is_not_found() => Vec::new(),
        Err(error) => {
            anstream::eprintln!(
                "warning: StreamingNodes cannot be read, so no node comes first: {}",
                Failure::of(&error)
            );
            Vec::new()
        }
    };
    let readable = nodes.into_iter().filter_map(|DeserializeGuard(node)| node.ok());
    let blocks = |node: &StreamingNode| {
        node.status.as_ref().is_some_and(|status| status.verdict == Verdict::Blocks.as_str())
    };
    readable.filter(blocks).map(|node| node.name_any()).collect()
}

/// A line on a terminal that says how far it is, and goes when it is through.
fn progress() -> impl FnMut(usize, usize) {
    let terminal = io::stderr().is_terminal();
    move |done, total| {
        if terminal {
            let text =
                if done < total { format!("{done} of {total} streams") } else { String::new() };
            let mut stderr = io::stderr().lock();
            // Nothing is lost with it.
            let _ = write!(stderr, "\r\x1b[K{text}").and_then(|()| stderr.flush());
        }
    }
}
