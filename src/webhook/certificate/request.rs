//! Requests for the webhook's objects, and how they fail.

use std::time::Duration;

use super::stored;

/// One request must not take longer; it is tried again.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What fails with 404 where somebody has deleted the Secret meanwhile.
pub(super) const REPLACE: &str = "replace the Secret";

/// Why the certificate cannot be kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The Secret is of no use, or another cannot be made.
    #[error("the Secret of the certificate: {0}")]
    Stored(#[from] stored::Error),
    /// The apiserver refused a request or could not be reached.
    #[error("cannot {verb}: {source}")]
    Request {
        /// What was asked.
        verb: &'static str,
        /// What came back.
        source: kube::Error,
    },
    /// The apiserver did not answer.
    #[error("cannot {verb}: no answer within {TIMEOUT:?}")]
    Timeout {
        /// What was asked.
        verb: &'static str,
    },
}

impl Error {
    /// A short, stable name for metrics and logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Stored(error) => error.reason(),
            Self::Request { .. } => "CertificateRequest",
            Self::Timeout { .. } => "CertificateTimeout",
        }
    }

    fn code(&self) -> Option<u16> {
        match self {
            Self::Request { source: kube::Error::Api(status), .. } => Some(status.code),
            _ => None,
        }
    }

    /// Whether somebody else has been faster: what was to be created is there, or what was to be
    /// changed has changed or is gone.
    pub fn is_conflict(&self) -> bool {
        match self {
            Self::Request { verb: REPLACE, .. } => matches!(self.code(), Some(404 | 409)),
            _ => self.code() == Some(409),
        }
    }

    /// What to do.
    pub fn advice(&self) -> &'static str {
        match self.code() {
            Some(401 | 403) => {
                "the ServiceAccount may not do so: see the chart's Role and ClusterRole"
            }
            _ => "trying again",
        }
    }
}

/// An answer within [`TIMEOUT`].
pub(super) async fn within<T>(
    verb: &'static str,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, Error> {
    match tokio::time::timeout(TIMEOUT, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(Error::Request { verb, source }),
        Err(_) => Err(Error::Timeout { verb }),
    }
}
