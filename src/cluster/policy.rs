//! A `StreamingPolicy` as decisions take it.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::{
    api::{self, Proxy, ProxyMode, Remediation, StreamingPolicySpec, StreamingPolicyStatus},
    decision::{
        migration::{Track, target},
        redirects::policy::{Claimant, GateWish, Override, PolicyFacts},
    },
};

/// A policy that is stored, or that somebody has in a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Its uid; empty if it is not stored.
    pub uid: String,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// The generation of its spec.
    pub generation: Option<i64>,
    /// What it says, or why that cannot be read.
    pub content: Result<Content, String>,
    /// The status that it has.
    pub status: Option<StreamingPolicyStatus>,
}

/// What a readable policy says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Content {
    /// What decisions take.
    pub facts: PolicyFacts,
    /// The nodes that follow its proxy.
    pub selector: BTreeMap<String, String>,
    /// What it wants on those nodes.
    pub wish: DesiredOnNodes,
    /// It asks for something about their streams, and not only for the evidence that remediation
    /// goes by.
    pub streams: bool,
    /// How many nodes the canary goes to at most.
    pub canary: usize,
    /// What is in front of the apiservers.
    pub front: Front,
}

/// Where a policy says that users reach the apiservers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Front {
    /// Where kubeadm's configuration says.
    #[default]
    Kubeadm,
    /// It is not to be tried.
    Nothing,
    /// At this URL.
    At(String),
}

/// What a policy wants on the nodes that it selects.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum DesiredOnNodes {
    /// Nothing: the node is free to follow another policy.
    #[default]
    Nothing,
    /// This proxy.
    Proxy(api::Proxy),
    /// It is paused, or what it asks for cannot be taken: the node keeps what it has.
    Keep,
}

impl Content {
    /// Reads a spec. What cannot be taken becomes a sentence in [`PolicyFacts::invalid`], and is
    /// left out: the rest still counts.
    pub fn read(spec: &StreamingPolicySpec) -> Self {
        let mut invalid = Vec::new();
        let target = spec.target_version.as_deref().and_then(|text| {
            target(text).map_err(|e| invalid.push(format!("spec.targetVersion: {e}."))).ok()
        });
        let mut refused = false;
        if let Some(proxy) = &spec.proxy {
            for (field, rate) in [
                ("maxConnectionBytesPerSec", &proxy.max_connection_bytes_per_sec),
                ("maxNodeBytesPerSec", &proxy.max_node_bytes_per_sec),
            ] {
                if let Err(e) = rate.bytes_per_sec() {
                    invalid
                        .push(format!("spec.proxy.{field}: {e}; the nodes keep what they have."));
                    refused = true;
                }
            }
        }
        let remediation = spec.nodes.as_ref().and_then(|nodes| match nodes.remediation {
            Remediation::Disabled => None,
            Remediation::KubeletFlag => usize::try_from(nodes.max_unavailable).ok(),
        });
        let wish = match (&spec.proxy, remediation) {
            (None, None) => DesiredOnNodes::Nothing,
            _ if spec.paused || refused => DesiredOnNodes::Keep,
            (Some(proxy), _) => DesiredOnNodes::Proxy(proxy.clone()),
            // What a kubelet is started with is known from its node's agent.
            (None, Some(_)) => {
                DesiredOnNodes::Proxy(Proxy { mode: ProxyMode::Disabled, ..Proxy::default() })
            }
        };
        let overrides = spec.overrides.iter();
        let overrides =
            overrides.map(|o| Override { node: o.node.clone(), expires: o.expires.0 }).collect();
        let facts = PolicyFacts {
            gate: spec.streaming_proxy_redirects.map(|wish| match wish {
                api::GateWish::Enabled => GateWish::Enabled,
                api::GateWish::Disabled => GateWish::Disabled,
            }),
            paused: spec.paused,
            managed: spec.apply == api::Apply::StaticPod,
            deadline: spec.step_deadline_seconds,
            remediation,
            target,
            track: match spec.rollout_track {
                api::RolloutTrack::Standard => Track::Standard,
                api::RolloutTrack::ExtraSafe => Track::ExtraSafe,
            },
            overrides,
            providers: spec.provider_overrides.iter().map(|o| o.provider.clone()).collect(),
            invalid,
        };
        let canary = usize::try_from(spec.canary.max_nodes).unwrap_or(usize::MAX);
        let streams = spec.proxy.is_some();
        let front = match spec.canary.endpoint.as_deref() {
            None => Front::Kubeadm,
            Some("None") => Front::Nothing,
            Some(url) => Front::At(url.to_owned()),
        };
        Self { facts, selector: spec.node_selector.clone(), wish, streams, canary, front }
    }

    /// Whether this policy speaks for a node with these labels.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.wish != DesiredOnNodes::Nothing
            && self.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

impl Policy {
    /// The policy among others that may own the gate.
    pub fn claimant<'a>(&self, name: &'a str) -> Claimant<'a> {
        let claims = self.content.as_ref().ok().map(|content| content.facts.gate.is_some());
        Claimant { name, created: self.created, claims }
    }
}
