//! One attempt at a change, written down on the node before anything is touched. Pure; [`store`]
//! keeps it on disk.

mod aside;
pub mod store;
pub mod wayback;

use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::file::Owner;
use crate::{
    api::{Change, ChangeKind, ChangeReport},
    cluster::whole_seconds,
    decision::change::{PassingRefusal, Phase},
};
pub use store::Store;

/// So many ended attempts are remembered, not to be made again.
const REMEMBERED: usize = 32;

/// A clock that is set in the meantime goes back by so much without meaning anything.
const SLEW: SignedDuration = SignedDuration::from_secs(5);

/// The attempt that was made last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Journal {
    /// The change's id.
    pub id: String,
    /// What is changed.
    pub kind: ChangeKind,
    /// When the attempt began.
    pub began: Timestamp,
    /// When it goes back unless it is confirmed.
    pub deadline: Timestamp,
    /// The files that it touches.
    pub files: Vec<Touched>,
    /// How far it is.
    pub stage: Stage,
    /// Whether all of the files were written.
    #[serde(default)]
    pub written: bool,
    /// The restart of the kubelet that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
    /// Why it is where it is, or where it is being brought, as a stable name.
    pub reason: String,
    /// The same in sentences.
    pub message: String,
    /// Since when.
    pub since: Timestamp,
    /// What keeps the original from coming back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// The ids of attempts before it.
    #[serde(default)]
    pub earlier: Vec<String>,
}

/// How far an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stage {
    /// The originals are kept, and nothing is changed; or some of it.
    Kept,
    /// The files are changed, and the kubelet has to be restarted.
    Edited,
    /// The kubelet was to be restarted, and has to prove itself.
    Restarted,
    /// The change is made.
    Applied,
    /// The originals are coming back, to end so.
    Undoing(End),
    /// The change has proven itself, and stays.
    Confirmed,
    /// It has ended with the originals.
    Ended(End),
}

/// How an attempt ends that does not stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum End {
    /// It was made, or about to be, and went back.
    RolledBack,
    /// It was not permitted.
    Refused,
    /// It could not be made.
    Failed,
}

/// Why an attempt does not stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Termination {
    /// How it ends.
    pub end: End,
    /// A stable name.
    pub reason: &'static str,
    /// Sentences.
    pub message: String,
}

/// What came of putting the originals back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Sentences about what was found.
    pub notes: Vec<String>,
    /// A file holds what somebody else has put there, and keeps it.
    pub left: bool,
}

/// A file that an attempt changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Touched {
    /// Its path on the node.
    pub path: String,
    /// The name of the original's copy in the state folder.
    pub original: String,
    /// The name of the copy of what is written instead.
    pub changed: String,
    /// Whose it is.
    pub owner: Owner,
}

/// A restart of the kubelet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Restart {
    /// When it was asked for.
    pub at: Timestamp,
    /// The number and the start of the process that is to be replaced.
    pub process: Option<(u32, u64)>,
    /// The Node's last heartbeat before it.
    pub heartbeat: Option<Timestamp>,
}

impl Journal {
    /// An attempt of which nothing but the originals' copies exists yet.
    pub fn begun(
        change: &Change,
        files: Vec<Touched>,
        before: Option<&Journal>,
        now: Timestamp,
    ) -> Self {
        let allowed = SignedDuration::from_secs(change.deadline_seconds.into());
        Self {
            id: change.id.clone(),
            kind: change.kind,
            began: now,
            deadline: now.checked_add(allowed).unwrap_or(now),
            files,
            stage: Stage::Kept,
            written: false,
            restart: None,
            reason: "Preparing".to_owned(),
            message: "The originals are kept; nothing is changed yet.".to_owned(),
            since: now,
            trouble: None,
            earlier: earlier(before),
        }
    }

    /// An attempt that was not made.
    pub fn unmade(
        change: &Change,
        why: Termination,
        before: Option<&Journal>,
        now: Timestamp,
    ) -> Self {
        let begun = Self::begun(change, Vec::new(), before, now);
        begun.at(Stage::Ended(why.end), why.reason, why.message, now)
    }

    /// An attempt that was made or tried before, and of which nothing is written down in this folder
    /// any more.
    pub fn lost(change: &Change, folder: &Path, before: Option<&Journal>, now: Timestamp) -> Self {
        let gone = format!("What was written down of this change in {} is gone", folder.display());
        if change.confirmed {
            let begun = Self::begun(change, Vec::new(), before, now);
            let message = format!("{gone}; it was confirmed, so nothing goes back.");
            return begun.at(Stage::Confirmed, "Confirmed", message, now);
        }
        let message = format!("{gone}, so nothing can go back. Look at the node's files.");
        Self::unmade(change, Termination::failed("StateLost", message), before, now)
    }

    /// The files hold what they are to hold, and the kubelet has to take it in.
    pub fn edited(self, now: Timestamp) -> Self {
        let message = format!("{} changed; the kubelet is restarted next.", self.paths());
        Self { written: true, ..self.at(Stage::Edited, "Preparing", message, now) }
    }

    /// The kubelet is to be restarted.
    pub fn restarted(self, restart: Restart, now: Timestamp) -> Self {
        let message = format!("{} changed; the kubelet is restarted.", self.paths());
        Self { restart: Some(restart), ..self.at(Stage::Restarted, "Preparing", message, now) }
    }

    /// The change is made.
    pub fn applied(self, reason: &'static str, message: String, now: Timestamp) -> Self {
        Self { written: true, ..self.at(Stage::Applied, reason, message, now) }
    }

    /// The change stays.
    pub fn confirmed(self, now: Timestamp) -> Self {
        let message = if self.files.is_empty() {
            "There was nothing to change.".to_owned()
        } else {
            format!("{} changed, and that has proven itself.", self.paths())
        };
        self.at(Stage::Confirmed, "Confirmed", message, now)
    }

    /// The originals are coming back. What is said already holds until they have.
    pub fn undoing(self, why: Termination) -> Self {
        let stage = Stage::Undoing(why.end);
        Self { stage, reason: why.reason.to_owned(), message: why.message, ..self }
    }

    /// The originals are back. `notes` are sentences about what was found.
    pub fn undone(self, end: End, notes: &[String], now: Timestamp) -> Self {
        let mut message = self.message.clone();
        for note in notes {
            message.push(' ');
            message.push_str(note);
        }
        let ended = Self { message, since: now, trouble: None, ..self };
        Self { stage: Stage::Ended(end), ..ended }
    }

    /// The attempt is at its end, with what somebody else has put in the place of what it changed.
    pub fn left(self, end: End, restored: &Restored, now: Timestamp) -> Self {
        match restored.left {
            false => self.undone(end, &restored.notes, now),
            true => {
                let left = Self { reason: "FileAltered".to_owned(), ..self };
                left.undone(End::Failed, &restored.notes, now)
            }
        }
    }

    /// The originals cannot come back yet.
    pub fn troubled(self, trouble: String, now: Timestamp) -> Self {
        let since = if self.trouble.is_none() { now } else { self.since };
        Self { trouble: Some(trouble), since, ..self }
    }

    /// Whether nothing will come of it any more.
    pub fn is_ended(&self) -> bool {
        matches!(self.stage, Stage::Confirmed | Stage::Ended(_))
    }

    /// Whether an attempt of this id was made already.
    pub fn knows(&self, id: &str) -> bool {
        self.id == id || self.earlier.iter().any(|earlier| earlier == id)
    }

    /// Whether its time is over. A clock that shows a time before the attempt tells nothing, and
    /// what is unknown is not safe.
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        is_overdue(self.began, self.deadline, now)
    }

    /// What is to be said of it; `None` while what was said last still holds.
    pub fn report(&self) -> Option<ChangeReport> {
        let (phase, reason) = match (self.stage, &self.trouble) {
            (Stage::Kept | Stage::Edited | Stage::Restarted, _) => {
                (Phase::Preparing, &*self.reason)
            }
            (Stage::Applied, _) => (Phase::Applied, &*self.reason),
            (Stage::Confirmed, _) => (Phase::Confirmed, &*self.reason),
            (Stage::Ended(end), _) => (end.phase(), &*self.reason),
            (Stage::Undoing(_), Some(_)) => (Phase::Failed, "RestoreFailed"),
            (Stage::Undoing(_), None) => return None,
        };
        let message = match &self.trouble {
            Some(trouble) => format!("{} {trouble}", self.message),
            None => self.message.clone(),
        };
        Some(ChangeReport {
            id: self.id.clone(),
            phase: phase.as_str().to_owned(),
            reason: reason.to_owned(),
            message,
            since: whole_seconds(self.since),
            boot_id: None,
            machine_id: None,
        })
    }

    /// The paths of its files, for a sentence that begins with them.
    pub fn paths(&self) -> String {
        let paths: Vec<&str> = self.files.iter().map(|file| &*file.path).collect();
        format!("{} {}", paths.join(", "), if paths.len() == 1 { "is" } else { "are" })
    }

    fn at(self, stage: Stage, reason: &str, message: String, now: Timestamp) -> Self {
        Self { stage, reason: reason.to_owned(), message, since: now, ..self }
    }
}

impl End {
    /// The phase in reports.
    pub fn phase(self) -> Phase {
        match self {
            Self::RolledBack => Phase::RolledBack,
            Self::Refused => Phase::Refused,
            Self::Failed => Phase::Failed,
        }
    }
}

impl Termination {
    /// It goes back.
    pub fn rolled_back(reason: &'static str, message: String) -> Self {
        Self { end: End::RolledBack, reason, message }
    }

    /// It is not permitted.
    pub fn refused(reason: &'static str, message: String) -> Self {
        Self { end: End::Refused, reason, message }
    }

    /// It is not begun for something that passes.
    pub fn refused_for_now(refusal: PassingRefusal, message: String) -> Self {
        Self::refused(refusal.as_str(), message)
    }

    /// It cannot be made.
    pub fn failed(reason: &'static str, message: String) -> Self {
        Self { end: End::Failed, reason, message }
    }
}

fn is_overdue(began: Timestamp, deadline: Timestamp, now: Timestamp) -> bool {
    now >= deadline || began.duration_since(now) > SLEW
}

/// The ids before a new attempt's, the latest first.
fn earlier(before: Option<&Journal>) -> Vec<String> {
    let Some(before) = before else { return Vec::new() };
    let ids = std::iter::once(&before.id).chain(&before.earlier);
    ids.take(REMEMBERED).cloned().collect()
}
