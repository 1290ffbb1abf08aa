mod crash;
mod race;

use super::*;
use crate::{
    api::ChangeKind,
    remediator::{
        file::fault::{Fault, script},
        test_support::{
            MANIFEST, NOTHING_WANTED, Node, ORIGINAL, advance, at, change, confirms, fresh,
            set_clock, settle, wants,
        },
    },
};

const GATE: ChangeKind = ChangeKind::ApiserverGate;

/// A node whose manifest has been changed.
async fn applied(id: &str) -> (Node, Change) {
    fresh();
    let node = Node::new();
    let change = change(id, GATE);
    let mut remediator = node.gate_remediator();
    settle(&mut remediator, &wants(&change)).await;
    assert_eq!(
        (node.said().as_str(), node.read(MANIFEST).as_str()),
        ("Preparing Preparing", ORIGINAL)
    );
    node.guard().unwrap().turn().await.unwrap();
    settle(&mut remediator, &wants(&change)).await;
    assert_eq!(node.said(), "Applied Applied");
    assert!(node.read(MANIFEST).contains("StreamingProxyRedirects=false"));
    (node, change)
}

fn is_tidy(node: &Node) -> bool {
    node.names_beside(MANIFEST) == ["kube-apiserver.yaml"]
}

#[tokio::test]
async fn a_change_that_is_confirmed_stays() {
    let (node, change) = applied("a").await;
    let original = node.state().join("ApiserverGate/0-kube-apiserver.yaml.original");
    assert_eq!(std::fs::read_to_string(original).unwrap(), ORIGINAL);
    let report = node.report().unwrap();
    assert!(report.message.contains("the original is kept in"), "{}", report.message);

    settle(&mut node.gate_remediator(), &confirms(&change)).await;
    assert_eq!(node.said(), "Confirmed Confirmed");
    assert!(is_tidy(&node));
    // Whatever comes later, it stays.
    for (second, desired) in [
        (1, wants(&change)),
        (1_000, wants(&change)),
        (1_000, NOTHING_WANTED),
        (1_000, DesiredChange::Nothing),
    ] {
        set_clock(second);
        settle(&mut node.gate_remediator(), &desired).await;
        assert_eq!(node.said(), "Confirmed Confirmed");
        assert!(node.read(MANIFEST).contains("StreamingProxyRedirects=false"));
    }
}

#[tokio::test]
async fn the_original_comes_back_when_the_time_is_over_or_nobody_wants_the_change() {
    let other = change("b", GATE);
    for (seconds, desired, expected) in [
        (180, None, "RolledBack DeadlineExceeded"),
        (180, Some(DesiredChange::Nothing), "RolledBack DeadlineExceeded"),
        (1, Some(NOTHING_WANTED), "RolledBack Withdrawn"),
        (1, Some(wants(&other)), "RolledBack Withdrawn"),
    ] {
        let (node, change) = applied("a").await;
        advance(seconds);
        let desired = desired.unwrap_or_else(|| wants(&change));
        // One turn after the other: the next one may begin another change.
        let mut remediator = node.gate_remediator();
        remediator.turn(&desired).await.unwrap();
        assert_eq!(node.said(), expected);
        assert_eq!(node.read(MANIFEST), ORIGINAL);
        remediator.turn(&desired).await.unwrap();
        assert!(is_tidy(&node));
        // It is not made again.
        settle(&mut remediator, &wants(&change)).await;
        assert_eq!((node.said().as_str(), node.read(MANIFEST).as_str()), (expected, ORIGINAL));
    }
}

#[tokio::test]
async fn the_guard_puts_the_original_back_by_itself() {
    let (node, change) = applied("a").await;
    let guard = node.guard().unwrap();
    advance(179);
    guard.turn().await.unwrap();
    assert_ne!(node.read(MANIFEST), ORIGINAL);
    advance(1);
    guard.turn().await.unwrap();
    assert_eq!(node.read(MANIFEST), ORIGINAL);
    // The remediator that comes back says so, and takes the guard away.
    settle(&mut node.gate_remediator(), &confirms(&change)).await;
    assert_eq!(node.said(), "RolledBack DeadlineExceeded");
    assert_eq!(node.read(MANIFEST), ORIGINAL);
    assert!(is_tidy(&node));
}

#[tokio::test]
async fn a_manifest_that_says_so_already_is_left_alone() {
    let (node, first) = applied("a").await;
    let mut remediator = node.gate_remediator();
    settle(&mut remediator, &confirms(&first)).await;
    let second = change("b", GATE);
    settle(&mut remediator, &wants(&second)).await;
    assert_eq!(node.said(), "Applied AlreadySo");
    assert!(is_tidy(&node));
    settle(&mut remediator, &confirms(&second)).await;
    assert_eq!(node.said(), "Confirmed Confirmed");
    // Neither of the two is made again.
    for change in [&first, &second] {
        settle(&mut remediator, &wants(change)).await;
        assert_eq!(node.said(), "Confirmed Confirmed");
    }
}

#[tokio::test]
async fn nothing_is_changed_without_a_guard() {
    fresh();
    let node = Node::new();
    let change = change("a", GATE);
    let mut remediator = node.gate_remediator();
    settle(&mut remediator, &wants(&change)).await;
    assert!(node.guard_is_placed());
    // One that has watched over another attempt, or long ago, does not count.
    let folder = node.store(GATE).folder().to_owned();
    let armed =
        |id: &str, second| crate::remediator::guard::Heartbeat { id: id.into(), at: at(second) };
    for armed in [armed("z", 0), armed("a", -11)] {
        armed.write(&folder).unwrap();
        settle(&mut remediator, &wants(&change)).await;
        assert_eq!(node.said(), "Preparing Preparing");
    }
    advance(60);
    settle(&mut remediator, &wants(&change)).await;
    assert_eq!(node.said(), "Failed GuardNotArmed");
    assert_eq!(node.read(MANIFEST), ORIGINAL);
    assert!(is_tidy(&node));
}

#[tokio::test]
async fn a_change_is_refused_while_it_begins_and_again_before_it_is_made() {
    fresh();
    let node = Node::new();
    let block = |node: &Node| {
        node.answers.edit(|known| known.scene.as_mut().unwrap().blocking = vec!["old1".to_owned()]);
    };
    let first = change("a", GATE);
    settle(&mut node.gate_remediator(), &wants(&first)).await;
    block(&node);
    node.guard().unwrap().turn().await.unwrap();
    settle(&mut node.gate_remediator(), &wants(&first)).await;
    assert_eq!(node.said(), "Refused NodesBlock");
    assert!(node.report().unwrap().message.contains("the gate off: old1."));
    assert_eq!(node.read(MANIFEST), ORIGINAL);
    assert!(is_tidy(&node));

    settle(&mut node.gate_remediator(), &wants(&change("b", GATE))).await;
    assert_eq!(
        (node.said().as_str(), node.report().unwrap().id.as_str()),
        ("Refused NodesBlock", "b")
    );
    assert!(is_tidy(&node));

    node.write(MANIFEST, "kind: Pod\n");
    node.answers.edit(|known| known.scene.as_mut().unwrap().blocking.clear());
    settle(&mut node.gate_remediator(), &wants(&change("c", GATE))).await;
    assert_eq!(node.said(), "Refused EditRefused");
}

#[tokio::test]
async fn while_the_apiserver_is_away_nothing_begins_until_the_decision_is_old() {
    fresh();
    let node = Node::new();
    let mut scene = None;
    node.answers.edit(|known| scene = known.scene.take());
    let change = change("a", GATE);
    let mut remediator = node.gate_remediator();
    for _ in 0..60 {
        advance(1);
        settle(&mut remediator, &wants(&change)).await;
        assert_eq!(node.said(), "");
    }
    advance(1);
    settle(&mut remediator, &wants(&change)).await;
    assert_eq!(node.said(), "Refused VerdictStale");
}

#[tokio::test]
async fn what_somebody_else_has_written_is_kept() {
    // Before the edit: it is not made.
    fresh();
    let node = Node::new();
    let change = change("a", GATE);
    let mut remediator = node.gate_remediator();
    settle(&mut remediator, &wants(&change)).await;
    node.guard().unwrap().turn().await.unwrap();
    node.write(MANIFEST, "theirs");
    settle(&mut remediator, &wants(&change)).await;
    let report = node.report().unwrap();
    assert_eq!(node.said(), "Failed FileAltered");
    assert_eq!(node.read(MANIFEST), "theirs");
    assert!(is_tidy(&node), "{report:?}");

    // After it: the original comes back, and theirs is kept.
    let (node, _) = applied("a").await;
    node.write(MANIFEST, "theirs");
    settle(&mut node.gate_remediator(), &NOTHING_WANTED).await;
    assert_eq!(node.said(), "RolledBack Withdrawn");
    assert_eq!(node.read(MANIFEST), ORIGINAL);
    let message = node.report().unwrap().message;
    let (_, aside) = message.split_once("is kept as ").unwrap();
    let aside = aside.split(". ").next().unwrap();
    assert_eq!(std::fs::read_to_string(aside).unwrap(), "theirs");

    // The original, by hand: that is what is said.
    let (node, change) = applied("a").await;
    node.write(MANIFEST, ORIGINAL);
    settle(&mut node.gate_remediator(), &confirms(&change)).await;
    assert_eq!(node.said(), "RolledBack Reverted");
    assert!(is_tidy(&node));

    // Gone: it comes back.
    let (node, _) = applied("a").await;
    std::fs::remove_file(node.path(MANIFEST)).unwrap();
    settle(&mut node.gate_remediator(), &NOTHING_WANTED).await;
    assert_eq!(node.read(MANIFEST), ORIGINAL);
}

#[tokio::test]
async fn a_full_disk_leaves_or_brings_back_the_old_state() {
    // From the beginning.
    fresh();
    let node = Node::new();
    let first = change("a", GATE);
    let mut remediator = node.gate_remediator();
    script(Fault::Full);
    assert!(remediator.turn(&wants(&first)).await.is_err());
    assert_eq!(node.said(), "Failed DiskFull");
    script(Fault::None);
    settle(&mut remediator, &wants(&first)).await;
    assert_eq!((node.said().as_str(), node.read(MANIFEST).as_str()), ("Failed DiskFull", ORIGINAL));
    assert!(is_tidy(&node));

    // When the manifest is to be written.
    let second = change("b", GATE);
    settle(&mut remediator, &wants(&second)).await;
    node.guard().unwrap().turn().await.unwrap();
    script(Fault::Full);
    assert!(remediator.turn(&wants(&second)).await.is_err());
    assert_eq!((node.said().as_str(), node.read(MANIFEST).as_str()), ("Failed DiskFull", ORIGINAL));
    script(Fault::None);
    settle(&mut remediator, &wants(&second)).await;
    assert!(is_tidy(&node));

    // When the original has to come back.
    for by_guard in [false, true] {
        let (node, change) = applied("a").await;
        advance(180);
        script(Fault::Full);
        let mut remediator = node.gate_remediator();
        if by_guard {
            assert!(node.guard().unwrap().turn().await.is_err());
        } else {
            assert!(remediator.turn(&wants(&change)).await.is_err());
        }
        assert_eq!(node.read(MANIFEST), ORIGINAL);
        assert!(remediator.turn(&wants(&change)).await.is_err());
        assert_eq!(node.said(), "RolledBack DeadlineExceeded");
        script(Fault::None);
        settle(&mut remediator, &wants(&change)).await;
        assert_eq!(node.said(), "RolledBack DeadlineExceeded");
        assert!(is_tidy(&node));
    }
}

#[tokio::test]
async fn an_original_that_cannot_come_back_is_told_and_tried_again() {
    let (node, change) = applied("a").await;
    let original = node.state().join("ApiserverGate/0-kube-apiserver.yaml.original");
    let away = original.with_extension("away");
    std::fs::rename(&original, &away).unwrap();
    let mut remediator = node.gate_remediator();
    advance(180);
    for _ in 0..3 {
        settle(&mut remediator, &wants(&change)).await;
        assert_eq!(node.said(), "Failed RestoreFailed");
    }
    assert!(node.report().unwrap().message.contains("is gone"));
    std::fs::rename(&away, &original).unwrap();
    settle(&mut remediator, &wants(&change)).await;
    assert_eq!(node.said(), "RolledBack DeadlineExceeded");
    assert_eq!(node.read(MANIFEST), ORIGINAL);
}

#[tokio::test]
async fn a_journal_that_is_gone_begins_nothing_again() {
    let (node, change) = applied("a").await;
    let stored = DesiredChange::Node {
        wanted: Some(Box::new(change.clone())),
        reported: node.report().map(Box::new),
    };
    std::fs::remove_dir_all(node.state()).unwrap();
    let mut remediator = node.gate_remediator();
    settle(&mut remediator, &stored).await;
    assert_eq!(node.said(), "Failed StateLost");
    assert!(!node.guard_is_placed());

    std::fs::remove_dir_all(node.state()).unwrap();
    settle(&mut node.gate_remediator(), &confirms(&change)).await;
    assert_eq!(node.said(), "Confirmed Confirmed");

    // One that says nothing lets nothing begin before that is said; then it is set aside.
    std::fs::write(node.state().join("ApiserverGate/journal.json"), "{").unwrap();
    let error = node.gate_remediator().turn(&wants(&change)).await.unwrap_err();
    assert_eq!(error.reason(), "JournalUnreadable");
    settle(&mut node.gate_remediator(), &stored).await;
    assert_eq!(node.said(), "Failed StateLost");
    assert_eq!(asides(&node, "journal.json"), ["{"]);
}

/// What has been set aside of this file.
fn asides(node: &Node, name: &str) -> Vec<String> {
    let entries = std::fs::read_dir(node.state().join("ApiserverGate")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let prefix = format!("{name}.aside-");
    let is = |path: &std::path::PathBuf| {
        path.file_name().unwrap().to_str().unwrap().starts_with(&prefix)
    };
    paths.filter(is).map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

#[tokio::test]
async fn a_kubeadm_upgrade_during_the_step_is_not_undone() {
    // kubeadm upgrade apply writes the manifest from its own configuration, which does not follow
    // before the end: another image, no gate. Or it carries the gate, and the rest is new.
    let upgrades: [fn(&Node) -> String; 2] = [
        |_| ORIGINAL.replace("v1.20.2", "v1.21.14"),
        |node| node.read(MANIFEST).replace("v1.20.2", "v1.21.14"),
    ];
    for (upgrade, by_guard) in upgrades.into_iter().zip([false, true]) {
        let (node, change) = applied("a").await;
        let upgraded = upgrade(&node);
        node.write(MANIFEST, &upgraded);
        advance(180);
        if by_guard {
            node.guard().unwrap().turn().await.unwrap();
        }
        settle(&mut node.gate_remediator(), &wants(&change)).await;
        assert_eq!(node.said(), "Failed FileAltered");
        assert_eq!(node.read(MANIFEST), upgraded, "the apiserver is an older version again");
        let message = node.report().unwrap().message;
        assert!(message.contains("had not proven itself"), "{message}");
        assert!(message.contains("is left as it is. Compare it with"), "{message}");
        assert!(is_tidy(&node));
    }
}

#[tokio::test]
async fn what_somebody_has_only_saved_from_an_editor_goes_back() {
    let (node, change) = applied("a").await;
    let saved = format!("# looked at\n{}", node.read(MANIFEST));
    node.write(MANIFEST, &saved);
    advance(180);
    settle(&mut node.gate_remediator(), &wants(&change)).await;
    assert_eq!(node.said(), "RolledBack DeadlineExceeded");
    assert_eq!(node.read(MANIFEST), ORIGINAL);
    assert_eq!(asides(&node, "0-kube-apiserver.yaml.original"), [saved]);
}

#[tokio::test]
async fn what_is_kept_aside_is_kept_once() {
    let (node, change) = applied("a").await;
    node.write(MANIFEST, "theirs");
    // The folder takes nothing: its file system went read-only, or here, a folder is in the way.
    let beside = |purpose: &str| {
        node.path(MANIFEST).with_file_name(format!(".sluice-kube-apiserver.yaml.{purpose}"))
    };
    std::fs::remove_file(beside("original")).unwrap();
    std::fs::create_dir(beside("next")).unwrap();
    advance(180);
    let mut remediator = node.gate_remediator();
    for _ in 0..50 {
        advance(1);
        remediator.turn(&wants(&change)).await.unwrap();
        assert_eq!(node.said(), "Failed RestoreFailed");
    }
    assert_eq!(asides(&node, "0-kube-apiserver.yaml.original"), ["theirs"]);
    std::fs::remove_dir(beside("next")).unwrap();
    settle(&mut remediator, &wants(&change)).await;
    assert_eq!(node.read(MANIFEST), ORIGINAL);
}

/// As after a return to a version that does not know a stage.
fn spoil_journal(node: &Node) {
    let journal = node.state().join("ApiserverGate/journal.json");
    let text = std::fs::read_to_string(&journal).unwrap();
    let spoilt = text.replace("\"stage\": \"Applied\"", "\"stage\": \"Proving\"");
    assert_ne!(text, spoilt);
    std::fs::write(&journal, spoilt).unwrap();
}

#[tokio::test]
async fn a_journal_that_cannot_be_read_still_lets_the_original_come_back() {
    // The remediator cannot carry the change out any more, so it does not wait for the deadline.
    let (node, change) = applied("a").await;
    spoil_journal(&node);
    settle(&mut node.gate_remediator(), &wants(&change)).await;
    assert_eq!(node.said(), "RolledBack JournalUnreadable");
    assert_eq!(node.read(MANIFEST), ORIGINAL);
    assert!(is_tidy(&node));
    assert_eq!(asides(&node, "journal.json").len(), 1);
    settle(&mut node.gate_remediator(), &wants(&change)).await;
    assert_eq!(node.read(MANIFEST), ORIGINAL, "it is not made again");

    // The guard alone waits for it, and has the word of every version.
    for gone in [false, true] {
        let (node, change) = applied("a").await;
        match gone {
            true => std::fs::remove_file(node.state().join("ApiserverGate/journal.json")).unwrap(),
            false => spoil_journal(&node),
        }
        let guard = node.guard().unwrap();
        advance(179);
        guard.turn().await.unwrap();
        let armed = crate::remediator::guard::Heartbeat::read(node.store(GATE).folder()).unwrap();
        assert_eq!(armed.at, at(179));
        assert_ne!(node.read(MANIFEST), ORIGINAL);
        advance(1);
        guard.turn().await.unwrap();
        assert_eq!(node.read(MANIFEST), ORIGINAL);
        settle(&mut node.gate_remediator(), &wants(&change)).await;
        assert_eq!(node.said(), "RolledBack JournalUnreadable");
        assert!(is_tidy(&node));
    }

    // What has proven itself stays.
    let (node, change) = applied("a").await;
    spoil_journal(&node);
    settle(&mut node.gate_remediator(), &confirms(&change)).await;
    assert_eq!(node.said(), "Confirmed Confirmed");
    assert!(node.read(MANIFEST).contains("StreamingProxyRedirects=false"));
    advance(1_000);
    std::fs::write(node.state().join("ApiserverGate/journal.json"), "{").unwrap();
    assert!(node.gate_remediator().turn(&NOTHING_WANTED).await.is_err());
    assert!(node.read(MANIFEST).contains("StreamingProxyRedirects=false"));
}

#[tokio::test]
async fn a_node_that_joins_before_the_edit_stops_it() {
    fresh();
    let node = Node::new();
    let change = change("a", GATE);
    settle(&mut node.gate_remediator(), &wants(&change)).await;
    node.guard().unwrap().turn().await.unwrap();
    let joined = vec!["new1".to_owned()];
    node.answers.edit(|known| known.scene.as_mut().unwrap().unjudged = joined);
    settle(&mut node.gate_remediator(), &wants(&change)).await;
    assert_eq!(node.said(), "Refused VerdictUnseen");
    assert_eq!(node.read(MANIFEST), ORIGINAL);
}

#[tokio::test]
async fn what_another_machine_of_this_name_has_reported_is_not_lost_here() {
    fresh();
    let node = Node::new();
    let change = change("a", GATE);
    let machine = |id: &str| crate::node::machine::Machine {
        boot: Some(format!("boot of {id}")),
        id: Some(id.to_owned()),
    };
    let mut reports = Vec::new();
    for id in ["old", "old", "new"] {
        let reported = reports.last().cloned();
        let desired = DesiredChange::Node { wanted: Some(Box::new(change.clone())), reported };
        let _ = std::fs::remove_dir_all(node.state());
        settle(&mut node.gate_remediator().on(machine(id)), &desired).await;
        let report = node.report().unwrap();
        assert_eq!(report.machine_id.as_deref(), Some(id));
        reports.push(Box::new(report));
    }
    let reasons: Vec<_> = reports.iter().map(|report| report.reason.as_str()).collect();
    assert_eq!(reasons, ["Preparing", "StateLost", "Preparing"]);
}

#[tokio::test]
async fn the_last_word_of_an_apiserver_that_did_not_start() {
    let (node, change) = applied("a").await;
    let log = "/var/log/pods/kube-system_kube-apiserver-cp1_1/kube-apiserver/0.log";
    node.write(log, "2026-01-02T03:04:05.6Z stderr F Error: unknown gate: X\n");
    advance(180);
    settle(&mut node.gate_remediator(), &wants(&change)).await;
    let message = node.report().unwrap().message;
    let expected = "The apiserver's last word: Error: unknown gate: X. The original";
    assert!(message.contains(expected), "{message}");
}
