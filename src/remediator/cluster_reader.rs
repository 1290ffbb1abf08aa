//! What a remediator asks the apiserver, live: nothing here is answered from a cache of ours.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client, api::ListParams, core::DeserializeGuard};

use super::permit::{PermitInputs, Policy, Trust, turns_off};
use crate::{
    api::{AgentReport, Change, ChangeKind, StreamingNode, StreamingPolicy},
    cluster::{NodeView, Origin, distrusts},
    decision::redirects::{evidence::Source, node::Redirects},
    kubernetes::pages,
};

/// All that is asked about one change must not take longer.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Why nothing is known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The apiserver refuses it, or cannot be reached.
    #[error("cannot ask the apiserver: {0}")]
    Request(#[from] kube::Error),
    /// It did not answer in time.
    #[error("cannot ask the apiserver: no answer within {TIMEOUT:?}")]
    Timeout,
}

impl Error {
    /// A short, stable name.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Request(kube::Error::Api(status)) if status.code == 403 => "AskForbidden",
            Self::Request(kube::Error::Api(_)) => "AskRefused",
            Self::Request(_) => "AskUnreachable",
            Self::Timeout => "AskTimeout",
        }
    }
}

/// What a Node says of its readiness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Whether it is ready.
    pub ready: bool,
    /// When its kubelet said so last.
    pub heartbeat: Option<Timestamp>,
}

/// Whom to ask.
pub trait ClusterReader {
    /// What a change is held against.
    async fn scene(&self, change: &Change) -> Result<PermitInputs, Error>;

    /// Whether the remediator's own node is ready.
    async fn readiness(&self) -> Result<Readiness, Error>;
}

/// The apiserver.
#[derive(Clone)]
pub struct Apiserver {
    client: Client,
    node: String,
}

impl Apiserver {
    /// Asks for this node.
    pub fn new(client: Client, node: String) -> Self {
        Self { client, node }
    }

    async fn policy(&self, name: &str) -> Result<Policy, Error> {
        let api: Api<DeserializeGuard<StreamingPolicy>> = Api::all(self.client.clone());
        Ok(match api.get_opt(name).await? {
            None => Policy::Missing,
            Some(DeserializeGuard(Ok(policy))) => Policy::Is(Box::new(policy)),
            Some(DeserializeGuard(Err(error))) => Policy::Unreadable(error.to_string()),
        })
    }

    async fn judged(&self) -> Result<Vec<Judged>, Error> {
        let api: Api<DeserializeGuard<StreamingNode>> = Api::all(self.client.clone());
        let known = pages::list(&api, ListParams::default()).await?;
        Ok(known.into_iter().map(Judged::read).collect())
    }

    /// What of the runtime here has been told since the node's last start.
    async fn trust(&self) -> Result<Trust, Error> {
        let api: Api<StreamingNode> = Api::all(self.client.clone());
        let status = api.get(&self.node).await?.status.unwrap_or_default();
        let known = Redirects::ALL.into_iter().find(|known| known.as_str() == status.redirects);
        if known.is_some_and(|known| !known.possible()) {
            return Ok(Trust::Given);
        }
        let nodes: Api<NodeView> = Api::all(self.client.clone());
        let node = nodes.get(&self.node).await?;
        let of_now = |agent: &AgentReport| Origin::of_agent(agent).is(&node.origin);
        Ok(match status.agent.filter(|agent| of_now(agent) && agent.runtime.is_some()) {
            None => Trust::Untold,
            Some(agent) if distrusts(&agent) => Trust::Missing,
            Some(_) => Trust::Given,
        })
    }

    async fn nodes(&self) -> Result<Vec<NodeView>, Error> {
        let api: Api<NodeView> = Api::all(self.client.clone());
        Ok(pages::list(&api, ListParams::default()).await?)
    }
}

impl ClusterReader for Apiserver {
    async fn scene(&self, change: &Change) -> Result<PermitInputs, Error> {
        let asked = async {
            let policy = self.policy(&change.policy).await?;
            let (mut blocking, mut unjudged) = (Vec::new(), Vec::new());
            if turns_off(change, &policy, &self.node) {
                let judged = self.judged().await?;
                // After what is said of them: a Node that joins meanwhile is one of which nothing is.
                (blocking, unjudged) = compare(judged, &self.nodes().await?);
            }
            let trust = match change.kind {
                ChangeKind::KubeletFlag => self.trust().await?,
                ChangeKind::ApiserverGate => Trust::Given,
            };
            Ok(PermitInputs { policy, blocking, unjudged, trust })
        };
        tokio::time::timeout(TIMEOUT, asked).await.map_err(|_| Error::Timeout)?
    }

    async fn readiness(&self) -> Result<Readiness, Error> {
        let api: Api<Node> = Api::all(self.client.clone());
        let node = tokio::time::timeout(TIMEOUT, api.get(&self.node)).await;
        let node = node.map_err(|_| Error::Timeout)??;
        let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
        let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready");
        Ok(Readiness {
            ready: ready.as_ref().is_some_and(|ready| ready.status == "True"),
            heartbeat: ready.and_then(|ready| ready.last_heartbeat_time).map(|time| time.0),
        })
    }
}

/// What a StreamingNode says of its node.
struct Judged {
    name: String,
    verdict: String,
    /// The uid of the Node of which it is said.
    uid: Option<String>,
    kubelet: String,
    /// Where the verdict comes from, where the node's own agent has decided it.
    agent: Option<Origin>,
}

impl Judged {
    fn read(node: DeserializeGuard<StreamingNode>) -> Self {
        let (metadata, status) = match node.0 {
            Ok(node) => (node.metadata, node.status.unwrap_or_default()),
            Err(error) => (error.metadata, Default::default()),
        };
        let mut owners = metadata.owner_references.into_iter().flatten();
        let by_agent = status.decided_by == Source::Agent.as_str();
        Self {
            name: metadata.name.unwrap_or_else(|| "a nameless node".to_owned()),
            verdict: status.verdict,
            uid: owners.find(|owner| owner.kind == "Node").map(|owner| owner.uid),
            kubelet: status.kubelet_version,
            agent: status.agent.filter(|_| by_agent).map(|agent| Origin::of_agent(&agent)),
        }
    }

    fn passes(&self) -> bool {
        matches!(self.verdict.as_str(), "Safe" | "Overridden")
    }

    /// Whether it is said of this Node as it is now.
    fn is_of(&self, node: &NodeView) -> bool {
        self.uid == node.metadata.uid
            && self.kubelet == node.kubelet_version
            && self.agent.as_ref().is_none_or(|agent| agent.is(&node.origin))
    }
}

/// The nodes that stand in the way, and those of which nothing is said that counts.
fn compare(judged: Vec<Judged>, nodes: &[NodeView]) -> (Vec<String>, Vec<String>) {
    let (mut blocking, mut unjudged) = (Vec::new(), Vec::new());
    let mut passing = BTreeMap::new();
    for judged in judged {
        if judged.verdict == "Blocks" {
            blocking.push(judged.name);
        } else if judged.passes() {
            passing.insert(judged.name.clone(), judged);
        } else {
            unjudged.push(judged.name);
        }
    }
    for node in nodes {
        let name = node.metadata.name.clone().unwrap_or_default();
        let passes = passing.get(&name).is_some_and(|judged| judged.is_of(node));
        if !passes && !blocking.contains(&name) && !unjudged.contains(&name) {
            unjudged.push(name);
        }
    }
    (blocking, unjudged)
}

#[cfg(test)]
mod tests;
