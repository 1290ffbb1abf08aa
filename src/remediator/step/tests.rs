use proptest::prelude::*;

use super::*;
use crate::{
    api::{GateSetting, Permit},
    remediator::{
        file::Owner,
        journal::{End, Touched},
    },
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

fn change(id: &str, confirmed: bool) -> Change {
    Change {
        id: id.to_owned(),
        kind: ChangeKind::ApiserverGate,
        gate: Some(GateSetting::Disabled),
        policy: "cluster".to_owned(),
        verdict: Permit { resource_version: "7".to_owned(), generation: 1, at: Time(at(0)) },
        deadline_seconds: 180,
        confirmed,
    }
}

fn touched() -> Touched {
    Touched {
        path: "/m".to_owned(),
        original: "0-m.original".to_owned(),
        changed: "0-m.changed".to_owned(),
        owner: Owner { mode: 0o600, uid: 0, gid: 0 },
    }
}

/// An attempt with the id `a` that began at second 0.
fn journal(stage: Stage) -> Journal {
    Journal { stage, ..Journal::begun(&change("a", false), vec![touched()], None, at(0)) }
}

fn seen<'a>(wanted: Desired<'a>, guard: Guard, second: i64) -> Observed<'a> {
    Observed {
        kind: ChangeKind::ApiserverGate,
        wanted,
        reported: None,
        guard,
        reverted: false,
        untidy: false,
        now: at(second),
        arming: Duration::from_secs(60),
    }
}

/// The act's name, and with what reason something goes back.
fn name(act: &Action) -> String {
    match act {
        Action::Undo(why) => format!("Undo {} {}", why.end.phase().as_str(), why.reason),
        act => format!("{act:?}"),
    }
}

#[test]
fn an_attempt_in_progress() {
    let (own, confirmed, other) = (change("a", false), change("a", true), change("b", false));
    let (own, confirmed, other) =
        (Desired::Change(&own), Desired::Change(&confirmed), Desired::Change(&other));
    let (unknown, nothing) = (Desired::Unknown, Desired::Nothing);
    use Guard::{Absent, Armed, NotNeeded, Placed};
    use Stage::{Applied, Edited, Kept, Restarted, Undoing};
    for (stage, wanted, guard, second, expected) in [
        (Kept, own, Absent, 1, "PlaceGuard"),
        (Kept, own, Placed, 1, "Rest"),
        (Kept, own, Placed, 59, "Rest"),
        (Kept, own, Placed, 60, "Undo Failed GuardNotArmed"),
        (Kept, own, Armed, 1, "Edit"),
        (Kept, own, NotNeeded, 1, "Edit"),
        // It is not known to be wanted any more: nothing is written.
        (Kept, unknown, Armed, 1, "Rest"),
        (Kept, nothing, Armed, 1, "Undo RolledBack Withdrawn"),
        (Kept, other, Armed, 1, "Undo RolledBack Withdrawn"),
        (Kept, own, Armed, 180, "Undo RolledBack DeadlineExceeded"),
        // What was never made cannot have proven itself.
        (Kept, confirmed, Armed, 180, "Undo RolledBack DeadlineExceeded"),
        (Edited, own, NotNeeded, 1, "Restart"),
        (Edited, unknown, NotNeeded, 1, "Rest"),
        (Edited, own, NotNeeded, 180, "Undo RolledBack DeadlineExceeded"),
        (Restarted, own, NotNeeded, 1, "Prove"),
        (Restarted, unknown, NotNeeded, 1, "Prove"),
        (Restarted, own, NotNeeded, 180, "Undo RolledBack KubeletNotReady"),
        (Applied, own, Armed, 179, "Rest"),
        (Applied, unknown, Armed, 179, "Rest"),
        (Applied, own, Absent, 1, "PlaceGuard"),
        (Applied, own, Placed, 100, "Rest"),
        (Applied, confirmed, Armed, 1, "Confirm"),
        (Applied, confirmed, Absent, 1, "Confirm"),
        (Applied, confirmed, Armed, 500, "Confirm"),
        (Applied, own, Armed, 180, "Undo RolledBack DeadlineExceeded"),
        (Applied, unknown, Armed, 180, "Undo RolledBack DeadlineExceeded"),
        (Applied, nothing, Armed, 1, "Undo RolledBack Withdrawn"),
        // The clock shows a time before the attempt.
        (Applied, own, Armed, -6, "Undo RolledBack DeadlineExceeded"),
        (Applied, own, Armed, -4, "Rest"),
        (Undoing(End::RolledBack), confirmed, Armed, 1, "GoOnUndoing"),
        (Undoing(End::Failed), own, Absent, 1, "GoOnUndoing"),
    ] {
        let act = decide(Some(&journal(stage)), &seen(wanted, guard, second));
        assert_eq!(name(&act), expected, "{stage:?} {wanted:?} {guard:?} {second}");
        if let Action::Undo(why) = act {
            assert!(why.message.ends_with('.'), "{}", why.message);
        }
    }
}

#[test]
fn an_original_that_is_there_again_proves_nothing() {
    let (own, confirmed) = (change("a", false), change("a", true));
    for change in [&own, &confirmed] {
        let seen = Observed { reverted: true, ..seen(Desired::Change(change), Guard::Armed, 1) };
        let act = decide(Some(&journal(Stage::Applied)), &seen);
        assert_eq!(name(&act), "Undo RolledBack Reverted");
    }
}

#[test]
fn what_touches_no_file_needs_no_guard() {
    let own = change("a", false);
    let journal = Journal { files: Vec::new(), ..journal(Stage::Applied) };
    let act =
        |second| name(&decide(Some(&journal), &seen(Desired::Change(&own), Guard::Absent, second)));
    assert_eq!(act(1), "Rest");
    assert_eq!(act(180), "Undo RolledBack DeadlineExceeded");
}

#[test]
fn beginnings() {
    let (new, confirmed) = (change("n", false), change("n", true));
    let kubelet = Change { kind: ChangeKind::KubeletFlag, ..new.clone() };
    let ended = |stage| {
        let before = Journal { id: "n".to_owned(), ..journal(Stage::Confirmed) };
        let begun = Journal::begun(&change("a", false), vec![touched()], Some(&before), at(0));
        Journal { stage, ..begun }
    };
    let other = journal(Stage::Ended(End::RolledBack));
    for (journal, wanted, expected) in [
        (None, Desired::Unknown, Action::Rest),
        (None, Desired::Nothing, Action::Rest),
        (None, Desired::Change(&kubelet), Action::Rest),
        (None, Desired::Change(&new), Action::Begin),
        (None, Desired::Change(&confirmed), Action::Lose),
        (Some(&other), Desired::Change(&new), Action::Begin),
        (Some(&other), Desired::Change(&change("a", false)), Action::Rest),
        // An attempt before the last one.
        (Some(&ended(Stage::Confirmed)), Desired::Change(&new), Action::Rest),
        (Some(&ended(Stage::Ended(End::Refused))), Desired::Change(&new), Action::Rest),
    ] {
        assert_eq!(decide(journal, &seen(wanted, Guard::Absent, 1)), expected, "{wanted:?}");
        // First what is left of the last one goes.
        assert_eq!(decide(journal, &seen(wanted, Guard::Placed, 1)), Action::Tidy);
        let untidy = Observed { untidy: true, ..seen(wanted, Guard::NotNeeded, 1) };
        assert_eq!(decide(journal, &untidy), Action::Tidy);
    }
    // It was reported, and nothing is written down.
    let lost = Observed { reported: Some("n"), ..seen(Desired::Change(&new), Guard::Absent, 1) };
    assert_eq!(decide(None, &lost), Action::Lose);
}

proptest! {
    /// Whatever is wanted and whoever watches, at whatever time.
    #[test]
    fn no_edit_without_a_timer_and_nothing_unproven_after_it(
        stage in prop::sample::select(vec![
            Stage::Kept, Stage::Edited, Stage::Restarted, Stage::Applied,
            Stage::Undoing(End::RolledBack), Stage::Confirmed, Stage::Ended(End::Failed),
        ]),
        id in prop::sample::select(vec!["a", "b"]),
        confirmed: bool,
        told in 0..3,
        guard in prop::sample::select(vec![
            Guard::NotNeeded, Guard::Absent, Guard::Placed, Guard::Armed,
        ]),
        untidy: bool,
        second in -400i64..400,
    ) {
        let wanted = change(id, confirmed);
        let wanted = match told {
            0 => Desired::Unknown,
            1 => Desired::Nothing,
            _ => Desired::Change(&wanted),
        };
        let journal = journal(stage);
        let act = decide(Some(&journal), &Observed { untidy, ..seen(wanted, guard, second) });
        let own = matches!(wanted, Desired::Change(change) if change.id == "a");
        if act == Action::Edit {
            prop_assert!(own && matches!(guard, Guard::NotNeeded | Guard::Armed));
            prop_assert!(second < 180 && stage == Stage::Kept);
        }
        if !journal.is_ended() && !(-5..180).contains(&second) {
            let back = matches!(act, Action::Undo(_) | Action::GoOnUndoing);
            prop_assert!(back || act == Action::Confirm && own && confirmed, "{act:?}");
        }
        if act == Action::Confirm {
            prop_assert!(own && confirmed && stage == Stage::Applied);
        }
        if journal.is_ended() && id == "a" {
            prop_assert!(matches!(act, Action::Rest | Action::Tidy), "{act:?}");
        }
    }
}
