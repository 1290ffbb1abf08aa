//! The spec and the status of a `StreamingNode`.

use jiff::Timestamp;

use super::{
    super::{Cluster, DesiredOnNodes, Node},
    seconds,
};
use crate::{
    api::{
        self, EvidenceEntry, SkewStatus, StreamingNodeSpec, StreamingNodeStatus, WebSocketsStatus,
    },
    decision::{
        apiserver::{Apiserver, ControlPlane},
        migration::STREAMING_REDIRECTS,
        redirects::{
            node::{self, NodeJudgement, Redirects, Verdict},
            policy::{Overrides, PolicyFacts},
        },
        websockets::{
            node::{cell_at, cell_today},
            safety,
        },
    },
    kubernetes::version::Minor,
};

/// What all nodes are judged against; made once for many of them.
#[derive(Debug)]
pub struct NodeScene<'a> {
    plane: ControlPlane,
    apiservers: &'a [Apiserver],
    /// The minor to judge WebSockets for; `None` where that is not near.
    websockets: Option<Minor>,
    overrides: Overrides<'a>,
    /// Policies that want something on nodes, oldest first.
    wishes: Vec<(&'a str, &'a super::super::Content)>,
    unreadable: Vec<&'a str>,
}

/// What a `StreamingNode` ought to be.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeReport {
    /// What is wanted there; `None` where the node keeps what it has.
    pub spec: Option<StreamingNodeSpec>,
    /// What is known of it.
    pub status: StreamingNodeStatus,
    /// Whether it answers with redirects.
    pub redirects: Redirects,
    /// What it means for turning the gate off.
    pub verdict: Verdict,
}

impl Cluster {
    /// What the nodes are judged against now.
    pub fn node_scene(&self, now: Timestamp) -> NodeScene<'_> {
        let default = PolicyFacts::default();
        let facts = self.owner_facts();
        let track = facts.unwrap_or(&default).track;
        let unreadable = self.policies.iter().filter(|(_, policy)| policy.content.is_err());
        NodeScene {
            plane: ControlPlane::of(&self.instances, &STREAMING_REDIRECTS, track),
            apiservers: &self.instances,
            websockets: safety::minor(facts.and_then(|facts| facts.target), &self.instances),
            overrides: facts.map(|facts| facts.overrides_at(now)).unwrap_or_default(),
            wishes: self.wishes(),
            unreadable: unreadable.map(|(name, _)| name.as_str()).collect(),
        }
    }
}

impl NodeScene<'_> {
    /// What one node's object ought to be. `follows` is the policy that it follows so far, `known`
    /// the evidence that it already has: an entry that says the same keeps its time.
    pub fn report(
        &self,
        name: &str,
        node: &Node,
        follows: Option<&str>,
        known: &[EvidenceEntry],
        now: Timestamp,
    ) -> NodeReport {
        let overridden = self.overrides.hold(name, &node.facts);
        let judged = node::judge(&STREAMING_REDIRECTS, &node.facts, &self.plane, overridden);
        let evidence = node.facts.claims.iter().map(|claim| {
            let (source, says) = (claim.source.as_str(), claim.says.as_str());
            let same = known.iter().find(|entry| entry.source == source && entry.says == says);
            same.cloned().unwrap_or_else(|| EvidenceEntry {
                source: source.to_owned(),
                says: says.to_owned(),
                since: seconds(now),
            })
        });
        let mut evidence: Vec<_> = evidence.collect();
        // Two annotations of one kind (k3s and RKE2) are one source; the list is keyed by source.
        evidence.dedup_by(|a, b| a.source == b.source);
        let status = StreamingNodeStatus {
            kubelet_version: node.kubelet.clone(),
            provider: node.facts.exceptable_provider().map(str::to_owned),
            skew: judged.skew.map(|s| SkewStatus { oldest: s.oldest, newest: s.newest }),
            redirects: judged.redirects.as_str().to_owned(),
            flag: judged.evidence.flag.as_str().to_owned(),
            decided_by: decided_by(&judged).to_owned(),
            evidence,
            cell_today: judged.today.as_str().to_owned(),
            cell_gate_off: judged.gate_off.as_str().to_owned(),
            verdict: judged.verdict.as_str().to_owned(),
            reason: judged.reason.as_str().to_owned(),
            message: node::explain(&STREAMING_REDIRECTS, &judged),
            web_sockets: self.websockets.map(|minor| WebSocketsStatus {
                today: cell_today(&node.streams.facts, self.apiservers).as_str().to_owned(),
                version: minor.to_string(),
                then: cell_at(&node.streams.facts, self.apiservers, minor).as_str().to_owned(),
            }),
            agent: None,
            change: None,
        };
        let spec = self.wish(node, follows);
        NodeReport { spec, status, redirects: judged.redirects, verdict: judged.verdict }
    }

    /// The oldest policy that selects the node and wants something there is followed.
    fn wish(&self, node: &Node, follows: Option<&str>) -> Option<StreamingNodeSpec> {
        // Whatever an unreadable policy wanted of the nodes that follow it still stands.
        if follows.is_some_and(|policy| self.unreadable.contains(&policy)) {
            return None;
        }
        let chosen = self.wishes.iter().find(|(_, content)| content.selects(&node.labels));
        let proxy: Option<(&str, &api::Proxy)> = match chosen {
            Some((_, content)) if content.wish == DesiredOnNodes::Keep => return None,
            Some((name, content)) => match &content.wish {
                DesiredOnNodes::Proxy(proxy) => Some((name, proxy)),
                DesiredOnNodes::Keep | DesiredOnNodes::Nothing => None,
            },
            None => None,
        };
        Some(StreamingNodeSpec {
            policy: proxy.map(|(name, _)| name.to_owned()),
            proxy: proxy.map(|(_, proxy)| proxy.clone()),
            change: None,
        })
    }
}

fn decided_by(judged: &NodeJudgement) -> &'static str {
    match (judged.by_version, judged.evidence.source) {
        (true, _) => "KubeletVersion",
        (false, Some(source)) => source.as_str(),
        (false, None) => "Nothing",
    }
}
