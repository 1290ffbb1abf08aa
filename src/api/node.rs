//! `StreamingNode`: one node's wishes, evidence and verdict.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    change::{Change, ChangeReport},
    policy::Proxy,
};

/// What Sluice wants on a node.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "sluice.dev",
    version = "v1alpha1",
    kind = "StreamingNode",
    plural = "streamingnodes",
    shortname = "stn",
    status = "StreamingNodeStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A StreamingNode says what is wanted and what is known of one node's streams: its \
           kubelet's skew, whether it answers with redirects and how that is known, and what that \
           means for the gate StreamingProxyRedirects. It has its Node's name and is owned by it.",
    printcolumn = r#"{"name":"Kubelet","type":"string","jsonPath":".status.kubeletVersion"}"#,
    printcolumn = r#"{"name":"Skew","type":"integer","description":"Minors behind the newest apiserver","jsonPath":".status.skew.newest"}"#,
    printcolumn = r#"{"name":"Redirects","type":"string","description":"Whether the kubelet answers with redirects","jsonPath":".status.redirects"}"#,
    printcolumn = r#"{"name":"Evidence","type":"string","description":"What decided that","jsonPath":".status.decidedBy"}"#,
    printcolumn = r#"{"name":"Today","type":"string","description":"What happens to a stream today","jsonPath":".status.cellToday"}"#,
    printcolumn = r#"{"name":"Gate-Off","type":"string","description":"What will happen with the gate off","jsonPath":".status.cellGateOff"}"#,
    printcolumn = r#"{"name":"Verdict","type":"string","jsonPath":".status.verdict"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.reason","priority":1}"#,
    printcolumn = r#"{"name":"Streams","type":"string","description":"What becomes of the streams, as the node's agent says","jsonPath":".status.agent.streams","priority":1}"#,
    printcolumn = r#"{"name":"WebSockets","type":"string","description":"What happens to an exec by WebSocket today","jsonPath":".status.webSockets.today","priority":1}"#,
    printcolumn = r#"{"name":"Change","type":"string","description":"What became of the last change, as the node's remediator says","jsonPath":".status.change.phase","priority":1}"#,
    printcolumn = r#"{"name":"Provider","type":"string","description":"What stands behind the Node instead of a kubelet of Kubernetes","jsonPath":".status.provider","priority":1}"#,
    printcolumn = r#"{"name":"Policy","type":"string","jsonPath":".spec.policy","priority":1}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.message","priority":1}"#
)]
#[serde(rename_all = "camelCase")]
pub struct StreamingNodeSpec {
    /// The policy that this node follows: the oldest that selects it and has a proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The proxy wanted here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
    /// The change wanted here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Box<Change>>,
}

/// What is known of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamingNodeStatus {
    /// The kubelet's version, as it reports it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kubelet_version: String,
    /// What stands behind the Node instead of a kubelet of Kubernetes, as far as its marks tell: kwok,
    /// virtual-kubelet, or what its spec.providerID begins with. A policy may except the nodes of a
    /// provider. Absent where it may not: the kubelet's version is one of Kubernetes, or something
    /// says that the node redirects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// How many minors it is behind; absent where a version is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skew: Option<SkewStatus>,
    /// On, Off, Ignored, Impossible or Unknown.
    #[serde(default)]
    pub redirects: String,
    /// The kubelet's flag as it has to be assumed: On, Off, Absent or Unknown.
    #[serde(default)]
    pub flag: String,
    /// What decided about redirects: KubeletVersion, Agent, NodeArgs, EnvFiles, Annotation or Nothing.
    #[serde(default)]
    pub decided_by: String,
    /// What was said about the flag, by whom, and since when.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["source"]))]
    pub evidence: Vec<EvidenceEntry>,
    /// What happens to a stream today: Proxied, Followed, Final, Broken or Unknown.
    #[serde(default)]
    pub cell_today: String,
    /// What will happen to a stream once the gate is off: Final, Broken or Unknown.
    #[serde(default)]
    pub cell_gate_off: String,
    /// Safe, Blocks or Overridden.
    #[serde(default)]
    pub verdict: String,
    /// Why, as a stable name.
    #[serde(default)]
    pub reason: String,
    /// Why, and what to do.
    #[serde(default)]
    pub message: String,
    /// What becomes of an exec or attach by WebSocket; absent where no API server runs 1.34 or later and
    /// no later target is judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web_sockets: Option<WebSocketsStatus>,
    /// What the node's own agent saw. The agent writes it, the controller never does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Box<AgentReport>>,
    /// What became of the change that was last wanted. The node's remediator writes it, the
    /// controller never does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Box<ChangeReport>>,
}

/// How many minors a kubelet is behind the apiservers; negative where it is ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SkewStatus {
    /// Against the oldest apiserver.
    pub oldest: i32,
    /// Against the newest apiserver.
    pub newest: i32,
}

/// What becomes of an exec or attach by WebSocket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebSocketsStatus {
    /// Today: Spdy, Translated, Through, Broken or Unknown.
    #[serde(default)]
    pub today: String,
    /// The version for which the next is said, such as 1.36: the target of the policy that owns the gate,
    /// or the next minor.
    #[serde(default)]
    pub version: String,
    /// Once API servers and kubelet run it, likewise.
    #[serde(default)]
    pub then: String,
}

/// One statement about the flag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EvidenceEntry {
    /// Agent, NodeArgs, EnvFiles or Annotation.
    pub source: String,
    /// On, Off, Absent or Unreadable.
    pub says: String,
    /// When the controller first saw it say so.
    pub since: Time,
}

/// What a node's own agent saw and does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentReport {
    /// The flag on the running kubelet's command line: On, Off, Absent or Unreadable.
    pub flag: String,
    /// When the agent first saw it so.
    pub since: Time,
    /// The number of the start of the machine of which this is said, as in the Node's
    /// status.nodeInfo. What was said of another one counts no more.
    #[serde(default, rename = "bootID", skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// The machine's number, likewise; absent where the program cannot see it.
    #[serde(default, rename = "machineID", skip_serializing_if = "Option::is_none")]
    pub machine_id: Option<String>,
    /// The flag as the kubelet's next start will have it: the kubelet's unit, its drop-ins, the
    /// environment files that these name, kubeadm-flags.env, /etc/default/kubelet and
    /// /etc/sysconfig/kubelet. On, Off or Unreadable; absent where they do not name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_start: Option<String>,
    /// Those of these files that name it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// The kubelet keeps exiting right after it starts; absent where it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubelet_crash_loops: Option<CrashLoops>,
    /// What becomes of the node's streams: Relayed, Direct or Refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streams: Option<String>,
    /// Why, as a stable name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The node's container runtime, as it has told last since the machine's start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeReport>,
    /// Those of the feature gates by which streams become WebSockets (KEP-4006), and of AllAlpha and
    /// AllBeta, that the running kubelet's command line and its configuration files set. Absent where
    /// that is not known: a file cannot be read, or has changed since the kubelet started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 16, "x-kubernetes-map-type" = "atomic"))]
    pub streaming_gates: Option<BTreeMap<String, bool>>,
    /// The form of the URL with which the runtime answers a request for a stream: Absolute, or
    /// SchemeLess, which a kubelet of 1.36 or later takes for TLS when it is asked by WebSocket. The
    /// last that was seen since the machine's start; absent where none could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub streaming_url: Option<String>,
    /// The last stream that came from another host: an apiserver has followed a redirect of the
    /// kubelet that runs now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub followed_redirect: Option<FollowedRedirect>,
}

impl AgentReport {
    /// The gates that `streaming_gates` may hold. `AllAlpha` and `AllBeta` set others.
    pub const STREAMING_GATES: [&str; 7] = [
        "AllAlpha",
        "AllBeta",
        "AuthorizePodWebsocketUpgradeCreatePermission",
        "ExtendWebSocketsToKubelet",
        "NodeDeclaredFeatures",
        "PortForwardWebsockets",
        "TranslateStreamCloseWebsocketRequests",
    ];

    /// Every reason. `docs/reasons.md` explains each, and a test holds it against this list.
    pub const REASONS: [&str; 22] = [
        "Ending",
        "EvidenceOnly",
        "KernelTooOld",
        "NftMissing",
        "NotWanted",
        "RelayBind",
        "RelayFails",
        "Relaying",
        "RulesRefused",
        "RulesSlow",
        "RulesWithoutEffect",
        "RuntimeNotOurs",
        "RuntimeRefuses",
        "RuntimeSlow",
        "RuntimeUnreachable",
        "Starting",
        "StreamingHostUnknown",
        "StreamingNotHttp",
        "StreamingSlow",
        "StreamingUnreachable",
        "StreamingUrlUnreadable",
        "StreamsThroughKubelet",
    ];
}

/// A kubelet that keeps exiting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CrashLoops {
    /// When the agent first saw it so.
    pub since: Time,
    /// How it exited last, as far as systemd tells.
    pub message: String,
}

/// A node's container runtime, as its agent sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeReport {
    /// Its name, such as containerd.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Where its streaming server listens, such as 127.0.0.1:34567.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streaming_address: Option<String>,
    /// Whether the streaming server speaks TLS.
    #[serde(default)]
    pub tls: bool,
    /// Whether the certificate that it shows comes from an authority that the node trusts, as a
    /// kubelet that proxies needs; absent without TLS, or where it could not be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trusted: Option<bool>,
    /// Whether the streaming server answers from the node itself, as a kubelet that proxies needs.
    #[serde(default)]
    pub reachable: bool,
}

/// A stream that came to the runtime from another host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FollowedRedirect {
    /// The host it came from.
    pub peer: String,
    /// When that was first seen of the kubelet that runs now.
    pub since: Time,
}
