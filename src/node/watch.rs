//! The watch of a node's own StreamingNode.

use futures::{Stream, StreamExt};
use kube::{
    Api, Client,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt,
        watcher::{self, Config, Event, watcher},
    },
};

use crate::{api::StreamingNode, kubernetes::watch::WatchBackoff};

/// What the apiserver tells.
#[derive(Debug)]
pub enum NodeEvent {
    /// The StreamingNode as it is now.
    Is(Box<StreamingNode>),
    /// There is none.
    Gone,
}

/// How eagerly it is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// There are thousands of nodes, which come back with jitter and after up to half a minute.
    Many,
    /// There are a few, of which something is expected while an apiserver restarts: they come back
    /// after seconds, and notice within [`PATIENCE`] seconds that a connection leads nowhere.
    Few,
}

/// An apiserver ends a watch of [`Pace::Few`] after so many seconds.
pub const PATIENCE: u32 = 30;

/// Watches the StreamingNode of this name for ever. A version that cannot be read is skipped: the
/// one before it holds.
pub async fn follow(client: Client, node: &str, pace: Pace, seen: impl FnMut(NodeEvent)) {
    let api: Api<DeserializeGuard<StreamingNode>> = Api::all(client);
    let config = Config::default().fields(&format!("metadata.name={node}"));
    match pace {
        Pace::Many => take(watcher(api, config).default_backoff(), seen).await,
        Pace::Few => {
            let config = config.timeout(PATIENCE);
            take(watcher(api, config).backoff(WatchBackoff::default()), seen).await;
        }
    }
}

async fn take(
    stream: impl Stream<Item = watcher::Result<Event<DeserializeGuard<StreamingNode>>>>,
    mut seen: impl FnMut(NodeEvent),
) {
    let mut stream = std::pin::pin!(stream);
    let mut any = false;
    while let Some(event) = stream.next().await {
        match event {
            Ok(Event::Init) => any = false,
            Ok(Event::InitApply(object) | Event::Apply(object)) => {
                any = true;
                match object.0 {
                    Ok(object) => seen(NodeEvent::Is(Box::new(object))),
                    Err(error) => {
                        tracing::warn!(%error, "the StreamingNode cannot be read; the last wish holds");
                    }
                }
            }
            Ok(Event::InitDone) if any => {}
            Ok(Event::InitDone | Event::Delete(_)) => seen(NodeEvent::Gone),
            Err(error) => tracing::warn!(%error, "watch of the StreamingNode interrupted"),
        }
    }
}
