//! Two replicas: one leads, the other takes over.

use std::time::Duration;

use crate::{
    apiserver::{Running, eventually, nodes, signal, within},
    quiet::settled,
    replica::Replica,
    stage::{POLICY, Stage},
};

#[tokio::test]
#[ignore = "needs the apiserver that the test cluster builds: make controller-test"]
async fn a_killed_leader_is_followed_within_the_lease_and_nothing_is_rewritten() {
    let stage = Stage::set().await;
    stage.old_node("w1", "true").await;
    let (mut first, second) = pair(&stage).await;
    let versions = stage.versions().await;
    signal(&mut first, "KILL");
    eventually("the first ends", async || first.exited()).await;

    // The lease lasts 15 s and is asked for every 2 to 4.4 s.
    within(Duration::from_secs(25), "the second leads", async || {
        second.leads().await.then_some(())
    })
    .await;
    eventually("the second judges", async || {
        (second.sum("sluice_decisions_total").await > 0.0).then_some(())
    })
    .await;
    assert_eq!(settled(&second).await.writes, 0.0);
    assert_eq!(stage.versions().await, versions);
    nodes::annotate(&stage.client, "w1", Some("false")).await;
    assert_eq!(stage.safe_because(POLICY, "NoNodeRedirects").await, "True");
}

#[tokio::test]
#[ignore = "needs the apiserver that the test cluster builds: make controller-test"]
async fn a_leader_that_is_asked_to_end_gives_the_lease_back() {
    let stage = Stage::set().await;
    let (mut first, second) = pair(&stage).await;
    signal(&mut first, "TERM");
    let status = eventually("the first ends", async || first.exited()).await;
    assert!(status.success(), "{status}: {}", first.log());
    // Far less than the lease would last.
    within(Duration::from_secs(10), "the second leads", async || {
        second.leads().await.then_some(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the apiserver that the test cluster builds: make controller-test"]
async fn a_standby_ends_when_asked() {
    let stage = Stage::set().await;
    let (first, mut second) = pair(&stage).await;
    assert!(second.probe("/readyz").await, "a standby is ready");
    signal(&mut second, "TERM");
    let status = eventually("the standby ends", async || second.exited()).await;
    assert!(status.success(), "{status}: {}", second.log());
    assert!(first.leads().await);
}

/// A leader that has done its work, and a standby.
async fn pair(stage: &Stage) -> (Replica, Replica) {
    let first = Replica::start(&stage.server, "a").await;
    eventually("the first leads", async || first.leads().await.then_some(())).await;
    let second = Replica::start(&stage.server, "b").await;
    eventually("the first judges", async || {
        (first.sum("sluice_decisions_total").await > 0.0).then_some(())
    })
    .await;
    settled(&first).await;
    assert!(!second.leads().await);
    (first, second)
}
