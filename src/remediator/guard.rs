//! The guard: a static pod that holds the timer of a change to the apiserver.
//!
//! After a reboot a node whose only apiserver does not start runs static pods and nothing else, so
//! whoever puts its manifest back must be one.

mod manifest;
mod watch;

use std::{path::Path, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    file,
    journal::{Journal, Stage, Termination, store},
    step,
};
pub use manifest::{MANIFEST, PullPolicy, Template};
pub use watch::{Error, Guard, GuardSettings, run};

/// Where the guard says that it watches.
const ARMED: &str = "armed.json";

/// It says so again after this long,
const BEAT: SignedDuration = SignedDuration::from_secs(3);

/// and one that has not said so for this long does not watch.
const SILENT: SignedDuration = SignedDuration::from_secs(10);

/// The guard's word that it watches over an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The attempt's id.
    pub id: String,
    /// When it last looked.
    pub at: Timestamp,
}

impl Heartbeat {
    /// What it said last in this folder; nothing where that cannot be read.
    pub fn read(folder: &Path) -> Option<Self> {
        let found = file::read(&folder.join(ARMED)).ok()??;
        serde_json::from_slice(&found.bytes).ok()
    }

    /// Says so.
    ///
    /// # Errors
    /// Where that is not possible.
    pub fn write(&self, folder: &Path) -> Result<(), store::Error> {
        let text = serde_json::to_vec(self).map_err(store::Error::Encode)?;
        store::write(&folder.join(ARMED), &text)
    }

    /// Whether it watches over this attempt now.
    pub fn watches(&self, id: &str, now: Timestamp) -> bool {
        self.said(id, now, SILENT)
    }

    /// Whether it has said so just now.
    fn beats(&self, id: &str, now: Timestamp) -> bool {
        self.said(id, now, BEAT)
    }

    fn said(&self, id: &str, now: Timestamp, limit: SignedDuration) -> bool {
        self.id == id && now.duration_since(self.at).abs() <= limit
    }
}

/// What a guard does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuardAction {
    /// Say that it watches.
    Arm,
    /// Put the originals back, for this reason.
    Undo(Termination),
    /// Go on with what somebody has begun to put back.
    GoOnUndoing,
    /// Wait for the remediator to take the guard away.
    Wait,
    /// Take away the guard's own manifest: nobody else does.
    Leave,
}

/// Decides. `own` is the id of the attempt that this guard was started for, `watched` how long it
/// runs, `leave` how long it waits for the remediator to take it away. Pure.
pub fn decide(
    journal: Option<&Journal>,
    own: &str,
    now: Timestamp,
    watched: Duration,
    leave: Duration,
) -> GuardAction {
    let long = |since: SignedDuration| {
        since >= SignedDuration::try_from(leave).unwrap_or(SignedDuration::MAX)
    };
    match journal {
        Some(journal) if journal.is_ended() => {
            // By both clocks: that of the node may have been set in between.
            let alone = long(now.duration_since(journal.since)) && watched >= leave;
            if alone { GuardAction::Leave } else { GuardAction::Wait }
        }
        Some(journal) if matches!(journal.stage, Stage::Undoing(_)) => GuardAction::GoOnUndoing,
        Some(journal) if journal.is_overdue(now) => GuardAction::Undo(step::overdue(journal)),
        // A guard of an earlier attempt is about to end, and keeps the time until then.
        Some(journal) if journal.id == own => GuardAction::Arm,
        Some(_) => GuardAction::Wait,
        None if watched >= leave => GuardAction::Leave,
        None => GuardAction::Wait,
    }
}

#[cfg(test)]
mod tests;
