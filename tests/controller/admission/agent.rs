//! One node's token tries to write what is another's.

use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use sluice::api::StreamingNode;

use super::scene::{AGENT, Scene, assert_denied, pod, pods, refusal, scene, token};
use crate::{apiserver::eventually, stage::Stage};

/// An agent's report, as it is applied.
async fn report(agent: &Client, node: &str, flag: &str) -> kube::Result<StreamingNode> {
    let status = json!({"agent": {"flag": flag, "since": "2026-01-01T00:00:00Z"}});
    let patch = json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "StreamingNode", "metadata": {"name": node},
        "status": status,
    });
    let api: Api<StreamingNode> = Api::all(agent.clone());
    api.patch_status(node, &PatchParams::apply(AGENT).force(), &Patch::Apply(patch)).await
}

async fn flag(stage: &Stage, node: &str) -> Option<String> {
    let status = stage.streaming_nodes().get(node).await.unwrap().status.unwrap();
    status.agent.map(|agent| agent.flag)
}

#[tokio::test]
#[ignore = "needs the apiserver that the test cluster builds: make controller-test"]
async fn an_agent_writes_its_own_nodes_report_and_nothing_else() {
    let Scene { stage, replica } = scene().await;
    let on_w1 = pod(&stage.client, AGENT, "agent-1", "w1").await;
    let on_w2 = pod(&stage.client, AGENT, "agent-2", "w2").await;
    let (first, second) =
        (token(&stage, AGENT, Some(&on_w1)).await, token(&stage, AGENT, Some(&on_w2)).await);

    // Each its own.
    report(&first, "w1", "On").await.unwrap();
    report(&second, "w2", "Absent").await.unwrap();
    report(&first, "w1", "Off").await.unwrap();
    assert_eq!(flag(&stage, "w1").await.as_deref(), Some("Off"));

    // One node's token tries to write another's.
    let crossing = report(&first, "w2", "Off").await;
    let why = "the token's pod is on node w1: it may not write what is said of node w2 (OtherNode)";
    assert_denied("another node's report", crossing, why);
    assert_denied("the control plane's", report(&second, "cp1", "Off").await, "(OtherNode)");
    assert_eq!(flag(&stage, "w2").await.as_deref(), Some("Absent"));

    // Of its own node's, only its part of the status.
    let nodes: Api<StreamingNode> = Api::all(first.clone());
    let params = PatchParams::default();
    let merge = |value: Value| Patch::Merge(value);
    let verdict = merge(json!({"status": {"verdict": "Safe", "agent": {"flag": "Absent"}}}));
    let written = nodes.patch_status("w1", &params, &verdict).await;
    assert_denied("a verdict", written, "this changes status.verdict (NotItsPart)");
    let nothing = merge(json!({"status": null}));
    assert_denied("no status", nodes.patch_status("w1", &params, &nothing).await, "(NotItsPart)");
    let spec = merge(json!({"spec": {"policy": "mine"}}));
    assert_denied("a spec", nodes.patch("w1", &params, &spec).await, "(NotStatus)");
    let label = merge(json!({"metadata": {"labels": {"a": "b"}}}));
    assert_denied("a label", nodes.patch("w1", &params, &label).await, "(NotStatus)");
    let delete = nodes.delete("w1", &DeleteParams::default()).await;
    assert_denied("a deletion", delete, "(NotStatus)");
    let another = StreamingNode::new("w3", Default::default());
    let create = nodes.create(&PostParams::default(), &another).await;
    assert_denied("a creation", create, "(NotStatus)");
    let metrics = replica.metrics().await;
    // An apiserver may ask again after a refusal, in case that it had an old object at hand.
    assert!(metrics["sluice_webhook_requests_total{result=\"denied\"}"] >= 8.0);
    assert_eq!(metrics["sluice_webhook_requests_total{result=\"failed\"}"], 0.0);

    // Others are RBAC's business.
    stage.streaming_nodes().patch("w1", &params, &label).await.unwrap();
}

#[tokio::test]
#[ignore = "needs the apiserver that the test cluster builds: make controller-test"]
async fn a_token_without_its_pod_writes_nothing_nor_does_any_without_the_webhook() {
    let Scene { stage, replica } = scene().await;
    let unbound = token(&stage, AGENT, None).await;
    assert_denied("an unbound token", report(&unbound, "w1", "Off").await, "(TokenUnbound)");

    let gone = pod(&stage.client, AGENT, "agent-1", "w1").await;
    let orphan = token(&stage, AGENT, Some(&gone)).await;
    report(&orphan, "w1", "Off").await.unwrap();
    let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    pods(&stage.client).delete("agent-1", &at_once).await.unwrap();
    eventually("the pod is gone", async || {
        pods(&stage.client).get_opt("agent-1").await.unwrap().is_none().then_some(())
    })
    .await;
    // Whoever is first: the apiserver, which no longer takes the token, or the webhook.
    let (code, message) = refusal(report(&orphan, "w1", "On").await);
    assert!(code == 401 || (code == 403 && message.ends_with("(PodGone)")), "{code} {message}");

    // A new pod of the same name does not give the old token its rights back.
    let next = pod(&stage.client, AGENT, "agent-1", "w1").await;
    let (code, message) = refusal(report(&orphan, "w1", "On").await);
    assert!(code == 401 || (code == 403 && message.ends_with("(PodReplaced)")), "{code} {message}");
    let successor = token(&stage, AGENT, Some(&next)).await;
    report(&successor, "w1", "Absent").await.unwrap();

    // Nobody to ask is a refusal.
    drop(replica);
    let (code, message) = refusal(report(&successor, "w1", "On").await);
    assert!(code == 500 && message.contains("failed calling webhook"), "{code} {message}");
    assert_eq!(flag(&stage, "w1").await.as_deref(), Some("Absent"));
}
