//! What a change of the cluster does to the verdicts, and who hears of it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use kube::{Api, api::DeleteParams};
use serde_json::json;

use crate::{
    apiserver::{eventually, nodes},
    replica::Replica,
    stage::{POLICY, Stage},
};

fn told(reasons: &[(&str, usize)]) -> BTreeMap<String, usize> {
    reasons.iter().map(|(reason, times)| ((*reason).to_owned(), *times)).collect()
}

#[tokio::test]
#[ignore = "needs the apiserver that the test cluster builds: make controller-test"]
async fn a_nodes_word_or_version_changes_the_verdict_and_is_told_once() {
    let stage = Stage::set().await;
    stage.old_node("w1", "false").await;
    let _replica = Replica::start(&stage.server, "a").await;
    assert_eq!(stage.safe_because(POLICY, "NoNodeRedirects").await, "True");
    stage.judged(2).await;
    assert_eq!(stage.events("StreamingPolicy", POLICY).await, told(&[]), "nothing has changed yet");

    nodes::annotate(&stage.client, "w1", Some("true")).await;
    assert_eq!(stage.safe_because(POLICY, "NodesRedirect").await, "False");
    nodes::annotate(&stage.client, "w1", None).await;
    assert_eq!(stage.safe_because(POLICY, "NodesUnknown").await, "False");
    nodes::upgrade(&stage.client, "w1", "v1.20.15").await;
    assert_eq!(stage.safe_because(POLICY, "NoNodeRedirects").await, "True");
    nodes::upgrade(&stage.client, "w1", "v1.18.20").await;
    nodes::annotate(&stage.client, "w1", Some("true")).await;
    assert_eq!(stage.safe_because(POLICY, "NodesRedirectWhileLagging").await, "False");

    let status = stage.policies().get(POLICY).await.unwrap().status.unwrap();
    let (counts, blocking) = (&status.nodes, &status.blocking);
    assert_eq!((counts.total, counts.redirecting, counts.lagging, counts.blocking), (2, 1, 1, 1));
    assert_eq!(blocking.iter().map(|b| b.name.as_str()).collect::<Vec<_>>(), ["w1"]);
    assert_eq!((status.gate.as_str(), status.apiservers.count), ("Enabled", 1));

    // Between two looks a node may pass through a verdict that nobody sees; the policy may not.
    eventually("the last events", async || {
        let about_policy = stage.events("StreamingPolicy", POLICY).await;
        let about_node = stage.events("Node", "w1").await;
        eprintln!("{about_policy:?} {about_node:?}");
        let safe = about_policy.get("NoNodeRedirects") == Some(&1);
        let redirects = about_policy.get("NodesRedirect") == Some(&1);
        (safe && redirects && about_node.values().sum::<usize>() >= 3).then_some(())
    })
    .await;
    for (reason, times) in stage.events("Node", "w1").await {
        assert!(times <= 2, "{reason} was told {times} times");
    }
}

#[tokio::test]
#[ignore = "needs the apiserver that the test cluster builds: make controller-test"]
async fn a_node_that_is_gone_counts_no_more() {
    let stage = Stage::set().await;
    stage.old_node("w1", "true").await;
    let _replica = Replica::start(&stage.server, "a").await;
    assert_eq!(stage.safe_because(POLICY, "NodesRedirect").await, "False");
    let api: Api<Node> = Api::all(stage.client.clone());
    api.delete("w1", &DeleteParams::default()).await.unwrap();
    assert_eq!(stage.safe_because(POLICY, "NoNodeRedirects").await, "True");
}

#[tokio::test]
#[ignore = "needs the apiserver that the test cluster builds: make controller-test"]
async fn an_override_excepts_a_node_until_it_ends() {
    let stage = Stage::set().await;
    stage.old_node("w1", "true").await;
    // The API knows whole seconds.
    let expires = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() + 15).unwrap();
    let overridden = json!({
        "streamingProxyRedirects": "Disabled",
        "overrides": [{"node": "w1", "reason": "Nobody execs there.", "expires": expires}],
    });
    let policies = stage.policies();
    policies.delete(POLICY, &DeleteParams::default()).await.unwrap();
    stage.create_policy("excepting", overridden).await;
    let _replica = Replica::start(&stage.server, "a").await;
    assert_eq!(stage.safe_because("excepting", "OnlyOverriddenNodes").await, "True");
    // Nothing happens in the cluster: time alone takes the permission back.
    assert_eq!(stage.safe_because("excepting", "NodesRedirect").await, "False");
    assert!(jiff::Timestamp::now() >= expires, "an override ended before its time");
}
