//! A remediator and a guard at the same time, each in a thread of its own.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;
use crate::{api::Permit, remediator::test_support::timing};

#[test]
fn whoever_is_first_puts_the_original_back() {
    for round in 0..20 {
        let node = Node::new();
        let verdict = Permit { at: Time(Timestamp::now()), ..change("a", GATE).verdict };
        // Over as soon as it has begun.
        let change = Change { deadline_seconds: 0, verdict, ..change("a", GATE) };
        let store = node.store(GATE);
        let original = store.read(MANIFEST).unwrap();
        let files = vec![store.keep(0, MANIFEST, &original, "changed\n").unwrap()];
        let journal = Journal::begun(&change, files, None, Timestamp::now());
        store.save(&journal).unwrap();
        store.edit(&journal).unwrap();
        let guard = r#"{"metadata":{"annotations":{"sluice.dev/change":"a"}}}"#;
        std::fs::write(node.guard_manifest(), guard).unwrap();

        let mut guard = node.guard().unwrap();
        guard.clock = Timestamp::now;
        let both = std::sync::Arc::new(std::sync::Barrier::new(2));
        let start = both.clone();
        let guarding = std::thread::spawn(move || {
            runtime().block_on(async {
                start.wait();
                for _ in 0..50 {
                    guard.turn().await.unwrap();
                }
            });
        });
        let mut remediator =
            node.gate_remediator_with(ExecutorTiming { now: Timestamp::now, ..timing() });
        runtime().block_on(async {
            both.wait();
            for _ in 0..50 {
                remediator.turn(&wants(&change)).await.unwrap();
            }
        });
        guarding.join().unwrap();
        assert_eq!(node.said(), "RolledBack DeadlineExceeded", "round {round}");
        assert_eq!(node.read(MANIFEST), ORIGINAL);
        assert!(is_tidy(&node), "{:?}", node.names_beside(MANIFEST));
    }
}

/// One thread, as the program has it.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
