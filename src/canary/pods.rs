//! The canaries' pods.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::ListParams};

use super::Error;
use crate::kubernetes::pages;

/// A canary's pod, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanaryPod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The node it runs on.
    pub node: String,
    /// Whether it is ready, and not about to end.
    pub ready: bool,
}

impl CanaryPod {
    /// Reads a pod; `None` for one that is on no node yet.
    pub fn read(pod: &Pod) -> Option<Self> {
        let status = pod.status.as_ref();
        let mut conditions = status.into_iter().flat_map(|s| s.conditions.iter().flatten());
        let ready = conditions.any(|c| c.type_ == "Ready" && c.status == "True");
        Some(Self {
            namespace: pod.metadata.namespace.clone()?,
            name: pod.metadata.name.clone()?,
            node: pod.spec.as_ref()?.node_name.clone()?,
            ready: ready && pod.metadata.deletion_timestamp.is_none(),
        })
    }
}

/// The canaries' pods that are on a node.
///
/// # Errors
/// Where they cannot be listed.
pub async fn pods(
    client: &Client,
    namespace: &str,
    selector: &str,
) -> Result<Vec<CanaryPod>, Error> {
    let api = Api::<Pod>::namespaced(client.clone(), namespace);
    let listed = pages::list(&api, ListParams::default().labels(selector)).await;
    let listed = listed.map_err(|source| Error::Read {
        what: format!("the canaries' pods in namespace {namespace}"),
        source: Box::new(source),
    })?;
    Ok(listed.iter().filter_map(CanaryPod::read).collect())
}

/// One canary for each node: a ready one, where there are several.
pub fn by_node(pods: impl IntoIterator<Item = CanaryPod>) -> BTreeMap<String, CanaryPod> {
    let mut nodes: BTreeMap<String, CanaryPod> = BTreeMap::new();
    for pod in pods {
        let better = |known: &CanaryPod| (!known.ready, &known.name) > (!pod.ready, &pod.name);
        if nodes.get(&pod.node).is_none_or(better) {
            nodes.insert(pod.node.clone(), pod);
        }
    }
    nodes
}
