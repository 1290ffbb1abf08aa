//! Writes to the apiserver: server-side apply, and what that cannot take away; statuses as [`status`] has it.

use std::time::Duration;

use k8s_openapi::api::{apps::v1::DaemonSet, core::v1::ConfigMap};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
    core::DeserializeGuard,
};
use serde_json::{Value, json};

use super::{
    agents::{StoredAgents, exactly},
    changes::{CLUSTER_CONFIGURATION, KUBEADM_CONFIG, Published},
    published::PublishedFlags,
};
use crate::{
    api::{
        StreamingNode, StreamingNodeSpec, StreamingNodeStatus, StreamingPolicy,
        StreamingPolicyStatus,
    },
    kubernetes::{events::EventRecord, status},
};

/// Who writes specs.
const MANAGER: &str = "sluice-controller";
/// Who writes statuses, as `managedFields` has it.
const STATUS_MANAGER: &str = "sluice-controller-status";
/// What the agent and the remediator say in a StreamingNode's status.
const PARTS_OF_OTHERS: [&str; 2] = ["agent", "change"];

/// One request must not take longer; it is tried again.
const TIMEOUT: Duration = Duration::from_secs(10);

/// An object of ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A StreamingPolicy.
    Policy(String),
    /// A StreamingNode.
    Node(String),
    /// The DaemonSet of the agents.
    Agents {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// kubeadm's configuration.
    Kubeadm,
    /// The flags that we publish.
    Flags(Published),
}

/// What to write.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// A policy's status.
    Policy(StreamingPolicyStatus),
    /// A node's object: the spec with the Node's uid, the status, each only where it differs.
    Node {
        /// What is wanted there, and the uid of the Node that owns it.
        spec: Option<(StreamingNodeSpec, String)>,
        /// Whether the object is there already.
        exists: bool,
        /// The version of the object from which the spec follows; `None` where that is not known.
        version: Option<u64>,
        /// What is known of it.
        status: Option<Box<StreamingNodeStatus>>,
        /// Both, as the state compares them.
        wanted: PublishedFlags,
    },
    /// The DaemonSet, whole.
    Agents(Box<Value>),
    /// No DaemonSet.
    NoAgents {
        /// The uid of the one that is there.
        uid: String,
    },
    /// kubeadm's configuration of the cluster.
    Kubeadm {
        /// What it says.
        text: String,
        /// The version of the ConfigMap that it was made from.
        version: String,
    },
    /// The data of the flags that we publish.
    Flags(Value),
}

/// A write that is due, and what to tell about it once it has succeeded.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// The object.
    pub key: Key,
    /// What to write.
    pub body: Body,
    /// The transitions that it brings.
    pub records: Vec<EventRecord>,
}

/// Why a write failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The apiserver refused it or could not be reached.
    #[error("cannot write: {0}")]
    Request(#[from] kube::Error),
    /// It did not answer in time.
    #[error("cannot write: no answer within {TIMEOUT:?}")]
    Timeout,
}

impl Error {
    /// A short, stable name for metrics and logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Request(kube::Error::Api(status)) => match status.code {
                403 => "WriteForbidden",
                404 => "WriteNotFound",
                409 => "WriteConflict",
                422 => "WriteInvalid",
                429 => "WriteThrottled",
                _ => "WriteRefused",
            },
            Self::Request(_) => "WriteUnreachable",
            Self::Timeout => "WriteTimeout",
        }
    }
}

/// What the apiserver stored.
#[derive(Debug)]
pub enum Stored {
    /// A policy.
    Policy(Box<DeserializeGuard<StreamingPolicy>>),
    /// A node's object, if anything of it was written.
    Node(Option<Box<StreamingNode>>),
    /// The DaemonSet, if it is still there.
    Agents(Option<Box<DaemonSet>>),
    /// A ConfigMap, which its watch shows.
    ConfigMap,
}

/// Carries out a write.
///
/// # Errors
/// Where the apiserver refuses a part or cannot be reached; parts before it are stored.
pub async fn perform(client: &Client, write: &Write) -> Result<Stored, Error> {
    let forced = |manager| PatchParams::apply(manager).force();
    match (&write.key, &write.body) {
        (Key::Policy(name), Body::Policy(status)) => {
            let status = json!(status);
            let applied =
                status::write::<StreamingPolicy, _>(client, name, STATUS_MANAGER, &status, |_| {
                    true
                });
            Ok(Stored::Policy(Box::new(within(applied).await?)))
        }
        (Key::Node(name), Body::Node { spec, exists, version, status, .. }) => {
            let api: Api<StreamingNode> = Api::all(client.clone());
            let mut stored = None;
            if let Some((spec, uid)) = spec {
                // What has been asked of the node, or said by it, meanwhile is looked at first (409).
                let metadata = |version: Option<String>| {
                    let mut metadata = json!({
                        "name": name,
                        "ownerReferences": [
                            {"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid},
                        ],
                    });
                    if let Some(version) = version {
                        metadata["resourceVersion"] = json!(version);
                    }
                    metadata
                };
                let version = version.map(|version| version.to_string());
                // Of a spec that it takes the last field of, an apply makes null in an apiserver of
                // 1.20, which then refuses it.
                let empty = *spec == StreamingNodeSpec::default();
                let mut applied = None;
                if !(*exists && empty) {
                    let parts = json!({"metadata": metadata(version.clone()), "spec": spec});
                    let patch = Patch::Apply(object("StreamingNode", name, parts));
                    applied = Some(within(api.patch(name, &forced(MANAGER), &patch)).await?);
                }
                stored = match applied {
                    Some(applied) if applied.spec == *spec => Some(applied),
                    applied => {
                        let applied = applied.and_then(|applied| applied.metadata.resource_version);
                        // An apply leaves what somebody else has added; null takes it away.
                        let exactly = json!({
                            "metadata": metadata(applied.or(version)),
                            "spec": {
                                "policy": spec.policy, "proxy": spec.proxy, "change": spec.change,
                            },
                        });
                        let merge = Patch::Merge(exactly);
                        Some(within(api.patch(name, &by(MANAGER), &merge)).await?)
                    }
                };
            }
            if let Some(status) = status {
                let status = json!(status);
                let ours = |field: &str| !PARTS_OF_OTHERS.contains(&field);
                let applied =
                    status::write::<StreamingNode, _>(client, name, STATUS_MANAGER, &status, ours);
                stored = Some(within(applied).await?);
            }
            Ok(Stored::Node(stored.map(Box::new)))
        }
        (Key::Agents { namespace, name }, Body::Agents(wanted)) => {
            let api: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
            let patch = Patch::Apply(&**wanted);
            let mut stored = within(api.patch(name, &forced(MANAGER), &patch)).await?;
            if !StoredAgents::read(&stored).is(wanted) {
                let patch = Patch::Merge(exactly(wanted, &stored));
                stored = within(api.patch(name, &by(MANAGER), &patch)).await?;
            }
            Ok(Stored::Agents(Some(Box::new(stored))))
        }
        (Key::Agents { namespace, name }, Body::NoAgents { uid }) => {
            let api: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
            // Somebody else's DaemonSet of that name is not meant.
            let uid = Some(uid.clone());
            let params = DeleteParams::background()
                .preconditions(Preconditions { uid, ..Preconditions::default() });
            match within(api.delete(name, &params)).await {
                Ok(_) => {}
                Err(Error::Request(kube::Error::Api(status))) if status.is_not_found() => {}
                Err(error) => return Err(error),
            }
            Ok(Stored::Agents(None))
        }
        (Key::Kubeadm, Body::Kubeadm { text, version }) => {
            let api: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
            // kubeadm owns it; what somebody has changed meanwhile is looked at first (409).
            let patch = Patch::Merge(json!({
                "metadata": {"resourceVersion": version},
                "data": {CLUSTER_CONFIGURATION: text},
            }));
            within(api.patch(KUBEADM_CONFIG, &by(MANAGER), &patch)).await?;
            Ok(Stored::ConfigMap)
        }
        (Key::Flags(Published { namespace, name }), Body::Flags(data)) => {
            let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
            let patch = Patch::Apply(json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {
                    "name": name,
                    "labels": {
                        "app.kubernetes.io/name": "sluice",
                        "app.kubernetes.io/managed-by": "sluice-controller",
                    },
                },
                "data": data,
            }));
            within(api.patch(name, &forced(MANAGER), &patch)).await?;
            Ok(Stored::ConfigMap)
        }
        // A key and a body of different kinds are never put together.
        _ => Ok(Stored::Node(None)),
    }
}

/// A patch that is no apply, under the same name.
fn by(manager: &str) -> PatchParams {
    PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() }
}

fn object(kind: &str, name: &str, parts: serde_json::Value) -> serde_json::Value {
    let mut object = json!({
        "apiVersion": "sluice.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
    });
    if let (Some(object), serde_json::Value::Object(parts)) = (object.as_object_mut(), parts) {
        object.extend(parts);
    }
    object
}

async fn within<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    tokio::time::timeout(TIMEOUT, request).await.map_err(|_| Error::Timeout)?.map_err(Error::from)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use http::{Request, Response};
    use kube::client::Body as Payload;
    use tower_test::mock;

    use super::*;
    use crate::test_support;

    /// Writes a spec to an apiserver that answers so; tells what it was asked to apply.
    async fn asked(version: Option<u64>, code: u16) -> (Value, Result<Stored, Error>) {
        let (service, handle) = mock::pair::<Request<Payload>, Response<Payload>>();
        let serving = tokio::spawn(async move {
            let mut handle = pin!(handle);
            let (request, respond) = handle.next_request().await.unwrap();
            let asked = request.into_body().collect_bytes().await.unwrap();
            let asked: Value = serde_json::from_slice(&asked).unwrap();
            let answer = match code {
                200 => asked.clone(),
                code => test_support::failure(code, "Conflict"),
            };
            let answer = Payload::from(serde_json::to_vec(&answer).unwrap());
            respond.send_response(Response::builder().status(code).body(answer).unwrap());
            asked
        });
        let spec = StreamingNodeSpec { policy: Some("gate".to_owned()), ..Default::default() };
        let body = Body::Node {
            spec: Some((spec, "uid-of-w1".to_owned())),
            exists: version.is_some(),
            version,
            status: None,
            wanted: PublishedFlags { spec: Some(1), status: 1 },
        };
        let write = Write { key: Key::Node("w1".to_owned()), body, records: Vec::new() };
        let client = Client::new(service, "default");
        let written = perform(&client, &write).await;
        (serving.await.unwrap(), written)
    }

    #[tokio::test]
    async fn what_a_node_is_asked_for_follows_from_what_was_stored() {
        let (asked_for, written) = asked(Some(70), 200).await;
        assert_eq!(asked_for["metadata"]["resourceVersion"], "70");
        assert!(matches!(written, Ok(Stored::Node(Some(_)))));
        let (asked_for, _) = asked(None, 200).await;
        assert_eq!(asked_for["metadata"].get("resourceVersion"), None, "there is none yet");
        // A leader that has not seen what another one has asked for meanwhile.
        let (_, written) = asked(Some(70), 409).await;
        assert_eq!(written.unwrap_err().reason(), "WriteConflict");
    }
}
