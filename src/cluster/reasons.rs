//! Every reason that a condition of a StreamingPolicy may have.
//!
//! Reasons are part of the API: alerts and scripts match them. `docs/reasons.md` explains each, and
//! a test holds it against these lists. A reason that is said and not listed here fails the tests.

use crate::{
    api::condition,
    decision::{
        canary::Answer,
        redirects::upgrade::UpgradeReason,
        websockets::{
            rights,
            safety::{self, WebSocketReason},
        },
    },
};

/// What outweighs everything judged: the policy cannot be read, or the cluster cannot be watched.
const UNKNOWABLE: [&str; 2] = ["PolicyUnreadable", "WatchLost"];

/// `sluice plan` could not read some of its input, or was not allowed to.
const INPUT: [&str; 1] = ["InputUnread"];

const SAFE_TO_DISABLE: [&str; 11] = [
    "ApiserversMixed",
    "ApiserversUnknown",
    "EvidenceContradictory",
    "GateDoesNotMatter",
    "GateRemoved",
    "KubeletCrashLoops",
    "NoNodeRedirects",
    "NodesRedirect",
    "NodesRedirectWhileLagging",
    "NodesUnknown",
    "OnlyOverriddenNodes",
];

const REDIRECTS_DISABLED: [&str; 5] =
    ["GateMixed", "GateOff", "GateOn", "GateRemoved", "GateUnknown"];

/// Beside those of [`UpgradeReason`] or of [`WebSocketReason`].
const UPGRADE_SAFE: [&str; 2] = ["NothingBreaks", "TargetVersionBehind"];

const PROGRESSING: [&str; 20] = [
    "ApiserversDiffer",
    "ApiserversNotReady",
    "ApiserversUnclear",
    "AsWanted",
    "CanaryFailed",
    "CanaryRunning",
    "ChangeFailed",
    "ChangeOverdue",
    "ChangeRefused",
    "ChangeRolledBack",
    "RemediatorSilent",
    "ChangingApiserver",
    "GateRemoved",
    "GateUnknown",
    "NodesChanging",
    "NotOwner",
    "NotStaticPods",
    "Paused",
    "Refused",
    "WaitingForAdmin",
];

const DEGRADED: [&str; 17] = [
    "AsExpected",
    "CanaryFailed",
    "ChangeFailed",
    "ChangeOverdue",
    "ChangeRefused",
    "ChangeRolledBack",
    "GateOwnedByOther",
    "GateOwnerUnreadable",
    "KubeadmConfigUnreadable",
    "KubeletNewer",
    "OverrideExpired",
    "RedirectsNotValidated",
    "RemediationFailed",
    "SpecInvalid",
    "StreamsFail",
    "TargetVersionBehind",
    "WebSocketsFail",
];

const PROXY_READY: [&str; 9] = [
    "AgentsNotReady",
    "EvidenceOnly",
    "NoNodesSelected",
    "NodesNotRelayed",
    "OlderPolicyFollowed",
    "Paused",
    "Relaying",
    "SpecInvalid",
    "WatchLost",
];

/// Beside those of [`Answer`]: why nothing could be tried.
const CANARY_PASSED: [&str; 6] =
    ["ApiserverUrl", "CanaryMissing", "CanaryNotReady", "Client", "NoApiserver", "Unreachable"];

const NODES_REMEDIATED: [&str; 12] = [
    "ApiserverChanging",
    "ApiserversNotReady",
    "ChangeOverdue",
    "RemediatorSilent",
    "NoFlags",
    "NodesNotReady",
    "NodesUnknown",
    "OlderPolicyFollowed",
    "Paused",
    "Remediating",
    "RemediationFailed",
    "RuntimeNotTrusted",
];

const RUNTIME_EXPOSED: [&str; 2] = ["NoneExposed", "RuntimeExposed"];

/// The reasons that the condition of this type may have; none where there is no such condition.
pub fn of(kind: &str) -> Vec<&'static str> {
    let upgrade = UpgradeReason::ALL.map(UpgradeReason::as_str);
    let websockets = WebSocketReason::ALL.map(WebSocketReason::as_str);
    let answers = Answer::ALL.map(Answer::as_str);
    match kind {
        condition::SAFE_TO_DISABLE => [&SAFE_TO_DISABLE[..], &UNKNOWABLE, &INPUT].concat(),
        condition::REDIRECTS_DISABLED => [&REDIRECTS_DISABLED[..], &INPUT].concat(),
        condition::UPGRADE_SAFE => {
            let others = [safety::UNSAFE, rights::UNSAFE];
            [&UPGRADE_SAFE[..], &upgrade, &others, &UNKNOWABLE, &INPUT].concat()
        }
        condition::WEBSOCKETS_SAFE => {
            [&UPGRADE_SAFE[..], &websockets, &UNKNOWABLE, &INPUT].concat()
        }
        condition::PROGRESSING => [&PROGRESSING[..], &UNKNOWABLE].concat(),
        condition::DEGRADED => [&DEGRADED[..], &UNKNOWABLE].concat(),
        condition::PROXY_READY => PROXY_READY.to_vec(),
        condition::CANARY_PASSED => [&CANARY_PASSED[..], &answers].concat(),
        condition::NODES_REMEDIATED => NODES_REMEDIATED.to_vec(),
        condition::RUNTIME_EXPOSED => RUNTIME_EXPOSED.to_vec(),
        _ => Vec::new(),
    }
}
