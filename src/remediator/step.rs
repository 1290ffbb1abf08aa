//! What comes next, from what is written down and what is wanted. Pure.
//!
//! Every act may be cut short at any point and is then decided again, so each of them can be done
//! twice.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::journal::{Journal, Stage, Termination};
use crate::api::{Change, ChangeKind};

/// What the apiserver says is wanted of the node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Desired<'a> {
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
pub struct Observed<'a> {
    /// The kind of changes that this process makes.
    pub kind: ChangeKind,
    /// What is wanted.
    pub wanted: Desired<'a>,
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
    /// Nobody has to: a kubelet that does not start breaks nothing that runs, and the remediator's
    /// own pod is among that.
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
pub enum Action {
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
    Undo(Termination),
    /// Go on putting the originals back.
    GoOnUndoing,
    /// Take away the guard, and what else only an attempt in progress needs.
    Tidy,
    /// Write down that a change is lost: it was reported, and nothing is known of it.
    Lose,
}

/// Decides. `journal` is the attempt that was made last.
pub fn decide(journal: Option<&Journal>, seen: &Observed<'_>) -> Action {
    match journal {
        Some(journal) if !journal.is_ended() => proceed(journal, seen),
        _ if seen.untidy || matches!(seen.guard, Guard::Placed | Guard::Armed) => Action::Tidy,
        _ => start(journal, seen),
    }
}

fn start(journal: Option<&Journal>, seen: &Observed<'_>) -> Action {
    let Desired::Change(change) = seen.wanted else { return Action::Rest };
    if change.kind != seen.kind || journal.is_some_and(|journal| journal.knows(&change.id)) {
        return Action::Rest;
    }
    if change.confirmed || seen.reported == Some(&change.id) {
        return Action::Lose;
    }
    Action::Begin
}

fn proceed(journal: &Journal, seen: &Observed<'_>) -> Action {
    let (own, others) = match seen.wanted {
        Desired::Unknown => (None, false),
        Desired::Nothing => (None, true),
        Desired::Change(change) if change.id == journal.id => (Some(change), false),
        Desired::Change(_) => (None, true),
    };
    let stage = journal.stage;
    if matches!(stage, Stage::Undoing(_)) {
        return Action::GoOnUndoing;
    }
    // What has proven itself stays, however late that is learned.
    if stage == Stage::Applied && own.is_some_and(|change| change.confirmed) && !seen.reverted {
        return Action::Confirm;
    }
    if others {
        let message = "The change is no longer wanted.".to_owned();
        return Action::Undo(Termination::rolled_back("Withdrawn", message));
    }
    if journal.is_overdue(seen.now) {
        return Action::Undo(overdue(journal));
    }
    if seen.reverted {
        let message = "The original has been put back by somebody else.".to_owned();
        return Action::Undo(Termination::rolled_back("Reverted", message));
    }
    let guarded = journal.files.is_empty() || matches!(seen.guard, Guard::NotNeeded | Guard::Armed);
    match stage {
        Stage::Kept if !guarded && waited(journal, seen) => Action::Undo(unguarded(seen)),
        _ if !guarded && seen.guard == Guard::Absent => Action::PlaceGuard,
        // Only while it is known to be wanted.
        Stage::Kept if guarded && own.is_some() => Action::Edit,
        Stage::Edited if own.is_some() => Action::Restart,
        Stage::Restarted => Action::Prove,
        _ => Action::Rest,
    }
}

fn waited(journal: &Journal, seen: &Observed<'_>) -> bool {
    let limit = SignedDuration::try_from(seen.arming).unwrap_or(SignedDuration::MAX);
    seen.now.duration_since(journal.began) >= limit
}

/// Why an attempt goes back whose time is over.
pub fn overdue(journal: &Journal) -> Termination {
    let deadline = journal.deadline.strftime("%FT%TZ");
    match journal.stage {
        Stage::Restarted => Termination::rolled_back(
            "KubeletNotReady",
            format!(
                "By {deadline} the kubelet had not come back without the flag, or its Node was not \
                 ready. Look at the kubelet's log of that time."
            ),
        ),
        Stage::Applied => Termination::rolled_back(
            "DeadlineExceeded",
            format!("The change had not proven itself by {deadline}."),
        ),
        _ => Termination::rolled_back(
            "DeadlineExceeded",
            format!("The change could not be made by {deadline}."),
        ),
    }
}

fn unguarded(seen: &Observed<'_>) -> Termination {
    Termination::failed(
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
