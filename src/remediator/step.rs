//! What comes next, from what is written down and what is wanted. Pure.
//!
//! Every act may be cut short at any point and is then decided again, so each of them can be done
//! twice.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::journal::{Journal, Stage, Why};
use crate::api::{Change, ChangeKind};

/// What the apiserver says is wanted of the node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wanted<'a> {
    /// It has not told since the process began, or there is no StreamingNode: what was wanted last
    /// goes on, and nothing is begun.
    Unknown,
    /// No change.
    Nothing,
    /// This one.
    Change(&'a Change),
}

/// What is seen on the node and in the cluster.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The kind of changes that this process makes.
    pub kind: ChangeKind,
    /// What is wanted.
    pub wanted: Wanted<'a>,
    /// The id of the change in the last report that the apiserver holds.
    pub reported: Option<&'a str>,
    /// Who holds the timer beside this process.
    pub guard: Guard,
    /// Whether a file that was changed holds its original again.
    pub reverted: bool,
    /// Whether an ended attempt has left something behind.
    pub untidy: bool,
    /// The time.
    pub now: Timestamp,
    /// How long a guard may take to come up.
    pub arming: Duration,
}

/// Who holds the timer beside the remediator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Nobody has to: a kubelet that does not start breaks nothing that runs, and the remediator's own
    /// pod is among that.
    NotNeeded,
    /// Its manifest is not in the folder.
    Absent,
    /// Its manifest is there, and it has not said that it watches over this attempt.
    Placed,
    /// It watches over this attempt.
    Armed,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Nothing, until something changes.
    Rest,
    /// Ask the apiserver whether the change is permitted, and begin it, or refuse.
    Begin,
    /// Put the guard into the manifest folder.
    PlaceGuard,
    /// Ask once more, and write the files.
    Edit,
    /// Write down that the kubelet is restarted.
    Restart,
    /// See to it that the kubelet is restarted, and whether it has come back.
    Prove,
    /// Write down that the change stays.
    Confirm,
    /// Write down why, and put the originals back.
    Undo(Why),
    /// Go on putting the originals back.
    GoOnUndoing,
    /// Take away the guard, and what else only an attempt in progress needs.
    Tidy,
    /// Write down that a change is lost: it was reported, and nothing is known of it.
    Lose,
}

/// Decides. `journal` is the attempt that was made last.
pub fn decide(journal: Option<&Journal>, seen: &Seen<'_>) -> Act {
    match journal {
        Some(journal) if !journal.is_ended() => proceed(journal, seen),
        _ if seen.untidy || matches!(seen.guard, Guard::Placed | Guard::Armed) => Act::Tidy,
        _ => start(journal, seen),
    }
}

fn start(journal: Option<&Journal>, seen: &Seen<'_>) -> Act {
    let Wanted::Change(change) = seen.wanted else { return Act::Rest };
    if change.kind != seen.kind || journal.is_some_and(|journal| journal.knows(&change.id)) {
        return Act::Rest;
    }
    if change.confirmed || seen.reported == Some(&change.id) {
        return Act::Lose;
    }
    Act::Begin
}

fn proceed(journal: &Journal, seen: &Seen<'_>) -> Act {
    let (own, others) = match seen.wanted {
        Wanted::Unknown => (None, false),
        Wanted::Nothing => (None, true),
        Wanted::Change(change) if change.id == journal.id => (Some(change), false),
        Wanted::Change(_) => (None, true),
    };
    let stage = journal.stage;
    if matches!(stage, Stage::Undoing(_)) {
        return Act::GoOnUndoing;
    }
    // What has proven itself stays, however late that is learned.
    if stage == Stage::Applied && own.is_some_and(|change| change.confirmed) && !seen.reverted {
        return Act::Confirm;
    }
    if others {
        let message = "The change is no longer wanted.".to_owned();
        return Act::Undo(Why::rolled_back("Withdrawn", message));
    }
    if journal.is_overdue(seen.now) {
        return Act::Undo(overdue(journal));
    }
    if seen.reverted {
        let message = "The original has been put back by somebody else.".to_owned();
        return Act::Undo(Why::rolled_back("Reverted", message));
    }
    let guarded = journal.files.is_empty() || matches!(seen.guard, Guard::NotNeeded | Guard::Armed);
    match stage {
        Stage::Kept if !guarded && waited(journal, seen) => Act::Undo(unguarded(seen)),
        _ if !guarded && seen.guard == Guard::Absent => Act::PlaceGuard,
        // Only while it is known to be wanted.
        Stage::Kept if guarded && own.is_some() => Act::Edit,
        Stage::Edited if own.is_some() => Act::Restart,
        Stage::Restarted => Act::Prove,
        _ => Act::Rest,
    }
}

fn waited(journal: &Journal, seen: &Seen<'_>) -> bool {
    let limit = SignedDuration::try_from(seen.arming).unwrap_or(SignedDuration::MAX);
    seen.now.duration_since(journal.began) >= limit
}

/// Why an attempt goes back whose time is over.
pub fn overdue(journal: &Journal) -> Why {
    let deadline = journal.deadline.strftime("%FT%TZ");
    match journal.stage {
        Stage::Restarted => Why::rolled_back(
            "KubeletNotReady",
            format!(
                "By {deadline} the kubelet had not come back without the flag, or its Node was not \
                 ready. Look at the kubelet's log of that time."
            ),
        ),
        Stage::Applied => Why::rolled_back(
            "DeadlineExceeded",
            format!("The change had not proven itself by {deadline}."),
        ),
        _ => Why::rolled_back(
            "DeadlineExceeded",
            format!("The change could not be made by {deadline}."),
        ),
    }
}

fn unguarded(seen: &Seen<'_>) -> Why {
    Why::failed(
        "GuardNotArmed",
        format!(
            "The guard, a static pod that holds the timer, did not start within {} s, so nothing \
             was changed. See whether the kubelet's staticPodPath is the folder of the apiserver's \
             manifest, and look at the pod sluice-guard of this node in kube-system.",
            seen.arming.as_secs()
        ),
    )
}

#[cfg(test)]
mod tests;
