//! One program's own part of its node's status.

use std::time::Duration;

use kube::{Client, api::DynamicObject};
use serde::Serialize;
use serde_json::json;

use crate::{api::StreamingNode, kubernetes::status};

/// One request must not take longer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What is not stored is tried again after this long, doubled each time up to [`RETRY_MAX`].
pub(crate) const RETRY_MIN: Duration = Duration::from_millis(500);
/// The longest wait between two attempts.
pub(crate) const RETRY_MAX: Duration = Duration::from_secs(30);

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

/// Writes one program's part of a StreamingNode's status.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    node: String,
    manager: &'static str,
    part: &'static str,
}

impl Writer {
    /// A writer of that part, as this manager, for the StreamingNode of this name.
    pub fn new(client: Client, node: String, manager: &'static str, part: &'static str) -> Self {
        Self { client, node, manager, part }
    }

    /// Makes the part this, or takes it away.
    ///
    /// # Errors
    /// Where it is not stored.
    pub async fn write(&self, part: Option<impl Serialize>) -> Result<(), Error> {
        let status = match part {
            Some(part) => json!({(self.part): part}),
            None => json!({}),
        };
        let ours = |field: &str| field == self.part;
        let applied = status::write::<StreamingNode, DynamicObject>(
            &self.client,
            &self.node,
            self.manager,
            &status,
            ours,
        );
        tokio::time::timeout(TIMEOUT, applied).await.map_err(|_| Error::Timeout)??;
        Ok(())
    }
}
