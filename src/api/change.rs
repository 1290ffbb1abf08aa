//! What a node's remediator is asked to do, and what it says became of it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One change of a node's configuration. It goes back by itself unless it is confirmed before its
/// deadline, and as soon as it is no longer wanted before that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Names this attempt. A change with the id of one that has ended is not made again.
    #[schemars(length(min = 1, max = 253))]
    pub id: String,
    /// What is changed.
    pub kind: ChangeKind,
    /// What the gate StreamingProxyRedirects is to be on the apiserver's command line; only with
    /// the kind ApiserverGate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<GateSetting>,
    /// The policy that wants it.
    pub policy: String,
    /// The decision that permits it.
    pub verdict: Permit,
    /// How long the change may take to prove itself, in seconds, from when it was made.
    #[schemars(range(min = 60, max = 3600))]
    pub deadline_seconds: u32,
    /// It has proven itself, and stays.
    #[serde(default)]
    pub confirmed: bool,
}

/// What is changed on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ChangeKind {
    /// The gate in the manifest of the apiserver's static pod.
    ApiserverGate,
    /// The kubelet's flag --redirect-container-streaming, which is taken away.
    KubeletFlag,
}

impl ChangeKind {
    /// The name that status fields and metrics use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ApiserverGate => "ApiserverGate",
            Self::KubeletFlag => "KubeletFlag",
        }
    }
}

/// What a command line says of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum GateSetting {
    /// It is not named: the version's default holds.
    Default,
    /// It is set to false.
    Disabled,
    /// It is set to true.
    Enabled,
}

/// The decision that permits a change, for the remediator to hold against what is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Permit {
    /// The resource version of the policy that carried it.
    pub resource_version: String,
    /// The generation of the policy's spec.
    pub generation: i64,
    /// When it was made.
    pub at: Time,
}

/// What became of a change. The node's remediator writes it, the controller never does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChangeReport {
    /// The change's id.
    pub id: String,
    /// Preparing, Applied, Confirmed, RolledBack, Refused or Failed.
    pub phase: String,
    /// Why, as a stable name.
    pub reason: String,
    /// What was done, or what went wrong, and what to do.
    pub message: String,
    /// Since when.
    pub since: Time,
    /// The number of the start of the machine of which this is said, as in the Node's
    /// status.nodeInfo. What was said of another one counts no more.
    #[serde(default, rename = "bootID", skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// The machine's number, likewise; absent where the program cannot see it.
    #[serde(default, rename = "machineID", skip_serializing_if = "Option::is_none")]
    pub machine_id: Option<String>,
}

impl ChangeReport {
    /// Every phase.
    pub const PHASES: [&str; 6] =
        ["Preparing", "Applied", "Confirmed", "RolledBack", "Refused", "Failed"];

    /// Every reason. `docs/reasons.md` explains each, and a test holds it against this list.
    pub const REASONS: [&str; 34] = [
        "AlreadySo",
        "Applied",
        "Confirmed",
        "DeadlineExceeded",
        "DiskFull",
        "EditRefused",
        "FileAltered",
        "FileGone",
        "FlagSourceUnknown",
        "FlagStays",
        "GuardNotArmed",
        "JournalUnreadable",
        "JournalUnwritable",
        "KubeletNotReady",
        "KubeletUnknown",
        "NodesBlock",
        "NotWanted",
        "NotWritable",
        "NothingToDo",
        "PolicyPaused",
        "PolicyUnreadable",
        "Preparing",
        "RestoreFailed",
        "Reverted",
        "RuntimeNotTrusted",
        "RuntimeUntold",
        "StateLost",
        "SystemdTimeout",
        "SystemdUnreachable",
        "VerdictChanged",
        "VerdictStale",
        "VerdictUnseen",
        "Withdrawn",
        "WriteFailed",
    ];
}
