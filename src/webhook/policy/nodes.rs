//! The verdicts about all nodes, read from the apiserver at the moment of the question: a standby
//! replica watches nothing.
//!
//! What is asked for is what `kubectl get` shows: the apiserver makes a table of the StreamingNodes
//! and leaves the objects out. It answers from its own cache, without asking etcd. Of 20,000 nodes
//! that is 5 MB instead of 24, and a second instead of three to nine.

use std::{collections::BTreeMap, time::Duration};

use http::{Request, header::ACCEPT};
use kube::{Client, Resource};
use serde::{Deserialize, de::IgnoredAny};
use tokio::sync::Semaphore;

use super::rule::{Judged, Nodes};
use crate::{api::StreamingNode, controller::metrics::Metrics};

/// How long the apiserver may take to show them all. With some time on the way that stays below the
/// 5 s for which the chart has the apiserver wait for a verdict.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Nodes in one page, where the apiserver has no cache; from its cache it answers with all.
const PAGE: usize = 500;

/// A table, as all apiservers since 1.15 make it of a list.
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// Why the verdicts cannot be read.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The apiserver refused, or could not be reached.
    #[error("{0}")]
    Request(#[from] kube::Error),
    /// What came back is no table.
    #[error("the apiserver answered with something else than a table: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The columns are not those of our definitions.
    #[error("the CRD of StreamingNodes has no column {0}")]
    NoColumn(&'static str),
    /// It took too long.
    #[error("the apiserver did not answer within {TIMEOUT:?}")]
    Timeout,
}

impl Error {
    /// A short, stable name for metrics and logs.
    fn reason(&self) -> &'static str {
        match self {
            Self::Request(_) => "VerdictsRequest",
            Self::Malformed(_) => "VerdictsMalformed",
            Self::NoColumn(_) => "VerdictsColumn",
            Self::Timeout => "VerdictsTimeout",
        }
    }
}

/// Reads the verdicts, one question at a time: a burst of them must not fill the memory.
pub(in crate::webhook) struct Verdicts {
    client: Client,
    metrics: Metrics,
    one: Semaphore,
}

impl Verdicts {
    /// The client must not retry: the apiserver waits.
    pub fn new(client: Client, metrics: Metrics) -> Self {
        Self { client, metrics, one: Semaphore::new(1) }
    }

    /// All of them, in time.
    pub async fn read(&self) -> Nodes {
        let read = async {
            let _one = self.one.acquire().await;
            self.pages().await
        };
        match tokio::time::timeout(TIMEOUT, read).await.unwrap_or(Err(Error::Timeout)) {
            Ok(nodes) => Nodes::Seen(nodes),
            Err(error) => {
                let reason = error.reason();
                self.metrics.error(reason);
                tracing::warn!(reason, "a policy is not held against the nodes: {error}");
                Nodes::Unseen(error.to_string())
            }
        }
    }

    async fn pages(&self) -> Result<BTreeMap<String, Judged>, Error> {
        let mut nodes = BTreeMap::new();
        let mut more = None;
        loop {
            let request = request(more.as_deref());
            let text = self.client.request_text(request?).await?;
            let table: Table = serde_json::from_str(&text)?;
            table.add_to(&mut nodes)?;
            more = table.metadata.continue_.filter(|token| !token.is_empty());
            if more.is_none() {
                return Ok(nodes);
            }
        }
    }
}

fn request(more: Option<&str>) -> kube::Result<Request<Vec<u8>>> {
    let from = match more {
        // A token is of letters, digits, - and _ only (base64url).
        Some(token) => format!("continue={token}"),
        None => "resourceVersion=0".to_owned(),
    };
    let path = StreamingNode::url_path(&(), None);
    let uri = format!("{path}?includeObject=None&limit={PAGE}&{from}");
    let request = Request::get(uri).header(ACCEPT, TABLE).body(Vec::new());
    request.map_err(kube::Error::HttpError)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Table {
    #[serde(default)]
    metadata: Metadata,
    column_definitions: Vec<Column>,
    rows: Vec<Row>,
}

#[derive(Debug, Default, Deserialize)]
struct Metadata {
    #[serde(default, rename = "continue")]
    continue_: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Column {
    name: String,
}

#[derive(Debug, Deserialize)]
struct Row {
    cells: Vec<Cell>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Cell {
    Text(String),
    Other(IgnoredAny),
}

impl Table {
    fn add_to(&self, nodes: &mut BTreeMap<String, Judged>) -> Result<(), Error> {
        let find = |name| self.column_definitions.iter().position(|column| column.name == name);
        let column = |name| find(name).ok_or(Error::NoColumn(name));
        let (name, verdict) = (column("Name")?, column("Verdict")?);
        // The CRD of an older release has none.
        let provider = find("Provider");
        for Row { cells } in &self.rows {
            let text = |at: usize| match cells.get(at) {
                Some(Cell::Text(text)) => text.clone(),
                _ => String::new(),
            };
            let provider = provider.map(text).filter(|provider| !provider.is_empty());
            nodes.insert(text(name), Judged { verdict: text(verdict), provider });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
