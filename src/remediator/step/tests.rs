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

fn seen<'a>(wanted: Wanted<'a>, guard: Guard, second: i64) -> Seen<'a> {
    Seen {
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
fn name(act: &Act) -> String {
    match act {
        Act::Undo(why) => format!("Undo {} {}", why.end.as_str(), why.reason),
        act => format!("{act:?}"),
    }
}

#[test]
fn an_attempt_in_progress() {
    let (own, confirmed, other) = (change("a", false), change("a", true), change("b", false));
    let (own, confirmed, other) =
        (Wanted::Change(&own), Wanted::Change(&confirmed), Wanted::Change(&other));
    let (unknown, nothing) = (Wanted::Unknown, Wanted::Nothing);
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
        if let Act::Undo(why) = act {
            assert!(why.message.ends_with('.'), "{}", why.message);
        }
    }
}

#[test]
fn an_original_that_is_there_again_proves_nothing() {
    let (own, confirmed) = (change("a", false), change("a", true));
    for change in [&own, &confirmed] {
        let seen = Seen { reverted: true, ..seen(Wanted::Change(change), Guard::Armed, 1) };
        let act = decide(Some(&journal(Stage::Applied)), &seen);
        assert_eq!(name(&act), "Undo RolledBack Reverted");
    }
}

#[test]
fn what_touches_no_file_needs_no_guard() {
    let own = change("a", false);
    let journal = Journal { files: Vec::new(), ..journal(Stage::Applied) };
    let act =
        |second| name(&decide(Some(&journal), &seen(Wanted::Change(&own), Guard::Absent, second)));
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
        (None, Wanted::Unknown, Act::Rest),
        (None, Wanted::Nothing, Act::Rest),
        (None, Wanted::Change(&kubelet), Act::Rest),
        (None, Wanted::Change(&new), Act::Begin),
        (None, Wanted::Change(&confirmed), Act::Lose),
        (Some(&other), Wanted::Change(&new), Act::Begin),
        (Some(&other), Wanted::Change(&change("a", false)), Act::Rest),
        // An attempt before the last one.
        (Some(&ended(Stage::Confirmed)), Wanted::Change(&new), Act::Rest),
        (Some(&ended(Stage::Ended(End::Refused))), Wanted::Change(&new), Act::Rest),
    ] {
        assert_eq!(decide(journal, &seen(wanted, Guard::Absent, 1)), expected, "{wanted:?}");
        // First what is left of the last one goes.
        assert_eq!(decide(journal, &seen(wanted, Guard::Placed, 1)), Act::Tidy);
        let untidy = Seen { untidy: true, ..seen(wanted, Guard::NotNeeded, 1) };
        assert_eq!(decide(journal, &untidy), Act::Tidy);
    }
    // It was reported, and nothing is written down.
    let lost = Seen { reported: Some("n"), ..seen(Wanted::Change(&new), Guard::Absent, 1) };
    assert_eq!(decide(None, &lost), Act::Lose);
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
            0 => Wanted::Unknown,
            1 => Wanted::Nothing,
            _ => Wanted::Change(&wanted),
        };
        let journal = journal(stage);
        let act = decide(Some(&journal), &Seen { untidy, ..seen(wanted, guard, second) });
        let own = matches!(wanted, Wanted::Change(change) if change.id == "a");
        if act == Act::Edit {
            prop_assert!(own && matches!(guard, Guard::NotNeeded | Guard::Armed));
            prop_assert!(second < 180 && stage == Stage::Kept);
        }
        if !journal.is_ended() && !(-5..180).contains(&second) {
            let back = matches!(act, Act::Undo(_) | Act::GoOnUndoing);
            prop_assert!(back || act == Act::Confirm && own && confirmed, "{act:?}");
        }
        if act == Act::Confirm {
            prop_assert!(own && confirmed && stage == Stage::Applied);
        }
        if journal.is_ended() && id == "a" {
            prop_assert!(matches!(act, Act::Rest | Act::Tidy), "{act:?}");
        }
    }
}
