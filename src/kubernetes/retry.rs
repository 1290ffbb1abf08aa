//! How long to wait before what failed is tried again.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// Pauses that double from the shortest to the longest, and start again with success.
#[derive(Debug)]
pub struct Pauses {
    builder: ExponentialBuilder,
    next: ExponentialBackoff,
    longest: Duration,
}

impl Pauses {
    /// Nothing has failed yet.
    pub fn new(shortest: Duration, longest: Duration) -> Self {
        let builder = ExponentialBuilder::new()
            .with_min_delay(shortest)
            .with_max_delay(longest)
            .without_max_times();
        Self { builder, next: builder.build(), longest }
    }

    /// It has failed; tells how long to wait.
    pub fn failed(&mut self) -> Duration {
        // Without a limit of attempts it never ends.
        self.next.next().unwrap_or(self.longest)
    }

    /// It has succeeded, or something else is to be tried.
    pub fn succeeded(&mut self) {
        self.next = self.builder.build();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_start_again() {
        let second = Duration::from_secs;
        let mut pauses = Pauses::new(second(1), second(5));
        assert_eq!([(); 5].map(|()| pauses.failed().as_secs()), [1, 2, 4, 5, 5]);
        pauses.succeeded();
        assert_eq!(pauses.failed(), second(1));
        // However long it lasts.
        assert!((0..10_000).all(|_| pauses.failed() <= second(5)));
    }
}
