use serde_json::{Value, json};

use super::*;
use crate::{
    api::{ChangeKind, GateSetting},
    remediator::test_support::change,
    test_support,
};

const POLICY: &str = "/apis/sluice.dev/v1alpha1/streamingpolicies/cluster";
const NODES: &str = "/apis/sluice.dev/v1alpha1/streamingnodes?&limit=500";
const MORE: &str = "/apis/sluice.dev/v1alpha1/streamingnodes?&limit=500&continue=more";
const KNOWN: &str = "/apis/sluice.dev/v1alpha1/streamingnodes/cp1";
const ALL: &str = "/api/v1/nodes?&limit=500";
const NODE: &str = "/api/v1/nodes/cp1";

/// Asks an apiserver that gives these answers.
async fn asked<T>(answers: &[(&str, u16, Value)], ask: impl AsyncFnOnce(Apiserver) -> T) -> T {
    let (client, serving) = test_support::apiserver(answers);
    let answer = ask(Apiserver::new(client, "cp1".to_owned())).await;
    serving.await.unwrap();
    answer
}

fn failure(code: u16) -> Value {
    test_support::failure(code, "No")
}

fn policy(apply: &str) -> Value {
    json!({"apiVersion": "sluice.dev/v1alpha1", "kind": "StreamingPolicy",
        "metadata": {"name": "cluster", "generation": 3, "resourceVersion": "70"},
        "spec": {"apply": apply}})
}

fn nodes(nodes: &[(&str, Value)], more: &str) -> Value {
    let items = nodes
        .iter()
        .map(|(name, rest)| {
            let owner = json!({"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid(name)});
            let metadata = json!({"name": name, "ownerReferences": [owner]});
            let mut node = json!({"metadata": metadata, "spec": {}});
            node.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            node
        })
        .collect::<Vec<_>>();
    json!({"apiVersion": "sluice.dev/v1alpha1", "kind": "StreamingNodeList",
        "metadata": {"continue": more}, "items": items})
}

fn verdict(verdict: &str) -> Value {
    json!({"status": {"verdict": verdict, "kubeletVersion": "v1.20.2"}})
}

fn uid(name: &str) -> String {
    format!("uid-of-{name}")
}

/// The Nodes of these names.
fn all(names: &[&str]) -> Value {
    let node = |name: &&str| {
        json!({"metadata": {"name": name, "uid": uid(name)}, "status": {"nodeInfo": {
            "kubeletVersion": "v1.20.2", "bootID": "b", "machineID": "m",
        }}})
    };
    let items: Vec<Value> = names.iter().map(node).collect();
    json!({"apiVersion": "v1", "kind": "NodeList", "metadata": {}, "items": items})
}

async fn scene(answers: &[(&str, u16, Value)], change: &Change) -> Result<PermitInputs, Error> {
    asked(answers, async |apiserver| apiserver.scene(change).await).await
}

fn off() -> Change {
    change("a", ChangeKind::ApiserverGate)
}

#[tokio::test]
async fn all_nodes_are_asked_for_and_what_is_not_said_to_be_safe_does_not_pass() {
    let first = nodes(&[("a", verdict("Safe")), ("b", verdict("Blocks"))], "more");
    let second = nodes(
        &[
            ("c", verdict("Overridden")),
            ("d", verdict("SomethingNew")),
            ("e", json!({})),
            ("f", json!({"spec": {"proxy": {"mode": "New"}}, "status": {"verdict": "Safe"}})),
        ],
        "",
    );
    let answers = [
        (POLICY, 200, policy("StaticPod")),
        (NODES, 200, first),
        (MORE, 200, second),
        (ALL, 200, all(&["a", "b", "c", "d", "e", "f"])),
    ];
    let scene = scene(&answers, &off()).await.unwrap();
    assert!(matches!(&scene.policy, Policy::Is(policy) if policy.metadata.generation == Some(3)));
    assert_eq!(scene.blocking, ["b"]);
    assert_eq!(scene.unjudged, ["d", "e", "f"]);
}

#[tokio::test]
async fn each_node_needs_a_verdict_of_its_own_as_it_is_now() {
    let agent = |boot: &str| {
        json!({"status": {
            "verdict": "Safe", "kubeletVersion": "v1.20.2", "decidedBy": "Agent",
            "agent": {"flag": "Off", "since": "2026-01-01T00:00:00Z", "bootID": boot},
        }})
    };
    let older = json!({"status": {"verdict": "Safe", "kubeletVersion": "v1.19.16"}});
    let other = json!({"metadata": {"name": "other", "ownerReferences": [
        {"apiVersion": "v1", "kind": "Node", "name": "other", "uid": "before"},
    ]}, "status": verdict("Safe")["status"].clone()});
    let nobodys = json!({"metadata": {"name": "nobodys"}, "status": other["status"].clone()});
    let known = nodes(
        &[
            ("same", verdict("Safe")),
            ("own", agent("b")),
            ("rebooted", agent("a")),
            ("upgraded", older),
            ("other", other),
            ("nobodys", nobodys),
            // Its Node is gone already.
            ("gone", verdict("Safe")),
        ],
        "",
    );
    let there = all(&["same", "own", "rebooted", "upgraded", "other", "nobodys", "joined"]);
    let answers = [(POLICY, 200, policy("StaticPod")), (NODES, 200, known), (ALL, 200, there)];
    let scene = scene(&answers, &off()).await.unwrap();
    assert!(scene.blocking.is_empty());
    assert_eq!(scene.unjudged, ["rebooted", "upgraded", "other", "nobodys", "joined"]);
}

#[tokio::test]
async fn nodes_are_not_asked_for_where_the_gate_stays_on() {
    let on = Change { gate: Some(GateSetting::Enabled), ..off() };
    let scene = scene(&[(POLICY, 200, policy("StaticPod"))], &on).await.unwrap();
    assert!(scene.blocking.is_empty() && scene.unjudged.is_empty());
}

#[tokio::test]
async fn what_is_told_of_the_runtime_counts_until_the_node_starts_again() {
    let flag = change("a", ChangeKind::KubeletFlag);
    let runtime = |tls: bool, trusted: bool| json!({"name": "containerd", "version": "1.6.20", "tls": tls, "trusted": trusted});
    let told = |boot: &str, runtime: Value| {
        json!({"flag": "On", "since": "2026-01-01T00:00:00Z", "bootID": boot, "machineID": "m",
            "runtime": runtime})
    };
    for (redirects, agent, expected) in [
        ("On", told("b", runtime(false, false)), Trust::Given),
        ("On", told("b", runtime(true, true)), Trust::Given),
        ("Unknown", told("b", runtime(true, false)), Trust::Missing),
        ("SomethingNew", told("b", runtime(true, false)), Trust::Missing),
        ("Off", told("b", runtime(true, false)), Trust::Given),
        ("On", told("before", runtime(false, false)), Trust::Untold),
        ("On", told("b", Value::Null), Trust::Untold),
        ("On", Value::Null, Trust::Untold),
    ] {
        let known = json!({"apiVersion": "sluice.dev/v1alpha1", "kind": "StreamingNode",
            "metadata": {"name": "cp1"}, "spec": {},
            "status": {"redirects": redirects, "agent": agent}});
        let node = all(&["cp1"])["items"][0].clone();
        let mut answers = vec![(POLICY, 200, policy("Observe")), (KNOWN, 200, known)];
        if redirects != "Off" {
            answers.push((NODE, 200, node));
        }
        let scene = scene(&answers, &flag).await.unwrap();
        assert_eq!(scene.trust, expected, "{redirects} {answers:?}");
    }
}

#[tokio::test]
async fn a_policy_that_is_gone_or_cannot_be_read_and_an_apiserver_that_does_not_say() {
    let none = [(NODES, 200, nodes(&[], "")), (ALL, 200, all(&[]))];
    let seen = scene(&none, &off()).await.unwrap();
    assert_eq!(seen.policy, Policy::Missing);
    let [known, there] = none;
    let seen = scene(&[(POLICY, 200, policy("Magic")), known, there], &off()).await.unwrap();
    assert!(matches!(&seen.policy, Policy::Unreadable(why) if why.contains("Magic")), "{seen:?}");
    for (answers, reason) in [
        (&[(POLICY, 403, failure(403))][..], "AskForbidden"),
        (&[(POLICY, 500, failure(500))], "AskRefused"),
        (&[(POLICY, 200, policy("StaticPod")), (NODES, 403, failure(403))], "AskForbidden"),
        (
            &[
                (POLICY, 200, policy("StaticPod")),
                (NODES, 200, nodes(&[], "")),
                (ALL, 403, failure(403)),
            ],
            "AskForbidden",
        ),
    ] {
        assert_eq!(scene(answers, &off()).await.unwrap_err().reason(), reason);
    }
}

#[tokio::test]
async fn the_readiness_of_the_own_node() {
    let node = |conditions: Value| {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "cp1"},
            "status": {"conditions": conditions}})
    };
    let ready = |status: &str| {
        json!([{"type": "MemoryPressure", "status": "True"},
            {"type": "Ready", "status": status, "lastHeartbeatTime": "2026-01-02T03:04:05Z"}])
    };
    let heartbeat = Some("2026-01-02T03:04:05Z".parse().unwrap());
    for (conditions, expected) in [
        (ready("True"), Readiness { ready: true, heartbeat }),
        (ready("Unknown"), Readiness { ready: false, heartbeat }),
        (json!([]), Readiness { ready: false, heartbeat: None }),
    ] {
        let answers = [(NODE, 200, node(conditions))];
        let seen = asked(&answers, async |apiserver| apiserver.readiness().await).await.unwrap();
        assert_eq!(seen, expected);
    }
}
