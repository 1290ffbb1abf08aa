//! Holding the Lease: renewal in a task of its own, loss, release.

use std::time::Instant;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout_at};

use super::requests::{Attempt, Claim};
use super::{Error, now};
use crate::kubernetes::count::CountErrors;

/// What the renewing task last knew.
#[derive(Clone, Debug)]
enum State {
    Held { until: Instant, last: Option<Error> },
    Lost(Error),
}

/// The right to act, for as long as it lasts.
///
/// The Lease is renewed in a task of its own, so the holder may be busy; on a
/// runtime of one thread it must not block that. Dropping it stops the renewal:
/// the Lease is then free for others once it expires.
#[derive(Debug)]
pub struct Leadership {
    state: watch::Receiver<State>,
    /// Holds the renewing task, which ends with it.
    renewal: JoinSet<()>,
    /// To give the Lease back with.
    release: Releaser,
}

struct Releaser(Claim);

impl std::fmt::Debug for Releaser {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Releaser").field(self.0.settings()).finish()
    }
}

/// Tells whether a [`Leadership`] still lasts; for whoever is about to write.
#[derive(Clone, Debug)]
pub struct Fence(watch::Receiver<State>);

impl Fence {
    /// Whether the Lease is ours at this moment.
    ///
    /// Exact even when the renewing task has had no chance to run, since the
    /// time until which the Lease is held is known beforehand.
    #[must_use]
    pub fn holds(&self) -> bool {
        // The task closes the channel when it ends, whatever it ended from.
        self.0.has_changed().is_ok()
            && matches!(&*self.0.borrow(), State::Held { until, .. } if now() < *until)
    }
}

impl Leadership {
    /// Takes over a claim that has just succeeded.
    pub(super) fn start(claim: Claim, until: Instant, errors: impl CountErrors) -> Self {
        let (sender, state) = watch::channel(State::Held { until, last: None });
        let release = Releaser(claim.anew());
        let mut renewal = JoinSet::new();
        renewal.spawn(renew(claim, until, sender, errors));
        Self { state, renewal, release }
    }

    /// A check that can be given to whoever writes on the leader's behalf.
    #[must_use]
    pub fn fence(&self) -> Fence {
        Fence(self.state.clone())
    }

    /// Resolves with the cause once the Lease is lost: [`Error::Expired`],
    /// [`Error::Taken`] or [`Error::Stopped`].
    ///
    /// Can be dropped and called again; resolves at once when it already is.
    pub async fn lost(&mut self) -> Error {
        loop {
            let (until, last) = match &*self.state.borrow_and_update() {
                State::Held { until, last } => (*until, last.clone()),
                State::Lost(error) => return error.clone(),
            };
            tokio::select! {
                biased;
                changed = self.state.changed() => if changed.is_err() {
                    return Error::Stopped;
                },
                // The renewing task says so too, but it may not get to run.
                () = sleep_until(until.into()) => return expired(last),
            }
        }
    }

    /// Lets go of the Lease, so that another candidate need not wait for it to
    /// expire (client-go's `ReleaseOnCancel`). Call it once nothing is written
    /// on its strength any more. Does nothing if the Lease is no longer ours.
    ///
    /// Takes four request timeouts at most.
    ///
    /// # Errors
    ///
    /// [`Error::Request`] or [`Error::Timeout`]; the Lease then expires by itself.
    pub async fn release(mut self) -> Result<(), Error> {
        // The renewal must have ended first, or it could take the Lease again.
        self.renewal.shutdown().await;
        self.release.0.release().await
    }
}

fn expired(last: Option<Error>) -> Error {
    Error::Expired { last: last.map(Box::new) }
}

/// Renews until that fails for too long.
async fn renew(
    mut claim: Claim,
    mut until: Instant,
    state: watch::Sender<State>,
    errors: impl CountErrors,
) {
    let mut last: Option<Error> = None;
    let cause = loop {
        let pause = now() + claim.settings().timing.retry_period();
        sleep_until(pause.min(until).into()).await;
        if now() >= until {
            break expired(last);
        }
        let outcome = timeout_at(until.into(), claim.attempt()).await;
        // An answer that was slow to be looked at may say that the Lease is
        // ours, but others may have been told already that it is not.
        if now() >= until {
            break expired(last);
        }
        match outcome {
            Err(_) => break expired(last),
            Ok(Ok(Attempt::Held { until: extended })) => {
                until = extended;
                last = None;
            }
            Ok(Ok(Attempt::Waiting)) => {
                if let Some(holder) = claim.seen_holder() {
                    break Error::Taken { holder };
                }
            }
            // Somebody touched the Lease; the next attempt reads it first.
            Ok(Ok(Attempt::Beaten)) => {}
            Ok(Err(error)) => {
                errors.error(error.reason());
                tracing::warn!(%error, reason = error.reason(), "cannot renew the Lease");
                last = Some(error);
            }
        }
        state.send_replace(State::Held { until, last: last.clone() });
    };
    errors.error(cause.reason());
    tracing::error!(error = %cause, reason = cause.reason(), "no longer leading");
    state.send_replace(State::Lost(cause));
}
