//! The apiserver goes away and comes back.

use crate::{
    apiserver::{Running, eventually, nodes},
    quiet::settled,
    replica::Replica,
    stage::{POLICY, Stage},
};

#[tokio::test]
#[ignore = "needs the apiserver that the test cluster builds: make controller-test"]
async fn a_restarted_apiserver_is_followed_on() {
    let mut stage = Stage::set().await;
    stage.old_node("w1", "true").await;
    let mut replica = Replica::start(&stage.server, "a").await;
    stage.safe_because(POLICY, "NodesRedirect").await;
    stage.judged(2).await;
    settled(&replica).await;
    let versions = stage.versions().await;

    stage.server.restart().await;
    // A slow machine may need longer for that than a lease lives: then a kubelet would start the
    // controller again.
    if !replica.is_running() {
        replica = Replica::start(&stage.server, "b").await;
    }
    nodes::annotate(&stage.client, "w1", Some("false")).await;
    assert_eq!(stage.safe_because(POLICY, "NoNodeRedirects").await, "True");
    settled(&replica).await;
    let after = stage.versions().await;
    assert_eq!(after["node cp1"], versions["node cp1"], "nothing was to be said of it");
}

#[tokio::test]
#[ignore = "needs the apiserver that the test cluster builds: make controller-test"]
async fn a_leader_that_cannot_renew_ends_and_its_successor_writes_nothing_old() {
    let mut stage = Stage::set().await;
    stage.old_node("w1", "true").await;
    let mut replica = Replica::start(&stage.server, "a").await;
    stage.safe_because(POLICY, "NodesRedirect").await;
    stage.judged(2).await;
    settled(&replica).await;
    let versions = stage.versions().await;

    stage.server.kill();
    // The renew deadline is 10 s: from then on somebody else may lead.
    let status = eventually("the leader ends", async || replica.exited()).await;
    assert!(!status.success(), "a lost lease is no success");
    stage.server.resume().await;

    let second = Replica::start(&stage.server, "b").await;
    eventually("the second judges", async || {
        (second.sum("sluice_decisions_total").await > 0.0).then_some(())
    })
    .await;
    assert_eq!(settled(&second).await.writes, 0.0);
    assert_eq!(stage.versions().await, versions);
}
