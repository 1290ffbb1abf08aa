//! Deleting, and waiting for what the cluster does in its own time.

use std::{fmt::Debug, time::Duration};

use kube::{Api, api::DeleteParams};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use super::{Error, NOT_FOUND};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(500);

/// Looks until it is so.
///
/// # Errors
/// Where it is not so in time, which `what` says, or nothing can be seen.
pub async fn until(
    timeout: Duration,
    what: &str,
    look: impl AsyncFn() -> kube::Result<bool>,
) -> Result<(), Error> {
    let until = Instant::now() + timeout;
    while !look().await.map_err(Error::api(format!("see whether {what}")))? {
        if Instant::now() >= until {
            return Err(Error::Late(format!("After {timeout:?} {what}")));
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

/// Deletes an object that may be gone already.
///
/// # Errors
/// Where the apiserver refuses.
pub async fn delete<K>(api: &Api<K>, name: &str, params: &DeleteParams) -> Result<(), Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    match api.delete(name, params).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == NOT_FOUND => Ok(()),
        Err(error) => Err(Error::api(format!("delete {name}"))(error)),
    }
}
