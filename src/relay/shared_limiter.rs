//! The limits as streams meet them: each stream's own bucket, and the node's, which they share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{sync::Notify, time::timeout};

use super::{
    limiter::Bucket,
    line::{Line, now},
    share::{Flow, Turn},
};

/// What one move takes at most where nothing limits it, in bytes.
pub const MOVE_MAX: usize = 1 << 20;

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

/// The limits of one direction that hold now, and the line before the node's.
#[derive(Debug)]
pub struct SharedLimiter {
    connection: AtomicU64,
    node: AtomicU64,
    /// Wakes those that wait for their own limit when it changes.
    changed: Notify,
    line: Arc<Line>,
}

impl SharedLimiter {
    /// No limit.
    pub fn new(now: Instant) -> Self {
        Self {
            connection: AtomicU64::new(0),
            node: AtomicU64::new(0),
            changed: Notify::new(),
            line: Arc::new(Line::new(now)),
        }
    }

    /// Changes the limits, also for those that wait for them. A limit that is the same wakes nobody.
    pub fn set(&self, limits: Limits) {
        if self.node.swap(limits.node, Ordering::SeqCst) != limits.node {
            self.line.set_rate(limits.node);
        }
        if self.connection.swap(limits.connection, Ordering::SeqCst) != limits.connection {
            self.changed.notify_waiters();
        }
    }

    /// Waits so long, or until a connection's limit is another.
    async fn sleep(&self, wait: Duration, rate: u64) {
        let changed = self.changed.notified();
        // It may have changed before `changed` listened.
        if self.connection.load(Ordering::SeqCst) == rate {
            // Boxed for the sake of streams that wait for nothing (see `half_duplex`).
            let _ = Box::pin(timeout(wait, changed)).await;
        }
    }
}

/// What may move now.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// Bytes.
    pub bytes: usize,
    /// The turn at the node's limit, where there is one.
    turn: Option<Turn>,
}

/// One direction of one stream, as the limits see it.
#[derive(Debug)]
pub struct Meter<'a> {
    limiter: &'a SharedLimiter,
    /// Only once there is a limit: an unlimited stream asks for no time.
    bucket: Option<Bucket>,
    flow: Flow,
    throttled: Duration,
}

impl<'a> Meter<'a> {
    /// A direction that has moved nothing.
    pub fn new(limiter: &'a SharedLimiter) -> Self {
        Self { limiter, bucket: None, flow: Flow::default(), throttled: Duration::ZERO }
    }

    /// So many bytes were passed on without asking.
    pub fn owe(&mut self, bytes: usize) {
        let rate = self.limiter.connection.load(Ordering::Relaxed);
        if rate != 0 {
            let bucket = self.bucket.get_or_insert_with(|| Bucket::new(rate, now()));
            bucket.spend(bytes as u64);
        }
    }

    /// How long this direction has waited for its limits since this was last asked.
    pub fn take_throttled(&mut self) -> Duration {
        std::mem::take(&mut self.throttled)
    }

    /// Waits until bytes may move, and tells how many. They are spent with [`Meter::moved`]; of the
    /// node's limit all are, until that says otherwise.
    pub async fn allowance(&mut self) -> Allowance {
        let own = usize::try_from(self.own().await).unwrap_or(MOVE_MAX).min(MOVE_MAX);
        if self.limiter.node.load(Ordering::Relaxed) == 0 {
            return Allowance { bytes: own, turn: None };
        }
        let turn = self.turn(own).await;
        let bytes = turn.and_then(|turn| usize::try_from(turn.bytes).ok()).unwrap_or(own);
        Allowance { bytes, turn }
    }

    /// Of what was allowed so many bytes have moved.
    pub fn moved(&mut self, allowed: Allowance, moved: usize) {
        if let Some(bucket) = &mut self.bucket {
            bucket.spend(moved as u64);
        }
        if let Some(turn) = allowed.turn {
            self.limiter.line.end(&mut self.flow, turn, moved as u64);
        }
    }

    /// Waits for the stream's own limit.
    async fn own(&mut self) -> u64 {
        loop {
            let rate = self.limiter.connection.load(Ordering::Relaxed);
            if rate == 0 {
                self.bucket = None;
                return u64::MAX;
            }
            let now = now();
            let bucket = self.bucket.get_or_insert_with(|| Bucket::new(rate, now));
            if bucket.rate() != rate {
                bucket.set_rate(rate, now);
            }
            let wait = match bucket.available(now) {
                Ok(bytes) => return bytes,
                Err(wait) => wait,
            };
            self.limiter.sleep(wait, rate).await;
            self.throttled += self::now().saturating_duration_since(now);
        }
    }

    /// Waits for a turn at the node's limit.
    async fn turn(&mut self, most: usize) -> Option<Turn> {
        let mut waiting = self.limiter.line.ask(&self.flow, most as u64);
        let turn = waiting.turn();
        if turn.is_some() {
            return turn;
        }
        let asked = now();
        let turn = Box::pin(waiting.wait()).await;
        self.throttled += now().saturating_duration_since(asked);
        turn
    }
}

#[cfg(test)]
mod tests;
