//! Whether the agent is alive, and whether what it has reported can be believed.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
use std::time::{Duration, Instant};

/// A loop that has not turned for so long is stuck. The slowest turn is a few time-outs in a row.
const STALL_LIMIT: Duration = Duration::from_secs(60);

/// So old may the last look at the kubelet be.
const LOOK_LIMIT: Duration = Duration::from_secs(10);

/// What the probes are answered from; clones share it. It reads no clock.
#[derive(Clone, Debug)]
pub struct Health(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    origin: Instant,
    /// When the streams were last looked after, in milliseconds after `origin`; `NEVER` before the
    /// agent acts.
    attached: AtomicU64,
    /// When the kubelet was last looked at.
    looked: AtomicU64,
    reported: AtomicBool,
}

const NEVER: u64 = u64::MAX;

impl Health {
    /// The health of a process started at `now`.
    pub fn new(now: Instant) -> Self {
        Self(Arc::new(Inner {
            origin: now,
            attached: AtomicU64::new(NEVER),
            looked: AtomicU64::new(0),
            reported: AtomicBool::new(false),
        }))
    }

    /// The streams have been looked after, or are about to be for the first time.
    pub fn attached(&self, now: Instant) {
        self.0.attached.store(self.millis(now), Ordering::Relaxed);
    }

    /// The kubelet has been looked at.
    pub fn looked(&self, now: Instant) {
        self.0.looked.store(self.millis(now), Ordering::Relaxed);
    }

    /// Whether the apiserver holds what this process sees.
    pub fn reported(&self, reported: bool) {
        self.0.reported.store(reported, Ordering::Relaxed);
    }

    /// Whether the process is alive.
    ///
    /// # Errors
    /// One line on what is stuck.
    pub fn live(&self, now: Instant) -> Result<(), String> {
        if self.0.attached.load(Ordering::Relaxed) == NEVER {
            return Ok(());
        }
        let idle = self.since(&self.0.attached, now);
        if idle < STALL_LIMIT {
            return Ok(());
        }
        Err(format!("the streams have not been looked after for {} s", idle.as_secs()))
    }

    /// Whether the report in the StreamingNode is what this process sees, and fresh. The controller
    /// believes no other that says a kubelet does not redirect.
    ///
    /// # Errors
    /// One line on what is missing.
    pub fn ready(&self, now: Instant) -> Result<(), String> {
        if !self.0.reported.load(Ordering::Relaxed) {
            return Err("the apiserver does not hold what this agent sees".to_owned());
        }
        let idle = self.since(&self.0.looked, now);
        if idle < LOOK_LIMIT {
            return Ok(());
        }
        Err(format!("the kubelet has not been looked at for {} s", idle.as_secs()))
    }

    fn millis(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.0.origin).as_millis();
        u64::try_from(passed).unwrap_or(u64::MAX)
    }

    fn since(&self, at: &AtomicU64, now: Instant) -> Duration {
        Duration::from_millis(self.millis(now).saturating_sub(at.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stuck_is_not_alive_and_unreported_not_ready() {
        let start = Instant::now();
        let health = Health::new(start);
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(health.live(after(3_600)), Ok(()), "it does not act yet");
        health.attached(after(0));
        assert_eq!(health.live(after(59)), Ok(()));
        assert!(health.live(after(60)).unwrap_err().contains("60 s"));
        health.attached(after(60));
        assert_eq!(health.live(after(119)), Ok(()));

        health.looked(after(60));
        assert!(health.ready(after(60)).is_err());
        health.reported(true);
        assert_eq!(health.ready(after(69)), Ok(()));
        assert!(health.ready(after(70)).unwrap_err().contains("10 s"));
        health.reported(false);
        assert!(health.ready(after(69)).is_err());
    }
}
