//! What becomes of the node's streams, from what was tried. Pure.

use std::time::Instant;

use super::rules::LIFETIME;
use crate::api::{AgentReport, FailurePolicy, Proxy, ProxyMode};

/// Why streams come to no port of the runtime, so that nothing here can limit or refuse them.
pub const THROUGH_KUBELET: &str = "StreamsThroughKubelet";

/// Why new streams do not pass through an agent that still carries others.
pub const ENDING: &str = "Ending";

/// Why an agent that may only look leaves streams alone.
pub const NO_RIGHTS: &str = "EvidenceOnly";

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

/// An error as a failure.
pub fn failure(reason: &'static str, error: &dyn std::error::Error) -> Failure {
    Failure { reason, message: error.to_string() }
}

/// A judgement, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamsState {
    /// What becomes of the streams.
    pub streams: Streams,
    /// A short, stable name.
    pub reason: &'static str,
    /// Sentences.
    pub message: String,
}

/// How it stands, after the last attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What is wanted.
    pub want: Want,
    /// When the last stream of our own came through that the kernel brought to the relay as it brings
    /// everybody's. It goes on doing so for [`LIFETIME`], and no longer.
    pub proven: Option<Instant>,
    /// Whether the rules that refuse all other streams are in place.
    pub refusing: bool,
    /// What has failed.
    pub failure: Option<Failure>,
}

impl Standing {
    /// Nothing has been tried yet.
    pub fn new(want: Want) -> Self {
        Self { want, proven: None, refusing: false, failure: None }
    }

    /// Whether streams pass through the relay.
    pub fn relays(&self, now: Instant) -> bool {
        self.want != Want::Nothing
            && self.proven.is_some_and(|at| now.saturating_duration_since(at) < LIFETIME)
    }

    /// When [`Standing::judge`] may judge otherwise though nothing happens.
    pub fn expires(&self, now: Instant) -> Option<Instant> {
        self.proven.filter(|_| self.relays(now)).map(|at| at + LIFETIME)
    }

    /// What becomes of streams.
    pub fn judge(&self, now: Instant) -> StreamsState {
        let state = judge(self.want, self.relays(now), self.refusing, self.failure.as_ref());
        debug_assert!(AgentReport::REASONS.contains(&state.reason), "{}", state.reason);
        state
    }
}

fn judge(want: Want, relays: bool, refusing: bool, failure: Option<&Failure>) -> StreamsState {
    let Want::Relay(policy) = want else {
        return StreamsState {
            streams: Streams::Direct,
            reason: "NotWanted",
            message: "No policy wants this node's streams to pass through its agent.".to_owned(),
        };
    };
    if relays {
        return StreamsState {
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
    StreamsState { streams, reason, message: format!("{what}. Until that changes, {becomes}.") }
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_case() {
        let failure =
            Failure { reason: "RulesRefused", message: "nft refuses the rules: no".into() };
        let through = Failure { reason: THROUGH_KUBELET, message: "docker streams".into() };
        let (open, closed) = (Want::Relay(FailurePolicy::Open), Want::Relay(FailurePolicy::Closed));
        for (want, relays, refusing, failure, expected) in [
            (Want::Nothing, false, false, None, (Streams::Direct, "NotWanted")),
            (Want::Nothing, false, false, Some(&failure), (Streams::Direct, "NotWanted")),
            (open, false, false, None, (Streams::Direct, "Starting")),
            (open, true, false, None, (Streams::Relayed, "Relaying")),
            // The kernel still brings streams here, and they are carried.
            (open, true, false, Some(&failure), (Streams::Relayed, "Relaying")),
            (open, false, false, Some(&failure), (Streams::Direct, "RulesRefused")),
            (closed, true, true, Some(&failure), (Streams::Relayed, "Relaying")),
            (closed, false, true, Some(&failure), (Streams::Refused, "RulesRefused")),
            (closed, false, true, None, (Streams::Refused, "Starting")),
            (closed, false, true, Some(&through), (Streams::Direct, THROUGH_KUBELET)),
            (closed, false, false, None, (Streams::Direct, "Starting")),
        ] {
            let judged = judge(want, relays, refusing, failure);
            assert_eq!((judged.streams, judged.reason), expected, "{want:?} {relays}");
            assert!(judged.message.ends_with('.'), "{}", judged.message);
            assert!(judged.message.starts_with(char::is_uppercase), "{}", judged.message);
        }
    }

    #[test]
    fn what_was_proven_holds_as_long_as_the_kernels_rules_and_no_longer() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let proven =
            Standing { proven: Some(start), ..Standing::new(Want::Relay(FailurePolicy::Open)) };
        for (standing, at, relays) in [
            (&Standing { proven: None, ..proven.clone() }, 0, false),
            (&proven, 0, true),
            (&proven, 7_999, true),
            (&proven, 8_000, false),
            (&Standing { want: Want::Nothing, ..proven.clone() }, 1, false),
        ] {
            assert_eq!(standing.relays(after(at)), relays, "{standing:?} {at}");
            let until = relays.then_some(start + LIFETIME);
            assert_eq!(standing.expires(after(at)), until, "{standing:?} {at}");
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
