use super::*;
use crate::{
    api::ChangeKind,
    remediator::{
        journal::End,
        test_support::{MANIFEST, Node, ORIGINAL, advance, at, change, fresh, now, settle, wants},
    },
};

const MINUTE: Duration = Duration::from_secs(60);

/// An attempt with the id `a` that began at second 0.
fn journal(stage: Stage) -> Journal {
    fresh();
    Journal {
        stage,
        ..Journal::begun(&change("a", ChangeKind::ApiserverGate), Vec::new(), None, now())
    }
}

#[test]
fn every_case() {
    let ended = Stage::Ended(End::RolledBack);
    for (stage, own, second, watched, expected) in [
        (Stage::Kept, "a", 1, 1, "Arm"),
        (Stage::Applied, "a", 179, 1, "Arm"),
        // Started for another attempt: it does not say that it watches over this one.
        (Stage::Applied, "z", 1, 1, "Wait"),
        (Stage::Kept, "a", 180, 1, "Undo DeadlineExceeded"),
        (Stage::Applied, "a", 180, 1, "Undo DeadlineExceeded"),
        (Stage::Applied, "z", 180, 1, "Undo DeadlineExceeded"),
        (Stage::Applied, "a", -60, 1, "Undo DeadlineExceeded"),
        (Stage::Undoing(End::RolledBack), "a", 1, 1, "GoOnUndoing"),
        (Stage::Undoing(End::Failed), "z", 500, 1, "GoOnUndoing"),
        (Stage::Confirmed, "a", 59, 100, "Wait"),
        (Stage::Confirmed, "a", 60, 100, "Leave"),
        (ended, "a", 59, 100, "Wait"),
        (ended, "a", 60, 59, "Wait"),
        (ended, "a", 60, 60, "Leave"),
    ] {
        let watched = Duration::from_secs(watched);
        let act = match decide(Some(&journal(stage)), own, at(second), watched, MINUTE) {
            GuardAction::Undo(why) => format!("Undo {}", why.reason),
            act => format!("{act:?}"),
        };
        assert_eq!(act, expected, "{stage:?} {own} {second} {watched:?}");
    }
    assert_eq!(decide(None, "a", at(0), MINUTE / 2, MINUTE), GuardAction::Wait);
    assert_eq!(decide(None, "a", at(0), MINUTE, MINUTE), GuardAction::Leave);
}

#[tokio::test]
async fn it_goes_by_itself_where_no_remediator_takes_it_away() {
    fresh();
    let node = Node::new();
    let change = change("a", ChangeKind::ApiserverGate);
    let mut remediator = node.gate_remediator();
    settle(&mut remediator, &wants(&change)).await;
    let guard = node.guard().unwrap();
    guard.turn().await.unwrap();
    settle(&mut remediator, &wants(&change)).await;
    drop(remediator);
    advance(180);
    guard.turn().await.unwrap();
    assert_eq!(node.read(MANIFEST), ORIGINAL);
    let mut guard = node.guard().unwrap();
    guard.settings.leave = Duration::ZERO;
    guard.turn().await.unwrap();
    assert_eq!(node.names_beside(MANIFEST), ["kube-apiserver.yaml"]);
}

#[tokio::test]
async fn it_says_that_it_watches_every_few_seconds() {
    fresh();
    let node = Node::new();
    let mut remediator = node.gate_remediator();
    settle(&mut remediator, &wants(&change("a", ChangeKind::ApiserverGate))).await;
    let guard = node.guard().unwrap();
    let folder = node.store(ChangeKind::ApiserverGate).folder().to_owned();
    for (second, said) in [(0, 0), (3, 0), (4, 4), (7, 4), (8, 8)] {
        crate::remediator::test_support::set_clock(second);
        guard.turn().await.unwrap();
        let armed = Heartbeat::read(&folder).unwrap();
        assert_eq!(armed, Heartbeat { id: "a".to_owned(), at: at(said) });
        assert!(armed.watches("a", now()) && !armed.watches("b", now()));
    }
}
