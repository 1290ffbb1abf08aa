//! A controller that serves the webhook, and clients with the tokens of pods.

use k8s_openapi::api::{
    authentication::v1::TokenRequest,
    core::v1::{Pod, ServiceAccount},
};
use kube::{Api, Client, api::PostParams};
use serde_json::json;

use super::{LEASE, ready, replica};
use crate::{
    apiserver::{User, chart, free_port},
    replica::Replica,
    stage::Stage,
};

/// The agents' ServiceAccount.
pub const AGENT: &str = "sluice-agent";
/// The remediators'.
pub const REMEDIATOR: &str = "sluice-remediator";

/// The accounts, which may do everything to StreamingNodes: whatever is refused here, the webhook has
/// refused.
async fn accounts(client: &Client) {
    let role = json!({"name": "all-streaming-nodes"});
    let named = |name: &str| json!({"name": name, "namespace": chart::NAMESPACE});
    let account =
        |name: &str| json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": named(name)});
    let subject =
        |name: &str| json!({"kind": "ServiceAccount", "name": name, "namespace": chart::NAMESPACE});
    for object in [
        account(AGENT),
        account(REMEDIATOR),
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
            "subjects": [subject(AGENT), subject(REMEDIATOR)],
        }),
    ] {
        chart::apply(client, serde_json::from_value(object).unwrap()).await;
    }
}

pub fn pods(client: &Client) -> Api<Pod> {
    Api::namespaced(client.clone(), chart::NAMESPACE)
}

/// A pod of an account on a node. No kubelet runs it, which neither its token nor the webhook minds.
pub async fn pod(client: &Client, account: &str, name: &str, node: &str) -> Pod {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "nodeName": node, "serviceAccountName": account,
            "containers": [{"name": "main", "image": "registry.example/sluice:test"}],
        },
    });
    let pod = serde_json::from_value(pod).unwrap();
    pods(client).create(&PostParams::default(), &pod).await.unwrap()
}

/// A client with a token of the account, as the kubelet gets it for a pod, or as anybody may who
/// may ask for one.
pub async fn token(stage: &Stage, account: &str, pod: Option<&Pod>) -> Client {
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
    let token = accounts.create_token_request(account, &params, &request).await.unwrap();
    let token = token.status.unwrap().token;
    let mut config = stage.server.config(User::Admin).await;
    config.auth_info = serde_json::from_value(json!({"token": token})).unwrap();
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

/// The refusal: its code and its message.
pub fn refusal<T>(result: kube::Result<T>) -> (u16, String) {
    match result {
        Ok(_) => panic!("it was allowed"),
        Err(kube::Error::Api(status)) => (status.code, status.message.clone()),
        Err(error) => panic!("no answer: {error}"),
    }
}

pub fn assert_denied<T>(what: &str, result: kube::Result<T>, reason: &str) {
    let (code, message) = refusal(result);
    let by = "admission webhook \"agents.sluice.dev\" denied the request: ";
    assert_eq!(code, 403, "{what}: {message}");
    assert!(message.starts_with(by) && message.ends_with(reason), "{what}: {message}");
}

pub struct Scene {
    pub stage: Stage,
    pub replica: Replica,
}

/// Two old nodes besides the control plane, and a controller that has judged all three: its own
/// writes go by the webhook.
pub async fn scene() -> Scene {
    let stage = Stage::set().await;
    for node in ["w1", "w2"] {
        stage.old_node(node, "true").await;
    }
    chart::install_rights(&stage.client).await;
    accounts(&stage.client).await;
    let port = free_port();
    chart::install_webhook(&stage.client, port).await;
    let replica = replica(&stage, "a", port, &[]).await;
    ready(&replica).await;
    stage.judged(3).await;
    assert_eq!(LEASE.namespace, chart::NAMESPACE);
    Scene { stage, replica }
}
