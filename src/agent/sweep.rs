//! What agents leave on a node, and how it is taken away once no agent is wanted any more.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    claim::{self, Claim},
    redirect,
};

/// Why something of the agents stays.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An agent acts, and lets nobody take over.
    #[error(
        "an agent still acts on this node after {0:?}: see that its DaemonSet is gone, or remove its \
         pod"
    )]
    Acting(Duration),
    /// The agents' lock cannot be taken.
    #[error(transparent)]
    Claim(#[from] claim::Error),
    /// The rules stay in the kernel.
    #[error("the tables sluice of nftables stay: {0}")]
    Rules(#[source] redirect::RulesError),
    /// The folder stays.
    #[error("cannot remove {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// A short, stable name.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Acting(_) => "AgentActs",
            Self::Claim(error) => error.reason(),
            Self::Rules(error) => error.reason(),
            Self::Folder { .. } => "FolderStays",
        }
    }
}

/// Takes the node over as the next agent would, and leaves nothing: neither rules in the kernel nor the
/// folder that the agents share. Streams that an agent still carries while it ends go on.
///
/// Where there is no such folder no agent has acted since the node's start, and so there are no rules.
///
/// # Errors
/// Where something stays. It can be tried again.
pub async fn clean(run: &Path, nft: &Path, patience: Duration) -> Result<(), Error> {
    if !run.exists() {
        return Ok(());
    }
    let claim = tokio::time::timeout(patience, Claim::wait(run));
    let _claim = claim.await.map_err(|_| Error::Acting(patience))??;
    redirect::remove_rules(nft).await.map_err(Error::Rules)?;
    fs::remove_dir_all(run).map_err(|source| Error::Folder { path: run.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::redirect::script_of_nft;

    const SOON: Duration = Duration::from_millis(300);

    #[tokio::test]
    async fn nothing_is_done_where_no_agent_was() {
        let folder = tempfile::tempdir().unwrap();
        // There is no such program: it would fail.
        clean(&folder.path().join("sluice"), Path::new("/nonexistent"), SOON).await.unwrap();
    }

    #[tokio::test]
    async fn the_rules_go_and_then_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("sluice");
        fs::create_dir_all(&run).unwrap();
        fs::write(run.join("streams-1.sock"), "").unwrap();
        let (_refusing, refuses) = script_of_nft("echo busy >&2; exit 1");
        let error = clean(&run, &refuses, SOON).await.unwrap_err();
        assert_eq!(error.reason(), "RulesRefused");
        assert!(run.exists(), "what says that there may be rules stays with them");
        let (nft, works) = script_of_nft(r#"cat >>"$0.said""#);
        clean(&run, &works, SOON).await.unwrap();
        let said = fs::read_to_string(nft.path().join("nft.said")).unwrap();
        assert!(said.contains("delete table ip sluice\n"), "{said}");
        assert!(said.contains("delete table ip6 sluice\n"), "{said}");
        assert!(!run.exists());
    }

    #[tokio::test]
    async fn an_agent_that_acts_keeps_all_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let acting = Claim::wait(folder.path()).await.unwrap();
        let error = clean(folder.path(), Path::new("/nonexistent"), SOON).await.unwrap_err();
        assert_eq!(error.reason(), "AgentActs");
        drop(acting);
        assert!(folder.path().exists());
    }
}
