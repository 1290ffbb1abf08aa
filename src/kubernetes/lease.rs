//! Leader election on a `coordination.k8s.io/v1` Lease.
//!
//! The protocol is client-go's (`tools/leaderelection`), so that the Lease
//! reads the same to every tool:
//!
//! - Each candidate reads the Lease every [`Timing::retry_period`], with
//!   jitter. It replaces a holder only after the Lease has not changed for the
//!   `leaseDurationSeconds` in it, counted by the candidate's own monotonic
//!   clock; no two machines' clocks are ever compared.
//! - Every write carries the `resourceVersion` of the object it was decided on,
//!   so of several candidates one wins and the others get a 409.
//! - The holder renews every [`Timing::retry_period`] and stops leading once
//!   [`Timing::renew_deadline`] has passed since the *start* of the last request
//!   that succeeded: the apiserver cannot have written the renewal earlier, so
//!   however slow the answer was, the others' waiting ends later.
//!
//! This holds as long as the machines' clocks *run* equally fast to within the
//! ratio of lease duration and renew deadline (3:2 by default). A Lease that is
//! deleted by hand is outside of it: a candidate that has never seen its holder
//! creates it again at once, and the holder learns of that at its next renewal.
//!
//! What to do, [`candidate`], is kept apart from doing it, so that it can be
//! checked against a simulated Lease with lost, late and reordered messages.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::{Client, Config};

use super::count::CountErrors;

pub mod candidate;
mod leadership;
mod requests;
#[cfg(test)]
mod scripted;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use leadership::{Fence, Leadership};
use requests::{Attempt, Claim};

/// client-go's `JitterFactor`: a candidate waits up to this many retry periods
/// longer than one, so that many of them do not ask at the same moment.
const JITTER: f64 = 1.2;

/// Why a Lease could not be had, kept or given back.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The settings contradict each other or themselves.
    #[error("leader election: {0}")]
    Invalid(&'static str),
    /// A client could not be made from the configuration.
    #[error("cannot make a client for the Lease: {0}")]
    Client(#[source] Arc<kube::Error>),
    /// The apiserver refused a request or could not be reached.
    #[error("cannot {verb} the Lease: {source}")]
    Request {
        /// What was asked: `get`, `create` or `replace`.
        verb: &'static str,
        /// What came back.
        source: Arc<kube::Error>,
    },
    /// The apiserver did not answer in time; it may still have done as asked.
    #[error("cannot {verb} the Lease: no answer within {limit:?}")]
    Timeout {
        /// What was asked: `get`, `create` or `replace`.
        verb: &'static str,
        /// How long the answer was waited for.
        limit: Duration,
    },
    /// Somebody else holds the Lease that we had held.
    #[error("the Lease is now held by {holder}")]
    Taken {
        /// The other's identity.
        holder: String,
    },
    /// The Lease could not be renewed for as long as the renew deadline.
    #[error("the Lease could not be renewed in time{}", last.as_ref().map(|error| format!(": {error}")).unwrap_or_default())]
    Expired {
        /// What the last attempt failed with, if one failed before the time was up.
        last: Option<Box<Error>>,
    },
    /// The task that renews the Lease has ended without saying why.
    #[error("the renewal of the Lease has stopped")]
    Stopped,
    /// The process was asked to end before the Lease was ours.
    #[error("shut down while waiting for the Lease")]
    Shutdown,
}

impl Error {
    /// The error's kind as a metric label.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "LeaseSettings",
            Self::Client(_) => "LeaseClient",
            Self::Request { .. } => "LeaseRequest",
            Self::Timeout { .. } => "LeaseTimeout",
            Self::Taken { .. } => "LeaseTaken",
            Self::Expired { .. } => "LeaseExpired",
            Self::Stopped => "LeaseRenewalStopped",
            Self::Shutdown => "Shutdown",
        }
    }
}

/// The three durations of leader election, known to fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    lease_duration: Duration,
    renew_deadline: Duration,
    retry_period: Duration,
}

impl Timing {
    /// Checks and keeps the three durations; [`Timing::default`] has client-go's.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] unless lease duration > renew deadline > 1.2 times the
    /// retry period > 0 (as client-go's `NewLeaderElector` demands), and the
    /// lease duration is in whole seconds: the Lease carries no fractions, and
    /// others would wait for less time than we had counted on.
    pub fn new(
        lease_duration: Duration,
        renew_deadline: Duration,
        retry_period: Duration,
    ) -> Result<Self, Error> {
        if retry_period.is_zero() {
            return Err(Error::Invalid("the retry period must be above zero"));
        }
        if renew_deadline <= retry_period.saturating_mul(12) / 10 {
            return Err(Error::Invalid(
                "the renew deadline must be above 1.2 times the retry period",
            ));
        }
        if lease_duration <= renew_deadline {
            return Err(Error::Invalid("the lease duration must be above the renew deadline"));
        }
        if lease_duration.subsec_nanos() != 0 || i32::try_from(lease_duration.as_secs()).is_err() {
            return Err(Error::Invalid(
                "the lease duration must be whole seconds, at most 2147483647",
            ));
        }
        Ok(Self { lease_duration, renew_deadline, retry_period })
    }

    /// How long others wait for a sign of life before they take the Lease.
    #[must_use]
    pub fn lease_duration(&self) -> Duration {
        self.lease_duration
    }

    /// How long the holder leads without having been able to renew.
    #[must_use]
    pub fn renew_deadline(&self) -> Duration {
        self.renew_deadline
    }

    /// The pause between two attempts to acquire or to renew.
    #[must_use]
    pub fn retry_period(&self) -> Duration {
        self.retry_period
    }

    /// How long one request may take: half the renew deadline, so that one that
    /// hangs leaves time for another.
    #[must_use]
    pub fn request_timeout(&self) -> Duration {
        self.renew_deadline / 2
    }
}

impl Default for Timing {
    /// 15 s, 10 s and 2 s, as in Kubernetes' own components.
    fn default() -> Self {
        Self {
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// Which Lease, and who wants it.
#[derive(Clone, Debug)]
pub struct LeaseSettings {
    /// The Lease's namespace.
    pub namespace: String,
    /// The Lease's name.
    pub name: String,
    /// The candidate's name in it: unique among all processes that want this
    /// Lease, such as a Pod's name. Two processes with one identity would take
    /// each other's renewals for their own.
    pub identity: String,
    /// How often to ask and how long to wait.
    pub timing: Timing,
}

/// Makes a client fit for Leases: without kube's retries.
///
/// By default kube repeats a request that met a 429, 503 or 504 up to 15 times,
/// which takes minutes and hides from us when the one that succeeded was sent.
///
/// Must be called within a tokio runtime.
///
/// # Errors
///
/// [`Error::Client`] when the configuration does not make a client.
pub fn lease_client(mut config: Config) -> Result<Client, Error> {
    config.default_retry = false;
    Client::try_from(config).map_err(|error| Error::Client(Arc::new(error)))
}

/// Waits for its turn to lead.
#[derive(Clone)]
pub struct Elector<C> {
    client: Client,
    settings: LeaseSettings,
    errors: C,
}

impl<C: CountErrors> Elector<C> {
    /// An elector that has not asked for anything yet.
    ///
    /// `client` must be one of [`lease_client`]'s or otherwise not retry.
    /// Failed requests are counted in `errors` by [`Error::reason`].
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the namespace, the name or the identity is empty.
    pub fn new(client: Client, settings: LeaseSettings, errors: C) -> Result<Self, Error> {
        if settings.namespace.is_empty() || settings.name.is_empty() {
            return Err(Error::Invalid("the Lease needs a namespace and a name"));
        }
        if settings.identity.is_empty() {
            return Err(Error::Invalid("the identity must not be empty"));
        }
        Ok(Self { client, settings, errors })
    }

    /// Waits until the Lease is ours, for as long as that takes.
    ///
    /// Requests that fail are logged, counted and repeated. `shutdown` is
    /// looked at between attempts, never during one, which could leave a Lease
    /// behind that we do not know to be ours; so this may return a
    /// [`Leadership`] after `shutdown` has resolved, and may take two request
    /// timeouts to return at all.
    ///
    /// From the moment it returns, the Lease is renewed by a task of its own.
    ///
    /// # Errors
    ///
    /// [`Error::Shutdown`], and no other.
    pub async fn acquire(&self, shutdown: impl Future<Output = ()>) -> Result<Leadership, Error> {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut claim = Claim::new(self.client.clone(), self.settings.clone());
        let mut pause = Duration::ZERO;
        let mut seen: Option<String> = None;
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => return Err(Error::Shutdown),
                () = tokio::time::sleep(pause) => {}
            }
            match claim.attempt().await {
                Ok(Attempt::Held { until }) => {
                    tracing::info!(identity = self.settings.identity, "leading");
                    return Ok(Leadership::start(claim, until, self.errors.clone()));
                }
                Ok(Attempt::Beaten) => tracing::debug!("another candidate was faster"),
                Ok(Attempt::Waiting) => {
                    let holder = claim.seen_holder();
                    if holder != seen {
                        tracing::info!(holder, "waiting for the Lease");
                        seen = holder;
                    }
                }
                Err(error) => {
                    self.errors.error(error.reason());
                    tracing::warn!(%error, reason = error.reason(), "cannot acquire the Lease");
                }
            }
            pause = jittered(self.settings.timing.retry_period());
        }
    }
}

/// `period` lengthened by up to [`JITTER`] times itself (client-go's `wait.Jitter`).
fn jittered(period: Duration) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    // Every RandomState has other keys, which is all the chance this needs.
    let [a, b, c, d, ..] = RandomState::new().hash_one(()).to_ne_bytes();
    let fraction = f64::from(u32::from_ne_bytes([a, b, c, d])) / f64::from(u32::MAX);
    period + period.mul_f64(JITTER * fraction)
}

/// The monotonic clock; tokio's, so that tests can stop it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
