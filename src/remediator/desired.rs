//! What the remediator sees of its StreamingNode.

use tokio::sync::watch;

use super::step::Wanted;
use crate::{
    api::{Change, ChangeReport},
    node::watch::{self as own, Pace, Sight as Own},
};

/// What the apiserver says of the node's change.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Sight {
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

impl Sight {
    /// What is wanted, as decisions take it.
    pub fn wanted(&self) -> Wanted<'_> {
        match self {
            Self::Nothing => Wanted::Unknown,
            Self::Node { wanted: None, .. } => Wanted::Nothing,
            Self::Node { wanted: Some(change), .. } => Wanted::Change(change),
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
pub async fn follow(client: kube::Client, node: String, pace: Pace, sights: watch::Sender<Sight>) {
    own::follow(client, &node, pace, |seen| {
        let sight = match seen {
            Own::Is(object) => Sight::Node {
                wanted: object.spec.change,
                reported: object.status.and_then(|status| status.change),
            },
            Own::Gone => Sight::Nothing,
        };
        sights.send_if_modified(|before| {
            let changed = *before != sight;
            *before = sight;
            changed
        });
    })
    .await;
}
