//! What the remediator sees of its StreamingNode.

use tokio::sync::watch;

use super::step::Desired;
use crate::{
    api::{Change, ChangeReport},
    node::watch::{self as own, NodeEvent as Own, Pace},
};

/// What the apiserver says of the node's change.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum DesiredChange {
    /// It has not told yet, or there is no StreamingNode.
    #[default]
    Nothing,
    /// This.
    Node {
        /// What is wanted.
        wanted: Option<Box<Change>>,
        /// What was reported last.
        reported: Option<Box<ChangeReport>>,
    },
}

impl DesiredChange {
    /// What is wanted, as decisions take it.
    pub fn wanted(&self) -> Desired<'_> {
        match self {
            Self::Nothing => Desired::Unknown,
            Self::Node { wanted: None, .. } => Desired::Nothing,
            Self::Node { wanted: Some(change), .. } => Desired::Change(change),
        }
    }

    /// The last report.
    pub fn reported(&self) -> Option<&ChangeReport> {
        match self {
            Self::Node { reported, .. } => reported.as_deref(),
            Self::Nothing => None,
        }
    }
}

/// Watches the StreamingNode of this name.
pub async fn follow(
    client: kube::Client,
    node: String,
    pace: Pace,
    desired_changes: watch::Sender<DesiredChange>,
) {
    own::follow(client, &node, pace, |seen| {
        let desired = match seen {
            Own::Is(object) => DesiredChange::Node {
                wanted: object.spec.change,
                reported: object.status.and_then(|status| status.change),
            },
            Own::Gone => DesiredChange::Nothing,
        };
        desired_changes.send_if_modified(|before| {
            let changed = *before != desired;
            *before = desired;
            changed
        });
    })
    .await;
}
