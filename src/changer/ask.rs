//! What a changer asks the apiserver, live: nothing here is answered from a cache of ours.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client, api::ListParams, core::DeserializeGuard};

use super::permit::{Policy, Scene, turns_off};
use crate::{
    api::{Change, StreamingNode, StreamingPolicy},
    pages,
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
pub trait Ask {
    /// What a change is held against.
    async fn scene(&self, change: &Change) -> Result<Scene, Error>;

    /// Whether the changer's own node is ready.
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

    async fn nodes(&self) -> Result<Vec<DeserializeGuard<StreamingNode>>, Error> {
        let api: Api<DeserializeGuard<StreamingNode>> = Api::all(self.client.clone());
        Ok(pages::list(&api, ListParams::default()).await?)
    }
}

impl Ask for Apiserver {
    async fn scene(&self, change: &Change) -> Result<Scene, Error> {
        let asked = async {
            let policy = self.policy(&change.policy).await?;
            let (mut blocking, mut unjudged) = (Vec::new(), Vec::new());
            if turns_off(change, &policy, &self.node) {
                for node in self.nodes().await? {
                    match judged(node) {
                        Judged::Passes => {}
                        Judged::Blocks(name) => blocking.push(name),
                        Judged::Unseen(name) => unjudged.push(name),
                    }
                }
            }
            Ok(Scene { policy, blocking, unjudged })
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

/// What a StreamingNode says of its node, with the node's name.
enum Judged {
    Passes,
    Blocks(String),
    Unseen(String),
}

fn judged(node: DeserializeGuard<StreamingNode>) -> Judged {
    let (metadata, verdict) = match node.0 {
        Ok(node) => (node.metadata, node.status.map(|status| status.verdict)),
        Err(error) => (error.metadata, None),
    };
    let name = metadata.name.unwrap_or_else(|| "a nameless node".to_owned());
    match verdict.as_deref() {
        Some("Safe" | "Overridden") => Judged::Passes,
        Some("Blocks") => Judged::Blocks(name),
        _ => Judged::Unseen(name),
    }
}

#[cfg(test)]
mod tests;
