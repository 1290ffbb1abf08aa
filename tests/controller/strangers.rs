//! Others write to our objects, or to the definitions.

use std::time::Duration;

use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::{
    apiserver::{
        PATIENCE, Running,
        definitions::{self, Schema},
        eventually, nodes, within,
    },
    quiet::settled,
    replica::Replica,
    stage::{POLICY, Stage},
};

#[tokio::test]
#[ignore = "needs the apiserver that the test cluster builds: make controller-test"]
async fn what_others_write_into_our_objects_is_put_right_once() {
    let stage = Stage::set().await;
    stage.old_node("w1", "true").await;
    let replica = Replica::start(&stage.server, "a").await;
    stage.safe_because(POLICY, "NodesRedirect").await;
    stage.judged(2).await;
    let before = settled(&replica).await;
    let params = PatchParams::default();
    let merge = |value| Patch::Merge(value);

    // A node's verdict.
    let nodes = stage.streaming_nodes();
    nodes
        .patch_status("w1", &params, &merge(json!({"status": {"verdict": "Safe"}})))
        .await
        .unwrap();
    eventually("the verdict is put right", async || {
        let status = nodes.get("w1").await.unwrap().status?;
        (status.verdict == "Blocks").then_some(())
    })
    .await;
    // A wish that no policy has.
    let wish = json!({"spec": {"policy": "gate", "proxy": {"mode": "Streams"}}});
    nodes.patch("w1", &params, &merge(wish)).await.unwrap();
    eventually("the wish is put right", async || {
        let spec = nodes.get("w1").await.unwrap().spec;
        (spec.policy.is_none() && spec.proxy.is_none()).then_some(())
    })
    .await;
    // A deleted object, while its Node is there.
    let uid = nodes.get("cp1").await.unwrap().metadata.uid;
    nodes.delete("cp1", &DeleteParams::default()).await.unwrap();
    eventually("the object is made again", async || {
        let made = nodes.get_opt("cp1").await.unwrap()?;
        (made.metadata.uid != uid && made.status?.verdict == "Safe").then_some(())
    })
    .await;
    // A policy's verdict, by somebody who would like it to be another.
    let policies = stage.policies();
    let mut status = serde_json::to_value(policies.get(POLICY).await.unwrap().status).unwrap();
    status["conditions"][0]["status"] = json!("True");
    status["gate"] = json!("Disabled");
    policies.patch_status(POLICY, &params, &merge(json!({"status": status}))).await.unwrap();
    eventually("the status is put right", async || {
        let status = policies.get(POLICY).await.unwrap().status?;
        (status.conditions[0].status == "False" && status.gate == "Enabled").then_some(())
    })
    .await;
    // The whole status.
    policies.patch_status(POLICY, &params, &merge(json!({"status": null}))).await.unwrap();
    assert_eq!(stage.safe_because(POLICY, "NodesRedirect").await, "False");

    let after = settled(&replica).await;
    let writes = after.writes - before.writes;
    assert!((5.0..=12.0).contains(&writes), "{writes} writes for five changes");
}

#[tokio::test]
#[ignore = "needs the apiserver that the test cluster builds: make controller-test"]
async fn a_policy_that_nobody_understands_permits_nothing_and_hinders_no_other() {
    let stage = Stage::bare(Schema::Loose).await;
    nodes::control_plane(&stage.client, "cp1").await;
    stage.old_node("w1", "false").await;
    // Stored by an earlier version that allowed it; from the oldest, which would own the gate.
    let malformed = json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "StreamingPolicy",
        "metadata": {"name": "malformed"}, "spec": {"streamingProxyRedirects": ["Disabled"]},
    });
    let policies = stage.policies();
    let params = PatchParams::apply("test");
    // The answer is malformed as well, so it is read as metadata.
    let request = kube::core::Request::new("/apis/sluice.dev/v1alpha1/streamingpolicies");
    let request = request.patch("malformed", &params, &Patch::Apply(malformed)).unwrap();
    stage.client.request_text(request).await.unwrap();
    definitions::install(&stage.client, Schema::Shipped).await;
    stage.create_policy("proxy", json!({"proxy": {"mode": "Streams"}})).await;

    let mut replica = Replica::start(&stage.server, "a").await;
    // The verdict about the gate is the same for all: what a malformed policy says is unknown.
    let condition = within(PATIENCE, "the other policy is judged", async || {
        stage.condition("proxy", "SafeToDisable").await
    })
    .await;
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("True", "NoNodeRedirects"));
    eventually("the author of the malformed policy is told", async || {
        stage.events("StreamingPolicy", "malformed").await.get("PolicyUnreadable").copied()
    })
    .await;
    stage.judged(2).await;
    nodes::annotate(&stage.client, "w1", Some("true")).await;
    assert_eq!(stage.safe_because("proxy", "NodesRedirect").await, "False");

    // The write is tried again after 0.5, 1, 2 s and so on; it is told once.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let events = stage.events("StreamingPolicy", "malformed").await;
    assert_eq!(events.into_iter().collect::<Vec<_>>(), [("PolicyUnreadable".to_owned(), 1)]);
    assert!(
        replica.is_running() && replica.probe("/healthz").await && replica.probe("/readyz").await
    );

    // Mended, it is judged like any other.
    let mended = json!({"spec": {"streamingProxyRedirects": "Disabled"}});
    policies.patch("malformed", &PatchParams::default(), &Patch::Merge(mended)).await.unwrap();
    assert_eq!(stage.safe_because("malformed", "NodesRedirect").await, "False");
}
