//! The DaemonSet of the agents, as it is stored, and whether that is what is wanted.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec};
use serde_json::{Map, Value, json};

use super::template::EVIDENCE_ONLY;
use crate::{
    cluster::{NodeAccess, Running, Selector},
    controller::published::{digest, version},
};

/// The annotation that says which nodes have agents, in the form in which policies say it: while a
/// policy is paused or cannot be read, this is all that tells.
pub(super) const SELECTORS: &str = "sluice.dev/node-selectors";

/// The owners that are ours to judge.
const OWNER: &str = "StreamingPolicy";

/// Fields of a pod, and of its container, that have no default and mean something else when
/// somebody adds them.
const POD_ALONE: [&str; 7] = [
    "affinity",
    "hostIPC",
    "hostPID",
    "imagePullSecrets",
    "initContainers",
    "nodeSelector",
    "topologySpreadConstraints",
];
/// Each key of it keeps agents from nodes, so none may be beside ours.
const NODE_SELECTOR: &str = "/template/spec/nodeSelector";
const CONTAINER_ALONE: [&str; 4] = ["command", "envFrom", "lifecycle", "startupProbe"];

/// The DaemonSet, as far as it is ours. Its status says nothing that is needed here.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredAgents {
    /// Its uid.
    pub uid: String,
    /// The resource version; what is older than a write of our own is an echo.
    pub version: u64,
    /// It is being deleted.
    pub ending: bool,
    /// Where its agents are, and for whom.
    pub running: Running,
    labels: Value,
    selectors: Option<String>,
    spec: Value,
}

impl StoredAgents {
    /// Reads the stored object.
    pub fn read(object: &DaemonSet) -> Self {
        let metadata = &object.metadata;
        let annotations = metadata.annotations.as_ref();
        let selectors = annotations.and_then(|annotations| annotations.get(SELECTORS)).cloned();
        let parsed = |text: &String| serde_json::from_str::<Vec<Selector>>(text).ok();
        let owners = metadata.owner_references.iter().flatten();
        let owners = owners.filter(|owner| owner.kind == OWNER).map(|owner| owner.uid.clone());
        Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            version: version(metadata.resource_version.as_deref()),
            ending: metadata.deletion_timestamp.is_some(),
            running: Running {
                selectors: selectors.as_ref().and_then(parsed).filter(|all| !all.is_empty()),
                owners: owners.collect(),
                access: access(&object.spec),
            },
            labels: json!(metadata.labels),
            selectors,
            spec: json!(object.spec),
        }
    }

    /// Whether this is what is wanted. The apiserver fills in what a wanted object leaves out, so
    /// only what is in it counts, and what must not be beside it.
    pub fn is(&self, wanted: &Value) -> bool {
        let metadata = &wanted["metadata"];
        let owners = metadata["ownerReferences"].as_array().into_iter().flatten();
        let owners: BTreeSet<&str> = owners.filter_map(|owner| owner["uid"].as_str()).collect();
        includes(&metadata["labels"], &self.labels)
            && metadata["annotations"][SELECTORS].as_str() == self.selectors.as_deref()
            && owners == self.running.owners.iter().map(String::as_str).collect()
            && includes(&with_nulls(&wanted["spec"]), &self.spec)
            && wanted["spec"].pointer(NODE_SELECTOR) == self.spec.pointer(NODE_SELECTOR)
    }

    /// The digest of all that [`Self::is`] looks at.
    pub fn digest(&self) -> u64 {
        digest(&(&self.labels, &self.selectors, &self.running.owners, &self.spec))
    }
}

/// What the agents of a stored DaemonSet may touch. Where that is not plain it is the more.
fn access(spec: &Option<DaemonSetSpec>) -> NodeAccess {
    let spec = spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let args = spec.iter().flat_map(|pod| &pod.containers).flat_map(|c| c.args.iter().flatten());
    match args.into_iter().any(|arg| arg == EVIDENCE_ONLY) {
        true => NodeAccess::Evidence,
        false => NodeAccess::Streams,
    }
}

/// The wanted spec as a merge patch takes it: what an apply leaves where somebody else has added it
/// is taken away.
pub(crate) fn exactly(wanted: &Value, stored: &DaemonSet) -> Value {
    let (mut spec, stored) = (with_nulls(&wanted["spec"]), json!(stored.spec));
    let selector = stored.pointer(NODE_SELECTOR).and_then(Value::as_object);
    if let Some(wanted) = spec.pointer_mut(NODE_SELECTOR).and_then(Value::as_object_mut) {
        for key in selector.into_iter().flat_map(Map::keys) {
            wanted.entry(key).or_insert(Value::Null);
        }
    }
    json!({"spec": spec})
}

fn with_nulls(spec: &Value) -> Value {
    let mut spec = spec.clone();
    let pod = &mut spec["template"]["spec"];
    let fill = |object: Option<&mut Map<String, Value>>, fields: &[&str]| {
        if let Some(object) = object {
            for field in fields {
                object.entry(*field).or_insert(Value::Null);
            }
        }
    };
    fill(pod.as_object_mut(), &POD_ALONE);
    for container in pod["containers"].as_array_mut().into_iter().flatten() {
        fill(container.as_object_mut(), &CONTAINER_ALONE);
    }
    spec
}

/// Whether all that is wanted is there. Null is wanted where nothing may be.
fn includes(wanted: &Value, stored: &Value) -> bool {
    match (wanted, stored) {
        (Value::Object(wanted), Value::Object(stored)) => wanted
            .iter()
            .all(|(key, value)| includes(value, stored.get(key).unwrap_or(&Value::Null))),
        (Value::Array(wanted), Value::Array(stored)) => {
            let mut pairs = wanted.iter().zip(stored);
            wanted.len() == stored.len()
                && match merge_key(wanted) {
                    Some(key) => wanted.iter().all(|wanted| {
                        let same = |stored: &&Value| stored[key] == wanted[key];
                        stored.iter().find(same).is_some_and(|stored| includes(wanted, stored))
                    }),
                    None => pairs.all(|(wanted, stored)| includes(wanted, stored)),
                }
        }
        // What holds nothing is as good as absent: the apiserver drops some of it.
        (Value::Object(wanted), Value::Null) => wanted.values().all(|v| includes(v, &Value::Null)),
        (Value::String(wanted), Value::Null) => wanted.is_empty(),
        (wanted, stored) => wanted == stored,
    }
}

/// The field by which an apiserver merges a list of a pod, if it does. An apply then changes what is in
/// the list and not always its order, so a stored one counts as the same in any.
fn merge_key(wanted: &[Value]) -> Option<&'static str> {
    let have = |key: &&str| wanted.iter().all(|item| item[key].is_string());
    ["mountPath", "name"].into_iter().find(|key| !wanted.is_empty() && have(key))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{agents, settings};
    use super::*;
    use crate::{cluster::Agents, controller::agents::daemon_set};

    fn wanted() -> Value {
        daemon_set(&settings(), &agents(&[("pool", "a")]), None)
    }

    fn stored(change: impl FnOnce(&mut Value)) -> StoredAgents {
        let mut object = wanted();
        object["metadata"]["uid"] = json!("u");
        object["metadata"]["resourceVersion"] = json!("7");
        // What an apiserver fills in, and what the DaemonSet's controller says.
        object["metadata"]["annotations"]["deprecated.daemonset.template.generation"] = json!("1");
        object["spec"]["revisionHistoryLimit"] = json!(10);
        let pod = &mut object["spec"]["template"]["spec"];
        pod["restartPolicy"] = json!("Always");
        pod["containers"][0]["terminationMessagePath"] = json!("/dev/termination-log");
        pod["volumes"][7]["projected"]["defaultMode"] = json!(420);
        object["status"] = json!({
            "currentNumberScheduled": 1, "desiredNumberScheduled": 1, "numberMisscheduled": 0,
            "numberReady": 1,
        });
        change(&mut object);
        StoredAgents::read(&serde_json::from_value(object).unwrap())
    }

    #[test]
    fn what_the_apiserver_fills_in_is_no_difference() {
        let stored = stored(|_| ());
        assert!(stored.is(&wanted()), "{stored:?}");
        let Agents { selectors, owners, access } = agents(&[("pool", "a")]);
        assert_eq!(stored.running.access, access);
        assert_eq!(stored.running.selectors, Some(selectors));
        let uids: Vec<_> = owners.into_iter().map(|owner| owner.uid).collect();
        assert_eq!(stored.running.owners, uids);
    }

    #[test]
    fn the_order_of_what_an_apply_merges_is_no_difference() {
        for list in ["volumes", "containers/0/volumeMounts", "containers/0/env"] {
            let stored = stored(|object| {
                let list = object.pointer_mut(&format!("/spec/template/spec/{list}")).unwrap();
                let list = list.as_array_mut().unwrap();
                assert!(list.len() > 1);
                list.rotate_left(1);
            });
            assert!(stored.is(&wanted()), "{list}");
        }
    }

    #[test]
    fn what_agents_may_touch_is_read_back() {
        for access in [NodeAccess::Evidence, NodeAccess::Streams] {
            let wanted = daemon_set(&settings(), &Agents { access, ..agents(&[]) }, None);
            let stored = StoredAgents::read(&serde_json::from_value(wanted).unwrap());
            assert_eq!(stored.running.access, access);
        }
    }

    #[test]
    fn the_status_is_no_difference() {
        let other = stored(|object| object["status"]["numberReady"] = json!(0));
        assert_eq!(other, stored(|_| ()));
    }

    #[test]
    fn every_drift_is_one() {
        type Drift = fn(&mut Value);
        let drifts: [Drift; 15] = [
            |o| o["metadata"]["labels"] = json!({}),
            |o| o["metadata"]["annotations"][SELECTORS] = json!("[]"),
            |o| o["metadata"]["ownerReferences"] = json!([]),
            |o| o["metadata"]["ownerReferences"][0]["uid"] = json!("another"),
            |o| o["spec"]["updateStrategy"] = json!({"type": "OnDelete"}),
            |o| o["spec"]["template"]["spec"]["hostNetwork"] = json!(false),
            |o| o["spec"]["template"]["spec"]["nodeSelector"] = json!({"no": "where"}),
            |o| o["spec"]["template"]["spec"]["nodeSelector"]["no"] = json!("where"),
            |o| o["spec"]["template"]["spec"]["affinity"] = Value::Null,
            |o| o["spec"]["template"]["spec"]["hostPID"] = json!(true),
            |o| o["spec"]["template"]["spec"]["tolerations"] = json!([]),
            |o| o["spec"]["template"]["spec"]["containers"][0]["image"] = json!("other"),
            |o| o["spec"]["template"]["spec"]["containers"][0]["command"] = json!(["sh"]),
            |o| {
                let container = &mut o["spec"]["template"]["spec"]["containers"][0];
                container["securityContext"]["capabilities"]["add"] = json!(["SYS_ADMIN"]);
            },
            |o| {
                let pod = &mut o["spec"]["template"]["spec"];
                let more = json!({"name": "more", "image": "more"});
                pod["containers"].as_array_mut().unwrap().push(more);
            },
        ];
        for (index, drift) in drifts.into_iter().enumerate() {
            let drifted = stored(drift);
            assert!(!drifted.is(&wanted()), "drift {index}");
            assert_ne!(drifted.digest(), stored(|_| ()).digest(), "drift {index}");
        }
    }

    #[test]
    fn selectors_that_cannot_be_read_are_unknown() {
        for text in ["", "[]", "none", "[1]"] {
            let stored = stored(|o| o["metadata"]["annotations"][SELECTORS] = json!(text));
            assert_eq!(stored.running.selectors, None, "{text}");
        }
    }
}
