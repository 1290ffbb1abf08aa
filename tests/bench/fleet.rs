//! Many nodes of the size that real ones have.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client, api::PostParams};
use serde_json::{Value, json};

use crate::apiserver::nodes;

/// A version that cannot redirect.
pub const MODERN: &str = "v1.20.2";
/// A version that could, and of which nobody says that it does not.
pub const OLD: &str = "v1.18.20";

/// How many requests are under way at once: more would only queue in the apiserver.
pub const CONCURRENCY: usize = 24;

/// The name of a node.
pub fn name(index: usize) -> String {
    format!(
        "ip-10-{}-{}-{}.eu-west-1.compute.internal",
        index >> 16,
        (index >> 8) & 255,
        index & 255
    )
}

/// A node with the labels, annotations, conditions and images of a busy cloud machine.
pub fn node(index: usize) -> Value {
    let name = name(index);
    let mut node = nodes::node(&name, MODERN);
    node["metadata"]["labels"] = json!({
        "beta.kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/instance-type": "m5.4xlarge",
        "beta.kubernetes.io/os": "linux",
        "eks.example/capacityType": "ON_DEMAND",
        "eks.example/nodegroup": format!("workers-{}", index % 40),
        "failure-domain.beta.kubernetes.io/region": "eu-west-1",
        "failure-domain.beta.kubernetes.io/zone": format!("eu-west-1{}", ["a", "b", "c"][index % 3]),
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "node.kubernetes.io/instance-type": "m5.4xlarge",
        "topology.ebs.csi.aws.com/zone": format!("eu-west-1{}", ["a", "b", "c"][index % 3]),
        "topology.kubernetes.io/region": "eu-west-1",
        "topology.kubernetes.io/zone": format!("eu-west-1{}", ["a", "b", "c"][index % 3]),
    });
    node["metadata"]["annotations"] = json!({
        "csi.volume.kubernetes.io/nodeid": format!("{{\"ebs.csi.aws.com\":\"i-{index:017x}\"}}"),
        "flannel.alpha.coreos.com/backend-data": "{\"VtepMAC\":\"9e:c5:8b:f1:4f:01\"}",
        "flannel.alpha.coreos.com/backend-type": "vxlan",
        "kubeadm.alpha.kubernetes.io/cri-socket": "/run/containerd/containerd.sock",
        "node.alpha.kubernetes.io/ttl": "300",
        "volumes.kubernetes.io/controller-managed-attach-detach": "true",
    });
    let resources = json!({
        "cpu": "16", "memory": "64891580Ki", "pods": "234", "ephemeral-storage": "104845292Ki",
        "hugepages-1Gi": "0", "hugepages-2Mi": "0", "attachable-volumes-aws-ebs": "25",
    });
    let conditions = [
        (
            "MemoryPressure",
            "False",
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available",
        ),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("NetworkUnavailable", "False", "RouteCreated", "RouteController created a route"),
        ("Ready", "True", "KubeletReady", "kubelet is posting ready status. AppArmor enabled"),
    ];
    let conditions = conditions.map(|(kind, status, reason, message)| {
        json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": "2026-01-01T00:00:00Z",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    });
    // The kubelet reports at most 50 images.
    let images: Vec<Value> = (0..32)
        .map(|image| {
            let repository = format!("registry.example/platform/team-{}/service-{image:02}", image % 7);
            let digest = format!("{:064x}", (image + 1) * 0x9e37_79b9_7f4a_7c15_u128);
            json!({
                "names": [format!("{repository}@sha256:{digest}"), format!("{repository}:v1.{image}.0")],
                "sizeBytes": 30_000_000 + image * 1_234_567,
            })
        })
        .collect();
    let status = &mut node["status"];
    status["capacity"] = resources.clone();
    status["allocatable"] = resources;
    status["conditions"] = json!(conditions);
    status["images"] = json!(images);
    status["addresses"] = json!([
        {"type": "InternalIP", "address": format!("10.{}.{}.{}", index >> 16, (index >> 8) & 255, index & 255)},
        {"type": "Hostname", "address": name},
    ]);
    node["spec"] = json!({"providerID": format!("aws:///eu-west-1a/i-{index:017x}")});
    node
}

/// Creates so many nodes.
pub async fn create(client: &Client, count: usize) {
    let api: Api<Node> = Api::all(client.clone());
    let started = Instant::now();
    let mut made = stream::iter(0..count)
        .map(|index| {
            let api = api.clone();
            async move {
                let node = serde_json::from_value(node(index)).unwrap();
                api.create(&PostParams::default(), &node).await.unwrap();
            }
        })
        .buffer_unordered(CONCURRENCY)
        .enumerate();
    while let Some((done, ())) = made.next().await {
        if (done + 1) % 1000 == 0 {
            eprintln!("  {} nodes created after {:.0?}", done + 1, started.elapsed());
        }
    }
}

/// The size of a node as the apiserver sends it.
pub async fn stored_bytes(client: &Client, index: usize) -> usize {
    let path = format!("/api/v1/nodes/{}", name(index));
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    client.request_text(request).await.unwrap().len()
}

/// Has the first `fleet` nodes report one after the other, `rate` in each second if the machine
/// can, for as long as `duration`. Tells how many reports were stored.
pub async fn heartbeats(client: &Client, fleet: usize, rate: usize, duration: Duration) -> usize {
    let started = Instant::now();
    let gap = Duration::from_secs(1) / u32::try_from(rate).unwrap();
    let due = stream::unfold(0_usize, |index| async move {
        let at = started + gap * u32::try_from(index).unwrap();
        if at >= started + duration || started.elapsed() >= duration {
            return None;
        }
        tokio::time::sleep_until(at.into()).await;
        Some((index % fleet, index + 1))
    });
    due.map(|index| async move {
        let now = jiff::Timestamp::now();
        nodes::heartbeat(client, &name(index), now).await.unwrap();
    })
    .buffer_unordered(CONCURRENCY)
    .count()
    .await
}
