//! The command line: `sluice plan`, `status`, `check`, `crds`, `uninstall`, `completion`, `man`,
//! `controller`, `agent`, `remediator`, `streams`, `probe`, `sweep` and `canary`.
//!
//! The same program is a kubectl plugin: as `kubectl-sluice` it speaks of itself as
//! `kubectl sluice`.

pub mod agent;
pub mod canary;
pub mod check;
pub mod completion;
pub mod connect;
pub mod controller;
pub mod crds;
pub mod explain;
pub mod man;
pub mod output;
pub mod plan;
pub mod probe;
pub mod remediator;
pub mod status;
pub mod streams;
pub mod sweep;
pub mod uninstall;

use std::{ffi::OsString, io, path::Path, process::ExitCode};

use clap::{ArgMatches, Command, CommandFactory, FromArgMatches, Parser, Subcommand};

/// The file name under which kubectl finds a plugin.
const PLUGIN: &str = "kubectl-sluice";

/// Carries a cluster from redirected to kubelet-proxied exec, attach and port-forward.
#[derive(Debug, Parser)]
#[command(name = "sluice", version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Subcommands,
}

const EXAMPLES: &str = "\
Examples:
  # May the gate StreamingProxyRedirects be turned off in the cluster of the current kubeconfig?
  sluice plan

  # The same from files, without a cluster
  kubectl get nodes,pods -A -o yaml | sluice plan -f -

  # Do exec and port-forward reach each node through each apiserver?
  sluice check";

#[derive(Debug, Subcommand)]
enum Subcommands {
    Plan(plan::Args),
    Status(status::Args),
    Check(check::Args),
    Crds(crds::Args),
    Uninstall(uninstall::Args),
    Controller(Box<controller::Args>),
    Agent(agent::Args),
    Remediator(Box<remediator::Args>),
    Streams(streams::Args),
    Probe(probe::Args),
    Sweep(sweep::Args),
    Canary(canary::Args),
    Completion(completion::Args),
    Man(man::Args),
}

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It is safe, or there was nothing to judge.
    Ok,
    /// Something could not be done.
    Error,
    /// It was judged, and refused.
    Refused,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Ok => 0,
            Exit::Error => 1,
            Exit::Refused => 2,
        })
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `plan` failed.
    #[error(transparent)]
    Plan(#[from] plan::Error),
    /// `status` failed.
    #[error(transparent)]
    Status(#[from] status::Error),
    /// `check` failed.
    #[error(transparent)]
    Check(#[from] check::Error),
    /// `crds` failed.
    #[error(transparent)]
    Crds(#[from] crds::Error),
    /// `uninstall` failed.
    #[error(transparent)]
    Uninstall(#[from] uninstall::Error),
    /// `sweep` failed, or something has to stay.
    #[error(transparent)]
    Sweep(#[from] sweep::Error),
    /// `controller` failed.
    #[error(transparent)]
    Controller(#[from] controller::Error),
    /// `agent` failed.
    #[error(transparent)]
    Agent(#[from] agent::Error),
    /// `remediator` failed.
    #[error(transparent)]
    Remediator(#[from] remediator::Error),
    /// `streams` failed.
    #[error(transparent)]
    Streams(#[from] streams::Error),
    /// `probe` failed, or what was asked for is not so.
    #[error(transparent)]
    Probe(#[from] probe::Error),
    /// `canary` failed.
    #[error(transparent)]
    Canary(#[from] canary::Error),
    /// `completion` failed.
    #[error(transparent)]
    Completion(output::Error),
    /// `man` failed.
    #[error(transparent)]
    Man(#[from] man::Error),
    /// There is no way to a cluster.
    #[error(transparent)]
    Connect(#[from] connect::Error),
    /// A command that asks a cluster failed.
    #[error("{source}")]
    At {
        /// Which cluster.
        place: connect::Place,
        /// Why.
        source: Box<Error>,
    },
    /// Nothing asynchronous can run.
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
    /// Help cannot be printed.
    #[error("cannot write the output")]
    Output(#[source] io::Error),
}

impl Error {
    /// A short, stable name.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Plan(error) => error.reason(),
            Self::Status(error) => error.reason(),
            Self::Check(error) => error.reason(),
            Self::Crds(error) => error.reason(),
            Self::Uninstall(error) => error.reason(),
            Self::Sweep(error) => error.reason(),
            Self::Controller(error) => error.reason(),
            Self::Agent(error) => error.reason(),
            Self::Remediator(error) => error.reason(),
            Self::Streams(error) => error.reason(),
            Self::Probe(error) => error.reason(),
            Self::Canary(error) => error.reason(),
            Self::Completion(error) => error.reason(),
            Self::Man(error) => error.reason(),
            Self::Connect(error) => error.reason(),
            Self::At { source, .. } => source.reason(),
            Self::Runtime(_) => "Runtime",
            Self::Output(_) => "Output",
        }
    }
}

/// Runs the program with these arguments, the first of which is its own name.
///
/// # Errors
/// Where the command could not do its work. A refusal is no error.
pub fn main(args: impl IntoIterator<Item = OsString>) -> Result<Exit, Error> {
    let args: Vec<OsString> = args.into_iter().collect();
    match matches(&args) {
        Ok(cli) => run(cli.command),
        Err(usage) => match usage.print() {
            // clap would exit with 2, which here means that something was judged and refused.
            Ok(()) if usage.use_stderr() => Ok(Exit::Error),
            Ok(()) => Ok(Exit::Ok),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Ok),
            Err(error) => Err(Error::Output(error)),
        },
    }
}

fn matches(args: &[OsString]) -> Result<Cli, clap::Error> {
    let program = args.first().map(Path::new).and_then(Path::file_stem);
    let mut command = command(program.is_some_and(|name| name == PLUGIN));
    let matches: ArgMatches = command.try_get_matches_from_mut(args)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// The command line's definition, in the words of the plugin or of the plain program.
fn command(plugin: bool) -> Command {
    let command = Cli::command();
    if !plugin {
        return command.bin_name("sluice");
    }
    let names: Vec<String> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
    let command =
        names.iter().fold(command, |command, name| command.mut_subcommand(name, as_plugin));
    as_plugin(command).bin_name("kubectl sluice")
}

fn as_plugin(command: Command) -> Command {
    match command.get_after_help().map(ToString::to_string) {
        Some(help) => command.after_help(
            help.replace("  sluice ", "  kubectl sluice ")
                .replace("| sluice ", "| kubectl sluice "),
        ),
        None => command,
    }
}

fn run(command: Subcommands) -> Result<Exit, Error> {
    match command {
        Subcommands::Plan(args) if args.needs_cluster() => {
            on_cluster(&args.cluster.clone(), |cluster| plan::run_on_cluster(args, cluster))
        }
        Subcommands::Plan(args) => Ok(plan::run_on_files(args)?),
        Subcommands::Status(args) => {
            on_cluster(&args.cluster.clone(), |cluster| status::run(args, cluster))
        }
        Subcommands::Check(args) => {
            on_cluster(&args.cluster.clone(), |cluster| check::run(args, cluster))
        }
        Subcommands::Crds(args) => Ok(crds::run(&args)?),
        Subcommands::Uninstall(args) => {
            on_cluster(&args.cluster.clone(), |cluster| uninstall::run(args, cluster))
        }
        Subcommands::Sweep(args) => Ok(runtime()?.block_on(sweep::run(args))?),
        Subcommands::Controller(args) => Ok(runtime()?.block_on(controller::run(*args))?),
        Subcommands::Agent(args) => Ok(two_threads()?.block_on(agent::run(args))?),
        Subcommands::Remediator(args) => Ok(runtime()?.block_on(remediator::run(*args))?),
        Subcommands::Streams(args) => Ok(runtime()?.block_on(streams::run(args))?),
        Subcommands::Probe(args) => Ok(runtime()?.block_on(probe::run(args))?),
        Subcommands::Canary(args) => Ok(runtime()?.block_on(canary::run(args))?),
        Subcommands::Completion(args) => completion::run(&args).map_err(Error::Completion),
        Subcommands::Man(args) => Ok(man::run(&args)?),
    }
}

/// Runs a command that asks a cluster. Where it fails, it is told which cluster that was.
fn on_cluster<F, E>(
    args: &connect::UserArgs,
    command: impl FnOnce(connect::Cluster) -> F,
) -> Result<Exit, Error>
where
    F: Future<Output = Result<Exit, E>>,
    E: Into<Error>,
{
    runtime()?.block_on(async {
        let cluster = args.cluster().await?;
        let place = cluster.place.clone();
        let failed = |error: E| Error::At { place, source: Box::new(error.into()) };
        command(cluster).await.map_err(failed)
    })
}

/// One thread: the controller's tasks hand every event on to the one that owns the state, and waking
/// another thread for that costs more than the work itself.
fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)
}

/// Two threads, for the agent: one that looks through the node's processes must not keep a connection
/// waiting. The streams have threads of their own.
fn two_threads() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Error::Runtime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        command(false).debug_assert();
        command(true).debug_assert();
    }

    #[test]
    fn every_command_has_examples_and_exit_codes() {
        for command in command(false).get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Examples:\n"), "{}", command.get_name());
            assert!(help.contains(&format!("sluice {}", command.get_name())), "{help}");
            assert!(help.contains("\n\nExit codes:\n  0  "), "{help}");
        }
    }
}
