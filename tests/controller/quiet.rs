//! What means nothing causes nothing.

use crate::{
    apiserver::{Running, eventually, nodes, signal},
    replica::Replica,
    stage::{POLICY, Stage},
};

const HEARTBEATS: u32 = 200;

#[tokio::test]
#[ignore = "needs the apiserver that the test cluster builds: make controller-test"]
async fn heartbeats_are_neither_judged_nor_written() {
    let stage = Stage::set().await;
    stage.old_node("w1", "false").await;
    let replica = Replica::start(&stage.server, "a").await;
    stage.safe_because(POLICY, "NoNodeRedirects").await;
    stage.judged(2).await;
    let before = settled(&replica).await;
    let versions = stage.versions().await;
    let unchanged = "sluice_watch_events_total{kind=\"Node\",effect=\"unchanged\"}";
    let seen_before = replica.metrics().await[unchanged];

    let mut at = jiff::Timestamp::now();
    for _ in 0..HEARTBEATS {
        at += jiff::SignedDuration::from_secs(10);
        nodes::heartbeat(&stage.client, "w1", at).await.unwrap();
    }
    eventually("every heartbeat is seen", async || {
        let seen = replica.metrics().await[unchanged] - seen_before;
        (seen >= f64::from(HEARTBEATS)).then_some(())
    })
    .await;

    assert_eq!(Work::of(&replica).await, before);
    assert_eq!(stage.versions().await, versions);
}

#[tokio::test]
#[ignore = "needs the apiserver that the test cluster builds: make controller-test"]
async fn a_new_leader_writes_nothing_that_is_written_already() {
    let stage = Stage::set().await;
    stage.old_node("w1", "true").await;
    let mut first = Replica::start(&stage.server, "a").await;
    stage.safe_because(POLICY, "NodesRedirect").await;
    stage.judged(2).await;
    settled(&first).await;
    let versions = stage.versions().await;
    signal(&mut first, "TERM");
    eventually("the first ends", async || first.exited()).await;

    let second = Replica::start(&stage.server, "b").await;
    eventually("the second judges", async || {
        (second.sum("sluice_decisions_total").await > 0.0).then_some(())
    })
    .await;
    assert_eq!(settled(&second).await.writes, 0.0);
    assert_eq!(stage.versions().await, versions);
}

/// What a replica has done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    pub writes: f64,
    pub evaluations: f64,
    pub events: f64,
}

impl Work {
    pub async fn of(replica: &Replica) -> Self {
        Self {
            writes: replica.sum("sluice_writes_total").await,
            evaluations: replica.metrics().await["sluice_evaluations_total"],
            events: replica.sum("sluice_events_total").await,
        }
    }
}

/// Waits until a replica has nothing more to do: for two seconds no look sees any work.
pub async fn settled(replica: &Replica) -> Work {
    let (mut last, mut same) = (Work::of(replica).await, 0);
    eventually("the replica comes to rest", async || {
        let now = Work::of(replica).await;
        same = if now == last { same + 1 } else { 0 };
        last = now;
        (same == 100).then_some(now)
    })
    .await
}
