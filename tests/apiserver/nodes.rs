//! Nodes and mirror pods, as kubelets would put them there.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::{ADVERTISED, VERSION};

/// The annotation by which an admin says what a kubelet was started with.
pub const ANNOTATION: &str = "sluice.dev/redirect-container-streaming";

/// A node of this version.
pub fn node(name: &str, version: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {
            "nodeInfo": {
                "kubeletVersion": version, "kubeProxyVersion": version, "architecture": "amd64",
                "bootID": "b", "containerRuntimeVersion": "containerd://1.6.20",
                "kernelVersion": "6.1.0", "machineID": "m", "operatingSystem": "linux",
                "osImage": "Debian GNU/Linux 12 (bookworm)", "systemUUID": "s",
            },
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ready",
                "lastHeartbeatTime": "2026-01-01T00:00:00Z",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
        },
    })
}

/// Creates a node. A kubelet does it so, too: with its status, in one request.
pub async fn create(client: &Client, node: Value) -> Node {
    let api: Api<Node> = Api::all(client.clone());
    api.create(&PostParams::default(), &serde_json::from_value(node).unwrap()).await.unwrap()
}

/// Sets or takes away the admin's word about a node.
pub async fn annotate(client: &Client, name: &str, value: Option<&str>) {
    let api: Api<Node> = Api::all(client.clone());
    let patch = json!({"metadata": {"annotations": {ANNOTATION: value}}});
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

/// Has a node's kubelet report another version.
pub async fn upgrade(client: &Client, name: &str, version: &str) {
    let api: Api<Node> = Api::all(client.clone());
    let patch = json!({"status": {"nodeInfo": {"kubeletVersion": version}}});
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

/// Has a node's kubelet report that it is well, as it does every few seconds. The API knows whole
/// seconds: a second report in the same one changes nothing.
pub async fn heartbeat(client: &Client, name: &str, at: Timestamp) -> kube::Result<()> {
    let patch = json!({"status": {"conditions": [{
        "type": "Ready", "status": "True", "lastHeartbeatTime": at,
    }]}});
    let api: Api<Node> = Api::all(client.clone());
    api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop)
}

/// Creates a control plane: a node, and the mirror pod of the apiserver on it.
pub async fn control_plane(client: &Client, name: &str) {
    let created = create(client, node(name, &format!("v{VERSION}"))).await;
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": format!("kube-apiserver-{name}"),
            "namespace": "kube-system",
            "labels": {"component": "kube-apiserver", "tier": "control-plane"},
            "annotations": {"kubernetes.io/config.mirror": "hash"},
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Node", "name": name, "controller": true,
                "uid": created.metadata.uid,
            }],
        },
        "spec": {
            "nodeName": name,
            "hostNetwork": true,
            "containers": [{
                "name": "kube-apiserver",
                "image": format!("registry.example/kube-apiserver:v{VERSION}"),
                "command": ["kube-apiserver", format!("--advertise-address={ADVERTISED}")],
            }],
        },
    });
    let api: Api<Pod> = Api::namespaced(client.clone(), "kube-system");
    api.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
}
