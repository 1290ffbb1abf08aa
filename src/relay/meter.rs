//! The limits as streams meet them: each stream's own bucket, and the node's, which they share.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use tokio::sync::Mutex;

use super::{limiter::Bucket, pipe::CAPACITY};

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
}

impl Gauge {
    /// No limit.
    pub fn new(now: Instant) -> Self {
        Self {
            connection: AtomicU64::new(0),
            node: AtomicU64::new(0),
            shared: Mutex::new(Bucket::new(0, now)),
        }
    }

    /// Changes the limits; streams see it before their next move.
    pub fn set(&self, limits: Limits) {
        self.connection.store(limits.connection, Ordering::Relaxed);
        self.node.store(limits.node, Ordering::Relaxed);
    }
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

    /// Waits until bytes may move, and tells how many. What does not move is given back with
    /// [`Meter::moved`].
    pub async fn allowance(&mut self) -> usize {
        let most = match self.own().await {
            u64::MAX => CAPACITY,
            own => usize::try_from(own).map_or(CAPACITY, |own| own.min(CAPACITY)),
        };
        if self.gauge.node.load(Ordering::Relaxed) == 0 {
            return most;
        }
        self.turn(most).await
    }

    /// Of `allowed` bytes so many have moved.
    pub async fn moved(&mut self, allowed: usize, moved: usize) {
        if let Some(bucket) = &mut self.bucket {
            bucket.spend(moved as u64);
        }
        if allowed > moved && self.gauge.node.load(Ordering::Relaxed) != 0 {
            self.gauge.shared.lock().await.refund((allowed - moved) as u64);
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
    async fn turn(&mut self, most: usize) -> usize {
        let asked = Instant::now();
        let mut shared = self.gauge.shared.lock().await;
        let allowed = loop {
            let rate = self.gauge.node.load(Ordering::Relaxed);
            if rate == 0 {
                break most;
            }
            let now = Instant::now();
            if shared.rate() != rate {
                shared.set_rate(rate, now);
            }
            match shared.available(now) {
                // A millisecond's worth a turn, so that everyone's comes soon.
                Ok(bytes) => {
                    let turn = (rate / 1000).max(TURN_MIN).min(bytes.max(1));
                    let turn = usize::try_from(turn).unwrap_or(most).min(most);
                    shared.spend(turn as u64);
                    break turn;
                }
                Err(wait) => tokio::time::sleep(wait.min(LOOK)).await,
            }
        };
        drop(shared);
        self.throttled += asked.elapsed();
        allowed
    }
}
