//! The limits as streams meet them: each stream's own bucket, and the node's, which they share.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use tokio::sync::Mutex;

use super::limiter::Bucket;

/// What one move takes at most where nothing limits it, in bytes.
pub const MOVE_MAX: usize = 1 << 20;

/// Longer than this nobody sleeps without looking whether the limits have changed.
const LOOK: Duration = Duration::from_millis(100);

/// A turn at the node's bucket is at least so many bytes.
const TURN_MIN: u64 = 1 << 10;

/// How fast streams may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Each connection and each direction, in bytes per second; 0 is no limit.
    pub connection: u64,
    /// All connections of the node together, each direction, in bytes per second; 0 is no limit.
    pub node: u64,
}

impl Limits {
    /// The least that a greedy stream may be held to; `None` where nothing limits it.
    pub fn slowest(self) -> Option<u64> {
        [self.connection, self.node].into_iter().filter(|rate| *rate != 0).min()
    }
}

/// The limits that hold now, and the node's bucket of one direction.
#[derive(Debug)]
pub struct Gauge {
    connection: AtomicU64,
    node: AtomicU64,
    /// tokio's mutex serves in the order of arrival: streams that all want more take turns, and
    /// whoever is first waits for the tokens of all.
    shared: Mutex<Bucket>,
    /// Bytes that were taken from the node's bucket and have not moved. They wait here for whoever
    /// has the next turn: giving them back must not mean to stand in line once more.
    unused: AtomicU64,
}

impl Gauge {
    /// No limit.
    pub fn new(now: Instant) -> Self {
        Self {
            connection: AtomicU64::new(0),
            node: AtomicU64::new(0),
            shared: Mutex::new(Bucket::new(0, now)),
            unused: AtomicU64::new(0),
        }
    }

    /// Changes the limits; streams see it before their next move.
    pub fn set(&self, limits: Limits) {
        self.connection.store(limits.connection, Ordering::Relaxed);
        self.node.store(limits.node, Ordering::Relaxed);
    }
}

/// What may move now.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// Bytes.
    pub bytes: usize,
    /// Whether they were taken from the node's bucket.
    of_node: bool,
}

/// One direction of one stream, as the limits see it.
#[derive(Debug)]
pub struct Meter<'a> {
    gauge: &'a Gauge,
    /// Only once there is a limit: an unlimited stream asks for no time.
    bucket: Option<Bucket>,
    throttled: Duration,
}

impl<'a> Meter<'a> {
    /// A direction that has moved nothing.
    pub fn new(gauge: &'a Gauge) -> Self {
        Self { gauge, bucket: None, throttled: Duration::ZERO }
    }

    /// So many bytes were passed on without asking.
    pub fn owe(&mut self, bytes: usize) {
        let rate = self.gauge.connection.load(Ordering::Relaxed);
        if rate != 0 {
            let bucket = self.bucket.get_or_insert_with(|| Bucket::new(rate, Instant::now()));
            bucket.spend(bytes as u64);
        }
    }

    /// How long this direction has waited for its limits since this was last asked.
    pub fn take_throttled(&mut self) -> Duration {
        std::mem::take(&mut self.throttled)
    }

    /// Waits until bytes may move, and tells how many. They are spent with [`Meter::moved`].
    pub async fn allowance(&mut self) -> Allowance {
        let own = usize::try_from(self.own().await).unwrap_or(MOVE_MAX).min(MOVE_MAX);
        if self.gauge.node.load(Ordering::Relaxed) == 0 {
            return Allowance { bytes: own, of_node: false };
        }
        self.turn(own).await
    }

    /// Of what was allowed so many bytes have moved.
    pub fn moved(&mut self, allowed: Allowance, moved: usize) {
        if let Some(bucket) = &mut self.bucket {
            bucket.spend(moved as u64);
        }
        if allowed.of_node {
            let unused = allowed.bytes.saturating_sub(moved) as u64;
            self.gauge.unused.fetch_add(unused, Ordering::Relaxed);
        }
    }

    /// Waits for the stream's own limit.
    async fn own(&mut self) -> u64 {
        loop {
            let rate = self.gauge.connection.load(Ordering::Relaxed);
            if rate == 0 {
                self.bucket = None;
                return u64::MAX;
            }
            let now = Instant::now();
            let bucket = self.bucket.get_or_insert_with(|| Bucket::new(rate, now));
            if bucket.rate() != rate {
                bucket.set_rate(rate, now);
            }
            match bucket.available(now) {
                Ok(bytes) => return bytes,
                Err(wait) => tokio::time::sleep(wait.min(LOOK)).await,
            }
            self.throttled += now.elapsed();
        }
    }

    /// Waits for a turn at the node's bucket.
    async fn turn(&mut self, most: usize) -> Allowance {
        let asked = Instant::now();
        let mut shared = self.gauge.shared.lock().await;
        let allowed = loop {
            let rate = self.gauge.node.load(Ordering::Relaxed);
            if rate == 0 {
                break Allowance { bytes: most, of_node: false };
            }
            let now = Instant::now();
            if shared.rate() != rate {
                shared.set_rate(rate, now);
            }
            shared.refund(self.gauge.unused.swap(0, Ordering::Relaxed));
            match shared.available(now) {
                // A millisecond's worth a turn, so that everyone's comes soon.
                Ok(bytes) => {
                    let turn = (rate / 1000).max(TURN_MIN).min(bytes.max(1));
                    let turn = usize::try_from(turn).unwrap_or(most).min(most);
                    shared.spend(turn as u64);
                    break Allowance { bytes: turn, of_node: true };
                }
                Err(wait) => tokio::time::sleep(wait.min(LOOK)).await,
            }
        };
        drop(shared);
        self.throttled += asked.elapsed();
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_not_used_of_a_turn_is_there_for_the_next() {
        let gauge = Gauge::new(Instant::now());
        gauge.set(Limits { connection: 0, node: 1 << 20 });
        let mut meter = Meter::new(&gauge);
        let allowed = meter.allowance().await;
        meter.moved(allowed, 24);
        assert_eq!(gauge.unused.load(Ordering::Relaxed), allowed.bytes as u64 - 24);
        meter.allowance().await;
        assert_eq!(gauge.unused.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn tokens_that_were_never_taken_are_not_given_back() {
        let gauge = Gauge::new(Instant::now());
        let mut meter = Meter::new(&gauge);
        let allowed = meter.allowance().await;
        assert_eq!(allowed.bytes, MOVE_MAX);
        // A limit comes between the allowance and the move: nothing was taken from it.
        gauge.set(Limits { connection: 0, node: 1 << 20 });
        meter.moved(allowed, 0);
        assert_eq!(gauge.unused.load(Ordering::Relaxed), 0);
    }
}
