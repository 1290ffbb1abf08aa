//! Objects from a cluster. Only reads.

mod rights;

use k8s_openapi::api::core::v1::{Endpoints, Pod};
use kube::{Api, Client, Resource as _, ResourceExt, api::ListParams, core::DeserializeGuard};

use super::objects::{Objects, PolicyObject};
use crate::{
    api::{StreamingNode, StreamingPolicy},
    cli::explain::how_to_get_rights,
    cluster::{
        AGENT_LABELS, AgentPod, ApiserverPod, NodeView, POD_FIELDS, endpoint_addresses, ready_nodes,
    },
    decision::websockets::rights::create_asked,
    kubernetes::{failure::Failure, pages::list, version::Minor},
};

/// Our kinds, as they are told.
const POLICIES: &str = "StreamingPolicies";
const STREAMING_NODES: &str = "StreamingNodes";

/// Why the cluster cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the cluster's {what}")]
pub struct Error {
    what: &'static str,
    source: Box<kube::Error>,
}

impl Error {
    /// A short, stable name.
    pub fn reason(&self) -> &'static str {
        match &*self.source {
            kube::Error::Api(status) if status.is_forbidden() => "Forbidden",
            _ => "Unreachable",
        }
    }
}

/// Reads everything that is judged, of an upgrade to `target` where that is asked about.
///
/// # Errors
/// Where nodes cannot be read, or the apiserver is away. Apiservers that cannot be seen stay unknown,
/// and that is a verdict; what else must not be read is told, and nothing is found safe without it.
pub async fn read(client: Client, target: Option<Minor>) -> Result<Objects, Error> {
    let mut objects = Objects::default();
    let failed = |what| move |source| Error { what, source: Box::new(source) };

    let nodes = list(&Api::<NodeView>::all(client.clone()), ListParams::default()).await;
    for node in nodes.map_err(failed("nodes"))? {
        objects.nodes.insert(node.name_any(), node);
    }

    let policies = Api::<DeserializeGuard<StreamingPolicy>>::all(client.clone());
    let policies = list(&policies, ListParams::default()).await;
    let policies = allowed(&client, &mut objects, POLICIES, policies).await;
    for DeserializeGuard(policy) in policies.map_err(failed(POLICIES))? {
        match policy {
            Ok(policy) => {
                let object = PolicyObject::Readable(Box::new(policy));
                objects.policies.insert(object.name(), object);
            }
            Err(invalid) => {
                let metadata = Box::new(invalid.metadata);
                let object = PolicyObject::Unreadable { metadata, why: invalid.error };
                objects.policies.insert(object.name(), object);
            }
        }
    }

    let known = Api::<DeserializeGuard<StreamingNode>>::all(client.clone());
    let known = list(&known, ListParams::default()).await;
    let known = allowed(&client, &mut objects, STREAMING_NODES, known).await;
    for DeserializeGuard(node) in known.map_err(failed(STREAMING_NODES))? {
        match node {
            Ok(node) => {
                objects.known.insert(node.name_any(), node);
            }
            Err(invalid) => {
                let name = invalid.metadata.name.unwrap_or_default();
                let why = invalid.error;
                objects.warnings.push(format!("StreamingNode {name} cannot be read: {why}"));
                // What its agent says may stand in the way.
                if !objects.hidden.contains(&STREAMING_NODES) {
                    objects.hidden.push(STREAMING_NODES);
                }
            }
        }
    }
    agents(&client, &mut objects).await;
    control_plane(client.clone(), &mut objects).await;
    if wants_rights(&objects, target) {
        rights::read(&client, &mut objects).await;
        objects.notes.extend(rights::review(&client, &mut objects.rights).await);
    }
    Ok(objects)
}

/// The objects of one of our kinds. A cluster that does not have the kind has none of it; where it has
/// some that must not be read, that is told.
async fn allowed<K>(
    client: &Client,
    objects: &mut Objects,
    what: &'static str,
    listed: kube::Result<Vec<K>>,
) -> kube::Result<Vec<K>> {
    match unless_missing(listed) {
        Err(error) if is_forbidden(&error) => {
            // A right is asked for before the kind is. Everybody may see which kinds there are.
            let ours = client.list_api_group_resources(&StreamingNode::api_version(&())).await;
            let ours = unless_missing(ours.map(|list| list.resources));
            if !ours.is_ok_and(|kinds| kinds.is_empty()) {
                objects.hidden.push(what);
                let consequence = format!("the {what} cannot be read, so nothing is found safe");
                warn(objects, &consequence, &error);
            }
            Ok(Vec::new())
        }
        listed => listed,
    }
}

fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_forbidden())
}

/// Tells what cannot be read, and what follows from that.
fn warn(objects: &mut Objects, consequence: &str, error: &kube::Error) {
    let failure = Failure::of(error);
    objects.warnings.push(format!("{consequence}: {failure}"));
    if let Failure::Forbidden { who, .. } = failure {
        objects.hint.get_or_insert_with(|| how_to_get_rights(who.as_deref()));
    }
}

/// Whether apiservers ask for `create` at the target, which a policy may name, or where there is
/// none, today. Where they do not, nobody's roles are looked at.
fn wants_rights(objects: &Objects, target: Option<Minor>) -> bool {
    let named = objects.policies.values().filter_map(|object| match object {
        PolicyObject::Readable(policy) => policy.spec.target_version.as_deref()?.parse().ok(),
        PolicyObject::Unreadable { .. } => None,
    });
    let running = objects.pods.values().filter_map(|pod| pod.apiserver().minor);
    let today = || running.chain(objects.served).max();
    target.or_else(|| named.max().max(today())).is_some_and(|minor| minor >= create_asked())
}

/// Looks for the agents that have reported: a report outlives its agent.
async fn agents(client: &Client, objects: &mut Objects) {
    if objects.agents_without_pods().next().is_none() {
        return;
    }
    let labels = AGENT_LABELS.map(|(key, value)| format!("{key}={value}")).join(",");
    let pods = Api::<Pod>::all(client.clone());
    match list(&pods, ListParams::default().labels(&labels)).await {
        Ok(pods) => objects.agents = ready_nodes(pods.iter().filter_map(AgentPod::read)),
        Err(error) => warn(
            objects,
            "the agents' pods cannot be read, so no agent is believed that a flag is off",
            &error,
        ),
    }
}

/// Reads what shows the apiservers. Whatever of it cannot be read leaves them unknown.
async fn control_plane(client: Client, objects: &mut Objects) {
    let pods = Api::<Pod>::namespaced(client.clone(), "kube-system");
    match list(&pods, ListParams::default().fields(POD_FIELDS)).await {
        Ok(pods) => objects
            .pods
            .extend(pods.iter().filter_map(|pod| Some((pod.name_any(), ApiserverPod::read(pod)?)))),
        Err(error) => warn(objects, &unseen("pods in kube-system"), &error),
    }
    let endpoints = Api::<Endpoints>::namespaced(client.clone(), "default");
    match endpoints.get_opt("kubernetes").await {
        Ok(endpoints) => objects.endpoints = endpoints.as_ref().map(endpoint_addresses),
        Err(error) => {
            objects.endpoints_hidden = true;
            warn(objects, &unseen("endpoints of the Service kubernetes"), &error);
        }
    }
    match client.apiserver_version().await {
        Ok(info) => match Minor::running(&info.git_version) {
            Ok(minor) => objects.served = Some(minor),
            Err(error) => objects.warnings.push(format!("the apiserver's version: {error}")),
        },
        Err(error) => warn(objects, &unseen("version"), &error),
    }
}

fn unseen(what: &str) -> String {
    format!("the {what} cannot be read, so apiservers may stay unknown")
}

/// A kind that the cluster does not have has no objects.
fn unless_missing<K>(listed: kube::Result<Vec<K>>) -> kube::Result<Vec<K>> {
    match listed {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(Vec::new()),
        listed => listed,
    }
}

#[cfg(test)]
mod tests;
