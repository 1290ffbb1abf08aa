//! The watch of a node's own StreamingNode.

use futures::StreamExt;
use kube::{
    Api, Client,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt,
        watcher::{Config, Event, watcher},
    },
};

use crate::api::StreamingNode;

/// What the apiserver tells.
#[derive(Debug)]
pub enum Sight {
    /// The StreamingNode as it is now.
    Is(Box<StreamingNode>),
    /// There is none.
    Gone,
}

/// Watches the StreamingNode of this name for ever. One that cannot be read is no sight: what was
/// seen last holds.
pub async fn follow(client: Client, node: &str, mut seen: impl FnMut(Sight)) {
    let api: Api<DeserializeGuard<StreamingNode>> = Api::all(client);
    let config = Config::default().fields(&format!("metadata.name={node}"));
    // With jitter: there are thousands of nodes.
    let stream = watcher(api, config).default_backoff();
    let mut stream = std::pin::pin!(stream);
    let mut any = false;
    while let Some(event) = stream.next().await {
        match event {
            Ok(Event::Init) => any = false,
            Ok(Event::InitApply(object) | Event::Apply(object)) => {
                any = true;
                match object.0 {
                    Ok(object) => seen(Sight::Is(Box::new(object))),
                    Err(error) => {
                        tracing::warn!(%error, "the StreamingNode cannot be read; the last wish holds");
                    }
                }
            }
            Ok(Event::InitDone) if any => {}
            Ok(Event::InitDone | Event::Delete(_)) => seen(Sight::Gone),
            Err(error) => tracing::warn!(%error, "watch of the StreamingNode interrupted"),
        }
    }
}
