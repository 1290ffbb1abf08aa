//! The canary: a real exec, attach and port-forward into a pod of Sluice's own on a node, through each
//! apiserver.
//!
//! What a stream came to is judged in [`crate::decision::canary`]; this is what makes the streams
//! ([`run`]), the apiservers ([`instances()`]) and pods ([`pods()`]) that it needs, and what the pods
//! themselves do ([`serve`]).

mod attach;
mod exec;
mod forward;
mod instances;
mod pods;
mod probe;
mod remote;
pub mod serve;
mod spdy;
#[cfg(test)]
pub(crate) mod tests;
mod upgrade;
mod wire;

pub use instances::{
    ApiserverAddress, Instance, connect, in_front, instances, instances_at, places,
};
pub use pods::{CanaryPod, by_node, pods};
pub use probe::{AT_ONCE, PER_SECOND, STREAMS, TIMEOUT, run};

/// The labels of the canaries' pods, unless the chart was told otherwise.
pub const SELECTOR: &str = "app.kubernetes.io/name=sluice,app.kubernetes.io/component=canary";

/// The container of a canary's pod that is asked.
pub const CONTAINER: &str = "canary";

/// The port at which a canary answers, inside its pod's own network.
pub const PORT: u16 = 8080;

/// Where the program is in its image.
const PROGRAM: &str = "/sluice";

/// Where the canaries are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanarySettings {
    /// Their namespace.
    pub namespace: String,
    /// Their label selector.
    pub selector: String,
}

/// Why nothing can be tried.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What is needed to begin cannot be read.
    #[error("cannot read {what}")]
    Read {
        /// What cannot be read.
        what: String,
        /// What the apiserver said, or why it did not.
        source: Box<kube::Error>,
    },
    /// Nobody answers for the Service `kubernetes`.
    #[error("the Endpoints of the Service kubernetes name no apiserver")]
    NoApiserver,
    /// An apiserver's address is none.
    #[error("{url:?} is not a URL such as https://10.0.0.1:6443")]
    Url {
        /// The address.
        url: String,
    },
    /// No client can be made for an apiserver.
    #[error("cannot make a client for {url}")]
    Client {
        /// Where it is.
        url: String,
        /// Why not.
        source: Box<kube::Error>,
    },
}

impl Error {
    /// A short, stable name.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Read { source, .. } => match &**source {
                kube::Error::Api(status) if status.is_forbidden() => "Forbidden",
                _ => "Unreachable",
            },
            Self::NoApiserver => "NoApiserver",
            Self::Url { .. } => "ApiserverUrl",
            Self::Client { .. } => "Client",
        }
    }
}

/// What a canary says to each who connects.
fn greeting(pod: &str) -> String {
    format!("sluice canary {pod}")
}
