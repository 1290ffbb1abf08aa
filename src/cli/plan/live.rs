//! Objects from a cluster. Only reads.

use k8s_openapi::api::core::v1::{Endpoints, Pod};
use kube::{Api, Client, ResourceExt, api::ListParams, core::DeserializeGuard};

use super::objects::{Objects, PolicyObject};
use crate::{
    api::{StreamingNode, StreamingPolicy},
    cluster::{
        AGENT_LABELS, AgentPod, ApiserverPod, NodeView, POD_FIELDS, endpoint_addresses, ready_nodes,
    },
    kubernetes::{pages::list, version::Minor},
};

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

/// Reads everything that is judged.
///
/// # Errors
/// Where nodes or policies cannot be read. Apiservers that cannot be seen stay unknown, and that
/// is a verdict.
pub async fn read(client: Client) -> Result<Objects, Error> {
    let mut objects = Objects::default();
    let failed = |what| move |source| Error { what, source: Box::new(source) };

    let nodes = list(&Api::<NodeView>::all(client.clone()), ListParams::default()).await;
    for node in nodes.map_err(failed("nodes"))? {
        objects.nodes.insert(node.name_any(), node);
    }

    let policies = Api::<DeserializeGuard<StreamingPolicy>>::all(client.clone());
    let policies = unless_missing(list(&policies, ListParams::default()).await);
    let policies = match policies {
        // Without them the strictest is judged, which has no overrides.
        Err(kube::Error::Api(status)) if status.is_forbidden() => {
            objects.warnings.push(format!(
                "the StreamingPolicies cannot be read, so a default one is judged: {}",
                status.message
            ));
            Vec::new()
        }
        policies => policies.map_err(failed("StreamingPolicies"))?,
    };
    for DeserializeGuard(policy) in policies {
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
    let known = unless_missing(list(&known, ListParams::default()).await);
    for DeserializeGuard(node) in known.map_err(failed("StreamingNodes"))? {
        match node {
            Ok(node) => {
                objects.known.insert(node.name_any(), node);
            }
            Err(invalid) => {
                let name = invalid.metadata.name.unwrap_or_default();
                let why = invalid.error;
                objects.warnings.push(format!("StreamingNode {name} cannot be read: {why}"));
            }
        }
    }
    agents(&client, &mut objects).await;
    control_plane(client, &mut objects).await;
    Ok(objects)
}

/// Looks for the agents that have reported: a report outlives its agent.
async fn agents(client: &Client, objects: &mut Objects) {
    let reported = |node: &StreamingNode| node.status.as_ref().is_some_and(|s| s.agent.is_some());
    if !objects.known.values().any(reported) {
        return;
    }
    let labels = AGENT_LABELS.map(|(key, value)| format!("{key}={value}")).join(",");
    let pods = Api::<Pod>::all(client.clone());
    match list(&pods, ListParams::default().labels(&labels)).await {
        Ok(pods) => objects.agents = Some(ready_nodes(pods.iter().filter_map(AgentPod::read))),
        Err(error) => objects.warnings.push(format!(
            "the agents' pods cannot be read, so what they once reported is believed: {error}"
        )),
    }
}

/// Reads what shows the apiservers. Whatever of it cannot be read leaves them unknown.
async fn control_plane(client: Client, objects: &mut Objects) {
    let pods = Api::<Pod>::namespaced(client.clone(), "kube-system");
    match list(&pods, ListParams::default().fields(POD_FIELDS)).await {
        Ok(pods) => objects
            .pods
            .extend(pods.iter().filter_map(|pod| Some((pod.name_any(), ApiserverPod::read(pod)?)))),
        Err(error) => objects.warnings.push(unseen("pods in kube-system", &error)),
    }
    let endpoints = Api::<Endpoints>::namespaced(client.clone(), "default");
    match endpoints.get_opt("kubernetes").await {
        Ok(endpoints) => objects.endpoints = endpoints.as_ref().map(endpoint_addresses),
        Err(error) => objects.warnings.push(unseen("endpoints of the Service kubernetes", &error)),
    }
    match client.apiserver_version().await {
        Ok(info) => match Minor::running(&info.git_version) {
            Ok(minor) => objects.served = Some(minor),
            Err(error) => objects.warnings.push(format!("the apiserver's version: {error}")),
        },
        Err(error) => objects.warnings.push(unseen("version", &error)),
    }
}

fn unseen(what: &str, error: &kube::Error) -> String {
    format!("the {what} cannot be read, so apiservers may stay unknown: {error}")
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
