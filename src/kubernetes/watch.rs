//! What is common to all watches: why they are interrupted, and how long to wait before the next
//! attempt.

use std::time::{Duration, Instant};

use kube::runtime::{utils::Backoff, watcher};

use super::retry::Pauses;

/// A watch that has not failed for this long starts afresh with its pauses.
const CALM: Duration = Duration::from_secs(20);

/// The shortest pause between two attempts, and the longest.
const SHORTEST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(4);

/// Why a watch was interrupted, as a short, stable name.
pub(crate) fn reason(error: &watcher::Error) -> &'static str {
    match error {
        watcher::Error::InitialListFailed(_) => "WatchListFailed",
        watcher::Error::WatchStartFailed(_) => "WatchStartFailed",
        watcher::Error::WatchError(_) => "WatchEnded",
        watcher::Error::WatchFailed(_) => "WatchFailed",
        watcher::Error::NoResourceVersion => "WatchNoResourceVersion",
    }
}

/// Between attempts of a watch: doubling from a quarter of a second to four. The default goes to
/// 30 s, which is how long a verdict would be old after an apiserver's restart; one leader with
/// five watches is no load that needs it.
#[derive(Debug)]
pub(crate) struct WatchBackoff {
    pauses: Pauses,
    last: Option<Instant>,
}

impl Default for WatchBackoff {
    fn default() -> Self {
        Self { pauses: Pauses::new(SHORTEST, LONGEST), last: None }
    }
}

impl WatchBackoff {
    fn failed(&mut self, now: Instant) -> Duration {
        if self.last.is_some_and(|last| now.duration_since(last) >= CALM) {
            self.pauses.succeeded();
        }
        self.last = Some(now);
        self.pauses.failed()
    }
}

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.failed(Instant::now()))
    }
}

impl Backoff for WatchBackoff {
    // This is said with every item of the stream, also with the announcement of a list that is
    // then refused; only time tells that the watch is well again.
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_is_bounded_and_comes_back_with_calm() {
        let start = Instant::now();
        let mut backoff = WatchBackoff::default();
        let waits = [0, 1, 2, 3, 7, 11, 15, 35].map(|second| {
            // The stream says so at the announcement of each list.
            backoff.reset();
            backoff.failed(start + Duration::from_secs(second)).as_millis()
        });
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 4000, 4000, 250]);
    }
}
