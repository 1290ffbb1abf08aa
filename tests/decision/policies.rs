//! Several policies: each concern (the gate, the streams, the remediation) is that of the oldest
//! policy that asks for it, and every other one that asks says whose it is.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::json;
use sluice::{
    api::{AgentReport, StreamingPolicyStatus},
    cluster::{Cluster, Content, Policy},
};

/// What a policy asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asks {
    gate: bool,
    streams: bool,
    remediation: bool,
}

const NODE: &str = "old-1";

fn every() -> impl Iterator<Item = Asks> + Clone {
    (0..8_u8).map(|bits| Asks {
        gate: bits & 1 != 0,
        streams: bits & 2 != 0,
        remediation: bits & 4 != 0,
    })
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn policy(asks: Asks, created: i64) -> Policy {
    let mut spec = json!({});
    if asks.gate {
        spec["streamingProxyRedirects"] = json!("Disabled");
    }
    if asks.streams {
        spec["proxy"] = json!({});
    }
    if asks.remediation {
        spec["nodes"] = json!({"remediation": "KubeletFlag"});
    }
    Policy {
        uid: format!("uid-{created}"),
        created: Some(at(created)),
        generation: Some(1),
        content: Ok(Content::read(&serde_json::from_value(spec).unwrap())),
        status: None,
    }
}

/// A cluster with a node that redirects, as its agent says, and these policies, oldest first. Their
/// names are in the other order, so that no name decides.
fn cluster(policies: &[Asks]) -> (Cluster, Vec<String>) {
    let mut cluster = Cluster::default();
    let report = json!({"flag": "On", "since": "2026-01-01T00:00:00Z", "streams": "Relayed"});
    let report: AgentReport = serde_json::from_value(report).unwrap();
    cluster.watch_agents();
    cluster.set_agent_ready(NODE, true);
    cluster.set_agent(NODE, Some(&report));
    let view = json!({
        "metadata": {"name": NODE},
        "status": {
            "nodeInfo": {"kubeletVersion": "v1.19.16"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    cluster.set_node(serde_json::from_value(view).unwrap());
    let names: Vec<String> = (0..policies.len()).rev().map(|i| format!("p{i}")).collect();
    for (i, (asks, name)) in policies.iter().zip(&names).enumerate() {
        cluster.set_policy(name.clone(), policy(*asks, 100 + i as i64));
    }
    (cluster, names)
}

/// The reason and the message of a condition.
fn condition<'a>(status: &'a StreamingPolicyStatus, kind: &str) -> Option<(&'a str, &'a str)> {
    let found = status.conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((&found.reason, &found.message))
}

fn check(policies: &[Asks]) {
    let (cluster, names) = cluster(policies);
    let now = at(1_000);
    let plans = cluster.plans(&BTreeMap::new(), None, now);
    let owner = |asks: fn(&Asks) -> bool| {
        let at = policies.iter().position(asks)?;
        Some(names[at].as_str())
    };
    let (gate, streams) = (owner(|p| p.gate), owner(|p| p.streams));
    let remediation = owner(|p| p.remediation);
    let moment = cluster.at(now);
    for (asks, name) in policies.iter().zip(&names) {
        let context = format!("{name} of {policies:?} named {names:?}");
        let status = moment.policy_report(name, plans.told.get(name)).unwrap();
        let says = |kind| condition(&status, kind);
        let owned_by_other = |kind, reason: &str, owner: Option<&str>| {
            let (is, message) = says(kind).unwrap();
            assert_eq!(is, reason, "{context}: {message}");
            assert!(message.contains(owner.unwrap()), "{context}: {message}");
        };
        if asks.gate && gate != Some(name) {
            owned_by_other("Degraded", "GateOwnedByOther", gate);
        } else {
            assert_ne!(says("Degraded").map(|says| says.0), Some("GateOwnedByOther"), "{context}");
        }
        if asks.streams && streams != Some(name) {
            owned_by_other("ProxyReady", "OlderPolicyFollowed", streams);
        } else if asks.streams {
            assert_eq!(says("ProxyReady").map(|says| says.0), Some("Relaying"), "{context}");
        } else {
            // One that only wants flags away is served by any agent.
            let ready = asks.remediation.then_some("EvidenceOnly");
            assert_eq!(says("ProxyReady").map(|says| says.0), ready, "{context}");
        }
        if asks.remediation && remediation != Some(name) {
            owned_by_other("NodesRemediated", "OlderPolicyFollowed", remediation);
        } else if asks.remediation {
            let reason = says("NodesRemediated").map(|says| says.0);
            assert_eq!(reason, Some("Remediating"), "{context}");
        } else {
            assert_eq!(says("NodesRemediated"), None, "{context}");
        }
    }
    // And so it happens.
    let wanted = plans.changes.get(NODE).and_then(Option::as_ref);
    assert_eq!(wanted.map(|wanted| wanted.policy.as_str()), remediation, "{policies:?}");
    let scene = cluster.node_scene(now);
    let node = &cluster.nodes()[NODE];
    let spec = scene.report(NODE, node, None, &[], now).spec.unwrap();
    assert_eq!(spec.policy.as_deref(), streams.or(remediation), "{policies:?}");
}

#[test]
fn pairs() {
    for a in every() {
        every().for_each(|b| check(&[a, b]));
    }
}

#[test]
fn triples() {
    for (a, b) in every().flat_map(|a| every().map(move |b| (a, b))) {
        every().for_each(|c| check(&[a, b, c]));
    }
}

/// An older policy that selects other nodes owns nothing of these.
#[test]
fn only_what_is_selected_is_owned() {
    let both = Asks { gate: false, streams: true, remediation: true };
    let (mut cluster, names) = cluster(&[both, both]);
    let mut elsewhere = policy(both, 100);
    if let Ok(content) = &mut elsewhere.content {
        content.selector = BTreeMap::from([("zone".to_owned(), "b".to_owned())]);
    }
    cluster.set_policy(names[0].clone(), elsewhere);
    let plans = cluster.plans(&BTreeMap::new(), None, at(1_000));
    let remediated = |name: &str| plans.told[name].remediated.as_ref().unwrap().reason;
    assert_eq!((remediated(&names[0]), remediated(&names[1])), ("NoFlags", "Remediating"));
}
