//! `sluice sweep`: what runs on each node while Sluice is taken away.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Exit, connect, streams};
use crate::{
    agent,
    process::shutdown::{self, Shutdown},
    remediator,
};

/// Where Sluice keeps what lasts on a node.
pub const STATE: &str = "/var/lib/sluice";

/// Between two looks at an attempt that has not ended.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Take away what Sluice has left on a node; `sluice uninstall` runs it on each.
///
/// An attempt at a change that has not ended keeps its originals: then nothing is taken away.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What is done.
    #[arg(value_enum)]
    act: Act,

    /// The folder with the node's own /run and /var/lib.
    #[arg(long, value_name = "FOLDER", default_value = "/host")]
    host: PathBuf,

    /// The nft program.
    #[arg(long, value_name = "FILE", default_value = "nft")]
    nft: PathBuf,

    /// How long an agent may take to end, and an attempt at a change to go back, such as 60s or 5m.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = connect::duration)]
    patience: Duration,
}

/// What is done on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Act {
    /// See that no change is under way.
    Check,
    /// The same, and then take away rules, sockets and files.
    Clean,
    /// Nothing, until it is told to end: so that the pod of a node that is done is ready.
    Rest,
}

impl Act {
    /// Its name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Clean => "clean",
            Self::Rest => "rest",
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  # By hand, as root on a node that was away when Sluice was uninstalled
  sluice sweep clean --host /

Exit codes:
  0  it is done
  1  something stays on the node";

/// Why something stays on the node.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A change is under way, or may be.
    #[error("{0}")]
    Unfinished(String),
    /// Something of the agents stays.
    #[error(transparent)]
    Agent(#[from] agent::sweep::Error),
    /// The folder stays.
    #[error("cannot remove {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Signals cannot be waited for.
    #[error(transparent)]
    Shutdown(#[from] shutdown::Error),
}

impl Error {
    /// A short, stable name.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unfinished(_) => "Unfinished",
            Self::Agent(error) => error.reason(),
            Self::Folder { .. } => "FolderStays",
            Self::Shutdown(error) => error.reason(),
        }
    }
}

/// Does its part on this node.
///
/// # Errors
/// Where something has to stay, or cannot be taken away.
pub async fn run(args: Args) -> Result<Exit, Error> {
    match args.act {
        Act::Check => finished(&args.host, args.patience).await?,
        Act::Clean => {
            finished(&args.host, args.patience).await?;
            let run = below(&args.host, streams::FOLDER);
            agent::sweep::clean(&run, &args.nft, args.patience).await?;
            remove(&below(&args.host, STATE))?;
        }
        Act::Rest => Shutdown::on_signals()?.requested().await,
    }
    Ok(Exit::Ok)
}

fn below(host: &Path, path: &str) -> PathBuf {
    host.join(path.trim_start_matches('/'))
}

/// Waits until no attempt at a change is under way.
async fn finished(host: &Path, patience: Duration) -> Result<(), Error> {
    let state = below(host, STATE);
    let until = tokio::time::Instant::now() + patience;
    loop {
        let unfinished = remediator::sweep::unfinished(&state.join("remediator"));
        if unfinished.is_empty() {
            return Ok(());
        }
        if tokio::time::Instant::now() >= until {
            // As the node itself calls its folders.
            let here = state.display().to_string();
            return Err(Error::Unfinished(unfinished.join(" ").replace(&here, STATE)));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn remove(folder: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(folder) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::Folder { path: folder.to_owned(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(act: Act, host: &Path) -> Args {
        Args { act, host: host.to_owned(), nft: "true".into(), patience: Duration::ZERO }
    }

    #[tokio::test]
    async fn nothing_is_left_on_a_node() {
        let host = tempfile::tempdir().unwrap();
        let path = |path: &str| host.path().join(path);
        fs::create_dir_all(path("var/lib/sluice/remediator/KubeletFlag")).unwrap();
        fs::create_dir_all(path("var/lib/other")).unwrap();
        fs::create_dir_all(path("run/sluice")).unwrap();
        run(args(Act::Check, host.path())).await.unwrap();
        assert!(path("var/lib/sluice").exists(), "looking takes nothing away");
        for _ in 0..2 {
            run(args(Act::Clean, host.path())).await.unwrap();
            let left = |folder| fs::read_dir(path(folder)).unwrap().count();
            assert_eq!((left("var/lib"), left("run")), (1, 0));
        }
    }

    #[tokio::test]
    async fn all_stays_while_a_change_may_be_under_way() {
        let host = tempfile::tempdir().unwrap();
        let folder = host.path().join("var/lib/sluice/remediator/KubeletFlag");
        fs::create_dir_all(&folder).unwrap();
        fs::create_dir_all(host.path().join("run/sluice")).unwrap();
        fs::write(folder.join("journal.json"), "?").unwrap();
        for act in [Act::Check, Act::Clean] {
            let error = run(args(act, host.path())).await.unwrap_err();
            assert_eq!(error.reason(), "Unfinished");
            let said = error.to_string();
            assert!(said.contains(" /var/lib/sluice/remediator/KubeletFlag,"), "{said}");
            assert!(!said.contains(&host.path().display().to_string()), "{said}");
            assert!(
                folder.join("journal.json").exists() && host.path().join("run/sluice").exists()
            );
        }
    }
}
