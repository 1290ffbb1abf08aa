//! What the remediator says in its StreamingNode.

use std::{
    future::pending,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::desired::DesiredChange;
use crate::{
    api::ChangeReport,
    kubernetes::retry::Pauses,
    node::status::{RETRY_MIN, Writer},
};

/// Who writes the report. The controller writes everything else of the status, and the agent its
/// own part.
pub const MANAGER: &str = "sluice-remediator";

/// A report that is not stored is tried again after at most this long: while the apiserver restarts,
/// the controller waits for it.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// What is stored comes back through the watch; what has not by then is stored again.
const ECHO: Duration = Duration::from_secs(30);

/// Keeps the report in the StreamingNode true, until the process ends.
pub async fn keep(
    writer: Writer,
    mut told: watch::Receiver<Option<ChangeReport>>,
    mut desired_changes: watch::Receiver<DesiredChange>,
) {
    let mut pauses = Pauses::new(RETRY_MIN, RETRY_MAX);
    let mut not_before = None::<Instant>;
    loop {
        let own = told.borrow_and_update().clone();
        let due = own.filter(|own| is_due(own, &desired_changes.borrow_and_update()));
        let now = Instant::now();
        match &due {
            None => {
                pauses.succeeded();
                not_before = None;
            }
            Some(report) if not_before.is_none_or(|at| at <= now) => {
                not_before = Some(match writer.write(Some(report)).await {
                    Ok(()) => now + ECHO,
                    Err(error) => {
                        tracing::warn!(reason = error.reason(), %error, "the report is not stored");
                        now + pauses.failed()
                    }
                });
            }
            Some(_) => {}
        }
        let again = async {
            match not_before {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => pending().await,
            }
        };
        tokio::select! {
            changed = told.changed() => {
                if changed.is_err() {
                    return;
                }
                not_before = None;
            }
            changed = desired_changes.changed() => if changed.is_err() { return },
            () = again => {}
        }
    }
}

/// Whether this has to be said. Both kinds of remediators speak in the same place: each of what is
/// wanted, if that is its own, and of what it said last.
fn is_due(own: &ChangeReport, desired: &DesiredChange) -> bool {
    let DesiredChange::Node { wanted, reported } = desired else { return false };
    let speaks = wanted.as_ref().is_some_and(|change| change.id == own.id)
        || reported.as_ref().is_some_and(|report| report.id == own.id);
    speaks && reported.as_deref() != Some(own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::ChangeKind,
        remediator::test_support::{change, now},
    };
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn report(id: &str, phase: &str) -> ChangeReport {
        ChangeReport {
            id: id.to_owned(),
            phase: phase.to_owned(),
            reason: phase.to_owned(),
            message: "As it is.".to_owned(),
            since: Time(now()),
            boot_id: None,
            machine_id: None,
        }
    }

    #[test]
    fn each_kind_speaks_of_its_own() {
        let own = report("a", "RolledBack");
        let (same, other) = (own.clone(), report("b", "Preparing"));
        let stale = report("a", "Applied");
        for (wanted, reported, expected) in [
            (None, None, false),
            (Some("a"), None, true),
            (Some("a"), Some(&stale), true),
            (Some("a"), Some(&other), true),
            (Some("a"), Some(&same), false),
            // What the apiserver holds is mended, whatever is wanted now.
            (Some("b"), Some(&stale), true),
            (None, Some(&stale), true),
            // The other kind has the word.
            (Some("b"), Some(&other), false),
            (Some("b"), None, false),
        ] {
            let desired = DesiredChange::Node {
                wanted: wanted.map(|id| Box::new(change(id, ChangeKind::ApiserverGate))),
                reported: reported.cloned().map(Box::new),
            };
            assert_eq!(is_due(&own, &desired), expected, "{wanted:?} {reported:?}");
        }
        assert!(!is_due(&own, &DesiredChange::Nothing));
    }
}
