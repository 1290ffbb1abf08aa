//! One node's token tries to write what is another's.

use k8s_openapi::api::{
    authentication::v1::TokenRequest,
    core::v1::{Pod, ServiceAccount},
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use sluice::api::StreamingNode;

use super::{LEASE, ready, replica};
use crate::{
    apiserver::{User, chart, eventually, free_port},
    replica::Replica,
    stage::Stage,
};

const ACCOUNT: &str = "sluice-agent";

/// The agents' account, which may do everything to StreamingNodes: whatever is refused here, the
/// webhook has refused.
async fn account(client: &Client) {
    let name = json!({"name": ACCOUNT, "namespace": chart::NAMESPACE});
    let role = json!({"name": "all-streaming-nodes"});
    for object in [
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": name}),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": role,
            "rules": [{"apiGroups": ["sluice.dev"], "resources": ["*"], "verbs": ["*"]}],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": role,
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                "name": "all-streaming-nodes",
            },
            "subjects": [
                {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": chart::NAMESPACE},
            ],
        }),
    ] {
        chart::apply(client, serde_json::from_value(object).unwrap()).await;
    }
}

fn pods(client: &Client) -> Api<Pod> {
    Api::namespaced(client.clone(), chart::NAMESPACE)
}

/// An agent's pod on a node. No kubelet runs it, which neither its token nor the webhook minds.
async fn pod(client: &Client, name: &str, node: &str) -> Pod {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "nodeName": node, "serviceAccountName": ACCOUNT,
            "containers": [{"name": "agent", "image": "registry.example/sluice:test"}],
        },
    });
    let pod = serde_json::from_value(pod).unwrap();
    pods(client).create(&PostParams::default(), &pod).await.unwrap()
}

/// A client with a token of the account, as the kubelet gets it for a pod, or as anybody may who
/// may ask for one.
async fn agent(stage: &Stage, pod: Option<&Pod>) -> Client {
    let accounts: Api<ServiceAccount> = Api::namespaced(stage.client.clone(), chart::NAMESPACE);
    let to = pod.map(|pod| {
        let metadata = &pod.metadata;
        json!({"kind": "Pod", "apiVersion": "v1", "name": metadata.name, "uid": metadata.uid})
    });
    let request = json!({
        "metadata": {}, "spec": {"audiences": [], "expirationSeconds": 3600, "boundObjectRef": to},
    });
    let request: TokenRequest = serde_json::from_value(request).unwrap();
    let params = PostParams::default();
    let token = accounts.create_token_request(ACCOUNT, &params, &request).await.unwrap();
    let token = token.status.unwrap().token;
    let mut config = stage.server.config(User::Admin).await;
    config.auth_info = serde_json::from_value(json!({"token": token})).unwrap();
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

/// An agent's report, as it is applied.
async fn report(agent: &Client, node: &str, flag: &str) -> kube::Result<StreamingNode> {
    let status = json!({"agent": {"flag": flag, "since": "2026-01-01T00:00:00Z"}});
    let patch = json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "StreamingNode", "metadata": {"name": node},
        "status": status,
    });
    let api: Api<StreamingNode> = Api::all(agent.clone());
    api.patch_status(node, &PatchParams::apply(ACCOUNT).force(), &Patch::Apply(patch)).await
}

/// The refusal: its code and its message.
fn refusal<T>(result: kube::Result<T>) -> (u16, String) {
    match result {
        Ok(_) => panic!("it was allowed"),
        Err(kube::Error::Api(status)) => (status.code, status.message.clone()),
        Err(error) => panic!("no answer: {error}"),
    }
}

fn assert_denied<T>(what: &str, result: kube::Result<T>, reason: &str) {
    let (code, message) = refusal(result);
    let by = "admission webhook \"agents.sluice.dev\" denied the request: ";
    assert_eq!(code, 403, "{what}: {message}");
    assert!(message.starts_with(by) && message.ends_with(reason), "{what}: {message}");
}

struct Scene {
    stage: Stage,
    replica: Replica,
}

/// Two old nodes besides the control plane, and a controller that has judged all three: its own
/// writes go by the webhook.
async fn scene() -> Scene {
    let stage = Stage::set().await;
    for node in ["w1", "w2"] {
        stage.old_node(node, "true").await;
    }
    chart::install_rights(&stage.client).await;
    account(&stage.client).await;
    let port = free_port();
    chart::install_webhook(&stage.client, port).await;
    let replica = replica(&stage, "a", port, &[]).await;
    ready(&replica).await;
    stage.judged(3).await;
    assert_eq!(LEASE.namespace, chart::NAMESPACE);
    Scene { stage, replica }
}

async fn flag(stage: &Stage, node: &str) -> Option<String> {
    let status = stage.streaming_nodes().get(node).await.unwrap().status.unwrap();
    status.agent.map(|agent| agent.flag)
}

#[tokio::test]
#[ignore = "needs the apiserver that the test cluster builds: make controller-test"]
async fn an_agent_writes_its_own_nodes_report_and_nothing_else() {
    let Scene { stage, replica } = scene().await;
    let on_w1 = pod(&stage.client, "agent-1", "w1").await;
    let on_w2 = pod(&stage.client, "agent-2", "w2").await;
    let (first, second) = (agent(&stage, Some(&on_w1)).await, agent(&stage, Some(&on_w2)).await);

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
    let unbound = agent(&stage, None).await;
    assert_denied("an unbound token", report(&unbound, "w1", "Off").await, "(TokenUnbound)");

    let gone = pod(&stage.client, "agent-1", "w1").await;
    let orphan = agent(&stage, Some(&gone)).await;
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
    let next = pod(&stage.client, "agent-1", "w1").await;
    let (code, message) = refusal(report(&orphan, "w1", "On").await);
    assert!(code == 401 || (code == 403 && message.ends_with("(PodReplaced)")), "{code} {message}");
    let successor = agent(&stage, Some(&next)).await;
    report(&successor, "w1", "Absent").await.unwrap();

    // Nobody to ask is a refusal.
    drop(replica);
    let (code, message) = refusal(report(&successor, "w1", "On").await);
    assert!(code == 500 && message.contains("failed calling webhook"), "{code} {message}");
    assert_eq!(flag(&stage, "w1").await.as_deref(), Some("Absent"));
}
