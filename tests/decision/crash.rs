//! Kubelets that keep exiting: what their Nodes say is said of the last one that ran.

use jiff::Timestamp;
use sluice::{
    decision::{
        apiserver::Apiserver,
        migration::STREAMING_REDIRECTS,
        redirects::{
            Judgement,
            evidence::{Claim, Source},
            judge,
            node::NodeFacts,
            policy::{Override, Owner, PolicyFacts},
            steps::steps,
            upgrade::UpgradeReason,
        },
        steps::Action,
    },
    kubernetes::{arguments::kubelet::FlagValue, feature_gates::FeatureGates, version::Minor},
};

fn node(kubelet: u16, says: FlagValue) -> NodeFacts {
    let claims = vec![Claim { source: Source::Agent, says }];
    NodeFacts { kubelet: Some(Minor(kubelet)), claims, crashes: true, ..NodeFacts::default() }
}

fn apiserver(minor: u16) -> [Apiserver; 1] {
    let gates = Some(FeatureGates::from_args(["--v=2"]));
    [Apiserver { name: "cp1".to_owned(), minor: Some(Minor(minor)), gates, unseen: None }]
}

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

fn judged<'a>(nodes: &'a [(&'a str, NodeFacts)], apiserver: &[Apiserver]) -> Judgement<'a> {
    let nodes = nodes.iter().map(|(name, facts)| (*name, facts));
    let policy = PolicyFacts::default();
    judge(&STREAMING_REDIRECTS, &policy, "p", Owner::Nobody, apiserver, nodes, now())
}

#[test]
fn such_a_node_blocks_whatever_its_version_says() {
    for (kubelet, says, flagged) in [
        (20, FlagValue::On, true),
        (21, FlagValue::Off, true),
        (22, FlagValue::On, true),
        (24, FlagValue::Absent, false),
        (18, FlagValue::Absent, false),
        (18, FlagValue::On, true),
    ] {
        let nodes = [("n1", node(kubelet, says))];
        let judgement = judged(&nodes, &apiserver(24));
        let safe = &judgement.safe_to_disable;
        assert_eq!(
            (safe.status.as_str(), safe.reason),
            ("False", "KubeletCrashLoops"),
            "{nodes:?}"
        );
        assert!(safe.message.starts_with("The kubelet of n1 keeps exiting"));
        let refuses =
            "n1 was last seen with --redirect-container-streaming, which 1.22 and later refuse";
        assert_eq!(safe.message.contains(refuses), flagged, "{}", safe.message);
        let upgrade = &judgement.upgrade_safe;
        assert_eq!(upgrade.status.as_str(), "False", "{upgrade:?}");
        assert!(upgrade.message.contains("keeps exiting"), "{upgrade:?}");
        let counts = judgement.survey.counts;
        assert_eq!((counts.blocking, counts.unknown, counts.redirecting), (1, 1, 0));
    }
}

#[test]
fn it_stands_beside_what_is_worse() {
    let redirects = NodeFacts { crashes: false, ..node(18, FlagValue::On) };
    let nodes = [("n1", node(22, FlagValue::On)), ("n2", redirects)];
    let judgement = judged(&nodes, &apiserver(20));
    let safe = &judgement.safe_to_disable;
    assert_eq!(safe.reason, "NodesRedirectWhileLagging");
    assert!(safe.message.contains("1 more node may redirect"), "{}", safe.message);
    for preview in &judgement.upgrades {
        let found = preview.findings.iter().map(|finding| finding.reason);
        assert!(found.into_iter().any(|reason| reason == UpgradeReason::KubeletCrashLoops));
    }
}

#[test]
fn only_what_the_node_shows_is_named_as_the_cause() {
    let said = |source| Claim { source, says: FlagValue::On };
    let word = NodeFacts { claims: vec![said(Source::Annotation)], ..node(20, FlagValue::On) };
    let nodes =
        [("n1", node(20, FlagValue::On)), ("n2", node(20, FlagValue::Absent)), ("n3", word)];
    let message = judged(&nodes, &apiserver(20)).safe_to_disable.message;
    assert!(message.contains("The kubelet of n1, n2 and n3 keeps exiting"), "{message}");
    assert!(message.contains(" n1 was last seen with --"), "{message}");
}

#[test]
fn it_is_mended_first_and_may_be_excepted() {
    let nodes = [("n1", node(20, FlagValue::On))];
    let all = || nodes.iter().map(|(name, facts)| (*name, facts));
    let mut policy = PolicyFacts { target: Some(Minor(22)), ..PolicyFacts::default() };
    let owner = Owner::Policy("p");
    let done = steps(&STREAMING_REDIRECTS, &policy, "p", owner, &apiserver(20), all(), now());
    assert_eq!((done[0].action, &*done[0].nodes), (Action::LookAtKubelet, &["n1".to_owned()][..]));
    assert!(done[0].needed && done[0].message.contains("Mend that first"), "{:?}", done[0]);
    let expires = now() + jiff::SignedDuration::from_hours(1);
    policy.overrides = vec![Override { node: "n1".to_owned(), expires }];
    policy.gate = Some(sluice::decision::redirects::policy::GateWish::Disabled);
    let judgement = judge(&STREAMING_REDIRECTS, &policy, "p", owner, &apiserver(20), all(), now());
    assert_eq!(judgement.safe_to_disable.reason, "OnlyOverriddenNodes");
}
