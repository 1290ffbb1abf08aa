//! The labels, and what they may say.

use std::fmt;

use prometheus_client::encoding::EncodeLabelSet;

/// A kind of object that is watched or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `v1` Endpoints: who answers for the `kubernetes` Service.
    Endpoints,
    /// `v1` Pod: the agents'.
    AgentPod,
    /// `apps/v1` DaemonSet: that of the agents.
    DaemonSet,
    /// `v1` ConfigMap: the flags that we publish.
    Flags,
    /// `v1` ConfigMap: what kubeadm starts apiservers with.
    KubeadmConfig,
    /// `v1` Node.
    Node,
    /// `v1` Pod: the apiservers' mirror pods.
    Pod,
    /// `sluice.dev/v1alpha1` StreamingNode.
    StreamingNode,
    /// `sluice.dev/v1alpha1` StreamingPolicy.
    StreamingPolicy,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::AgentPod,
        Self::DaemonSet,
        Self::Endpoints,
        Self::Flags,
        Self::KubeadmConfig,
        Self::Node,
        Self::Pod,
        Self::StreamingNode,
        Self::StreamingPolicy,
    ];

    /// Those that only a controller that rolls out agents watches.
    pub const AGENTS: [Self; 2] = [Self::AgentPod, Self::DaemonSet];

    /// Those that are not watched by every controller.
    pub const OPTIONAL: [Self; 4] =
        [Self::AgentPod, Self::DaemonSet, Self::Flags, Self::KubeadmConfig];

    /// The label value: the kind's name in the API, where that is enough to tell.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AgentPod => "AgentPod",
            Self::DaemonSet => "DaemonSet",
            Self::Endpoints => "Endpoints",
            Self::Flags => "Flags",
            Self::KubeadmConfig => "KubeadmConfig",
            Self::Node => "Node",
            Self::Pod => "Pod",
            Self::StreamingNode => "StreamingNode",
            Self::StreamingPolicy => "StreamingPolicy",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// What a watch event did to the engine's picture of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Something the engine looks at is different now.
    Changed,
    /// Nothing the engine looks at is.
    Unchanged,
    /// The object could not be understood.
    Malformed,
}

impl Effect {
    pub(super) const ALL: [Self; 3] = [Self::Changed, Self::Unchanged, Self::Malformed];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Malformed => "malformed",
        }
    }
}

/// How a write to the apiserver ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteResult {
    /// It was accepted.
    Ok,
    /// Somebody else had written first (409).
    Conflict,
    /// It failed in any other way.
    Error,
}

impl WriteResult {
    pub(super) const ALL: [Self; 3] = [Self::Ok, Self::Conflict, Self::Error];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Conflict => "conflict",
            Self::Error => "error",
        }
    }
}

/// How a question to the webhook was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Within the rule, or none of its business.
    Allowed,
    /// Against the rule.
    Denied,
    /// Refused because the token's pod could not be looked up.
    Failed,
    /// Not understood, and so refused by the apiserver.
    Malformed,
}

impl Admission {
    pub(super) const ALL: [Self; 4] = [Self::Allowed, Self::Denied, Self::Failed, Self::Malformed];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Failed => "failed",
            Self::Malformed => "malformed",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Reason {
    pub(super) reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Redirects {
    pub(super) redirects: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfKind {
    pub(super) kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct KindEffect {
    pub(super) kind: &'static str,
    pub(super) effect: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct KindResult {
    pub(super) kind: &'static str,
    pub(super) result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ResultOnly {
    pub(super) result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Build {
    pub(super) version: &'static str,
}
