//! A cluster of one control plane and a policy, and what can be seen there.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::Event, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use sluice::api::{StreamingNode, StreamingPolicy, condition::SAFE_TO_DISABLE};

use crate::apiserver::{
    Apiserver, PATIENCE,
    definitions::{self, Schema},
    nodes, within,
};

/// The policy of most tests.
pub const POLICY: &str = "gate";

/// An apiserver with Sluice's definitions, a control plane `cp1` and the policy [`POLICY`].
pub struct Stage {
    pub server: Apiserver,
    pub client: Client,
}

impl Stage {
    pub async fn set() -> Self {
        let stage = Self::bare(Schema::Shipped).await;
        nodes::control_plane(&stage.client, "cp1").await;
        stage.create_policy(POLICY, json!({"streamingProxyRedirects": "Disabled"})).await;
        stage
    }

    /// Without the control plane and the policy.
    pub async fn bare(schema: Schema) -> Self {
        let server = Apiserver::start().await;
        let client = server.client().await;
        definitions::install(&client, schema).await;
        Self { server, client }
    }

    /// Adds a node of 1.19 of which the admin says whether it redirects.
    pub async fn old_node(&self, name: &str, redirects: &str) {
        let mut node = nodes::node(name, "v1.19.16");
        node["metadata"]["annotations"] = json!({nodes::ANNOTATION: redirects});
        nodes::create(&self.client, node).await;
    }

    pub fn policies(&self) -> Api<StreamingPolicy> {
        Api::all(self.client.clone())
    }

    pub fn streaming_nodes(&self) -> Api<StreamingNode> {
        Api::all(self.client.clone())
    }

    pub async fn create_policy(&self, name: &str, spec: Value) {
        let policy = json!({
            "apiVersion": "sluice.dev/v1alpha1", "kind": "StreamingPolicy",
            "metadata": {"name": name}, "spec": spec,
        });
        let policy = serde_json::from_value(policy).unwrap();
        self.policies().create(&PostParams::default(), &policy).await.unwrap();
    }

    /// Changes a policy's spec; null takes a field away.
    pub async fn edit_policy(&self, name: &str, spec: Value) {
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.policies().patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Waits until a condition of the policy has this reason; tells it.
    pub async fn because(&self, policy: &str, kind: &str, reason: &str) -> Condition {
        let mut last = None;
        within(PATIENCE, &format!("{kind} of {policy} because of {reason}"), async || {
            let now = self.condition(policy, kind).await;
            if now != last {
                let shown = now.as_ref().map(|c| (&c.status, &c.reason, &c.message));
                eprintln!("{kind} of {policy}: {shown:?}");
                last.clone_from(&now);
            }
            now.filter(|condition| condition.reason == reason)
        })
        .await
    }

    pub async fn condition(&self, policy: &str, kind: &str) -> Option<Condition> {
        let status = self.policies().get(policy).await.ok()?.status?;
        status.conditions.into_iter().find(|condition| condition.type_ == kind)
    }

    /// Waits until the policy's `SafeToDisable` has this reason; tells its status.
    pub async fn safe_because(&self, policy: &str, reason: &str) -> String {
        self.because(policy, SAFE_TO_DISABLE, reason).await.status
    }

    /// The Events about an object: how often each reason was told.
    pub async fn events(&self, kind: &str, name: &str) -> BTreeMap<String, usize> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), "default");
        let mut told = BTreeMap::new();
        for event in api.list(&ListParams::default()).await.unwrap() {
            let about = &event.involved_object;
            if about.kind.as_deref() == Some(kind) && about.name.as_deref() == Some(name) {
                let times = usize::try_from(event.count.unwrap_or(1)).unwrap();
                *told.entry(event.reason.unwrap_or_default()).or_default() += times;
            }
        }
        told
    }

    /// The resource versions of all our objects.
    pub async fn versions(&self) -> BTreeMap<String, String> {
        let params = ListParams::default();
        let policies = self.policies().list_metadata(&params).await.unwrap();
        let nodes = self.streaming_nodes().list_metadata(&params).await.unwrap();
        let policies = policies.iter().map(|policy| ("policy", &policy.metadata));
        let nodes = nodes.iter().map(|node| ("node", &node.metadata));
        let named = policies.chain(nodes).map(|(kind, metadata)| {
            let name = metadata.name.as_deref().unwrap();
            (format!("{kind} {name}"), metadata.resource_version.clone().unwrap())
        });
        named.collect()
    }

    /// Waits until there is a StreamingNode with a verdict for each of so many nodes.
    pub async fn judged(&self, nodes: usize) {
        within(PATIENCE, "every node has its verdict", async || {
            let all = self.streaming_nodes().list(&ListParams::default()).await.ok()?;
            let judged = all.iter().filter(|node| node.status.is_some()).count();
            (judged == nodes).then_some(())
        })
        .await;
    }
}
