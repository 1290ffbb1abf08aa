//! Turns SIGTERM and SIGINT into something every task can wait for.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Why signals could not be listened for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused a signal handler.
    #[error("cannot install a handler for {name}: {source}")]
    Handler {
        /// The signal's name.
        name: &'static str,
        /// What the operating system said.
        source: std::io::Error,
    },
}

impl Error {
    /// The error's kind as a metric label.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Handler { .. } => "SignalHandler",
        }
    }
}

/// Ends the process's work by hand: the counterpart of [`Shutdown`].
///
/// Dropping it counts as a request too, because nobody could make one any more.
#[derive(Debug)]
pub struct Trigger(watch::Sender<bool>);

impl Trigger {
    /// Requests the shutdown; doing so again changes nothing.
    pub fn request(&self) {
        self.0.send_replace(true);
    }
}

/// Tells whether the process was asked to end; clones tell the same.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// A shutdown that follows its [`Trigger`] instead of signals.
    #[must_use]
    pub fn triggered() -> (Trigger, Self) {
        let (sender, receiver) = watch::channel(false);
        (Trigger(sender), Self(receiver))
    }

    /// Listens for SIGTERM and SIGINT from now on.
    ///
    /// The first one resolves every [`Shutdown::requested`]. The second one
    /// ends the process at once, with the status a shell reports for that
    /// signal (128 + its number): whoever sends it does not want to wait.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// When the operating system refuses a handler.
    pub fn on_signals() -> Result<Self, Error> {
        let handler = |kind, name| signal(kind).map_err(|source| Error::Handler { name, source });
        let mut terminate = handler(SignalKind::terminate(), "SIGTERM")?;
        let mut interrupt = handler(SignalKind::interrupt(), "SIGINT")?;
        let (trigger, shutdown) = Self::triggered();
        tokio::spawn(async move {
            let (_, name) = next(&mut terminate, &mut interrupt).await;
            tracing::info!(signal = name, "shutting down");
            trigger.request();
            let (number, name) = next(&mut terminate, &mut interrupt).await;
            tracing::warn!(signal = name, "ending without waiting for work in progress");
            std::process::exit(128 + number);
        });
        Ok(shutdown)
    }

    /// Resolves once the process was asked to end, and at once from then on.
    ///
    /// The future borrows nothing, so that it can be given away.
    pub fn requested(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut receiver = self.0.clone();
        async move {
            // An error means that the trigger is gone, which is a request too.
            let _ = receiver.wait_for(|requested| *requested).await;
        }
    }

    /// Whether the process was asked to end.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> (i32, &'static str) {
    tokio::select! {
        _ = terminate.recv() => (SignalKind::terminate().as_raw_value(), "SIGTERM"),
        _ = interrupt.recv() => (SignalKind::interrupt().as_raw_value(), "SIGINT"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn every_clone_learns_of_the_request() {
        let (trigger, shutdown) = Shutdown::triggered();
        let waiting = shutdown.clone().requested();
        assert!(shutdown.requested().now_or_never().is_none());
        assert!(!shutdown.is_requested());

        trigger.request();
        waiting.await;
        shutdown.requested().await;
        assert!(shutdown.is_requested());
    }

    #[tokio::test]
    async fn a_dropped_trigger_is_a_request() {
        let (trigger, shutdown) = Shutdown::triggered();
        drop(trigger);
        shutdown.requested().await;
        assert!(shutdown.is_requested());
    }

    #[tokio::test]
    async fn a_signal_is_a_request() {
        let shutdown = Shutdown::on_signals().unwrap();
        let status =
            std::process::Command::new("sh").args(["-c", "kill -TERM $PPID"]).status().unwrap();
        assert!(status.success());
        shutdown.requested().await;
    }
}
