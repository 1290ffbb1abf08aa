//! `StreamingPolicy`: what a user wants of a cluster's streams, and what Sluice says to it.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rate::ByteRate;

/// What a user wants of a cluster's exec, attach and port-forward streams.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "sluice.dev",
    version = "v1alpha1",
    kind = "StreamingPolicy",
    plural = "streamingpolicies",
    shortname = "stp",
    status = "StreamingPolicyStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A StreamingPolicy says what is wanted of a cluster's exec, attach and port-forward \
           streams; its status says whether the apiserver's gate StreamingProxyRedirects may be \
           turned off, and what stands in the way.",
    printcolumn = r#"{"name":"Wants","type":"string","description":"What is wanted of the gate StreamingProxyRedirects","jsonPath":".spec.streamingProxyRedirects"}"#,
    printcolumn = r#"{"name":"Gate","type":"string","description":"What the gate is now","jsonPath":".status.gate"}"#,
    printcolumn = r#"{"name":"Safe","type":"string","description":"Whether the gate may be turned off","jsonPath":".status.conditions[?(@.type==\"SafeToDisable\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","description":"Why","jsonPath":".status.conditions[?(@.type==\"SafeToDisable\")].reason"}"#,
    printcolumn = r#"{"name":"Nodes","type":"integer","description":"All nodes","jsonPath":".status.nodes.total"}"#,
    printcolumn = r#"{"name":"Blocking","type":"integer","description":"Nodes that stand in the way","jsonPath":".status.nodes.blocking"}"#,
    printcolumn = r#"{"name":"Proxy","type":"string","description":"Whether the proxy does what is wanted on every selected node","jsonPath":".status.conditions[?(@.type==\"ProxyReady\")].status"}"#,
    printcolumn = r#"{"name":"WebSockets","type":"string","description":"Whether WebSockets work, and go on working with the next upgrade","jsonPath":".status.conditions[?(@.type==\"WebSocketsSafe\")].status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Apiserver","type":"string","description":"The oldest apiserver","jsonPath":".status.apiservers.oldest","priority":1}"#,
    printcolumn = r#"{"name":"Redirecting","type":"integer","description":"Nodes that redirect","jsonPath":".status.nodes.redirecting","priority":1}"#,
    printcolumn = r#"{"name":"Unknown","type":"integer","description":"Nodes of which nothing tells","jsonPath":".status.nodes.unknown","priority":1}"#,
    printcolumn = r#"{"name":"Lagging","type":"integer","description":"Nodes two or more minors behind","jsonPath":".status.nodes.lagging","priority":1}"#,
    printcolumn = r#"{"name":"Overridden","type":"integer","description":"Nodes that an override excepts","jsonPath":".status.nodes.overridden","priority":1}"#,
    printcolumn = r#"{"name":"Upgrade","type":"string","description":"Whether the next upgrade breaks nothing","jsonPath":".status.conditions[?(@.type==\"UpgradeSafe\")].status","priority":1}"#,
    printcolumn = r#"{"name":"Degraded","type":"string","description":"Whether something is wrong now","jsonPath":".status.conditions[?(@.type==\"Degraded\")].reason","priority":1}"#,
    printcolumn = r#"{"name":"Message","type":"string","description":"What stands in the way, and what to do","jsonPath":".status.conditions[?(@.type==\"SafeToDisable\")].message","priority":1}"#
)]
#[serde(rename_all = "camelCase")]
pub struct StreamingPolicySpec {
    /// What is wanted of the apiserver's feature gate StreamingProxyRedirects. A policy without it
    /// leaves the gate to others. If several policies speak about it, the oldest is heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streaming_proxy_redirects: Option<GateWish>,

    /// Who turns the gate.
    #[serde(default)]
    pub apply: Apply,

    /// How long one step of a change, such as an apiserver's restart, may take to prove itself, in
    /// seconds. What is not proven by then goes back by itself.
    #[serde(default = "step_deadline_seconds")]
    #[schemars(range(min = 60, max = 3600))]
    pub step_deadline_seconds: u32,

    /// How changes are proven.
    #[serde(default)]
    pub canary: Canary,

    /// What is wanted of the nodes that stand in the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodesWish>,

    /// The nodes whose streams this policy limits; empty selects all. The verdict about the gate
    /// always counts every node, because there is one gate for all of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,

    /// The streaming proxy on the selected nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,

    /// An apiserver version, such as 1.24, to judge an upgrade for. Without it the next minor is
    /// judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^v?1\.[0-9]{1,4}(\.[0-9]+.*)?$"))]
    pub target_version: Option<String>,

    /// Which of KEP-1558's two release plans the cluster's binaries follow. Upstream took
    /// ExtraSafe.
    #[serde(default)]
    pub rollout_track: RolloutTrack,

    /// Judge, but change nothing.
    #[serde(default)]
    pub paused: bool,

    /// Nodes that are excepted from the refusal, each with a reason and an end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["node"]))]
    pub overrides: Vec<NodeOverride>,

    /// What stands behind Nodes instead of a kubelet of Kubernetes, such as kwok or a virtual kubelet,
    /// and is excepted from the refusal for good, each with a reason. Only Nodes are whose kubelet
    /// version is none of Kubernetes, and of which nothing says that they redirect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["provider"]))]
    pub provider_overrides: Vec<ProviderOverride>,
}

impl Default for StreamingPolicySpec {
    fn default() -> Self {
        Self {
            streaming_proxy_redirects: None,
            apply: Apply::default(),
            step_deadline_seconds: step_deadline_seconds(),
            canary: Canary::default(),
            nodes: None,
            node_selector: BTreeMap::new(),
            proxy: None,
            target_version: None,
            rollout_track: RolloutTrack::default(),
            paused: false,
            overrides: Vec::new(),
            provider_overrides: Vec::new(),
        }
    }
}

/// What is wanted of the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GateWish {
    /// The gate stays on.
    Enabled,
    /// The gate goes off as soon as that is safe.
    Disabled,
}

/// Who turns the gate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Apply {
    /// Somebody else; Sluice says what may be done, and notices what is.
    #[default]
    Observe,
    /// Sluice, in the manifests of static pods as kubeadm makes them, one apiserver at a time. Needs
    /// the chart's remediators on the control-plane nodes.
    StaticPod,
}

fn step_deadline_seconds() -> u32 {
    180
}

/// How changes are proven: by an exec and a port-forward into pods of Sluice's own, through every
/// apiserver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Canary {
    /// How many nodes are tried at most; those that could redirect come first, then a sample.
    #[serde(default = "max_nodes")]
    #[schemars(range(min = 1, max = 500))]
    pub max_nodes: u32,
    /// The URL (https, host and port) by which users reach the apiservers, which is tried beside each
    /// of them; None tries none. Without it the controlPlaneEndpoint of kubeadm's configuration is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 300), regex(pattern = r"^(None|https://[^/\s]+/?)$"))]
    pub endpoint: Option<String>,
}

impl Default for Canary {
    fn default() -> Self {
        Self { max_nodes: max_nodes(), endpoint: None }
    }
}

fn max_nodes() -> u32 {
    20
}

/// What is wanted of the nodes that stand in the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodesWish {
    /// What is done about kubelets that have the redirect flag. (Not `Off`: YAML 1.1 reads that as a
    /// boolean.)
    #[serde(default)]
    pub remediation: Remediation,
    /// How many nodes may be changed at once.
    #[serde(default = "max_unavailable")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_unavailable: u32,
}

impl Default for NodesWish {
    fn default() -> Self {
        Self { remediation: Remediation::default(), max_unavailable: max_unavailable() }
    }
}

fn max_unavailable() -> u32 {
    1
}

/// What is done about kubelets that have the redirect flag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Remediation {
    /// Nothing.
    #[default]
    Disabled,
    /// The flag is taken away where it comes from, and the kubelet restarted. Needs the chart's
    /// remediators on the nodes.
    KubeletFlag,
}

/// KEP-1558's two release plans for the apiserver's gate. The kubelet's flag is gone from 1.22 on
/// either, as upstream released it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RolloutTrack {
    /// The gate off by default in 1.21, removed in 1.22.
    Standard,
    /// The gate off by default in 1.22, removed in 1.24.
    #[default]
    ExtraSafe,
}

/// The streaming proxy on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Proxy {
    /// How the proxy gets at the streams.
    #[serde(default)]
    pub mode: ProxyMode,
    /// The limit of each connection and each direction, in bytes per second, as the apiserver's
    /// --max-connection-bytes-per-sec; 0 is no limit.
    #[serde(default)]
    pub max_connection_bytes_per_sec: ByteRate,
    /// The limit of all connections of a node together, each direction, in bytes per second, shared
    /// fairly; 0 is no limit.
    #[serde(default)]
    pub max_node_bytes_per_sec: ByteRate,
    /// What becomes of streams while the node's agent does not answer.
    #[serde(default)]
    pub failure_policy: FailurePolicy,
}

/// What becomes of streams while the node's agent does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum FailurePolicy {
    /// They go straight to the runtime, without a limit, within ten seconds.
    #[default]
    Open,
    /// They are refused.
    Closed,
}

/// How the proxy gets at the streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ProxyMode {
    /// Connections to the runtime's streaming server pass through the node's agent.
    #[default]
    Streams,
    /// Streams are left alone; the agent is there as a source of evidence only. (Not `Off`: YAML 1.1
    /// reads that as a boolean.)
    Disabled,
}

/// A named, visible exception for one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeOverride {
    /// The node's name.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,
    /// Why exec may fail there.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
    /// When the exception ends.
    pub expires: Time,
}

/// A visible exception for all Nodes behind which something else than a kubelet stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProviderOverride {
    /// As the status of their StreamingNodes names it: kwok, virtual-kubelet, or what spec.providerID
    /// of the Node begins with.
    #[schemars(length(min = 1, max = 63))]
    pub provider: String,
    /// Why exec may fail there.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
}

/// What Sluice says to a policy. Its size does not depend on the number of nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamingPolicyStatus {
    /// The generation of the spec that was judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// SafeToDisable, RedirectsDisabled, UpgradeSafe, Progressing and Degraded; with a proxy,
    /// ProxyReady; where Sluice changes something, CanaryPassed; with a remediation,
    /// NodesRemediated; where an API server runs 1.34 or later, or the target is later than that,
    /// WebSocketsSafe.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The gate over all apiservers: Enabled, Disabled, Removed, Mixed or Unknown.
    #[serde(default)]
    pub gate: String,
    /// How many nodes are what.
    #[serde(default)]
    pub nodes: NodeCounts,
    /// The control plane.
    #[serde(default)]
    pub apiservers: ApiserversStatus,
    /// The worst blocking nodes, worst first; at most ten.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub blocking: Vec<BlockingNode>,
    /// How many nodes block beside those listed.
    #[serde(default)]
    pub blocking_more: u32,
    /// What each apiserver minor ahead, up to 1.24, would meet.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["version"]))]
    pub upgrades: Vec<UpgradeStatus>,
}

/// How many nodes are what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeCounts {
    /// All nodes.
    #[serde(default)]
    pub total: u32,
    /// Nodes that redirect, or whose evidence contradicts itself.
    #[serde(default)]
    pub redirecting: u32,
    /// Nodes two or more minors behind the newest apiserver.
    #[serde(default)]
    pub lagging: u32,
    /// Nodes that could redirect, and nothing tells.
    #[serde(default)]
    pub unknown: u32,
    /// Nodes that stand in the way of turning the gate off.
    #[serde(default)]
    pub blocking: u32,
    /// Nodes that would, but for an override.
    #[serde(default)]
    pub overridden: u32,
}

/// The control plane.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiserversStatus {
    /// The oldest version seen, such as 1.20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<String>,
    /// The newest version seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<String>,
    /// How many instances there are.
    #[serde(default)]
    pub count: u32,
    /// The instances; at most ten.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub instances: Vec<ApiserverStatus>,
}

/// One apiserver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiserverStatus {
    /// The node it runs on, or its address.
    pub name: String,
    /// Its version, such as 1.20; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The gate there: Enabled, Disabled, Removed or Unknown.
    pub gate: String,
    /// Whether redirects that it follows are held to the same host (ValidateProxyRedirects).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validates_redirects: Option<bool>,
    /// Why something about it cannot be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseen: Option<String>,
}

/// A node that stands in the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlockingNode {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// An apiserver minor ahead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpgradeStatus {
    /// The minor, such as 1.22.
    pub version: String,
    /// The gate there where nobody sets it: Enabled, Disabled or Removed.
    pub gate_default: String,
    /// Whether it can be set there.
    pub gate_settable: bool,
    /// The gate there with today's command lines.
    pub gate: String,
    /// Whether nothing breaks.
    pub safe: bool,
    /// How many nodes redirect, or may, and would fail there.
    pub breaking_nodes: u32,
    /// Every reason, worst first.
    #[serde(default)]
    pub reasons: Vec<String>,
    /// What breaks, and what to do. Never empty: an apiserver of 1.20 may refuse empty strings.
    #[serde(default)]
    pub message: String,
}
