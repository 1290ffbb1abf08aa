//! What a candidate does next, decided without I/O and without reading a clock.
//!
//! The rules are those of client-go's `tools/leaderelection/leaderelection.go`
//! (`tryAcquireOrRenew`), with two differences, both on the side of caution:
//! a holder counts its deadline from the *start* of the last request that
//! succeeded, and a Lease that was deleted is created again by others only once
//! the holder they had seen in it can no longer believe that it leads.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::Timing;

/// What was last seen of the Lease.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// The content as last read or written.
    pub spec: LeaseSpec,
    /// Whether the object still existed when it was last asked for.
    pub exists: bool,
    /// When `spec` was last seen to change: the monotonic time at which the
    /// answer that first showed it had *arrived*. The holder may have written
    /// it at any moment before, never after.
    pub changed: Instant,
}

/// What a candidate does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Create the Lease: there is none.
    Create,
    /// Write oneself into a Lease that nobody holds.
    Acquire,
    /// Replace a holder that has not renewed for as long as it had promised to.
    Takeover,
    /// Renew the Lease that carries our own name.
    Renew,
    /// Leave it alone: its holder may be leading until then, at least.
    Wait {
        /// When the holder may be replaced, if it does not renew.
        until: Instant,
    },
}

/// Decides what to do about a Lease.
///
/// The remote `renewTime` is not looked at: it is another machine's clock.
/// What counts is for how long, by our own monotonic clock, the Lease has not
/// changed, compared with the `leaseDurationSeconds` that its holder wrote
/// (`lease_duration` if it wrote none).
#[must_use]
pub fn step(
    observed: Option<&Observed>,
    identity: &str,
    lease_duration: Duration,
    now: Instant,
) -> Step {
    let Some(observed) = observed else {
        return Step::Create;
    };
    let take = |step| if observed.exists { step } else { Step::Create };
    match holder(&observed.spec) {
        None => take(Step::Acquire),
        Some(holder) if holder == identity => take(Step::Renew),
        Some(_) => {
            let promised = promised(&observed.spec).unwrap_or(lease_duration);
            match observed.changed.checked_add(promised) {
                Some(until) if now < until => Step::Wait { until },
                Some(_) => take(Step::Takeover),
                // Further away than the clock can count: never ours to take.
                None => Step::Wait { until: now },
            }
        }
    }
}

/// Who holds the Lease; an empty name is nobody.
#[must_use]
pub fn holder(spec: &LeaseSpec) -> Option<&str> {
    spec.holder_identity.as_deref().filter(|name| !name.is_empty())
}

fn promised(spec: &LeaseSpec) -> Option<Duration> {
    let seconds = u64::try_from(spec.lease_duration_seconds?).ok()?;
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

/// The Lease's content once `identity` has taken or renewed it at `wall` time.
///
/// `acquireTime` and `leaseTransitions` are kept while the holder stays the
/// same; the transitions count every change of it. Fields that other versions
/// of Kubernetes know are kept as they are.
#[must_use]
pub fn held(
    previous: Option<&LeaseSpec>,
    identity: &str,
    lease_duration: Duration,
    wall: Timestamp,
) -> LeaseSpec {
    let before = previous.cloned().unwrap_or_default();
    let ours = holder(&before) == Some(identity);
    let renewed = renewed(before.renew_time.as_ref(), wall);
    LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: Some(i32::try_from(lease_duration.as_secs()).unwrap_or(i32::MAX)),
        acquire_time: match before.acquire_time {
            Some(acquired) if ours => Some(acquired),
            _ => Some(renewed.clone()),
        },
        renew_time: Some(renewed),
        lease_transitions: Some(match (previous, before.lease_transitions) {
            (None, _) => 0,
            (Some(_), transitions) if ours => transitions.unwrap_or(0),
            (Some(_), transitions) => transitions.unwrap_or(0).saturating_add(1),
        }),
        ..before
    }
}

/// The Lease's content once its holder has let go of it at `wall` time.
///
/// As in client-go's `release`: no holder, and a duration of one second, for
/// candidates that look at the duration before they look at the holder.
#[must_use]
pub fn released(previous: &LeaseSpec, wall: Timestamp) -> LeaseSpec {
    let renewed = renewed(previous.renew_time.as_ref(), wall);
    LeaseSpec {
        holder_identity: None,
        lease_duration_seconds: Some(1),
        acquire_time: Some(renewed.clone()),
        renew_time: Some(renewed),
        ..previous.clone()
    }
}

/// `wall` in the microseconds that a Lease carries, but never equal to what is
/// there: an apiserver drops a write that changes nothing, and other candidates
/// would then not see that the holder is alive.
fn renewed(previous: Option<&MicroTime>, wall: Timestamp) -> MicroTime {
    let wall = Timestamp::from_microsecond(wall.as_microsecond()).unwrap_or(wall);
    let same =
        previous.is_some_and(|previous| previous.0.as_microsecond() == wall.as_microsecond());
    MicroTime(match wall.checked_add(SignedDuration::from_micros(1)) {
        Ok(later) if same => later,
        _ => wall,
    })
}

/// One candidate's knowledge: what it saw, and until when it holds the Lease.
///
/// Whoever does the I/O tells it what came back; it never asks.
#[derive(Clone, Debug)]
pub struct Candidate {
    identity: String,
    timing: Timing,
    observed: Option<Observed>,
    held_until: Option<Instant>,
}

impl Candidate {
    /// A candidate that has seen nothing yet. `identity` must be unique among
    /// all candidates for the Lease, and so must that of its successors.
    #[must_use]
    pub fn new(identity: String, timing: Timing) -> Self {
        Self { identity, timing, observed: None, held_until: None }
    }

    /// Takes note of an answer to a read: the Lease's content, or `None` when
    /// there is no such Lease. `received` is when the answer had arrived.
    pub fn saw(&mut self, spec: Option<LeaseSpec>, received: Instant) {
        match (spec, &mut self.observed) {
            (None, None) => {}
            (None, Some(observed)) => observed.exists = false,
            (Some(spec), Some(observed)) if observed.spec == spec => observed.exists = true,
            (Some(spec), _) => {
                // Somebody else can only be in there because they found our
                // time up; whatever our own clock says, it is over.
                if holder(&spec).is_some_and(|holder| holder != self.identity) {
                    self.held_until = None;
                }
                self.observed = Some(Observed { spec, exists: true, changed: received });
            }
        }
    }

    /// Takes note of a write of ours that succeeded: sent off at `started`,
    /// answered with `spec` at `received`.
    ///
    /// The apiserver wrote it at some moment between the two. Others count
    /// from a moment after that, so we count from one before: `started`.
    pub fn wrote(&mut self, spec: LeaseSpec, started: Instant, received: Instant) {
        self.saw(Some(spec), received);
        self.held_until = started.checked_add(self.timing.renew_deadline());
    }

    /// What to do now.
    #[must_use]
    pub fn step(&self, now: Instant) -> Step {
        step(self.observed.as_ref(), &self.identity, self.timing.lease_duration(), now)
    }

    /// The content to write now, were it at `wall` time.
    #[must_use]
    pub fn claim(&self, wall: Timestamp) -> LeaseSpec {
        let previous = self.observed.as_ref().filter(|observed| observed.exists);
        held(
            previous.map(|observed| &observed.spec),
            &self.identity,
            self.timing.lease_duration(),
            wall,
        )
    }

    /// Until when we hold the Lease, if we do and have not learnt otherwise.
    #[must_use]
    pub fn held_until(&self) -> Option<Instant> {
        self.held_until
    }

    /// Whether we hold the Lease.
    #[must_use]
    pub fn holds(&self, now: Instant) -> bool {
        self.held_until.is_some_and(|until| now < until)
    }

    /// Who was last seen to hold the Lease, which may be ourselves.
    #[must_use]
    pub fn seen_holder(&self) -> Option<&str> {
        holder(&self.observed.as_ref()?.spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(15);

    fn spec(holder: Option<&str>, seconds: Option<i32>) -> LeaseSpec {
        LeaseSpec {
            holder_identity: holder.map(str::to_owned),
            lease_duration_seconds: seconds,
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn steps() {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let wait = |seconds: f64| Step::Wait { until: at(seconds) };
        // (holder, leaseDurationSeconds, exists, seconds since the change, step)
        let table = [
            (None, Some(15), true, 0.0, Step::Acquire),
            (Some(""), Some(1), true, 0.0, Step::Acquire),
            (None, None, true, 99.0, Step::Acquire),
            (Some("us"), Some(15), true, 0.0, Step::Renew),
            (Some("us"), Some(15), true, 99.0, Step::Renew),
            (Some("them"), Some(15), true, 0.0, wait(15.0)),
            (Some("them"), Some(15), true, 14.999, wait(15.0)),
            (Some("them"), Some(15), true, 15.0, Step::Takeover),
            // The holder's promise counts, not our own setting.
            (Some("them"), Some(60), true, 15.0, wait(60.0)),
            (Some("them"), Some(60), true, 60.0, Step::Takeover),
            (Some("them"), Some(5), true, 5.0, Step::Takeover),
            // Nonsense in the object: our own setting.
            (Some("them"), None, true, 14.0, wait(15.0)),
            (Some("them"), Some(0), true, 14.0, wait(15.0)),
            (Some("them"), Some(-1), true, 15.0, Step::Takeover),
            // Deleted since.
            (None, Some(1), false, 0.0, Step::Create),
            (Some("us"), Some(15), false, 0.0, Step::Create),
            (Some("them"), Some(15), false, 14.0, wait(15.0)),
            (Some("them"), Some(15), false, 15.0, Step::Create),
        ];
        for (holder, seconds, exists, passed, expected) in table {
            let observed = Observed { spec: spec(holder, seconds), exists, changed: start };
            assert_eq!(
                step(Some(&observed), "us", LEASE, at(passed)),
                expected,
                "{holder:?} {seconds:?} {exists} {passed}"
            );
        }
        assert_eq!(step(None, "us", LEASE, start), Step::Create);
    }

    #[test]
    fn the_record_is_that_of_client_go() {
        let first = Timestamp::new(100, 123_456_789).unwrap();
        let later = Timestamp::new(102, 0).unwrap();
        let created = held(None, "a", LEASE, first);
        assert_eq!(created.holder_identity.as_deref(), Some("a"));
        assert_eq!(created.lease_duration_seconds, Some(15));
        assert_eq!(created.lease_transitions, Some(0));
        assert_eq!(created.acquire_time, created.renew_time);
        let micros = created.renew_time.as_ref().unwrap().0;
        assert_eq!(micros, Timestamp::new(100, 123_456_000).unwrap());

        let renewed = held(Some(&created), "a", LEASE, later);
        assert_eq!(renewed.acquire_time, created.acquire_time);
        assert_eq!(renewed.renew_time, Some(MicroTime(later)));
        assert_eq!(renewed.lease_transitions, Some(0));

        let taken = held(Some(&renewed), "b", LEASE, later);
        assert_eq!(taken.lease_transitions, Some(1));
        assert_eq!(taken.acquire_time, taken.renew_time);

        let empty = released(&taken, later);
        assert_eq!(holder(&empty), None);
        assert_eq!(empty.lease_duration_seconds, Some(1));
        assert_eq!(empty.lease_transitions, Some(1));
        assert_eq!(held(Some(&empty), "b", LEASE, later).lease_transitions, Some(2));
    }

    #[test]
    fn a_renewal_always_changes_the_record() {
        let wall = Timestamp::new(100, 5_000).unwrap();
        let first = held(None, "a", LEASE, wall);
        // The wall clock stands still, or was set back to the same microsecond.
        let second = held(Some(&first), "a", LEASE, wall);
        assert_ne!(first, second);
        assert_ne!(second, held(Some(&second), "a", LEASE, wall));
    }

    #[test]
    fn belief_counts_from_the_start_of_the_request() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut candidate = Candidate::new("us".to_owned(), Timing::default());
        assert!(!candidate.holds(start));
        let claim = candidate.claim(Timestamp::UNIX_EPOCH);
        candidate.wrote(claim, at(0), at(4));
        assert!(candidate.holds(at(9)));
        assert!(!candidate.holds(at(10)));

        // Another's name in the Lease ends it before that.
        candidate.saw(Some(spec(Some("them"), Some(15))), at(5));
        assert!(!candidate.holds(at(5)));
        assert_eq!(candidate.step(at(5)), Step::Wait { until: at(20) });
    }

    #[test]
    fn an_unchanged_record_is_counted_from_its_first_sight() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut candidate = Candidate::new("us".to_owned(), Timing::default());
        let theirs = spec(Some("them"), Some(15));
        candidate.saw(Some(theirs.clone()), at(0));
        candidate.saw(Some(theirs.clone()), at(14));
        assert_eq!(candidate.step(at(15)), Step::Takeover);
        candidate.saw(Some(held(Some(&theirs), "them", LEASE, Timestamp::UNIX_EPOCH)), at(15));
        assert_eq!(candidate.step(at(15)), Step::Wait { until: at(30) });
    }
}
