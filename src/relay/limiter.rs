//! The token bucket. Pure: whoever asks says what time it is.

use std::time::{Duration, Instant};

/// What a bucket holds at most, as time at its rate. Together with the rate itself, no window of
/// 100 ms sees more than 1.35 times what the rate allows, and a timer that is late by less than the
/// difference to [`QUANTUM`] loses nothing.
const BURST: Duration = Duration::from_millis(35);

/// What is waited for before bytes are moved again, as time at the rate: fewer and larger moves.
pub const QUANTUM: Duration = Duration::from_millis(15);

/// The least that a bucket holds, in bytes, so that the slowest stream still moves whole frames.
const BURST_MIN: u64 = 256;

const NANOS: i128 = 1_000_000_000;

/// A token bucket on bytes that may go into debt: what had to be passed on at once, such as an HTTP
/// head, is paid for later.
///
/// The level is kept in billionths of a byte, so that no fraction is ever lost: at one byte per
/// second a nanosecond is one of them.
#[derive(Clone, Debug)]
pub struct Bucket {
    rate: u64,
    level: i128,
    last: Instant,
}

impl Bucket {
    /// A full bucket for so many bytes per second; 0 is no limit.
    pub fn new(rate: u64, now: Instant) -> Self {
        let mut bucket = Self { rate, level: 0, last: now };
        bucket.level = bucket.capacity();
        bucket
    }

    /// Bytes per second; 0 is no limit.
    pub fn rate(&self) -> u64 {
        self.rate
    }

    /// Goes on at another rate. What was saved at the old rate is kept up to the new capacity, a
    /// debt in full; a stream that had no limit starts with an empty bucket.
    pub fn set_rate(&mut self, rate: u64, now: Instant) {
        self.refill(now);
        if self.rate == 0 {
            self.level = self.level.min(0);
        }
        self.rate = rate;
        self.level = self.level.min(self.capacity());
    }

    /// How many bytes may move now, or how long to wait until some may.
    ///
    /// # Errors
    /// The time until a quantum has come together.
    pub fn available(&mut self, now: Instant) -> Result<u64, Duration> {
        self.holds(QUANTUM, now)
    }

    /// How many bytes there are, if they are what the rate gives in so much time.
    ///
    /// # Errors
    /// The time until they are.
    pub fn holds(&mut self, time: Duration, now: Instant) -> Result<u64, Duration> {
        if self.rate == 0 {
            return Ok(u64::MAX);
        }
        self.refill(now);
        let least = nanobytes(self.rate, time).max(NANOS);
        if self.level >= least {
            return Ok(u64::try_from(self.level / NANOS).unwrap_or(0));
        }
        let missing = least - self.level;
        let nanos = missing.div_euclid(i128::from(self.rate)) + 1;
        Err(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    /// What the rate gives in so much time, in bytes.
    pub fn worth(&self, time: Duration) -> u64 {
        u64::try_from(nanobytes(self.rate, time) / NANOS).unwrap_or(u64::MAX)
    }

    /// So many bytes have moved; they may be more than there were.
    pub fn spend(&mut self, bytes: u64) {
        if self.rate != 0 {
            self.level -= i128::from(bytes) * NANOS;
        }
    }

    /// So many bytes that were spent have not moved.
    pub fn refund(&mut self, bytes: u64) {
        if self.rate != 0 {
            self.level = (self.level + i128::from(bytes) * NANOS).min(self.capacity());
        }
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.last);
        self.last = self.last.max(now);
        let gained = i128::try_from(passed.as_nanos()).unwrap_or(i128::MAX >> 64);
        let gained = gained.saturating_mul(i128::from(self.rate));
        self.level = self.level.saturating_add(gained).min(self.capacity());
    }

    /// In billionths of a byte.
    fn capacity(&self) -> i128 {
        nanobytes(self.rate, BURST).max(i128::from(BURST_MIN) * NANOS)
    }
}

/// What a rate gives in a time, in billionths of a byte.
fn nanobytes(rate: u64, time: Duration) -> i128 {
    // Milliseconds of two digits times 64 bits times 10^6: far below 128 bits.
    i128::from(rate) * i128::try_from(time.as_nanos()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KIB: u64 = 1 << 10;
    const GIB: u64 = 1 << 30;

    /// A greedy sender on a clock that is late by `late` after each wait: bytes by time.
    fn greedy(
        rate: u64,
        total: Duration,
        late: impl Fn(usize) -> Duration,
    ) -> Vec<(Duration, u64)> {
        let start = Instant::now();
        let mut now = start;
        let mut bucket = Bucket::new(rate, now);
        let mut moves = Vec::new();
        while now - start < total {
            match bucket.available(now) {
                Ok(bytes) => {
                    bucket.spend(bytes);
                    moves.push((now - start, bytes));
                }
                Err(wait) => now += wait + late(moves.len()),
            }
        }
        moves
    }

    #[test]
    fn the_rate_holds_within_a_hundredth_and_in_every_tenth_of_a_second() {
        for rate in [16 * KIB, 256 * KIB, KIB * KIB, 16 * KIB * KIB, 256 * KIB * KIB, GIB] {
            for late in [0, 1, 7, 15] {
                let moves = greedy(rate, Duration::from_secs(5), |n| {
                    Duration::from_millis(if n % 3 == 0 { late } else { late / 2 })
                });
                let sum: u64 = moves.iter().map(|(_, bytes)| bytes).sum();
                let ratio = sum as f64 / (rate as f64 * 5.0);
                assert!((0.99..1.01).contains(&ratio), "{rate} B/s, {late} ms late: {ratio}");
                let window = Duration::from_millis(100);
                for (first, (from, _)) in moves.iter().enumerate() {
                    let within = moves[first..].iter().take_while(|(at, _)| *at - *from < window);
                    let bytes: u64 = within.map(|(_, bytes)| bytes).sum();
                    let ratio = bytes as f64 / (rate as f64 / 10.0);
                    assert!(ratio <= 1.36, "{rate} B/s, {late} ms late: {ratio} at {from:?}");
                }
            }
        }
    }

    #[test]
    fn a_debt_is_paid_before_anything_moves() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10_000, start);
        bucket.spend(10_400);
        let wait = bucket.available(start).unwrap_err();
        // 35 ms were saved; the rest of the debt and a quantum of 15 ms are missing.
        assert_eq!(wait.as_millis(), 1020);
        assert!(bucket.available(start + wait).is_ok());
    }

    #[test]
    fn what_has_not_moved_comes_back() {
        let start = Instant::now();
        let mut bucket = Bucket::new(100_000, start);
        let all = bucket.available(start).unwrap();
        bucket.spend(all);
        assert!(bucket.available(start).is_err());
        bucket.refund(all);
        assert_eq!(bucket.available(start), Ok(all));
    }

    #[test]
    fn no_limit_is_no_limit() {
        let start = Instant::now();
        let mut bucket = Bucket::new(0, start);
        bucket.spend(u64::MAX);
        assert_eq!(bucket.available(start), Ok(u64::MAX));
        // Nothing saved and nothing owed when a limit comes.
        bucket.set_rate(1000, start);
        assert_eq!(bucket.available(start).unwrap_err().as_millis(), 15);
    }

    proptest! {
        #[test]
        fn never_more_than_the_rate_and_one_burst(
            rate in 1024..1_u64 << 40,
            steps in prop::collection::vec((0..200_000_000_u64, 0..3_u8), 1..200),
        ) {
            let start = Instant::now();
            let (mut now, mut moved) = (start, 0_u128);
            let mut bucket = Bucket::new(rate, start);
            for (nanos, part) in steps {
                now += Duration::from_nanos(nanos);
                if let Ok(bytes) = bucket.available(now) {
                    let bytes = bytes / (u64::from(part) + 1);
                    bucket.spend(bytes);
                    moved += u128::from(bytes);
                }
                let burst = (u128::from(rate) * 35 / 1000).max(256);
                let most = u128::from(rate) * (now - start).as_nanos() / 1_000_000_000 + burst + 1;
                prop_assert!(moved <= most, "{moved} of {most}");
            }
        }

        #[test]
        fn the_wait_it_names_is_enough_and_not_too_long(
            rate in 1024..1_u64 << 40,
            debt in 0..1_u64 << 20,
        ) {
            let start = Instant::now();
            let mut bucket = Bucket::new(rate, start);
            bucket.spend(debt);
            if let Err(wait) = bucket.available(start) {
                prop_assert!(bucket.clone().available(start + wait / 2).is_err() || wait.as_nanos() < 4);
                prop_assert!(bucket.available(start + wait).is_ok());
            }
        }
    }
}
