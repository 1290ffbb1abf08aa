//! What is known of WebSockets to the nodes, and what a policy is told of them.

use jiff::Timestamp;

use super::{Cluster, Content, NodeView};
use crate::{
    api::AgentReport,
    decision::{
        redirects::policy::{Overrides, Owner, PolicyFacts},
        steps::Step,
        websockets::{
            gates,
            node::{NodeFacts, StreamingUrl, Teller},
            safety::{self, Judgement},
            steps,
            survey::Seen,
        },
    },
    kubernetes::{feature_gates::FeatureGates, version::Minor},
};

/// What somebody says of a node's streams: its agent, or its admin.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct SaidOfStreams {
    /// The gates that the kubelet is set to.
    gates: Option<FeatureGates>,
    /// The URL with which its runtime answers.
    url: Option<StreamingUrl>,
}

impl SaidOfStreams {
    /// What an agent saw.
    pub fn of_agent(report: &AgentReport) -> Self {
        let gates = report.streaming_gates.clone();
        Self {
            gates: gates.map(FeatureGates::from_iter),
            url: report.streaming_url.as_deref().map(url),
        }
    }

    /// What an admin says, and `started` what the node's program shows of its kubelet's gates: where the
    /// two do not agree, neither counts. Gates that cannot be read say nothing.
    pub fn of_admin(
        gates: Option<&str>,
        started: Option<FeatureGates>,
        streaming_url: Option<&str>,
    ) -> Self {
        let readable = |gates: &FeatureGates| gates.unreadable().is_none();
        let gates = match (gates.map(read_gates), started) {
            (Some(said), Some(started)) => said.filter(|said| {
                readable(&started) && gates::names().all(|g| said.get(g) == started.get(g))
            }),
            (Some(said), None) => said,
            (None, started) => started.filter(readable),
        };
        Self { gates, url: streaming_url.map(url) }
    }

    /// What counts of it where nobody vouches for who says it: what he saw may have been another
    /// kubelet and another runtime. That a URL has no scheme is still to be heard, of the same start of the
    /// same machine (`of_now`); whoever looks again will say so again.
    pub fn unless_old(self, vouched: bool, of_now: bool) -> Self {
        if vouched {
            return self;
        }
        let url = self.url.filter(|url| of_now && *url == StreamingUrl::SchemeLess);
        Self { gates: None, url }
    }

    /// Both words as one: the agent looks, so it knows better than an admin who may have looked long
    /// ago.
    fn over(self, admin: &Self) -> (Self, Option<Teller>) {
        let by = match (self.url, admin.url) {
            (Some(_), _) => Some(Teller::Agent),
            (None, Some(_)) => Some(Teller::Annotation),
            (None, None) => None,
        };
        let gates = self.gates.or_else(|| admin.gates.clone());
        (Self { gates, url: self.url.or(admin.url) }, by)
    }
}

/// The gates that an admin writes; `None` where they are not as a component would take them. Who does not
/// name a gate as it is named was not heard by the kubelet either.
fn read_gates(text: &str) -> Option<FeatureGates> {
    let text = text.trim();
    let set = FeatureGates::from_args([format!("--feature-gates={text}").as_str()]);
    let known = set.iter().all(|(name, _)| gates::names().any(|gate| gate == name));
    let says_some = text.is_empty() || set.iter().next().is_some();
    (set.unreadable().is_none() && known && says_some).then_some(set)
}

/// What cannot be understood may have been meant as the worse.
fn url(text: &str) -> StreamingUrl {
    match text {
        "Absolute" => StreamingUrl::Absolute,
        "SchemeLess" => StreamingUrl::SchemeLess,
        _ => StreamingUrl::Unknown,
    }
}

/// What is known of a node's streams, and what of it its admin said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeStreams {
    /// What decisions take.
    pub facts: NodeFacts,
    admin: SaidOfStreams,
}

impl NodeStreams {
    pub(super) fn of(view: &NodeView, kubelet: Option<Minor>) -> Self {
        // A pre-release that declares that it takes WebSockets is no older than the gate.
        let declares =
            NodeFacts { declared: view.declared_features.clone(), ..NodeFacts::default() };
        let kubelet = match view.kubelet_version.parse() {
            Ok(minor) if declares.declares() => Some(minor),
            _ => kubelet,
        };
        let facts = NodeFacts {
            kubelet,
            declared: view.declared_features.clone(),
            runtime: view.runtime.clone(),
            ..NodeFacts::default()
        };
        Self { facts, admin: view.said_of_streams() }
    }

    /// Takes what its agent says now.
    pub(super) fn hear(&mut self, agent: SaidOfStreams) {
        let (SaidOfStreams { gates, url }, by) = agent.over(&self.admin);
        (self.facts.gates, self.facts.url, self.facts.url_by) = (gates, url, by);
    }
}

impl Cluster {
    /// What a policy is told of WebSockets; `None` where that is not near.
    pub(super) fn websockets(
        &self,
        name: &str,
        facts: &PolicyFacts,
        now: Timestamp,
    ) -> Option<Judgement> {
        let overrides = self.overrides_of(name, facts, now);
        safety::judge(facts.target, &self.instances, self.streams_seen(overrides.as_ref()))
    }

    /// What has to be done about WebSockets before the upgrade to a policy's target.
    pub(super) fn websocket_steps(&self, name: &str, now: Timestamp) -> Vec<Step> {
        let content = self.policies.get(name).and_then(|policy| policy.content.as_ref().ok());
        let Some(Content { facts, .. }) = content else { return Vec::new() };
        let Some(target) = facts.target else { return Vec::new() };
        let overrides = self.overrides_of(name, facts, now);
        steps::steps(target, &self.instances, self.streams_seen(overrides.as_ref()))
    }

    /// The exceptions of the policy, where it is heard.
    fn overrides_of<'a>(
        &self,
        name: &str,
        facts: &'a PolicyFacts,
        now: Timestamp,
    ) -> Option<Overrides<'a>> {
        (self.owner() == Owner::Policy(name)).then(|| facts.overrides_at(now))
    }

    fn streams_seen<'a>(
        &'a self,
        overrides: Option<&'a Overrides<'_>>,
    ) -> impl Iterator<Item = Seen<'a>> {
        self.nodes.iter().map(move |(name, node)| Seen {
            name,
            facts: &node.streams.facts,
            excepted: overrides.is_some_and(|overrides| overrides.hold(name, &node.facts)),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::decision::{
        apiserver::Apiserver,
        websockets::gates::{ALL_ALPHA, ALL_BETA, StreamGate},
    };

    fn said(gates: Option<&str>, url: Option<&str>) -> SaidOfStreams {
        // Agents tell of names as they are, so here they are free.
        let gates =
            gates.map(|text| FeatureGates::from_args([format!("--feature-gates={text}").as_str()]));
        SaidOfStreams {
            gates: gates.filter(|gates| gates.unreadable().is_none()),
            url: url.map(super::url),
        }
    }

    #[test]
    fn who_is_heard_of_gates_and_url() {
        use StreamingUrl::{Absolute, SchemeLess, Unknown};
        for (agent, admin, gates, url) in [
            (said(None, None), said(None, None), None, None),
            (said(Some("A=true"), None), said(Some(""), None), Some(Some(true)), None),
            (
                said(None, None),
                said(Some("A=false"), Some("Absolute")),
                Some(Some(false)),
                Some(Absolute),
            ),
            // It looks now, and has the last word; of an older word only the worse is left.
            (said(None, Some("Absolute")), said(None, Some("SchemeLess")), None, Some(Absolute)),
            (said(None, Some("SchemeLess")), said(None, Some("Absolute")), None, Some(SchemeLess)),
            (said(None, Some("Absolute")), said(None, Some("yes")), None, Some(Absolute)),
            (said(None, None), said(None, Some("absolute")), None, Some(Unknown)),
            (said(None, None), said(Some("A"), None), None, None),
        ] {
            let (both, by) = agent.clone().over(&admin);
            assert_eq!(by.is_some(), both.url.is_some());
            let seen = both.gates.as_ref().map(|gates| gates.get("A"));
            assert_eq!((seen, both.url), (gates, url), "{agent:?} {admin:?}");
        }
    }

    /// What agents report is what is decided by.
    #[test]
    fn agents_look_at_every_gate_that_counts() {
        let mut gates = StreamGate::ALL.map(StreamGate::as_str).to_vec();
        gates.extend([ALL_ALPHA, ALL_BETA]);
        gates.sort_unstable();
        assert_eq!(gates, AgentReport::STREAMING_GATES);
    }

    #[test]
    fn an_old_word_counts_only_against() {
        let absolute = said(Some("A=true"), Some("Absolute"));
        assert_eq!(absolute.clone().unless_old(true, true), absolute);
        assert_eq!(absolute.clone().unless_old(false, true), SaidOfStreams::default());
        let without = said(None, Some("SchemeLess"));
        assert_eq!(without.clone().unless_old(false, true), without);
        // What was another start, or another machine, says nothing of this one.
        assert_eq!(without.unless_old(false, false), SaidOfStreams::default());
        assert_eq!(absolute.unless_old(false, false), SaidOfStreams::default());
    }

    #[test]
    fn an_admin_is_taken_at_the_letter() {
        const E: &str = "ExtendWebSocketsToKubelet";
        let started = |gates: &str| {
            Some(FeatureGates::from_args([format!("--feature-gates={gates}").as_str()]))
        };
        let off = format!("{E}=false");
        for (said, started, expected) in [
            (Some(""), None, Some(None)),
            (Some(" "), None, Some(None)),
            (Some(&*off), None, Some(Some(false))),
            (Some("kube:ExtendWebSocketsToKubelet=False"), None, Some(Some(false))),
            (Some("AllAlpha=true,AllBeta=false"), None, Some(None)),
            // Nothing that a kubelet would have taken, or that is asked for.
            (Some(","), None, None),
            (Some(", ,"), None, None),
            (Some("none"), None, None),
            (Some("ExtendWebSocketToKubelet=false"), None, None),
            (Some("extendwebsocketstokubelet=false"), None, None),
            (Some("Other=true"), None, None),
            (Some("allbeta=false"), None, None),
            // What the program was started with, and both.
            (None, started(&off), Some(Some(false))),
            (None, started("Other=true"), Some(None)),
            (None, started("$(X)"), None),
            (Some(&*off), started("Other=true,ExtendWebSocketsToKubelet=false"), Some(Some(false))),
            (Some(""), started("Other=true"), Some(None)),
            (Some(""), started(&off), None),
            (Some(&*off), started(""), None),
            (Some(""), started("AllBeta=false"), None),
            (Some(""), started("$(X)"), None),
            (Some("Other=true"), started(&off), None),
        ] {
            let seen = SaidOfStreams::of_admin(said, started.clone(), None);
            let seen = seen.gates.map(|gates| gates.get(E));
            assert_eq!(seen, expected, "{said:?} {started:?}");
        }
    }

    #[test]
    fn a_pre_release_that_declares_is_no_older_than_what_it_declares() {
        for (version, declared, minor) in [
            ("v1.36.0-rc.1", json!(["ExtendWebSocketsToKubelet"]), Some(36)),
            ("v1.36.0-rc.1", json!(["Other"]), Some(35)),
            ("v1.36.0-rc.1", json!(null), Some(35)),
            ("v1.36.2", json!(null), Some(36)),
            ("x", json!(["ExtendWebSocketsToKubelet"]), None),
        ] {
            let node = json!({
                "metadata": {"name": "n1"},
                "status": {"declaredFeatures": declared, "nodeInfo": {"kubeletVersion": version}},
            });
            let view: NodeView = serde_json::from_value(node).unwrap();
            let streams = NodeStreams::of(&view, Minor::running(version).ok());
            assert_eq!(streams.facts.kubelet, minor.map(Minor), "{version} {declared}");
        }
    }

    #[test]
    fn an_agents_word_reaches_the_policy() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let mut cluster = Cluster::default();
        cluster.watch_agents();
        let node = json!({
            "metadata": {"name": "n1"},
            "status": {"nodeInfo": {
                "kubeletVersion": "v1.35.4", "containerRuntimeVersion": "docker://28.0.0",
            }},
        });
        assert!(cluster.set_node(serde_json::from_value(node).unwrap()));
        cluster.set_instances(vec![Apiserver {
            name: "cp".to_owned(),
            minor: Some(Minor(35)),
            gates: Some(FeatureGates::default()),
            unseen: None,
        }]);
        let reason = |cluster: &Cluster| {
            cluster.websockets("p", &PolicyFacts::default(), now).unwrap().outcome.reason
        };
        let report = |url: &str| -> AgentReport {
            serde_json::from_value(json!({
                "flag": "Absent", "since": "2026-01-01T00:00:00Z", "streamingGates": {},
                "streamingUrl": url,
            }))
            .unwrap()
        };
        assert_eq!(reason(&cluster), "RuntimeUrlUnknown");
        // Nobody vouches for the agent yet.
        cluster.set_agent("n1", Some(&report("Absolute")));
        assert_eq!(reason(&cluster), "RuntimeUrlUnknown");
        assert!(cluster.set_agent_ready("n1", true).evidence);
        assert_eq!(reason(&cluster), "NothingBreaks");
        assert!(cluster.set_agent("n1", Some(&report("SchemeLess"))).evidence);
        assert_eq!(reason(&cluster), "RuntimeUrlSchemeless");
        assert!(!cluster.set_agent("n1", Some(&report("SchemeLess"))).evidence);
        cluster.set_agent_ready("n1", false);
        assert_eq!(reason(&cluster), "RuntimeUrlSchemeless");
    }
}
