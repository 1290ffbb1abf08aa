//! What knows Kubernetes and not Sluice.

pub mod arguments;
pub mod count;
pub(crate) mod documents;
pub mod events;
pub mod failure;
pub mod feature_gates;
pub mod lease;
pub mod node_pool;
pub(crate) mod pages;
pub(crate) mod retry;
pub(crate) mod status;
pub mod version;
pub(crate) mod watch;
