//! What becomes of the node's streams, from what was tried. Pure.

use std::time::Duration;

use super::rules::LIFETIME;
use crate::api::{FailurePolicy, Proxy, ProxyMode};

/// Why streams come to no port of the runtime, so that nothing here can limit or refuse them.
pub const THROUGH_KUBELET: &str = "StreamsThroughKubelet";

/// What is wanted of the node's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// They pass through the relay; while they cannot, this happens.
    Relay(FailurePolicy),
    /// They are left alone.
    Nothing,
}

impl Want {
    /// What a wish comes to. Without one nothing is touched.
    pub fn of(proxy: Option<&Proxy>) -> Self {
        match proxy {
            Some(Proxy { mode: ProxyMode::Streams, failure_policy, .. }) => {
                Self::Relay(*failure_policy)
            }
            Some(Proxy { mode: ProxyMode::Disabled, .. }) | None => Self::Nothing,
        }
    }
}

/// What becomes of the node's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streams {
    /// They pass through the relay.
    Relayed,
    /// They go straight to the runtime.
    Direct,
    /// They are refused.
    Refused,
}

impl Streams {
    /// The name in the report.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Relayed => "Relayed",
            Self::Direct => "Direct",
            Self::Refused => "Refused",
        }
    }
}

/// Why something that was tried did not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// A short, stable name.
    pub reason: &'static str,
    /// A sentence without its full stop.
    pub message: String,
}

/// A judgement, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What becomes of the streams.
    pub streams: Streams,
    /// A short, stable name.
    pub reason: &'static str,
    /// Sentences.
    pub message: String,
}

/// Judges the last attempt. `renewed` is how long ago the kernel was last told to send streams to
/// the relay: it goes on for [`LIFETIME`], whatever has failed since. `refusing` is whether the
/// rules that refuse all other streams are in place.
pub fn judge(
    want: Want,
    renewed: Option<Duration>,
    refusing: bool,
    failure: Option<&Failure>,
) -> Outcome {
    let Want::Relay(policy) = want else {
        return Outcome {
            streams: Streams::Direct,
            reason: "NotWanted",
            message: "No policy wants this node's streams to pass through its agent.".to_owned(),
        };
    };
    if renewed.is_some_and(|ago| ago < LIFETIME) {
        return Outcome {
            streams: Streams::Relayed,
            reason: "Relaying",
            message: "Streams pass through the node's agent.".to_owned(),
        };
    }
    let (reason, what) = failure.map_or(("Starting", "The agent is starting"), |failure| {
        (failure.reason, failure.message.as_str())
    });
    let what = capitalised(what);
    let (streams, becomes) = match policy {
        _ if reason == THROUGH_KUBELET => (Streams::Direct, "they are neither limited nor refused"),
        FailurePolicy::Closed if refusing => {
            (Streams::Refused, "streams are refused, as failurePolicy Closed wants it")
        }
        FailurePolicy::Closed => (
            Streams::Direct,
            "streams go straight to the runtime, since the rules that refuse them are not in place",
        ),
        FailurePolicy::Open => {
            (Streams::Direct, "streams go straight to the runtime, without a limit")
        }
    };
    Outcome { streams, reason, message: format!("{what}. Until that changes, {becomes}.") }
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case() {
        let failure =
            Failure { reason: "RulesRefused", message: "nft refuses the rules: no".into() };
        let through = Failure { reason: THROUGH_KUBELET, message: "docker streams".into() };
        let (open, closed) = (Want::Relay(FailurePolicy::Open), Want::Relay(FailurePolicy::Closed));
        let (fresh, old) = (Some(LIFETIME / 2), Some(LIFETIME));
        for (want, renewed, refusing, failure, expected) in [
            (Want::Nothing, None, false, None, (Streams::Direct, "NotWanted")),
            (Want::Nothing, fresh, false, Some(&failure), (Streams::Direct, "NotWanted")),
            (open, None, false, None, (Streams::Direct, "Starting")),
            (open, fresh, false, None, (Streams::Relayed, "Relaying")),
            // The kernel still sends streams here, and they are carried.
            (open, fresh, false, Some(&failure), (Streams::Relayed, "Relaying")),
            (open, old, false, Some(&failure), (Streams::Direct, "RulesRefused")),
            (open, None, false, Some(&failure), (Streams::Direct, "RulesRefused")),
            (closed, fresh, true, Some(&failure), (Streams::Relayed, "Relaying")),
            (closed, old, true, Some(&failure), (Streams::Refused, "RulesRefused")),
            (closed, None, true, None, (Streams::Refused, "Starting")),
            (closed, None, true, Some(&through), (Streams::Direct, THROUGH_KUBELET)),
            (closed, None, false, None, (Streams::Direct, "Starting")),
        ] {
            let judged = judge(want, renewed, refusing, failure);
            assert_eq!((judged.streams, judged.reason), expected, "{want:?} {renewed:?}");
            assert!(judged.message.ends_with('.'), "{}", judged.message);
            assert!(judged.message.starts_with(char::is_uppercase), "{}", judged.message);
        }
    }

    #[test]
    fn wishes() {
        let proxy = |mode, failure_policy| Proxy { mode, failure_policy, ..Proxy::default() };
        for (proxy, expected) in [
            (None, Want::Nothing),
            (Some(proxy(ProxyMode::Disabled, FailurePolicy::Closed)), Want::Nothing),
            (
                Some(proxy(ProxyMode::Streams, FailurePolicy::Open)),
                Want::Relay(FailurePolicy::Open),
            ),
            (
                Some(proxy(ProxyMode::Streams, FailurePolicy::Closed)),
                Want::Relay(FailurePolicy::Closed),
            ),
        ] {
            assert_eq!(Want::of(proxy.as_ref()), expected);
        }
    }
}
