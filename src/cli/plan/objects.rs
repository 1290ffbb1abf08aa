//! The objects that a plan is made from, wherever they came from.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::files::Unread;
use crate::{
    api::{StreamingNode, StreamingPolicy},
    cluster::{AgentPod, ApiserverPod, NodeView},
    decision::websockets::rights::Rbac,
    kubernetes::version::Minor,
};

/// A policy as it was found.
#[derive(Clone, Debug)]
pub enum PolicyObject {
    /// It can be read.
    Readable(Box<StreamingPolicy>),
    /// The cluster holds it, and it cannot be read.
    Unreadable {
        /// Its metadata.
        metadata: Box<ObjectMeta>,
        /// Why not.
        why: String,
    },
}

/// Everything that was found, by name.
#[derive(Debug, Default)]
pub struct Objects {
    /// The policies.
    pub policies: BTreeMap<String, PolicyObject>,
    /// The nodes.
    pub nodes: BTreeMap<String, NodeView>,
    /// What is known of nodes already: the agents' reports, and since when there is evidence.
    pub known: BTreeMap<String, StreamingNode>,
    /// The nodes on which an agent has a pod, and whether one is ready there. A report outlives its
    /// agent: that a flag is off is believed only of an agent that is seen to be there.
    pub agents: BTreeMap<String, bool>,
    /// The agents' pods of files, by namespace and name; none where one shows nothing.
    pub agent_pods: BTreeMap<String, Option<AgentPod>>,
    /// The apiservers' mirror pods.
    pub pods: BTreeMap<String, ApiserverPod>,
    /// Who answers for the `kubernetes` Service.
    pub endpoints: Option<BTreeSet<String>>,
    /// The version that the apiserver reported of itself.
    pub served: Option<Minor>,
    /// The roles and bindings; nothing where nobody looked for them.
    pub rights: Rbac,
    /// What the user ought to know about the input.
    pub warnings: Vec<String>,
    /// What was there and could not be read. Any of it might stand in the way.
    pub unread: Vec<Unread>,
    /// Whole kinds that must not or cannot be read, with the same consequence.
    pub hidden: Vec<&'static str>,
    /// Nobody could look who answers for the `kubernetes` Service: there may be more apiservers.
    pub endpoints_hidden: bool,
    /// How to get the rights that were missing.
    pub hint: Option<String>,
    /// What was asked beside that, and came to what: for those who want to know everything.
    pub notes: Vec<String>,
    /// How many objects of other kinds there were.
    pub skipped: usize,
}

impl Objects {
    /// The nodes whose agents have reported, and of which no pod is there.
    pub fn agents_without_pods(&self) -> impl Iterator<Item = &str> {
        let reported =
            |node: &StreamingNode| node.status.as_ref().is_some_and(|s| s.agent.is_some());
        let known = self.known.iter().filter(move |(_, node)| reported(node));
        known.map(|(name, _)| name.as_str()).filter(|name| !self.agents.contains_key(*name))
    }

    /// What was found, in a line.
    pub fn summary(&self) -> String {
        let counts = [
            (self.nodes.len(), "Node"),
            (self.pods.len(), "apiserver Pod"),
            (self.policies.len(), "StreamingPolicy"),
            (self.known.len(), "StreamingNode"),
            (usize::from(self.endpoints.is_some()), "Endpoints"),
        ];
        let mut found = counts.map(|(count, kind)| format!("{count} {kind}")).join(", ");
        if !self.rights.read.is_empty() {
            let (roles, bindings) = (self.rights.roles.len(), self.rights.bindings.len());
            found.push_str(&format!(", {roles} roles, {bindings} bindings"));
        }
        format!("read {found}; skipped {} other objects", self.skipped)
    }
}

impl PolicyObject {
    /// Its name.
    pub fn name(&self) -> String {
        let metadata = match self {
            Self::Readable(policy) => &policy.metadata,
            Self::Unreadable { metadata, .. } => metadata,
        };
        metadata.name.clone().unwrap_or_default()
    }
}
