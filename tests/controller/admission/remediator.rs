//! What became of a change is for the remediator of that very node to say.

use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use sluice::api::StreamingNode;

use super::scene::{AGENT, REMEDIATOR, Scene, assert_denied, pod, scene, token};

/// A remediator's report, as it is applied.
async fn report(remediator: &Client, node: &str, phase: &str) -> kube::Result<StreamingNode> {
    let change = json!({
        "id": "c1", "phase": phase, "reason": "Changed", "message": "The manifest was changed.",
        "since": "2026-01-01T00:00:00Z",
    });
    write(remediator, node, json!({"change": change})).await
}

async fn write(remediator: &Client, node: &str, status: Value) -> kube::Result<StreamingNode> {
    let patch = json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "StreamingNode", "metadata": {"name": node},
        "status": status,
    });
    let api: Api<StreamingNode> = Api::all(remediator.clone());
    api.patch_status(node, &PatchParams::apply(REMEDIATOR).force(), &Patch::Apply(patch)).await
}

#[tokio::test]
#[ignore = "needs the apiserver that the test cluster builds: make controller-test"]
async fn a_remediator_writes_its_own_nodes_change_and_nothing_else() {
    let Scene { stage, replica: _replica } = scene().await;
    let on_w1 = pod(&stage.client, REMEDIATOR, "remediator-1", "w1").await;
    let first = token(&stage, REMEDIATOR, Some(&on_w1)).await;
    let phase = async |node: &str| {
        let status = stage.streaming_nodes().get(node).await.unwrap().status.unwrap();
        status.change.map(|change| change.phase)
    };

    report(&first, "w1", "Preparing").await.unwrap();
    report(&first, "w1", "Applied").await.unwrap();
    assert_eq!(phase("w1").await.as_deref(), Some("Applied"));

    let why = "the token's pod is on node w1: it may not write what is said of node w2 (OtherNode)";
    assert_denied("another node's change", report(&first, "w2", "Confirmed").await, why);
    assert_eq!(phase("w2").await, None);

    // Of its own node's: neither the verdict, nor what the agent says, nor what is wanted of itself.
    let nodes: Api<StreamingNode> = Api::all(first.clone());
    let params = PatchParams::default();
    let merge = |value: Value| Patch::Merge(value);
    let said = json!({"agent": {"flag": "Off", "since": "2026-01-01T00:00:00Z"}});
    assert_denied("the agent's part", write(&first, "w1", said).await, "status.agent (NotItsPart)");
    let verdict = merge(json!({"status": {"verdict": "Safe"}}));
    let written = nodes.patch_status("w1", &params, &verdict).await;
    assert_denied("a verdict", written, "status.verdict (NotItsPart)");
    let spec = merge(json!({"spec": {"change": null}}));
    assert_denied("a spec", nodes.patch("w1", &params, &spec).await, "(NotStatus)");
    let delete = nodes.delete("w1", &DeleteParams::default()).await;
    assert_denied("a deletion", delete, "(NotStatus)");

    // Neither account lends the other its part: not by a token, and not by a pod.
    let agents = pod(&stage.client, AGENT, "agent-1", "w1").await;
    let agent = token(&stage, AGENT, Some(&agents)).await;
    let change = report(&agent, "w1", "Confirmed").await;
    assert_denied("an agent's change", change, "status.change (NotItsPart)");
    let unbound = token(&stage, REMEDIATOR, None).await;
    assert_denied("no pod", report(&unbound, "w1", "Confirmed").await, "(TokenUnbound)");
    assert_eq!(phase("w1").await.as_deref(), Some("Applied"));
}
