//! The agents' pods: on which nodes an agent is there and ready.

use k8s_openapi::api::core::v1::Pod;

/// What is kept of an agent's pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentPod {
    /// The node it runs on.
    pub node: String,
    /// Whether it is ready, and not about to end.
    pub ready: bool,
}

impl AgentPod {
    /// Reads a pod of the DaemonSet of this name; `None` for any other, and for one that is on no
    /// node yet. A pod with the right labels alone is somebody's claim.
    pub fn read(pod: &Pod, daemon_set: &str) -> Option<Self> {
        let owned = pod.metadata.owner_references.iter().flatten().any(|owner| {
            owner.controller == Some(true) && owner.kind == "DaemonSet" && owner.name == daemon_set
        });
        let node = pod.spec.as_ref()?.node_name.clone().filter(|_| owned)?;
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let mut ready = conditions.filter(|c| c.type_ == "Ready" && c.status == "True");
        let ending = pod.metadata.deletion_timestamp.is_some();
        Some(Self { node, ready: ready.next().is_some() && !ending })
    }
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
            AgentPod::read(&pod, "sluice-agent").map(|pod| (pod.node, pod.ready))
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
        let owner = |field: &'static str, value: Value| {
            move |pod: &mut Value| pod["metadata"]["ownerReferences"][0][field] = value.clone()
        };
        for change in [
            owner("name", json!("other")),
            owner("kind", json!("ReplicaSet")),
            owner("controller", json!(false)),
        ] {
            let mut pod = json!({
                "metadata": {"ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "sluice-agent",
                    "uid": "u", "controller": true,
                }]},
                "spec": {"nodeName": "w1", "containers": []},
            });
            change(&mut pod);
            assert_eq!(AgentPod::read(&serde_json::from_value(pod).unwrap(), "sluice-agent"), None);
        }
    }
}
