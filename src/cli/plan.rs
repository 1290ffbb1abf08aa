//! `sluice plan`: the controller's judgement without a controller.
//!
//! [`files`] and [`live`] gather [`objects`], [`judge`] makes of them what the controller would
//! write, and [`crate::cli::output::plan`] prints it.

mod apiservers;
pub mod files;
pub mod judge;
pub mod live;
pub mod objects;
pub mod rights;
pub mod upgrade;

use std::{io, path::PathBuf};

use jiff::Timestamp;

use super::{Exit, connect, output};
use crate::{
    decision::{migration, names::NameSummary},
    kubernetes::version::Minor,
};
use judge::{Options, PlannedStatuses};
use objects::Objects;

/// Judge whether the gate StreamingProxyRedirects may be turned off.
///
/// Reads a cluster, or files as kubectl prints them, and shows what the controller would say.
/// Nothing is changed. From API servers of 1.34 on, or with a later target, WebSockets to the kubelet
/// are judged as well. Without a StreamingPolicy a default one is judged, which wants the gate
/// Disabled. Where not everything can be read, the rest is judged, and never found safe.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Read objects from a file, every .yaml, .yml and .json file of a directory, or standard
    /// input (-) instead of a cluster; repeatable.
    #[arg(short, long = "filename", value_name = "FILE|DIR|-")]
    filename: Vec<PathBuf>,

    /// The policy to judge for [default: the one that owns the gate, else the first].
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,

    /// Judge an upgrade to this apiserver version as well, instead of the policy's targetVersion,
    /// and say what has to be done before it, in order.
    #[arg(long, value_name = "VERSION", value_parser = migration::target)]
    target: Option<Minor>,

    /// The version of the apiservers whose pods cannot be seen.
    #[arg(long, value_name = "VERSION", value_parser = Minor::running)]
    apiserver_version: Option<Minor>,

    /// What the --feature-gates of those apiservers hold; "" for nothing.
    #[arg(long, value_name = "GATES")]
    apiserver_feature_gates: Option<String>,

    /// The form of the output; JSON and YAML are a v1 List of StreamingPolicy and StreamingNode
    /// objects with the statuses that the controller would write, and with --target an UpgradePlan;
    /// where API servers ask for the right to create streams, also a StreamRights object.
    #[arg(short, long, value_enum, default_value_t)]
    output: output::Format,

    /// Show every node, however many there are.
    #[arg(long)]
    all: bool,

    /// Say on standard error what was read and what was skipped.
    #[arg(short, long)]
    verbose: bool,

    #[command(flatten)]
    pub(super) cluster: connect::UserArgs,
}

const EXAMPLES: &str = "\
Examples:
  # The cluster of the current kubeconfig
  sluice plan

  # The upgrade of another cluster's apiservers to 1.24
  sluice plan --context production --target 1.24

  # From files, without a cluster
  kubectl get nodes,pods -A -o yaml > cluster.yaml
  sluice plan -f cluster.yaml -f policy.yaml

  # From a pipe
  kubectl get nodes,pods -A -o json | sluice plan -f -

  # The upgrade to 1.35, which asks more rights of those who stream
  kubectl get nodes,pods,roles,clusterroles,rolebindings,clusterrolebindings -A -o yaml > cluster.yaml
  sluice plan -f cluster.yaml --target 1.35

  # A managed control plane, whose pods nobody sees
  sluice plan -f nodes.yaml --apiserver-version 1.21 --apiserver-feature-gates ''

  # The nodes that stand in the way, for a script
  sluice plan -o json | jq -r '.items[] | select(.status.verdict == \"Blocks\") | .metadata.name'

Exit codes:
  0  safe: the gate may be turned off, and the upgrade to --target breaks nothing
  1  an error: not everything could be judged
  2  refused: something would break, or is not known";

/// Why nothing could be judged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The files cannot be read.
    #[error(transparent)]
    Files(#[from] files::Error),
    /// There is no way to the cluster.
    #[error(transparent)]
    Connect(#[from] connect::Error),
    /// The cluster cannot be read.
    #[error(transparent)]
    Live(#[from] live::Error),
    /// What was read cannot be judged.
    #[error(transparent)]
    Judge(#[from] judge::Error),
    /// The result cannot be printed.
    #[error(transparent)]
    Output(#[from] output::Error),
    /// Some of what was given could not be read.
    #[error("not all of the input was judged: correct what is named above")]
    Unread,
    /// Files and a cluster were asked for at once.
    #[error(
        "-f reads files and no cluster: leave out --kubeconfig, --context and what else names a cluster"
    )]
    FilesAndCluster,
}

impl Error {
    /// A short, stable name.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Files(error) => error.reason(),
            Self::Connect(error) => error.reason(),
            Self::Live(error) => error.reason(),
            Self::Judge(error) => error.reason(),
            Self::Output(error) => error.reason(),
            Self::Unread => "Unread",
            Self::FilesAndCluster => "FilesAndCluster",
        }
    }
}

impl Args {
    /// Whether a cluster is read rather than files.
    pub fn needs_cluster(&self) -> bool {
        self.filename.is_empty()
    }

    fn options(&self) -> Options {
        Options {
            policy: self.policy.clone(),
            target: self.target,
            apiserver_version: self.apiserver_version,
            apiserver_gates: self.apiserver_feature_gates.clone(),
        }
    }
}

/// Judges what is in files.
///
/// # Errors
/// Where they cannot be read or judged.
pub fn run_on_files(args: Args) -> Result<Exit, Error> {
    if args.cluster.is_given() {
        return Err(Error::FilesAndCluster);
    }
    let mut objects = files::read(&args.filename, &mut io::stdin().lock())?;
    let silent: NameSummary<'_> = objects.agents_without_pods().collect();
    if !silent.is_empty() {
        let warning = format!(
            "no pod of an agent of {silent} is in the files, so what was reported there is not believed \
             where it says that a flag is off: kubectl get nodes,pods,streamingnodes -A -o yaml prints all"
        );
        objects.warnings.push(warning);
    }
    finish(&args, objects)
}

/// Judges the cluster.
///
/// # Errors
/// Where it cannot be read or judged.
pub async fn run_on_cluster(args: Args, cluster: connect::Cluster) -> Result<Exit, Error> {
    let objects = live::read(cluster.client()?, args.target).await?;
    finish(&args, objects)
}

fn finish(args: &Args, objects: Objects) -> Result<Exit, Error> {
    for warning in &objects.warnings {
        anstream::eprintln!("warning: {warning}");
    }
    if let Some(hint) = &objects.hint {
        anstream::eprintln!("hint: {hint}");
    }
    if args.verbose {
        anstream::eprintln!("{}", objects.summary());
        for note in &objects.notes {
            anstream::eprintln!("{note}");
        }
    }
    for unread in &objects.unread {
        anstream::eprintln!("error: {unread}");
    }
    let all_read = objects.unread.is_empty();
    if all_read || !objects.nodes.is_empty() {
        let plan = judge::judge(objects, &args.options(), Timestamp::now())?;
        for gap in plan.rights.iter().flat_map(|report| report.gaps()) {
            anstream::eprintln!("warning: {gap}");
        }
        output::print(&render(&plan, args)?)?;
        if all_read {
            return Ok(if plan.is_refused() { Exit::Refused } else { Exit::Ok });
        }
    }
    Err(Error::Unread)
}

fn render(plan: &PlannedStatuses, args: &Args) -> Result<String, output::Error> {
    match args.output {
        output::Format::Table => Ok(output::plan::table(plan, args.all, output::width())),
        output::Format::Json => output::json(&output::List::new(plan.items())),
        output::Format::Yaml => output::yaml(&output::List::new(plan.items())),
    }
}

#[cfg(test)]
mod tests {
    use crate::decision::{migration::NEWEST_KNOWN, websockets::gates};

    #[test]
    fn no_target_is_taken_of_which_a_table_knows_nothing() {
        assert_eq!(NEWEST_KNOWN, gates::LAST);
    }
}
