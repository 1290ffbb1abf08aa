//! Which of a node's agents acts: while a DaemonSet with maxSurge is rolled out, two of them stand side
//! by side, and one alone may hold the node's rules and write its report.
//!
//! The claim is a lock on a file of the node. The kernel gives it back whatever becomes of the agent.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use tokio::sync::oneshot;

/// The file's name in the folder that the node's agents share.
const FILE: &str = "agent.lock";

/// Another agent that waits takes the claim within so long.
const OFFER: Duration = Duration::from_millis(100);

/// How far an agent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Another agent acts; this one looks, and touches nothing.
    Waiting,
    /// It acts, also while it is about to end and nobody has taken over.
    Acting,
    /// Another one has taken over. Streams that are open here go on.
    Succeeded,
}

/// Why the node cannot be claimed.
#[derive(Debug, thiserror::Error)]
#[error("cannot lock {}, by which the agents of a node know which of them acts: {source}", path.display())]
pub struct Error {
    path: PathBuf,
    source: io::Error,
}

impl Error {
    /// A short, stable name.
    pub fn reason(&self) -> &'static str {
        "Claim"
    }
}

/// The node is this agent's, until the claim is dropped.
#[derive(Debug)]
pub struct Claim(File);

impl Claim {
    /// Waits until no other agent acts on the node whose agents share this folder.
    ///
    /// # Errors
    /// Where there is no such folder, or nothing can be locked in it.
    pub async fn wait(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(FILE);
        let failed = |source| Error { path: path.clone(), source };
        let open = || {
            fs::create_dir_all(folder)?;
            // Others on the node must not be able to lock it.
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)
        };
        let file = open().map_err(failed)?;
        match file.try_lock() {
            Ok(()) => return Ok(Self(file)),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
            Err(TryLockError::WouldBlock) => {}
        }
        tracing::info!("another agent acts on this node: waiting until it ends");
        let (sender, locked) = oneshot::channel();
        // Not a thread of the runtime, which could not end before it.
        thread::spawn(move || {
            let locked = file.lock().map(|()| file);
            let _ = sender.send(locked);
        });
        match locked.await {
            Ok(Ok(file)) => Ok(Self(file)),
            Ok(Err(source)) => Err(failed(source)),
            Err(_) => Err(failed(io::ErrorKind::Interrupted.into())),
        }
    }

    /// Lets an agent that waits have the node; tells whether one has taken it. Whoever is not sure
    /// whether it still holds the claim has lost it.
    pub async fn offer(&self) -> bool {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "the node cannot be offered to another agent");
            return false;
        }
        tokio::time::sleep(OFFER).await;
        self.0.try_lock().is_err()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn one_agent_acts_and_the_next_takes_over_when_it_is_let() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("made");
        let first = Claim::wait(&folder).await.unwrap();
        assert!(!first.offer().await, "nobody waits");
        let mut waiting = Box::pin(Claim::wait(&folder));
        assert!((&mut waiting).now_or_never().is_none());
        // Its thread may not have come to wait yet.
        while !first.offer().await {}
        let second = waiting.await.unwrap();
        // The first is still there, and has nothing to say.
        assert!(!second.offer().await);
        let mut third = Box::pin(Claim::wait(&folder));
        assert!((&mut third).now_or_never().is_none());
        drop(second);
        third.await.unwrap();
    }

    #[tokio::test]
    async fn one_that_waited_and_is_gone_holds_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let first = Claim::wait(folder.path()).await.unwrap();
        drop(Box::pin(Claim::wait(folder.path())).now_or_never());
        drop(first);
        // Its thread may hold the lock for a moment.
        Claim::wait(folder.path()).await.unwrap();
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Claim::wait(&file.path().join("below")).await.unwrap_err();
        assert!(error.to_string().contains("agent.lock"), "{error}");
    }
}
