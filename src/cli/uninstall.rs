//! `sluice uninstall`: takes Sluice off a cluster and its nodes, also where the controller is dead.

mod installation;
mod sweeper;
mod wait;

use std::{ffi::OsString, io, time::Duration};

use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::process::Command;

use super::{Exit, connect, output, sweep::Act};
use crate::{
    api::{self, StreamingNode},
    cluster::uninstall::{stored_change, to_take_back},
    decision::uninstall::obstacles,
    kubernetes::pages,
};
use installation::Installation;
use sweeper::Sweeper;

/// The code of an apiserver that does not know a kind or an object.
const NOT_FOUND: u16 = 404;

/// From here on the codes say that the apiserver itself has failed, or somebody whom it has asked.
const SERVER_ERROR: u16 = 500;

/// Take Sluice off the cluster and its nodes.
///
/// Stops the controller, sees on every node that no change is under way, removes agents and remediators,
/// has a short-lived pod on each node take away the rules of nftables and the files, deletes what the
/// controller has made, and ends with helm uninstall. It needs no controller that works, and can be
/// run again after it has stopped somewhere.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The namespace of Sluice.
    #[arg(short, long, value_name = "NAMESPACE", default_value = "sluice-system")]
    namespace: String,

    /// Also delete the CustomResourceDefinitions, and with them every policy.
    #[arg(long)]
    purge: bool,

    /// Take back changes that are under way, instead of refusing to go on.
    #[arg(long)]
    take_back: bool,

    /// Leave this node as it is, because it is gone or cannot be reached; can be repeated.
    #[arg(long, value_name = "NODE")]
    skip: Vec<String>,

    /// The image of the pods that clean the nodes [default: the controller's].
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,

    /// How long each step may take, such as 60s or 5m.
    #[arg(long, value_name = "TIME", default_value = "3m", value_parser = connect::duration)]
    timeout: Duration,

    /// The helm program.
    #[arg(long, value_name = "FILE", default_value = "helm")]
    helm: String,

    #[command(flatten)]
    pub(super) cluster: connect::UserArgs,
}

const EXAMPLES: &str = "\
Examples:
  # Everything but the definitions and the policies, which a later installation finds again
  sluice uninstall

  # Everything
  sluice uninstall --purge

  # One node is down, and will be reinstalled
  sluice uninstall --skip old2

Exit codes:
  0  nothing is left
  1  an error: something stays; run the same command again to go on
  2  something has to be finished first";

/// Why Sluice is still there, or a part of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no way to the cluster.
    #[error(transparent)]
    Connect(#[from] connect::Error),
    /// The apiserver refuses something.
    #[error("cannot {doing}")]
    Api {
        /// What was to be done.
        doing: String,
        /// What it said.
        source: Box<kube::Error>,
    },
    /// Something takes too long.
    #[error("{0}. Run the same command again to go on.")]
    Late(String),
    /// Helm cannot be run.
    #[error(
        "all but the release is gone, and {program} cannot be run: run helm uninstall {release} \
         --namespace {namespace} yourself"
    )]
    Helm {
        /// The program.
        program: String,
        /// The release.
        release: String,
        /// Its namespace.
        namespace: String,
        /// Why.
        source: io::Error,
    },
    /// Helm has failed, and said why.
    #[error("helm uninstall {0} has failed; all but the release is gone")]
    HelmFailed(String),
    /// What was done cannot be told.
    #[error(transparent)]
    Output(#[from] output::Error),
}

impl Error {
    /// A short, stable name.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Connect(error) => error.reason(),
            Self::Api { .. } => "Api",
            Self::Late(_) => "Late",
            Self::Helm { .. } => "Helm",
            Self::HelmFailed(_) => "HelmFailed",
            Self::Output(error) => error.reason(),
        }
    }

    fn api(doing: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Api { doing, source: Box::new(source) }
    }
}

/// Takes it all away.
///
/// # Errors
/// Where something stays, other than because of a change under way.
pub async fn run(args: Args, cluster: connect::Cluster) -> Result<Exit, Error> {
    let client = cluster.client()?;
    // Before anything is taken away.
    let helm = args.cluster.for_helm()?;
    let found = Installation::look(&client, &args.namespace).await?;
    if let Some(namespace) = found.is_in() {
        say(&format!(
            "Sluice is not in the namespace {}, but in {namespace}: give --namespace {namespace}",
            args.namespace
        ))?;
        return Ok(Exit::Refused);
    }
    if found.is_empty() {
        say(&format!("nothing of the chart is in the namespace {}", args.namespace))?;
    }
    let nodes = streaming_nodes(&client).await?;
    if !args.take_back && refuses(&nodes, &args.skip)? {
        return Ok(Exit::Refused);
    }
    found.stop_controller(&client, &args.skip, args.timeout).await?;
    // What was begun before it had stopped.
    let nodes = streaming_nodes(&client).await?;
    if args.take_back {
        found.open_webhook(&client).await?;
        take_back(&client, &nodes, args.timeout).await?;
    } else if refuses(&nodes, &args.skip)? {
        found.start_controller(&client).await?;
        return Ok(Exit::Refused);
    }
    let image = args.image.clone().or_else(|| found.image().map(str::to_owned));
    let sweeper = image.map(|image| Sweeper {
        image,
        namespace: args.namespace.clone(),
        pull_policy: found.pull_policy().map(str::to_owned),
        pull_secrets: found.pull_secrets(),
        service_account: found.service_account().to_owned(),
        skip: args.skip.clone(),
    });
    if let Some(sweeper) = &sweeper
        && found.has_remediators()
    {
        let left = sweeper.sweep(&client, Act::Check, args.timeout).await?;
        if !left.is_empty() {
            if args.take_back {
                found.close_webhook(&client).await?;
            }
            found.start_controller(&client).await?;
            return refused(&left);
        }
        say("no change is under way on any node")?;
    }
    found.remove_from_nodes(&client, &args.skip, args.timeout).await?;
    match &sweeper {
        Some(sweeper) => {
            let left = sweeper.sweep(&client, Act::Clean, args.timeout).await?;
            if !left.is_empty() {
                let exit = refused(&left)?;
                say(
                    "The controller stays stopped. Run the same command again to go on, or helm upgrade to \
                     have Sluice back.",
                )?;
                return Ok(exit);
            }
            say("nothing is left on the nodes")?;
        }
        None => say(
            "the nodes are left as they are: neither a controller nor an agent tells the image of the \
             pods that would clean them; give --image if they still have to be cleaned",
        )?,
    }
    found.delete_own(&client).await?;
    let released = uninstall_release(&args, helm, &found).await?;
    if args.purge {
        purge(&client, args.timeout).await?;
    }
    if !released && !found.is_empty() {
        say(&format!(
            "What was applied without Helm is still in the namespace {}, and does nothing: delete it as it \
             was applied.",
            args.namespace
        ))?;
        return Ok(Exit::Refused);
    }
    say(&format!("nothing of Sluice is left in the namespace {}", args.namespace))?;
    Ok(Exit::Ok)
}

fn say(line: &str) -> Result<(), Error> {
    Ok(output::print(&format!("{line}\n"))?)
}

/// What nodes have to say, each in a paragraph.
fn refused(left: &[String]) -> Result<Exit, Error> {
    say("Sluice is not taken away yet:")?;
    for line in left {
        say(&format!("  {line}"))?;
    }
    Ok(Exit::Refused)
}

/// Says what stands in the way, as far as the API tells; whether anything does.
fn refuses(nodes: &[(String, StreamingNode)], skip: &[String]) -> Result<bool, Error> {
    let counted = nodes.iter().filter(|(name, _)| !skip.contains(name));
    let obstacles = obstacles(counted.map(|(name, node)| stored_change(node, name)));
    if !obstacles.is_empty() {
        refused(&obstacles)?;
    }
    Ok(!obstacles.is_empty())
}

/// Every StreamingNode; none where the cluster does not know the kind.
async fn streaming_nodes(client: &Client) -> Result<Vec<(String, StreamingNode)>, Error> {
    let api: Api<StreamingNode> = Api::all(client.clone());
    match pages::list(&api, ListParams::default()).await {
        Ok(nodes) => Ok(nodes
            .into_iter()
            .map(|node| (node.metadata.name.clone().unwrap_or_default(), node))
            .collect()),
        Err(kube::Error::Api(status)) if status.code == NOT_FOUND => Ok(Vec::new()),
        Err(error) => Err(Error::api("list StreamingNodes")(error)),
    }
}

/// Withdraws what has not ended: the remediators put the originals back. Nobody asks again, for the
/// controller has stopped.
async fn take_back(
    client: &Client,
    nodes: &[(String, StreamingNode)],
    timeout: Duration,
) -> Result<(), Error> {
    let api: Api<StreamingNode> = Api::all(client.clone());
    let patch = Patch::Merge(json!({"spec": {"change": null}}));
    for name in to_take_back(nodes.iter().map(|(name, node)| (name.as_str(), node))) {
        let withdraw = async || match api.patch(&name, &PatchParams::default(), &patch).await {
            Ok(_) => Ok(true),
            // It learns a moment later that the webhook need not answer.
            Err(kube::Error::Api(status)) if status.code >= SERVER_ERROR => Ok(false),
            Err(error) => Err(error),
        };
        let what = format!("the change of {name} cannot be withdrawn: the webhook does not answer");
        wait::until(timeout, &what, withdraw).await?;
        say(&format!("the change of {name} is withdrawn"))?;
    }
    Ok(())
}

/// Has Helm take the chart away; `false` where it was not installed by Helm.
async fn uninstall_release(
    args: &Args,
    cluster: Vec<OsString>,
    found: &Installation,
) -> Result<bool, Error> {
    let Some(release) = found.release() else { return Ok(false) };
    let namespace = &args.namespace;
    let mut helm = Command::new(&args.helm);
    helm.args(["uninstall", release, "--namespace", namespace]).args(cluster);
    let status = helm.status().await.map_err(|source| Error::Helm {
        program: args.helm.clone(),
        release: release.to_owned(),
        namespace: namespace.clone(),
        source,
    })?;
    if status.success() { Ok(true) } else { Err(Error::HelmFailed(release.to_owned())) }
}

/// Deletes the definitions, and with them every object.
async fn purge(client: &Client, timeout: Duration) -> Result<(), Error> {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in api::crds() {
        let name = crd.definition.metadata.name.unwrap_or_default();
        wait::delete(&definitions, &name, &DeleteParams::default()).await?;
        let gone = async || Ok(definitions.get_metadata_opt(&name).await?.is_none());
        wait::until(timeout, &format!("the definition {name} is not gone"), gone).await?;
        say(&format!("the definition {name} and its objects are gone"))?;
    }
    Ok(())
}
