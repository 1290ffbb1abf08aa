//! The guard's process: a look at the journal each second.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{GuardAction, Heartbeat, MANIFEST, decide};
use crate::{
    api::ChangeKind,
    node::host::Host,
    process::shutdown::{self, Shutdown},
    remediator::{
        gate,
        journal::{Journal, Stage, Store, Termination, store, wayback},
    },
};

/// How a guard is started.
#[derive(Clone, Debug)]
pub struct GuardSettings {
    /// The id of the attempt that it was started for.
    pub change: String,
    /// The remediators' state folder.
    pub state: PathBuf,
    /// The folder of the guard's own manifest.
    pub manifests: PathBuf,
    /// Where the paths of a journal begin.
    pub host: PathBuf,
    /// Between two looks.
    pub tick: Duration,
    /// How long the remediator may take to take the guard away.
    pub leave: Duration,
}

/// Why a guard ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its state folder cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Signals cannot be waited for.
    #[error(transparent)]
    Shutdown(#[from] shutdown::Error),
}

impl Error {
    /// A short, stable name for logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Store(error) => error.reason(),
            Self::Shutdown(error) => error.reason(),
        }
    }
}

/// Watches until the process is told to end.
///
/// # Errors
/// When it cannot start.
pub async fn run(settings: GuardSettings) -> Result<(), Error> {
    let shutdown = Shutdown::on_signals()?;
    let host = Host::new(settings.host.clone());
    let store = Store::open(&settings.state, ChangeKind::ApiserverGate, host.clone())?;
    let guard = Guard { store, host, settings, began: Instant::now(), clock: Timestamp::now };
    tracing::info!("watching");
    tokio::select! {
        () = shutdown.requested() => {}
        () = guard.watch() => {}
    }
    Ok(())
}

/// A guard at work.
pub struct Guard {
    /// The remediator's state folder.
    pub store: Store,
    /// The node's folders.
    pub host: Host,
    /// How it was started.
    pub settings: GuardSettings,
    /// When it was.
    pub began: Instant,
    /// The node's clock.
    pub clock: fn() -> Timestamp,
}

impl Guard {
    /// Looks for ever.
    pub async fn watch(&self) {
        let mut every = tokio::time::interval(self.settings.tick);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            if let Err(error) = self.turn().await {
                tracing::error!(reason = error.reason(), %error, "cannot go on");
            }
        }
    }

    /// One look, and what comes of it.
    ///
    /// # Errors
    /// Where the node's disk does not let it. It is tried again.
    pub async fn turn(&self) -> Result<(), store::Error> {
        let _lock = self.store.lock().await?;
        let journal = match self.store.load() {
            Ok(None) if self.store.has_way_back() => return self.look_back(None),
            Err(error) => return self.look_back(Some(error)),
            Ok(journal) => journal,
        };
        let now = (self.clock)();
        let watched = self.began.elapsed();
        let (own, leave) = (&self.settings.change, self.settings.leave);
        match (decide(journal.as_ref(), own, now, watched, leave), journal) {
            (GuardAction::Arm, Some(journal)) => self.arm(journal.id),
            (GuardAction::Undo(mut why), Some(journal)) => {
                if let Some(word) = gate::said(&journal, &self.host.path(gate::LOGS)) {
                    why.message = format!("{} {word}", why.message);
                }
                self.undo(journal, why)
            }
            (GuardAction::GoOnUndoing, Some(journal)) => self.go_on_undoing(journal),
            (GuardAction::Leave, _) => {
                tracing::info!("nobody else takes the guard away");
                store::remove(&self.settings.manifests.join(MANIFEST))
            }
            _ => Ok(()),
        }
    }

    fn arm(&self, id: String) -> Result<(), store::Error> {
        let (folder, now) = (self.store.folder(), (self.clock)());
        match Heartbeat::read(folder) {
            Some(armed) if armed.beats(&id, now) => Ok(()),
            _ => Heartbeat { id, at: now }.write(folder),
        }
    }

    /// Keeps the time by what every version reads, where the journal says nothing.
    fn look_back(&self, error: Option<store::Error>) -> Result<(), store::Error> {
        let Some(way_back) = self.store.way_back()? else { return error.map_or(Ok(()), Err) };
        if way_back.is_overdue((self.clock)()) {
            let known = self.store.recall(&way_back)?;
            if let Err(error) = self.store.set_journal_aside() {
                tracing::warn!(reason = error.reason(), %error, "the journal is not set aside");
            }
            return self.undo(known, wayback::unreadable());
        }
        match way_back.id == self.settings.change {
            true => self.arm(way_back.id),
            false => Ok(()),
        }
    }

    fn undo(&self, journal: Journal, why: Termination) -> Result<(), store::Error> {
        let next = journal.undoing(why);
        tracing::warn!(id = next.id, reason = next.reason, "going back");
        // With a full disk the original comes back all the same.
        if let Err(error) = self.store.save(&next) {
            tracing::warn!(reason = error.reason(), %error, "not written down");
        }
        self.go_on_undoing(next)
    }

    fn go_on_undoing(&self, journal: Journal) -> Result<(), store::Error> {
        let Stage::Undoing(end) = journal.stage else { return Ok(()) };
        let now = (self.clock)();
        let restored = self.store.restore(&journal)?;
        tracing::warn!(id = journal.id, left = restored.left, "the attempt has ended");
        self.store.save(&journal.left(end, &restored, now))
    }
}
