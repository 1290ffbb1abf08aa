//! Which policies are let in, with which words, and which are not.

use serde_json::{Value, json};

use super::*;
use crate::api::ProviderOverride;

const NOW: &str = "2026-06-01T00:00:00Z";
const LATER: &str = "2026-07-01T00:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn spec(of: Value) -> StreamingPolicySpec {
    serde_json::from_value(of).unwrap()
}

/// A policy that wants the gate off, with overrides of so many names until so long.
fn off(apply: &str, overrides: &[(&str, &str)]) -> StreamingPolicySpec {
    let of =
        |(node, expires): &(&str, &str)| json!({"node": node, "reason": "r", "expires": expires});
    let overrides: Vec<_> = overrides.iter().map(of).collect();
    spec(json!({
        "streamingProxyRedirects": "Disabled", "apply": apply, "overrides": overrides,
    }))
}

fn nodes(of: &[(&str, &str)]) -> Nodes {
    let owned = |(name, verdict): &(&str, &str)| ((*name).to_owned(), of_verdict(verdict));
    Nodes::Seen(of.iter().map(owned).collect())
}

fn of_verdict(verdict: &str) -> Judged {
    Judged { verdict: verdict.to_owned(), provider: None }
}

#[test]
fn nodes_of_an_excepted_provider_are_not_in_the_way() {
    let kwok = Judged { provider: Some("kwok".to_owned()), ..of_verdict("Blocks") };
    let nodes =
        Nodes::Seen([("k1".to_owned(), kwok), ("n1".to_owned(), of_verdict("Safe"))].into());
    let excepts = |provider: &str| {
        let mut policy = off("Observe", &[]);
        let (provider, reason) = (provider.to_owned(), "r".to_owned());
        policy.provider_overrides = vec![ProviderOverride { provider, reason }];
        judged(None, &policy, &nodes).unwrap()
    };
    assert_eq!(excepts("kwok"), Vec::<String>::new());
    assert!(excepts("azure")[0].contains("1 of 2 nodes stands in the way of Disabled: k1"));
}

fn unseen() -> Nodes {
    Nodes::Unseen("the apiserver did not answer within 3s".to_owned())
}

/// The warnings, or the refusal's reason.
fn judged(
    old: Option<&StreamingPolicySpec>,
    new: &StreamingPolicySpec,
    nodes: &Nodes,
) -> Result<Vec<String>, &'static str> {
    match judge(old, new, nodes, now()) {
        Ok(warnings) => Ok(warnings.iter().map(ToString::to_string).collect()),
        Err(denial) => Err(denial.reason()),
    }
}

/// The first warning, which names who stands in the way; empty where nobody does.
fn who(old: Option<&StreamingPolicySpec>, new: &StreamingPolicySpec, nodes: &Nodes) -> String {
    judged(old, new, nodes).unwrap().into_iter().next().unwrap_or_default()
}

#[test]
fn an_unsafe_disabled_is_let_in_with_a_warning_that_names_the_nodes() {
    let nodes = nodes(&[("old1", "Blocks"), ("a", "Safe"), ("old2", "Blocks"), ("new", "Safe")]);
    let told = judged(None, &off("StaticPod", &[]), &nodes).unwrap();
    assert_eq!(
        told,
        [
            "2 of 4 nodes stand in the way of Disabled: old1, old2.",
            "Sluice turns nothing off until they are out of the way: exec, attach and port-forward \
             would fail there.",
            "Take --redirect-container-streaming off their kubelets, upgrade these, or except the \
             nodes in spec.overrides; kubectl get streamingnodes -o wide tells why each blocks.",
        ]
    );
    let told = judged(None, &off("Observe", &[]), &nodes).unwrap();
    assert!(told[1].starts_with("Nothing may be turned off until they"), "{told:?}");
}

#[test]
fn whoever_is_not_known_to_be_safe_stands_in_the_way() {
    let off = |overrides| off("Observe", overrides);
    for (verdict, overrides, expected) in [
        ("Safe", &[][..], ""),
        ("Blocks", &[], "a"),
        ("", &[], "a"),
        ("safe", &[], "a"),
        ("Overridden", &[], "a"),
        ("Blocks", &[("a", LATER)], ""),
        ("Overridden", &[("a", LATER)], ""),
        ("", &[("a", LATER)], ""),
        ("Blocks", &[("a", NOW)], "a"),
        ("Blocks", &[("b", LATER)], "a"),
    ] {
        let expected = match expected {
            "" => String::new(),
            name => format!("1 of 2 nodes stands in the way of Disabled: {name}."),
        };
        let nodes = nodes(&[("a", verdict), ("b", "Safe")]);
        assert_eq!(who(None, &off(overrides), &nodes), expected, "{verdict:?} {overrides:?}");
    }
}

#[test]
fn only_what_is_newly_wanted_is_warned_of() {
    let nodes = nodes(&[("a", "Blocks")]);
    let [observe, managed] = ["Observe", "StaticPod"].map(|apply| off(apply, &[]));
    let nothing = spec(json!({}));
    let enabled = spec(json!({"streamingProxyRedirects": "Enabled"}));
    let edited = spec(json!({"streamingProxyRedirects": "Disabled", "paused": true}));
    for (old, new, warned) in [
        (None, &observe, true),
        (Some(&nothing), &observe, true),
        (Some(&enabled), &observe, true),
        (Some(&enabled), &managed, true),
        (Some(&observe), &managed, true),
        (Some(&managed), &observe, false),
        (Some(&observe), &observe, false),
        (Some(&observe), &edited, false),
        (Some(&observe), &enabled, false),
        (Some(&observe), &nothing, false),
        (None, &nothing, false),
        (None, &enabled, false),
    ] {
        let told = who(old, new, &nodes);
        assert_eq!(!told.is_empty(), warned, "{old:?} {new:?}: {told}");
        assert_eq!(needs_nodes(old, new), warned, "{old:?} {new:?}");
    }
}

#[test]
fn managed_mode_and_an_override_that_does_not_count_are_refused() {
    let nodes = nodes(&[("a", "Blocks"), ("b", "Safe")]);
    for (apply, overrides, expected) in [
        ("StaticPod", &[("a", LATER)][..], ""),
        ("StaticPod", &[("a", LATER), ("b", LATER)], ""),
        ("StaticPod", &[("a", NOW)], "OverrideExpired"),
        ("StaticPod", &[("a", LATER), ("b", NOW)], "OverrideExpired"),
        ("StaticPod", &[("c", LATER)], "OverrideWithoutNode"),
        ("StaticPod", &[("c", LATER), ("a", NOW)], "OverrideExpired"),
        ("Observe", &[("a", NOW), ("c", LATER)], ""),
    ] {
        let reason = judged(None, &off(apply, overrides), &nodes).err().unwrap_or_default();
        assert_eq!(reason, expected, "{apply} {overrides:?}");
    }
    // Whatever it wants of the gate.
    let wants = |gate: Value| {
        let entry = json!({"node": "a", "reason": "r", "expires": NOW});
        spec(json!({
            "apply": "StaticPod", "streamingProxyRedirects": gate, "overrides": [entry],
        }))
    };
    for gate in [Value::Null, json!("Enabled")] {
        assert_eq!(judged(None, &wants(gate), &nodes), Err("OverrideExpired"));
    }
    let both = off("StaticPod", &[("a", NOW), ("typo", LATER), ("b", NOW)]);
    assert_eq!(
        judge(None, &both, &nodes, now()).unwrap_err().to_string(),
        "apply: StaticPod is refused with overrides that do not count: expired: a, b; no such node: \
         typo. Renew, correct or remove them, or let apply be Observe"
    );
}

#[test]
fn what_is_stored_can_be_written_to_stopped_and_turned_back() {
    let nodes = nodes(&[("a", "Overridden")]);
    // It was valid once.
    let stored = off("StaticPod", &[("a", NOW)]);
    assert_eq!(judged(Some(&stored), &stored, &nodes), Ok(Vec::new()));
    assert!(!needs_nodes(Some(&stored), &stored));
    let edit = |change: fn(&mut StreamingPolicySpec)| {
        let mut new = stored.clone();
        change(&mut new);
        judged(Some(&stored), &new, &nodes)
    };
    let told = Ok(vec!["These overrides do not count: expired: a.".to_owned()]);
    assert_eq!(edit(|spec| spec.paused = true), told);
    assert_eq!(edit(|spec| spec.streaming_proxy_redirects = Some(GateWish::Enabled)), told);
    assert_eq!(edit(|spec| spec.apply = Apply::Observe), Ok(Vec::new()));
    assert_eq!(edit(|spec| spec.overrides.clear()), Ok(Vec::new()));
    assert_eq!(edit(|spec| spec.step_deadline_seconds = 300), Err("OverrideExpired"));
    assert_eq!(edit(|spec| spec.streaming_proxy_redirects = None), Err("OverrideExpired"));
    // One that is paused already is not stopped by anything else.
    let paused = StreamingPolicySpec { paused: true, ..stored.clone() };
    let edited = StreamingPolicySpec { step_deadline_seconds: 300, ..paused.clone() };
    assert_eq!(judged(Some(&paused), &edited, &nodes), Err("OverrideExpired"));
    assert_eq!(judged(Some(&paused), &stored, &nodes), Err("OverrideExpired"));
}

#[test]
fn managed_mode_that_turns_nothing_says_so() {
    let nodes = nodes(&[("a", "Safe")]);
    let nothing = spec(json!({"apply": "StaticPod", "nodes": {"remediation": "KubeletFlag"}}));
    let told = judged(None, &nothing, &nodes).unwrap();
    assert_eq!(told.len(), 1);
    assert!(told[0].starts_with("apply: StaticPod turns nothing while"), "{told:?}");
    let enabled = spec(json!({"apply": "StaticPod", "streamingProxyRedirects": "Enabled"}));
    assert_eq!(judged(None, &enabled, &nodes), Ok(Vec::new()));
}

#[test]
fn nodes_that_cannot_be_read_are_a_warning_and_no_refusal() {
    let empty = nodes(&[]);
    for (nodes, why) in [
        (unseen(), "the apiserver did not answer within 3s"),
        (empty, "there is no StreamingNode yet"),
    ] {
        for (new, what) in [
            (off("Observe", &[]), "Which nodes stand in the way"),
            (
                off("StaticPod", &[("typo", LATER)]),
                "Which nodes stand in the way, and whether each override names one,",
            ),
        ] {
            let told = judged(None, &new, &nodes).unwrap();
            assert_eq!(told[0], format!("{what} could not be judged: {why}"));
            assert!(told[1].starts_with("Nothing is turned off by Sluice while"), "{told:?}");
        }
        let old = off("StaticPod", &[]);
        let new = off("StaticPod", &[("typo", LATER)]);
        let told = judged(Some(&old), &new, &nodes).unwrap();
        assert_eq!(
            told[0],
            format!("Whether each override names a node could not be judged: {why}")
        );
        // That it has expired needs no node.
        let expired = off("StaticPod", &[("typo", NOW)]);
        assert_eq!(judged(None, &expired, &nodes), Err("OverrideExpired"));
        // Nothing is said where nothing was asked.
        assert_eq!(judged(None, &spec(json!({})), &nodes), Ok(Vec::new()));
    }
}

#[test]
fn words_are_few_however_many_nodes_there_are() {
    let long = |index: usize| format!("{}{index:05}", "n".repeat(248));
    let short = |index: usize| format!("node-{index}.example.com");
    let first = "node-0.example.com, node-1.example.com, node-10.example.com, \
                 node-100.example.com, node-1000.example.com and 19995 more.";
    for (name, named) in [(short as fn(usize) -> String, first), (long, "20000 of them.")] {
        let nodes = (0..20_000).map(|index| (name(index), of_verdict("Blocks")));
        let told = judged(None, &off("StaticPod", &[]), &Nodes::Seen(nodes.collect())).unwrap();
        assert_eq!(told.len(), 3);
        assert!(told.iter().all(|text| text.len() <= LENGTH && !text.ends_with("...")), "{told:?}");
        assert_eq!(told[0], format!("20000 of 20000 nodes stand in the way of Disabled: {named}"));
    }
    let names: Vec<_> = (0..100).map(long).collect();
    let entries: Vec<_> = names.iter().map(|name| (name.as_str(), NOW)).collect();
    let denial = judge(None, &off("StaticPod", &entries), &nodes(&[("a", "Safe")]), now());
    let message = denial.unwrap_err().to_string();
    assert!(message.contains("and 90 more") && message.len() < 6_000, "{message}");
}
