//! The chart's rights are enough, and fewer of them are a refusal.

use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};

use crate::{
    apiserver::{Running, User, chart, eventually, nodes, signal},
    quiet::settled,
    replica::{Lease, Replica},
    stage::{POLICY, Stage},
};

const LEASE: Lease<'static> = Lease { namespace: chart::NAMESPACE, name: "sluice-controller" };

#[tokio::test]
#[ignore = "needs the apiserver that the test cluster builds: make controller-test"]
async fn the_charts_rights_are_enough_and_fewer_are_a_refusal() {
    let stage = Stage::set().await;
    stage.old_node("w1", "true").await;
    chart::install_rights(&stage.client).await;
    let mut replica = Replica::start_as(&stage.server, User::Controller, "a", LEASE).await;
    assert_eq!(stage.safe_because(POLICY, "NodesRedirect").await, "False");
    stage.judged(2).await;
    nodes::annotate(&stage.client, "w1", Some("false")).await;
    assert_eq!(stage.safe_because(POLICY, "NoNodeRedirects").await, "True");
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
    let replica = Replica::start_as(&stage.server, User::Controller, "b", LEASE).await;
    assert_eq!(stage.safe_because(POLICY, "WatchLost").await, "False");
    assert_eq!(replica.metrics().await["sluice_watch_healthy{kind=\"Pod\"}"], 0.0);

    // Given back, they are enough again.
    binding.metadata.resource_version = None;
    binding.metadata.uid = None;
    bindings.create(&PostParams::default(), &binding).await.unwrap();
    assert_eq!(stage.safe_because(POLICY, "NoNodeRedirects").await, "True");
}
