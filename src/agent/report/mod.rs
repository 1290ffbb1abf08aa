//! What the agent says about its node: put together, and written when it has changed.

mod compose;

use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::sync::watch;

use super::{attach::Attached, health::Health, kubelet::Kubelet, metrics::Metrics, wish::Stored};
use crate::{
    api::{AgentReport, StreamingNode},
    relay::RemotePeer,
};
use compose::Composer;

/// Who applies the report. The controller applies everything else of the status.
const MANAGER: &str = "sluice-agent";

/// Changes that come together are one report.
const SETTLE: Duration = Duration::from_millis(200);

/// One request must not take longer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A report that is not stored is tried again after this long, doubled each time up to
/// [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

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

/// What a report is made from.
pub struct Sources {
    /// The kubelet.
    pub kubelet: watch::Receiver<Kubelet>,
    /// The runtime and the streams.
    pub attached: watch::Receiver<Option<Attached>>,
    /// Who follows redirects.
    pub remote: watch::Receiver<Option<RemotePeer>>,
    /// What the apiserver holds.
    pub stored: watch::Receiver<Stored>,
}

impl Sources {
    /// Waits until one of them has changed; `false` once one is gone.
    async fn changed(&mut self) -> bool {
        tokio::select! {
            changed = self.kubelet.changed() => changed.is_ok(),
            changed = self.attached.changed() => changed.is_ok(),
            changed = self.remote.changed() => changed.is_ok(),
            changed = self.stored.changed() => changed.is_ok(),
        }
    }

    /// The report for what is seen now: `None` where there is nothing to compare or to say.
    fn report(&mut self, composer: &mut Composer) -> Option<Report> {
        let stored = self.stored.borrow_and_update();
        let known = match &*stored {
            // Without what is stored, times would start anew.
            Stored::Unknown => return None,
            Stored::NoNode => None,
            Stored::Report(report) => report.as_deref(),
        };
        let (kubelet, attached) =
            (self.kubelet.borrow_and_update(), self.attached.borrow_and_update());
        let remote = *self.remote.borrow_and_update();
        let now = Timestamp::now();
        let wanted = composer.compose(&kubelet, attached.as_ref(), remote, known, now)?;
        Some(if known == Some(&wanted) { Report::Stored } else { Report::Due(Box::new(wanted)) })
    }
}

/// What is to be said.
enum Report {
    /// What the apiserver holds already.
    Stored,
    /// This.
    Due(Box<AgentReport>),
}

/// Writes reports to the node's StreamingNode.
#[derive(Clone)]
pub struct Reporter {
    api: Api<StreamingNode>,
    node: String,
}

impl Reporter {
    /// A reporter for this node.
    pub fn new(client: Client, node: String) -> Self {
        Self { api: Api::all(client), node }
    }

    /// Keeps the report in the StreamingNode true, until the process ends.
    pub async fn keep(self, mut sources: Sources, health: Health, metrics: Metrics) {
        let mut composer = Composer::default();
        let mut retry: Option<(Instant, Duration)> = None;
        loop {
            let due = async {
                match retry {
                    Some((at, _)) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = sources.changed() => if !changed { return },
                () = due => {}
            }
            tokio::time::sleep(SETTLE).await;
            match sources.report(&mut composer) {
                None => {}
                Some(Report::Stored) => {
                    health.reported();
                    retry = None;
                }
                Some(Report::Due(report)) => match self.write(json!({"agent": report})).await {
                    Ok(()) => {
                        metrics.reported("ok");
                        health.reported();
                        retry = None;
                    }
                    Err(error) => {
                        metrics.reported(error.reason());
                        tracing::warn!(reason = error.reason(), %error, "the report is not stored");
                        let wait = retry.map_or(RETRY_MIN, |(_, wait)| (wait * 2).min(RETRY_MAX));
                        retry = Some((Instant::now() + wait, wait));
                    }
                },
            }
        }
    }

    /// Takes the report away: an apply takes back what the same manager applied before.
    pub async fn withdraw(&self) {
        match self.write(json!({})).await {
            Ok(()) => tracing::info!("the report is withdrawn"),
            Err(error) => tracing::warn!(reason = error.reason(), %error, "the report stays"),
        }
    }

    async fn write(&self, status: serde_json::Value) -> Result<(), Error> {
        let patch = Patch::Apply(json!({
            "apiVersion": "sluice.dev/v1alpha1",
            "kind": "StreamingNode",
            "metadata": {"name": self.node},
            "status": status,
        }));
        let params = PatchParams::apply(MANAGER).force();
        let request = self.api.patch_status(&self.node, &params, &patch);
        tokio::time::timeout(TIMEOUT, request).await.map_err(|_| Error::Timeout)??;
        Ok(())
    }
}
