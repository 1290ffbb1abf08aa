//! The objects of `sluice.dev/v1alpha1` as the apiserver stores them.
//!
//! Spec fields are typed and checked by the schema. Status fields that hold one of a few names are
//! plain strings: an older binary must be able to read what a newer one wrote.

mod change;
mod crd;
mod node;
mod policy;
mod rate;
mod status;

pub use change::{Change, ChangeKind, ChangeReport, GateSetting, Permit};
pub use crd::{Crd, all as crds};
pub use node::{
    AgentReport, CrashLoops, EvidenceEntry, FollowedRedirect, RuntimeReport, SkewStatus,
    StreamingNode, StreamingNodeSpec, StreamingNodeStatus, WebSocketsStatus,
};
pub use policy::{
    ApiserverStatus, ApiserversStatus, Apply, BlockingNode, Canary, FailurePolicy, GateWish,
    NodeCounts, NodeOverride, NodesWish, ProviderOverride, Proxy, ProxyMode, Remediation,
    RolloutTrack, StreamingPolicy, StreamingPolicySpec, StreamingPolicyStatus, UpgradeStatus,
};
pub use rate::{ByteRate, Error as RateError};

/// The API group.
pub const GROUP: &str = "sluice.dev";

/// The condition types of a [`StreamingPolicy`].
pub mod condition {
    /// Every type.
    pub const ALL: [&str; 10] = [
        SAFE_TO_DISABLE,
        REDIRECTS_DISABLED,
        UPGRADE_SAFE,
        WEBSOCKETS_SAFE,
        PROGRESSING,
        PROXY_READY,
        CANARY_PASSED,
        NODES_REMEDIATED,
        RUNTIME_EXPOSED,
        DEGRADED,
    ];
    /// The gate may be turned off.
    pub const SAFE_TO_DISABLE: &str = "SafeToDisable";
    /// The gate is off on every apiserver.
    pub const REDIRECTS_DISABLED: &str = "RedirectsDisabled";
    /// The next upgrade, or the one to `spec.targetVersion`, breaks nothing.
    pub const UPGRADE_SAFE: &str = "UpgradeSafe";
    /// WebSockets work, and go on working with the next upgrade, or the one to `spec.targetVersion`.
    /// Only where an apiserver runs 1.34 or later, or the target is later than that.
    pub const WEBSOCKETS_SAFE: &str = "WebSocketsSafe";
    /// The gate is on its way to what the policy wants.
    pub const PROGRESSING: &str = "Progressing";
    /// The streams of the nodes that the policy selects pass through their agents, or what else its
    /// proxy asks for is done. Only on policies with a proxy.
    pub const PROXY_READY: &str = "ProxyReady";
    /// Execs and port-forwards into Sluice's own pods were answered through every apiserver. Only on
    /// policies by which Sluice changes something.
    pub const CANARY_PASSED: &str = "CanaryPassed";
    /// No selected node's kubelet has the redirect flag any more. Only on policies with a
    /// remediation.
    pub const NODES_REMEDIATED: &str = "NodesRemediated";
    /// Runtimes of nodes that do not redirect listen on more than loopback all the same. Only on
    /// policies with a remediation.
    pub const RUNTIME_EXPOSED: &str = "RuntimeExposed";
    /// Something is wrong with the cluster or the policy.
    pub const DEGRADED: &str = "Degraded";
}
