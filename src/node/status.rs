//! One program's own part of its node's status, by server-side apply.

use std::time::Duration;

use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::api::StreamingNode;

/// One request must not take longer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What is not stored is tried again after this long, doubled each time up to [`RETRY_MAX`].
pub const RETRY_MIN: Duration = Duration::from_millis(500);
/// The longest wait between two attempts.
pub const RETRY_MAX: Duration = Duration::from_secs(30);

/// Why a report is not stored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The apiserver refuses it, or cannot be reached.
    #[error("cannot report: {0}")]
    Request(#[from] kube::Error),
    /// It did not answer in time.
    #[error("cannot report: no answer within {TIMEOUT:?}")]
    Timeout,
}

impl Error {
    /// All reasons.
    pub const REASONS: [&str; 5] =
        ["ReportForbidden", "ReportNoNode", "ReportRefused", "ReportUnreachable", "ReportTimeout"];

    /// A short, stable name for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Request(kube::Error::Api(status)) if status.code == 403 => "ReportForbidden",
            Self::Request(kube::Error::Api(status)) if status.code == 404 => "ReportNoNode",
            Self::Request(kube::Error::Api(_)) => "ReportRefused",
            Self::Request(_) => "ReportUnreachable",
            Self::Timeout => "ReportTimeout",
        }
    }
}

/// Applies one manager's fields of a StreamingNode's status.
#[derive(Clone)]
pub struct Writer {
    api: Api<StreamingNode>,
    node: String,
    manager: &'static str,
}

impl Writer {
    /// A writer for the StreamingNode of this name.
    pub fn new(client: Client, node: String, manager: &'static str) -> Self {
        Self { api: Api::all(client), node, manager }
    }

    /// Applies these fields, and takes back what the same manager applied before and is not among
    /// them.
    ///
    /// # Errors
    /// Where they are not stored.
    pub async fn apply(&self, status: serde_json::Value) -> Result<(), Error> {
        let patch = Patch::Apply(json!({
            "apiVersion": "sluice.dev/v1alpha1",
            "kind": "StreamingNode",
            "metadata": {"name": self.node},
            "status": status,
        }));
        let params = PatchParams::apply(self.manager).force();
        let request = self.api.patch_status(&self.node, &params, &patch);
        tokio::time::timeout(TIMEOUT, request).await.map_err(|_| Error::Timeout)??;
        Ok(())
    }
}
