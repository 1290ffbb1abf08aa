//! The chart's rights are enough, and fewer of them are a refusal.

use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::json;

use crate::{
    apiserver::{Running, User, chart, eventually, nodes, signal},
    quiet::settled,
    replica::{Lease, Replica},
    rollout::{self, AGENTS},
    stage::{POLICY, Stage},
};

const LEASE: Lease<'static> = Lease { namespace: chart::NAMESPACE, name: "sluice-controller" };

#[tokio::test]
#[ignore = "needs the apiserver that the test cluster builds: make controller-test"]
async fn the_charts_rights_are_enough_and_fewer_are_a_refusal() {
    let stage = Stage::set().await;
    stage.old_node("w1", "true").await;
    chart::install_rights(&stage.client).await;
    let start = async |identity| {
        Replica::start_with(&stage.server, User::Controller, identity, LEASE, &AGENTS).await
    };
    let mut replica = start("a").await;
    assert_eq!(stage.safe_because(POLICY, "NodesRedirect").await, "False");
    stage.judged(2).await;
    nodes::annotate(&stage.client, "w1", Some("false")).await;
    assert_eq!(stage.safe_because(POLICY, "NoNodeRedirects").await, "True");
    // Agents come, are changed and go.
    stage.edit_policy(POLICY, json!({"proxy": {}})).await;
    let made = rollout::daemon_set(&stage, |_| true).await;
    stage.edit_policy(POLICY, json!({"nodeSelector": {"pool": "a"}})).await;
    let old = made.metadata.generation;
    rollout::daemon_set(&stage, |object| object.metadata.generation != old).await;
    stage.edit_policy(POLICY, json!({"nodeSelector": null, "proxy": null})).await;
    rollout::no_daemon_set(&stage).await;
    settled(&replica).await;
    let metrics = replica.metrics().await;
    let refused: Vec<_> =
        metrics.keys().filter(|name| name.starts_with("sluice_errors_total")).collect();
    assert!(refused.is_empty(), "{refused:?}\n{}", replica.log());
    assert!(replica.sum("sluice_events_total{result=\"created\"}").await > 0.0);
    signal(&mut replica, "TERM");
    eventually("it gives the lease back", async || replica.exited()).await;

    // Without a look at the mirror pods nobody knows what the apiservers run with.
    let bindings: Api<RoleBinding> = Api::namespaced(stage.client.clone(), "kube-system");
    let name = "sluice-controller-mirror-pods";
    let mut binding = bindings.get(name).await.unwrap();
    bindings.delete(name, &DeleteParams::default()).await.unwrap();
    let replica = start("b").await;
    assert_eq!(stage.safe_because(POLICY, "WatchLost").await, "False");
    assert_eq!(replica.metrics().await["sluice_watch_healthy{kind=\"Pod\"}"], 0.0);

    // Given back, they are enough again.
    binding.metadata.resource_version = None;
    binding.metadata.uid = None;
    bindings.create(&PostParams::default(), &binding).await.unwrap();
    assert_eq!(stage.safe_because(POLICY, "NoNodeRedirects").await, "True");
}
