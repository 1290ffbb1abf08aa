//! A Node as Sluice keeps it: the few fields that are used, of the ten kilobytes that there are.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use k8s_openapi::{
    Resource as _, api::core::v1::Node as FullNode, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};

use super::{origin::Origin, websockets::SaidOfStreams};
use crate::{
    decision::{
        migration::{Migration, STREAMING_REDIRECTS},
        redirects::evidence::{Claim, Source},
        websockets::safety::{GATES_ANNOTATION, URL_ANNOTATION},
    },
    kubernetes::{
        arguments::{kubelet::FlagValue, rancher},
        feature_gates::FeatureGates,
    },
};

/// The annotations in which k3s and RKE2 publish a node's arguments.
const NODE_ARGS: [&str; 2] = ["k3s.io/node-args", "rke2.io/node-args"];

/// The projection of a Node. It deserializes from the full object and skips the rest unread.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeView {
    /// Name, uid, resource version, labels, and the annotations that are evidence.
    pub metadata: ObjectMeta,
    /// `status.nodeInfo.kubeletVersion`, or empty.
    pub kubelet_version: String,
    /// `status.nodeInfo.containerRuntimeVersion`, such as `containerd://1.6.20`, or empty.
    pub runtime: String,
    /// `status.declaredFeatures`, sorted, each once; `None` where the kubelet declares nothing, as
    /// those before 1.35 do.
    pub declared_features: Option<Vec<String>>,
    /// `status.nodeInfo.bootID` and `.machineID`.
    pub origin: Origin,
    /// Whether its condition Ready is true.
    pub ready: bool,
    /// What stands behind it, as its marks tell.
    pub provider: Option<String>,
}

impl NodeView {
    /// What the Node itself says about its kubelet's flag.
    pub fn claims(&self) -> Vec<Claim> {
        let migration = &STREAMING_REDIRECTS;
        let annotations = self.metadata.annotations.iter().flatten();
        let mut claims: Vec<Claim> = annotations
            .filter_map(|(key, value)| {
                if key == migration.annotation {
                    Some(Claim { source: Source::Annotation, says: annotation_says(value) })
                } else if NODE_ARGS.contains(&key.as_str()) {
                    Some(Claim { source: Source::NodeArgs, says: node_args_say(migration, value) })
                } else {
                    None
                }
            })
            .collect();
        claims.sort();
        claims
    }

    /// What is said in its annotations of its streams: by the admin, and by k3s or RKE2.
    pub(super) fn said_of_streams(&self) -> SaidOfStreams {
        let started = self.node_args().find_map(|args| match args {
            Some(args) => rancher::kubelet_gates(args.iter().map(String::as_str)),
            None => Some(FeatureGates::hidden("the node's arguments cannot be read")),
        });
        let (gates, url) = (self.annotation(GATES_ANNOTATION), self.annotation(URL_ANNOTATION));
        SaidOfStreams::of_admin(gates, started, url)
    }

    /// The gates that k3s or RKE2 gives the apiserver that it runs on this node, where it names any.
    pub fn apiserver_gates(&self) -> Option<FeatureGates> {
        let mut readable = self.node_args().flatten();
        readable.find_map(|args| rancher::apiserver_gates(args.iter().map(String::as_str)))
    }

    fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// The arguments that k3s or RKE2 publishes; `None` in it where they cannot be read.
    fn node_args(&self) -> impl Iterator<Item = Option<Vec<String>>> {
        let published = NODE_ARGS.into_iter().filter_map(|key| self.annotation(key));
        published.map(|text| serde_json::from_str(text).ok())
    }
}

/// The admin's word: exactly `true` or `false`, anything else cannot be understood.
fn annotation_says(value: &str) -> FlagValue {
    match value {
        "true" => FlagValue::On,
        "false" => FlagValue::Absent,
        _ => FlagValue::Unreadable,
    }
}

/// What the JSON list of the arguments of k3s or RKE2 says.
fn node_args_say(migration: &Migration, value: &str) -> FlagValue {
    match serde_json::from_str::<Vec<String>>(value) {
        Ok(args) => rancher::boolean(args.iter().map(String::as_str), migration.flag),
        Err(_) => FlagValue::Unreadable,
    }
}

impl kube::Resource for NodeView {
    type DynamicType = ();
    type Scope = k8s_openapi::ClusterResourceScope;

    fn kind(_: &()) -> Cow<'_, str> {
        FullNode::KIND.into()
    }

    fn group(_: &()) -> Cow<'_, str> {
        FullNode::GROUP.into()
    }

    fn version(_: &()) -> Cow<'_, str> {
        FullNode::VERSION.into()
    }

    fn plural(_: &()) -> Cow<'_, str> {
        FullNode::URL_PATH_SEGMENT.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// The mark of kwok's Nodes, and the taint and label of virtual kubelets.
const KWOK: &str = "kwok.x-k8s.io/node";
const VIRTUAL_KUBELET: &str = "virtual-kubelet.io/provider";
const TYPE: &str = "type";

/// What stands behind a Node.
fn provider(metadata: &RawMeta, spec: &RawSpec) -> Option<String> {
    let label = metadata.labels.as_ref().and_then(|labels| labels.get(TYPE)).map(String::as_str);
    let tainted = |taint: &RawTaint| taint.key.as_deref() == Some(VIRTUAL_KUBELET);
    if metadata.annotations.kwok || label == Some("kwok") {
        return Some("kwok".to_owned());
    }
    if label == Some("virtual-kubelet") || spec.taints.iter().flatten().any(tainted) {
        return Some("virtual-kubelet".to_owned());
    }
    let (scheme, _) = spec.provider_id.as_deref()?.split_once("://")?;
    (!scheme.is_empty()).then(|| scheme.to_owned())
}

#[derive(Deserialize)]
struct Raw {
    metadata: RawMeta,
    #[serde(default)]
    spec: RawSpec,
    #[serde(default)]
    status: RawStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawMeta {
    name: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    annotations: Evidence,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawSpec {
    #[serde(rename = "providerID")]
    provider_id: Option<String>,
    taints: Option<Vec<RawTaint>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawTaint {
    key: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawStatus {
    node_info: RawNodeInfo,
    declared_features: Option<Vec<String>>,
    conditions: Option<Vec<RawCondition>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawCondition {
    r#type: Option<String>,
    status: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawNodeInfo {
    kubelet_version: String,
    container_runtime_version: Option<String>,
    #[serde(rename = "bootID")]
    boot_id: Option<String>,
    #[serde(rename = "machineID")]
    machine_id: Option<String>,
}

impl<'de> Deserialize<'de> for NodeView {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Raw { metadata, spec, status } = Raw::deserialize(deserializer)?;
        let provider = provider(&metadata, &spec);
        let info = status.node_info;
        let is_ready = |condition: &RawCondition| {
            condition.r#type.as_deref() == Some("Ready")
                && condition.status.as_deref() == Some("True")
        };
        Ok(Self {
            metadata: ObjectMeta {
                name: metadata.name,
                uid: metadata.uid,
                resource_version: metadata.resource_version,
                labels: metadata.labels,
                annotations: Some(metadata.annotations.kept).filter(|kept| !kept.is_empty()),
                ..ObjectMeta::default()
            },
            kubelet_version: info.kubelet_version,
            runtime: info.container_runtime_version.unwrap_or_default(),
            declared_features: status.declared_features.map(|mut features| {
                features.sort_unstable();
                features.dedup();
                features
            }),
            origin: Origin {
                boot: info.boot_id.unwrap_or_default(),
                machine: info.machine_id.unwrap_or_default(),
            },
            ready: status.conditions.iter().flatten().any(is_ready),
            provider,
        })
    }
}

/// The annotations that are evidence; the others are skipped without being copied.
#[derive(Default)]
struct Evidence {
    kept: BTreeMap<String, String>,
    /// Whether kwok's mark is among the others.
    kwok: bool,
}

impl<'de> Deserialize<'de> for Evidence {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Kept;
        impl<'de> Visitor<'de> for Kept {
            type Value = Evidence;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("annotations")
            }

            fn visit_unit<E>(self) -> Result<Evidence, E> {
                Ok(Evidence::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Evidence, A::Error> {
                let mut evidence = Evidence::default();
                while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                    let said = [STREAMING_REDIRECTS.annotation, GATES_ANNOTATION, URL_ANNOTATION];
                    if said.contains(&&*key) || NODE_ARGS.contains(&&*key) {
                        evidence.kept.insert(key.into_owned(), map.next_value()?);
                    } else {
                        evidence.kwok |= key == KWOK;
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(evidence)
            }
        }
        deserializer.deserialize_any(Kept)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn projects_a_node() {
        let view: NodeView = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {
                "name": "old1", "uid": "u1", "resourceVersion": "7",
                "labels": {"zone": "a"},
                "annotations": {"sluice.dev/redirect-container-streaming": "true", "other": "x"},
                "managedFields": [{"manager": "kubelet"}],
            },
            "spec": {"podCIDR": "10.0.0.0/24"},
            "status": {
                "images": [{"names": ["a"]}],
                "nodeInfo": {
                    "kubeletVersion": "v1.18.20", "containerRuntimeVersion": "docker://20.10.24",
                    "osImage": "d", "bootID": "b", "machineID": "m",
                },
                "conditions": [
                    {"type": "MemoryPressure", "status": "False"},
                    {"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"},
                ],
            },
        }))
        .unwrap();
        assert_eq!(view.kubelet_version, "v1.18.20");
        assert_eq!((view.runtime.as_str(), &view.declared_features), ("docker://20.10.24", &None));
        let origin = Origin { boot: "b".to_owned(), machine: "m".to_owned() };
        assert_eq!((&view.origin, view.ready), (&origin, true));
        assert_eq!(view.metadata.annotations.as_ref().map(BTreeMap::len), Some(1));
        assert_eq!(view.metadata.labels.as_ref().map(BTreeMap::len), Some(1));
        assert_eq!(view.metadata.managed_fields, None);
        assert_eq!(view.claims(), [Claim { source: Source::Annotation, says: FlagValue::On }]);
    }

    #[test]
    fn what_stands_behind_a_node() {
        for (metadata, spec, provider) in [
            (json!({"annotations": {"kwok.x-k8s.io/node": "fake"}}), json!({}), Some("kwok")),
            (json!({"labels": {"type": "kwok"}}), json!({"providerID": "a://b"}), Some("kwok")),
            (json!({"labels": {"type": "virtual-kubelet"}}), json!({}), Some("virtual-kubelet")),
            (
                json!({}),
                json!({"taints": [{"key": "a"}, {"key": "virtual-kubelet.io/provider", "value": "azure"}]}),
                Some("virtual-kubelet"),
            ),
            (json!({}), json!({"providerID": "aws:///eu-1a/i-07", "taints": null}), Some("aws")),
            (json!({}), json!({"providerID": "://x"}), None),
            (json!({}), json!({"providerID": "node-7"}), None),
            (json!({"labels": null, "annotations": null}), json!({}), None),
        ] {
            let node = json!({"metadata": metadata, "spec": spec});
            let read = serde_json::from_value::<NodeView>(node.clone());
            assert_eq!(read.unwrap().provider.as_deref(), provider, "{node}");
        }
    }

    #[test]
    fn a_node_without_status_is_not_an_error() {
        for node in [
            json!({"metadata": {"name": "n"}}),
            json!({"metadata": {"name": "n", "annotations": null}, "status": {}}),
        ] {
            let view: NodeView = serde_json::from_value(node).unwrap();
            assert_eq!((view.kubelet_version.as_str(), view.claims()), ("", vec![]));
            assert!(!view.ready && view.origin.is_unknown());
        }
    }

    #[test]
    fn what_a_kubelet_declares_is_sorted_and_nothing_is_not_an_empty_list() {
        for (status, expected) in [
            (json!({"declaredFeatures": ["b", "a", "b"]}), Some(vec!["a", "b"])),
            (json!({"declaredFeatures": []}), Some(vec![])),
            (json!({"declaredFeatures": null}), None),
            (json!({}), None),
        ] {
            let node = json!({"metadata": {"name": "n"}, "status": status});
            let view: NodeView = serde_json::from_value(node).unwrap();
            let declared = view.declared_features.as_ref();
            let declared = declared.map(|all| all.iter().map(String::as_str).collect::<Vec<_>>());
            assert_eq!(declared, expected, "{status}");
        }
    }

    #[test]
    fn the_admins_word_is_true_or_false_and_nothing_else() {
        for (value, says) in [
            ("true", FlagValue::On),
            ("false", FlagValue::Absent),
            ("True", FlagValue::Unreadable),
            ("yes", FlagValue::Unreadable),
            ("", FlagValue::Unreadable),
        ] {
            assert_eq!(annotation_says(value), says, "{value}");
        }
    }

    #[test]
    fn gates_in_node_args() {
        for (key, value, expected) in [
            ("k3s.io/node-args", r#"["server"]"#, None),
            (
                "k3s.io/node-args",
                r#"["a","--kube-apiserver-arg","feature-gates=A=false"]"#,
                Some(false),
            ),
            (
                "rke2.io/node-args",
                r#"["a","--kube-apiserver-arg=feature-gates=A=true"]"#,
                Some(true),
            ),
            ("other", r#"["a","--kube-apiserver-arg=feature-gates=A=true"]"#, None),
            ("k3s.io/node-args", "server --kube-apiserver-arg feature-gates=A=true", None),
        ] {
            let node = json!({"metadata": {"name": "n", "annotations": {key: value}}});
            let view: NodeView = serde_json::from_value(node).unwrap();
            let gates = view.apiserver_gates().map(|gates| gates.get("A"));
            assert_eq!(gates, expected.map(Some), "{key}: {value}");
        }
    }

    #[test]
    fn node_args_as_k3s_writes_them() {
        for (value, says) in [
            (r#"["agent"]"#, FlagValue::Absent),
            (r#"["agent","--kubelet-arg","redirect-container-streaming=true"]"#, FlagValue::On),
            (r#"["agent","--kubelet-arg=redirect-container-streaming=true"]"#, FlagValue::On),
            (r#"["agent","--kubelet-arg","redirect-container-streaming"]"#, FlagValue::On),
            (r#"["agent","--kubelet-arg","--redirect-container-streaming=false"]"#, FlagValue::Off),
            (
                r#"["agent","--kubelet-arg","v=2","--kubelet-arg","redirect-container-streaming=1"]"#,
                FlagValue::On,
            ),
            (
                r#"["a","--kubelet-arg=redirect-container-streaming=true","--kubelet-arg=redirect-container-streaming=false"]"#,
                FlagValue::Off,
            ),
            (r#"["agent","--node-label","redirect-container-streaming=true"]"#, FlagValue::Absent),
            (
                r#"["agent","--kubelet-arg","redirect-container-streaming=maybe"]"#,
                FlagValue::Unreadable,
            ),
            (r#"["agent","--kubelet-arg"]"#, FlagValue::Absent),
            ("agent --kubelet-arg x", FlagValue::Unreadable),
        ] {
            assert_eq!(node_args_say(&STREAMING_REDIRECTS, value), says, "{value}");
        }
    }
}
