//! Runtimes that a kubelet would not trust: what works only while the node redirects.

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
            policy::{Owner, PolicyFacts},
            steps::steps,
            upgrade::UpgradeReason,
        },
        steps::{Action, Step},
    },
    kubernetes::{arguments::kubelet::FlagValue, feature_gates::FeatureGates, version::Minor},
};

fn node(kubelet: u16, says: FlagValue, distrusted: bool) -> NodeFacts {
    let claims = vec![Claim { source: Source::Agent, says }];
    NodeFacts { kubelet: Some(Minor(kubelet)), claims, distrusted, ..NodeFacts::default() }
}

/// One apiserver of 1.20 with the gate on.
fn apiserver() -> Apiserver {
    let gates = Some(FeatureGates::from_args(["--v=2"]));
    Apiserver { name: "cp1".to_owned(), minor: Some(Minor(20)), gates, unseen: None }
}

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

fn policy(target: u16) -> PolicyFacts {
    PolicyFacts { target: Some(Minor(target)), ..PolicyFacts::default() }
}

fn judged<'a>(nodes: &'a [(&'a str, NodeFacts)], target: u16) -> Judgement<'a> {
    let nodes = nodes.iter().map(|(name, facts)| (*name, facts));
    let apiservers = [apiserver()];
    let policy = policy(target);
    judge(&STREAMING_REDIRECTS, &policy, "p", Owner::Nobody, &apiservers, nodes, now())
}

fn steps_of(nodes: &[(&str, NodeFacts)], target: u16) -> Vec<Step> {
    let nodes = nodes.iter().map(|(name, facts)| (*name, facts));
    let policy = policy(target);
    steps(&STREAMING_REDIRECTS, &policy, "p", Owner::Nobody, &[apiserver()], nodes, now())
}

#[test]
fn only_redirects_hide_it() {
    for (facts, matters) in [
        (node(18, FlagValue::On, true), true),
        (node(18, FlagValue::Unreadable, true), true),
        (node(18, FlagValue::On, false), false),
        // These proxy already: whatever that does, nothing that is done here changes it.
        (node(18, FlagValue::Off, true), false),
        (node(20, FlagValue::On, true), false),
        (node(24, FlagValue::Absent, true), false),
    ] {
        let nodes = [("n1", facts)];
        let judgement = judged(&nodes, 21);
        let told = |message: &str| message.contains("The runtime of n1 streams with a certificate");
        let found = |minor: u16| {
            let preview = judgement.upgrades.iter().find(|preview| preview.minor == Minor(minor));
            let findings = &preview.unwrap().findings;
            findings
                .iter()
                .any(|f| f.reason == UpgradeReason::RuntimeNotTrusted && told(&f.message))
        };
        assert_eq!(found(21), matters, "{nodes:?}");
        assert_eq!(judgement.upgrade_safe.message.contains("enable_tls_streaming"), matters);
        // The gate stays on there, and the node fails all the same.
        let preview = judgement.upgrades.iter().find(|preview| preview.minor == Minor(21)).unwrap();
        assert_eq!(preview.breaking, usize::from(matters), "{nodes:?}");
        let first = &steps_of(&nodes, 21)[0];
        assert_eq!(first.action == Action::TrustRuntime, matters, "{first:?}");
        assert!(!matters || first.needed && told(&first.message), "{first:?}");
    }
}

#[test]
fn who_is_told_to_take_the_flag_off_is_told_what_comes_first() {
    let nodes = [("plain", node(18, FlagValue::On, false)), ("tls", node(18, FlagValue::On, true))];
    let message = judged(&nodes, 22).safe_to_disable.message;
    assert!(message.contains("plain and tls answer streams with a redirect"), "{message}");
    assert!(message.contains("The runtime of tls streams with a certificate"), "{message}");
    let steps = steps_of(&nodes, 22);
    let done: Vec<_> = steps.iter().map(|step| (step.action, step.nodes.join(","))).collect();
    assert_eq!(done[0], (Action::TrustRuntime, "tls".to_owned()));
    assert_eq!(done[1], (Action::RemoveKubeletFlag, "plain,tls".to_owned()));
}
