//! One object of a file: what it is, and whether it can be taken.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Endpoints, Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{ObjectLocation, Unread, list, rights};
use crate::{
    api::{GROUP, StreamingNode, StreamingPolicy, StreamingPolicySpec},
    cli::plan::objects::{Objects, PolicyObject},
    cluster::{
        AGENT_LABELS, AgentPod, ApiserverPod, Content, NodeView, endpoint_addresses,
        looks_like_apiserver,
    },
};

/// The namespace of the apiservers' pods.
const SYSTEM: &str = "kube-system";
/// The value of the label `component` by which kubeadm and its relatives mark an apiserver's pod.
const PROGRAM: &str = "kube-apiserver";
/// So many overrides the schema lets through.
const MAX_OVERRIDES: usize = 100;
/// What is wrong with an object of which another says something else.
pub(super) const TWICE: &str =
    "it is there twice, and this one says something else: give one of them";

/// The parts of an object that may be unknown to us without being a mistake: the type is known
/// already, and the rest is what a newer apiserver or controller wrote.
const NOT_OURS: [&str; 4] = ["apiVersion", "kind", "metadata", "status"];

/// Adds an object, or each item of a list. `listed` is what a typed list says of its items, which
/// do not say it themselves.
pub(super) fn add(
    objects: &mut Objects,
    place: &ObjectLocation,
    value: Value,
    listed: Option<(&str, &str)>,
) {
    if let Err(unread) = take(objects, place, value, listed) {
        objects.unread.push(unread);
    }
}

fn take(
    objects: &mut Objects,
    place: &ObjectLocation,
    mut value: Value,
    listed: Option<(&str, &str)>,
) -> Result<(), Unread> {
    if !value.is_object() {
        return Err(Unread::NoObject { place: place.clone(), why: "not an object" });
    }
    let text = |field: &str| value.get(field).and_then(Value::as_str).map(str::to_owned);
    let kind = text("kind").or(listed.map(|(_, kind)| kind.to_owned()));
    let version = text("apiVersion").or(listed.map(|(version, _)| version.to_owned()));
    let (Some(kind), Some(version)) = (kind, version) else {
        return Err(Unread::NoObject { place: place.clone(), why: "no kind and apiVersion" });
    };
    list::check(objects, place, &version, &kind, &value);
    let items = value.get_mut("items").map(Value::take).filter(|items| !items.is_null());
    if let (Some(of), Some(items)) = (kind.strip_suffix("List"), items) {
        let Value::Array(items) = items else {
            return Err(Unread::NoObject { place: place.clone(), why: "its items are no list" });
        };
        let listed = (!of.is_empty()).then_some((version.as_str(), of));
        for (index, item) in items.into_iter().enumerate() {
            let item_place =
                ObjectLocation { item: format!("{}, items[{index}]", place.item), ..place.clone() };
            add(objects, &item_place, item, listed);
        }
        return Ok(());
    }
    if let Value::Object(fields) = &mut value {
        // Our own kinds want to be told; whoever lists them may not have.
        fields.entry("apiVersion").or_insert_with(|| version.clone().into());
        fields.entry("kind").or_insert_with(|| kind.clone().into());
    }
    let named = NamedObject::new(place, &kind, value);
    if let Some(kind) = rights::kind(&version, &kind) {
        return rights::take(objects, place, (&version, kind), named);
    }
    match (version.as_str(), kind.as_str()) {
        ("v1", "Node") => {
            let (name, view) = named.read::<NodeView>()?;
            add_node(objects, place, name, view)?;
        }
        ("v1", "Pod") if named.is_apiserver() => {
            let (name, pod) = named.read::<Pod>()?;
            match ApiserverPod::read(&pod) {
                Some(read) if pod.metadata.namespace.as_deref() == Some(SYSTEM) => {
                    once(&mut objects.pods, place, (&kind, &name), read)?;
                }
                // Whoever may make pods there may make one that looks like this.
                Some(_) => objects.warnings.push(format!(
                    "{place}: Pod {name} looks like an apiserver's, but only those in {SYSTEM} \
                     are believed"
                )),
                None if pod.metadata.namespace.as_deref() == Some(SYSTEM) => {
                    objects.warnings.push(format!(
                        "{place}: Pod {name} is no mirror pod of its node, and shows nothing"
                    ));
                }
                // A control plane of another cluster, say.
                None => objects.skipped += 1,
            }
        }
        ("v1", "Pod") if named.is_agent() => {
            let (name, pod) = named.read::<Pod>()?;
            let read = AgentPod::read(&pod);
            let full = format!("{}/{name}", pod.metadata.namespace.unwrap_or_default());
            once(&mut objects.agent_pods, place, (&kind, &full), read.clone())?;
            if let Some(AgentPod { node, ready, .. }) = read {
                *objects.agents.entry(node).or_default() |= ready;
            }
        }
        ("v1", "Endpoints") if named.is_at("default", "kubernetes") => {
            let (name, endpoints) = named.read::<Endpoints>()?;
            let addresses = endpoint_addresses(&endpoints);
            if objects.endpoints.get_or_insert_with(|| addresses.clone()) != &addresses {
                return Err(malformed(place, &format!("{kind} {name}"), TWICE.to_owned()));
            }
        }
        (version, "StreamingPolicy") if group(version) == GROUP => {
            let (name, policy) = named.read_ours::<StreamingPolicy>()?;
            check(&policy.spec).map_err(|why| malformed(place, &format!("{kind} {name}"), why))?;
            add_policy(objects, place, name, policy)?;
        }
        (version, "StreamingNode") if group(version) == GROUP => {
            let (name, node) = named.read_ours::<StreamingNode>()?;
            let same =
                |a: &StreamingNode, b: &StreamingNode| a.spec == b.spec && a.status == b.status;
            once_by(&mut objects.known, place, (&kind, &name), node, same)?;
        }
        _ => objects.skipped += 1,
    }
    Ok(())
}

/// Adds a Node.
pub(super) fn add_node(
    objects: &mut Objects,
    place: &ObjectLocation,
    name: String,
    node: NodeView,
) -> Result<(), Unread> {
    // Much is stored of a Node that changes nothing here.
    let same = |a: &NodeView, b: &NodeView| {
        let of = |node: &NodeView| NodeView {
            metadata: ObjectMeta { resource_version: None, ..node.metadata.clone() },
            ..node.clone()
        };
        of(a) == of(b)
    };
    once_by(&mut objects.nodes, place, ("Node", &name), node, same)
}

/// Adds a policy. It may be there as it is stored and as somebody has written it, and the one that is stored
/// says more.
fn add_policy(
    objects: &mut Objects,
    place: &ObjectLocation,
    name: String,
    policy: StreamingPolicy,
) -> Result<(), Unread> {
    let is_stored =
        |policy: &StreamingPolicy| policy.metadata.uid.is_some() || policy.status.is_some();
    match objects.policies.get_mut(&name) {
        Some(PolicyObject::Readable(known)) => {
            let (of_known, of_this) = (&known.metadata, &policy.metadata);
            let is_one = of_known.uid == of_this.uid
                && of_known.creation_timestamp == of_this.creation_timestamp
                && known.status == policy.status;
            let (stored, stored_again) = (is_stored(known), is_stored(&policy));
            if known.spec != policy.spec || (stored && stored_again && !is_one) {
                let object = format!("StreamingPolicy {name}");
                return Err(malformed(place, &object, TWICE.to_owned()));
            }
            if !stored {
                **known = policy;
            }
        }
        _ => {
            objects.policies.insert(name, PolicyObject::Readable(Box::new(policy)));
        }
    }
    Ok(())
}

/// Adds an object. Of two of one name nobody knows which one is true, unless they say the same.
fn once<T: PartialEq>(
    known: &mut BTreeMap<String, T>,
    place: &ObjectLocation,
    object: (&str, &str),
    read: T,
) -> Result<(), Unread> {
    once_by(known, place, object, read, T::eq)
}

/// The same, where not all of an object counts.
fn once_by<T>(
    known: &mut BTreeMap<String, T>,
    place: &ObjectLocation,
    (kind, name): (&str, &str),
    read: T,
    same: impl FnOnce(&T, &T) -> bool,
) -> Result<(), Unread> {
    match known.get(name) {
        Some(first) if same(first, &read) => {}
        Some(_) => return Err(malformed(place, &format!("{kind} {name}"), TWICE.to_owned())),
        None => {
            known.insert(name.to_owned(), read);
        }
    }
    Ok(())
}

pub(super) fn group(version: &str) -> &str {
    version.split('/').next().unwrap_or_default()
}

pub(super) fn malformed(place: &ObjectLocation, object: &str, why: String) -> Unread {
    Unread::Malformed { place: place.clone(), object: object.to_owned(), why }
}

/// What the schema and the controller refuse, and the types do not.
fn check(spec: &StreamingPolicySpec) -> Result<(), String> {
    if let Some(sentence) = Content::read(spec).facts.invalid.into_iter().next() {
        return Err(sentence);
    }
    if spec.overrides.len() > MAX_OVERRIDES {
        return Err(format!("spec.overrides: more than {MAX_OVERRIDES}"));
    }
    for (index, entry) in spec.overrides.iter().enumerate() {
        let field = |field: &str| format!("spec.overrides[{index}].{field}");
        if entry.node.is_empty() {
            return Err(format!("{}: empty", field("node")));
        }
        if entry.reason.is_empty() {
            return Err(format!("{}: empty; say why exec may fail there", field("reason")));
        }
        if spec.overrides.iter().take(index).any(|other| other.node == entry.node) {
            return Err(format!("{}: {} is there twice", field("node"), entry.node));
        }
    }
    Ok(())
}

/// Takes out what is null: to Kubernetes that is as good as absent.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

/// An object with the words for its errors.
pub(super) struct NamedObject<'a> {
    place: &'a ObjectLocation,
    kind: &'a str,
    name: Option<String>,
    value: Value,
}

impl<'a> NamedObject<'a> {
    fn new(place: &'a ObjectLocation, kind: &'a str, value: Value) -> Self {
        let name = value.pointer("/metadata/name").and_then(Value::as_str).map(str::to_owned);
        Self { place, kind, name: name.filter(|name| !name.is_empty()), value }
    }

    fn at(&self, pointer: &str) -> Option<&str> {
        self.value.pointer(pointer).and_then(Value::as_str)
    }

    fn is_at(&self, namespace: &str, name: &str) -> bool {
        self.at("/metadata/namespace") == Some(namespace) && self.name.as_deref() == Some(name)
    }

    /// Whether a pod looks like an apiserver's. Others are not read: a mistake in them is nobody's
    /// concern here.
    fn is_apiserver(&self) -> bool {
        let containers = self.value.pointer("/spec/containers").and_then(Value::as_array);
        fn words(container: &Value) -> Vec<&str> {
            let lists = ["command", "args"].into_iter().filter_map(|key| container.get(key));
            lists.filter_map(Value::as_array).flatten().filter_map(Value::as_str).collect()
        }
        let named: Vec<(&str, Vec<&str>)> = containers
            .into_iter()
            .flatten()
            .map(|container| {
                let name = container.get("name").and_then(Value::as_str);
                (name.unwrap_or_default(), words(container))
            })
            .collect();
        self.at("/metadata/labels/component") == Some(PROGRAM) || looks_like_apiserver(&named)
    }

    /// Whether a pod is labelled like an agent's.
    fn is_agent(&self) -> bool {
        let labels = self.value.pointer("/metadata/labels");
        let label = |key: &str| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
        AGENT_LABELS.iter().all(|(key, value)| label(key) == Some(value))
    }

    pub(super) fn malformed(&self, why: String) -> Unread {
        let object = match &self.name {
            Some(name) => format!("{} {name}", self.kind),
            None => self.kind.to_owned(),
        };
        malformed(self.place, &object, why)
    }

    pub(super) fn read<T: DeserializeOwned>(self) -> Result<(String, T), Unread> {
        self.deserialize(|_| ())
    }

    /// Reads an object of our own group, in which a field that we do not know is a mistake.
    fn read_ours<T>(self) -> Result<(String, T), Unread>
    where
        T: DeserializeOwned + kube::Resource<DynamicType = ()>,
    {
        let ours = T::api_version(&());
        if self.at("/apiVersion") != Some(&*ours) {
            return Err(self.malformed(format!("apiVersion: only {ours} is known")));
        }
        let mut unknown = None;
        let (place, kind, name) = (self.place, self.kind, self.name.clone().unwrap_or_default());
        let read = self.deserialize(|path: &str| {
            let root = path.split('.').next().unwrap_or_default();
            if !NOT_OURS.contains(&root) {
                unknown.get_or_insert_with(|| path.to_owned());
            }
        })?;
        match unknown {
            None => Ok(read),
            Some(field) => {
                Err(malformed(place, &format!("{kind} {name}"), format!("{field}: unknown field")))
            }
        }
    }

    fn deserialize<T: DeserializeOwned>(
        mut self,
        mut ignored: impl FnMut(&str),
    ) -> Result<(String, T), Unread> {
        let Some(name) = self.name.clone() else {
            return Err(self.malformed("metadata.name: missing, empty or no text".to_owned()));
        };
        let mut value = self.value.take();
        without_nulls(&mut value);
        let mut track = serde_path_to_error::Track::new();
        let deserializer = serde_path_to_error::Deserializer::new(value, &mut track);
        // An optional field shows as a question mark in the path, which tells a user nothing.
        let read = serde_ignored::deserialize(deserializer, |path| {
            ignored(&path.to_string().replace(".?", ""));
        });
        match read {
            Ok(object) => Ok((name, object)),
            Err(error) => Err(self.malformed(format!("{}: {error}", track.path()))),
        }
    }
}
