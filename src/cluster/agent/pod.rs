//! The agents' pods: on which nodes an agent is there and ready.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

/// The labels of every agent's pod.
pub const AGENT_LABELS: [(&str, &str); 2] =
    [("app.kubernetes.io/name", "sluice"), ("app.kubernetes.io/component", "agent")];

/// What is kept of an agent's pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentPod {
    /// The DaemonSet that it belongs to.
    pub daemon_set: String,
    /// The node it runs on.
    pub node: String,
    /// Whether it is ready, and not about to end.
    pub ready: bool,
    /// Whether it is about to end.
    pub ending: bool,
}

impl AgentPod {
    /// Reads a pod of a DaemonSet; `None` for any other, and for one that is on no node yet. A pod
    /// with the right labels alone is somebody's claim.
    pub fn read(pod: &Pod) -> Option<Self> {
        let mut owners = pod.metadata.owner_references.iter().flatten();
        let owner =
            owners.find(|owner| owner.controller == Some(true) && owner.kind == "DaemonSet")?;
        let node = pod.spec.as_ref()?.node_name.clone()?;
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let mut ready = conditions.filter(|c| c.type_ == "Ready" && c.status == "True");
        let ending = pod.metadata.deletion_timestamp.is_some();
        let ready = ready.next().is_some() && !ending;
        Some(Self { daemon_set: owner.name.clone(), node, ready, ending })
    }
}

/// The nodes of these pods, and whether an agent is ready there.
pub fn ready_nodes(pods: impl IntoIterator<Item = AgentPod>) -> BTreeMap<String, bool> {
    let mut nodes = BTreeMap::new();
    for pod in pods {
        *nodes.entry(pod.node).or_default() |= pod.ready;
    }
    nodes
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn only_a_ready_pod_of_the_daemon_set_vouches_for_its_node() {
        let read = |change: fn(&mut Value)| {
            let mut pod = json!({
                "metadata": {
                    "name": "sluice-agent-x",
                    "ownerReferences": [{
                        "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "sluice-agent",
                        "uid": "u", "controller": true,
                    }],
                },
                "spec": {"nodeName": "w1", "containers": []},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]},
            });
            change(&mut pod);
            let pod = serde_json::from_value(pod).unwrap();
            AgentPod::read(&pod).map(|pod| (pod.node, pod.ready))
        };
        let on = |ready| Some(("w1".to_owned(), ready));
        assert_eq!(read(|_| ()), on(true));
        assert_eq!(
            read(|pod| pod["status"]["conditions"][0]["status"] = json!("False")),
            on(false)
        );
        assert_eq!(read(|pod| pod["status"] = json!({})), on(false));
        let ending = |pod: &mut Value| {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        };
        assert_eq!(read(ending), on(false));
        assert_eq!(read(|pod| pod["spec"]["nodeName"] = Value::Null), None);
        fn owner(pod: &mut Value, field: &str, value: Value) {
            pod["metadata"]["ownerReferences"][0][field] = value;
        }
        assert_eq!(read(|pod| pod["metadata"]["ownerReferences"] = json!([])), None);
        assert_eq!(read(|pod| owner(pod, "kind", json!("ReplicaSet"))), None);
        assert_eq!(read(|pod| owner(pod, "controller", json!(false))), None);
    }

    #[test]
    fn one_ready_pod_is_enough_for_a_node() {
        let pod = |node: &str, ready| {
            let (daemon_set, node) = ("sluice-agent".to_owned(), node.to_owned());
            AgentPod { daemon_set, node, ready, ending: false }
        };
        let nodes = ready_nodes([pod("a", true), pod("a", false), pod("b", false)]);
        assert_eq!(nodes, BTreeMap::from([("a".to_owned(), true), ("b".to_owned(), false)]));
    }
}
