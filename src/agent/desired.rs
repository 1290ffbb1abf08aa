//! The agent's own StreamingNode: what is wanted here, and what was last reported.
//!
//! The wish is kept on disk, so that an agent that restarts while the apiserver is away goes on as
//! before.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use kube::Client;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{
    api::{AgentReport, Proxy, StreamingNode},
    node::watch::{self as own, NodeEvent, Pace},
};

/// The file's name in the state folder.
const FILE: &str = "wish.json";

/// What the apiserver holds of the agent's report.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Stored {
    /// It has not told yet.
    #[default]
    Unknown,
    /// There is no StreamingNode to report to.
    NoNode,
    /// The last report, if there was one.
    Report(Option<Box<AgentReport>>),
}

/// Where the last desired state is kept.
#[derive(Clone, Debug)]
pub struct Memory(PathBuf);

#[derive(Default, Serialize, Deserialize)]
struct Remembered {
    proxy: Option<Proxy>,
}

impl Memory {
    /// In this folder.
    pub fn new(folder: &Path) -> Self {
        Self(folder.join(FILE))
    }

    /// The last desired state. One that cannot be read counts as none, and with none nothing is
    /// touched.
    pub fn recall(&self) -> Option<Proxy> {
        let text = match fs::read_to_string(&self.0) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(%error, "the last wish cannot be read");
                return None;
            }
        };
        match serde_json::from_str::<Remembered>(&text) {
            Ok(remembered) => remembered.proxy,
            Err(error) => {
                tracing::warn!(%error, "the last wish cannot be understood");
                None
            }
        }
    }

    /// Keeps a wish. A full disk is no reason to stop: the apiserver will say it again.
    fn keep(&self, proxy: Option<&Proxy>) {
        let kept = || {
            let text = serde_json::to_string(&Remembered { proxy: proxy.cloned() })?;
            let next = self.0.with_extension("next");
            fs::write(&next, text)?;
            fs::rename(&next, &self.0)
        };
        if let Err(error) = kept() {
            tracing::warn!(%error, "the wish is not kept for the next start");
        }
    }
}

/// Watches the StreamingNode of this name. What cannot be read changes no wish.
pub async fn follow(
    client: Client,
    node: String,
    memory: Memory,
    wishes: watch::Sender<Option<Proxy>>,
    stored: watch::Sender<Stored>,
) {
    own::follow(client, &node, Pace::Many, |event| match event {
        NodeEvent::Is(object) => take(*object, &memory, &wishes, &stored),
        // The node's wishes outlive its StreamingNode: the controller makes that again.
        NodeEvent::Gone => {
            stored.send_if_modified(|before| {
                std::mem::replace(before, Stored::NoNode) != Stored::NoNode
            });
        }
    })
    .await;
}

fn take(
    object: StreamingNode,
    memory: &Memory,
    wishes: &watch::Sender<Option<Proxy>>,
    stored: &watch::Sender<Stored>,
) {
    let proxy = object.spec.proxy;
    wishes.send_if_modified(|before| {
        let changed = *before != proxy;
        if changed {
            tracing::info!(policy = object.spec.policy, proxy = ?proxy, "another wish");
            memory.keep(proxy.as_ref());
            *before = proxy;
        }
        changed
    });
    let report = Stored::Report(object.status.and_then(|status| status.agent));
    stored.send_if_modified(|before| {
        let changed = *before != report;
        *before = report;
        changed
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{ByteRate, FailurePolicy};

    #[test]
    fn a_wish_is_remembered_and_a_broken_memory_wants_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::new(folder.path());
        assert_eq!(memory.recall(), None);
        let proxy = Proxy {
            max_connection_bytes_per_sec: ByteRate::Text("1Mi".into()),
            failure_policy: FailurePolicy::Closed,
            ..Proxy::default()
        };
        memory.keep(Some(&proxy));
        assert_eq!(memory.recall(), Some(proxy));
        memory.keep(None);
        assert_eq!(memory.recall(), None);
        fs::write(folder.path().join(FILE), "{\"proxy\":").unwrap();
        assert_eq!(memory.recall(), None);
        // A folder that is gone, as a full disk: no panic.
        Memory::new(&folder.path().join("gone")).keep(None);
    }
}
