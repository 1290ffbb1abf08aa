//! What the agent says about its node: put together, and written when it has changed.

mod compose;

use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::Client;
use tokio::sync::watch;

use super::{claim::Role, desired::Stored, kubelet::Kubelet, metrics::Metrics, redirect::Attached};
use crate::{
    api::AgentReport,
    kubernetes::retry::Pauses,
    node::{
        machine::Machine,
        status::{RETRY_MAX, RETRY_MIN, Writer},
    },
    process::health::Need,
    relay::RemotePeer,
};
use compose::Composer;

/// Who writes the report. The controller writes everything else of the status.
const MANAGER: &str = "sluice-agent";

/// Changes that come together are one report.
const SETTLE: Duration = Duration::from_millis(200);

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
    /// Whether the report is this agent's to write.
    pub role: watch::Receiver<Role>,
}

impl Sources {
    /// Waits until one of them has changed; `false` once one is gone.
    async fn changed(&mut self) -> bool {
        tokio::select! {
            changed = self.kubelet.changed() => changed.is_ok(),
            changed = self.attached.changed() => changed.is_ok(),
            changed = self.remote.changed() => changed.is_ok(),
            changed = self.stored.changed() => changed.is_ok(),
            changed = self.role.changed() => changed.is_ok(),
        }
    }

    /// Whether the apiserver holds what this agent sees of the kubelet, whoever has written it.
    fn agree(&mut self, composer: &Composer) -> bool {
        let (kubelet, stored) = (self.kubelet.borrow_and_update(), self.stored.borrow_and_update());
        match &*stored {
            Stored::Report(Some(known)) => composer.agrees(&kubelet, known),
            Stored::Report(None) | Stored::NoNode | Stored::Unknown => false,
        }
    }

    /// The report for what is seen now: `None` where there is nothing to compare or to say.
    fn report(&mut self, composer: &mut Composer) -> Option<Report> {
        let stored = self.stored.borrow_and_update();
        let known = match &*stored {
            // Without what is stored, times would start again.
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
    writer: Writer,
    machine: Machine,
}

impl Reporter {
    /// A reporter for this node, on this machine.
    pub fn new(client: Client, node: String, machine: Machine) -> Self {
        Self { writer: Writer::new(client, node, MANAGER, "agent"), machine }
    }

    /// Keeps the report in the StreamingNode true while this agent acts; `reported` is met while the
    /// apiserver holds what this agent sees.
    pub async fn keep(self, mut sources: Sources, reported: Need, metrics: Metrics) {
        let mut composer = Composer::of(self.machine);
        let mut pauses = Pauses::new(RETRY_MIN, RETRY_MAX);
        let mut again: Option<Instant> = None;
        loop {
            let due = async {
                match again {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = sources.changed() => if !changed { return },
                () = due => {}
            }
            tokio::time::sleep(SETTLE).await;
            let role = *sources.role.borrow_and_update();
            match role {
                Role::Waiting => {
                    reported.met(sources.agree(&composer));
                    continue;
                }
                Role::Acting => {}
                Role::Succeeded => return,
            }
            match sources.report(&mut composer) {
                None => {}
                Some(Report::Stored) => {
                    reported.met(true);
                    pauses.succeeded();
                    again = None;
                }
                Some(Report::Due(report)) => match self.writer.write(Some(report)).await {
                    Ok(()) => {
                        metrics.reported("ok");
                        reported.met(true);
                        pauses.succeeded();
                        again = None;
                    }
                    Err(error) => {
                        metrics.reported(error.reason());
                        reported.met(false);
                        tracing::warn!(reason = error.reason(), %error, "the report is not stored");
                        again = Some(Instant::now() + pauses.failed());
                    }
                },
            }
        }
    }

    /// Takes the report away.
    pub async fn withdraw(&self) {
        match self.writer.write(None::<()>).await {
            Ok(()) => tracing::info!("the report is withdrawn"),
            Err(error) => tracing::warn!(reason = error.reason(), %error, "the report stays"),
        }
    }
}
