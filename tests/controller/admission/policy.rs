//! What is said to whoever writes a policy, as their client sees it.

use http::{Method, Request, StatusCode, header::CONTENT_TYPE};
use kube::{Client, client::Body};
use serde_json::{Value, json};

use super::scene::{Scene, scene};
use crate::{apiserver::eventually, stage::POLICY};

const PATH: &str = "/apis/sluice.dev/v1alpha1/streamingpolicies";

/// What came back.
struct Answer {
    status: StatusCode,
    /// The texts of the `Warning` headers, which kubectl prints.
    warnings: Vec<String>,
    body: Value,
}

async fn send(client: &Client, method: Method, path: &str, kind: &str, body: &Value) -> Answer {
    let body = Body::from(serde_json::to_vec(body).unwrap());
    let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, kind);
    let response = client.send(request.body(body).unwrap()).await.unwrap();
    let text = |value: &http::HeaderValue| {
        let text = value.to_str().unwrap().strip_prefix("299 - \"").unwrap();
        text.strip_suffix('"').unwrap().to_owned()
    };
    let warnings = response.headers().get_all("warning").iter().map(text).collect();
    let status = response.status();
    let body = response.into_body().collect_bytes().await.unwrap();
    Answer { status, warnings, body: serde_json::from_slice(&body).unwrap() }
}

fn policy(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "StreamingPolicy",
        "metadata": {"name": name}, "spec": spec,
    })
}

async fn create(client: &Client, name: &str, spec: Value) -> Answer {
    send(client, Method::POST, PATH, "application/json", &policy(name, spec)).await
}

async fn merge(client: &Client, name: &str, patch: Value) -> Answer {
    let path = format!("{PATH}/{name}");
    send(client, Method::PATCH, &path, "application/merge-patch+json", &patch).await
}

/// An override for so many seconds from now.
fn except(node: &str, seconds: i64) -> Value {
    let expires = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
    json!({"node": node, "reason": "tested", "expires": format!("{expires:.0}")})
}

fn assert_refused(answer: &Answer, why: &str) {
    let message = answer.body["message"].as_str().unwrap();
    let by = "admission webhook \"policies.sluice.dev\" denied the request: apply: StaticPod is \
              refused with overrides that do not count: ";
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{message}");
    assert!(message.starts_with(by) && message.contains(why), "{message}");
}

#[tokio::test]
#[ignore = "needs the apiserver that the test cluster builds: make controller-test"]
async fn an_unsafe_policy_is_stored_with_a_warning_and_an_idle_override_is_refused() {
    let Scene { stage, replica } = scene().await;
    let client = &stage.client;
    let disabled = json!({"streamingProxyRedirects": "Disabled", "apply": "StaticPod"});

    // Whoever only tries is told, too. The apiserver trusts the webhook from some moment on, and
    // shows it the nodes as its cache has them.
    let who = "2 of 3 nodes stand in the way of Disabled: w1, w2.";
    let tried = eventually("a warning that names both", async || {
        let path = format!("{PATH}?dryRun=All");
        let body = policy("tried", disabled.clone());
        let answer = send(client, Method::POST, &path, "application/json", &body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
        (answer.warnings.first()? == who).then_some(answer)
    })
    .await;
    let created = create(client, "managed", disabled).await;
    assert_eq!(created.status, StatusCode::CREATED, "{}", created.body);
    assert_eq!(created.warnings, tried.warnings);
    assert_eq!(created.warnings.len(), 3);
    assert!(created.warnings[1].starts_with("Sluice turns nothing off until"));

    // What changes nothing of it is nobody's concern, nor is the way back.
    for patch in [
        json!({"metadata": {"labels": {"team": "x"}}}),
        json!({"spec": {"stepDeadlineSeconds": 300}}),
        json!({"spec": {"streamingProxyRedirects": "Enabled"}}),
    ] {
        let answer = merge(client, "managed", patch).await;
        assert_eq!((answer.status, answer.warnings), (StatusCode::OK, Vec::new()));
    }

    // An override that holds; as `kubectl apply --server-side` writes it.
    let spec = json!({
        "streamingProxyRedirects": "Disabled", "overrides": [except("w1", 3600)],
    });
    let path = format!("{PATH}/managed?fieldManager=test&force=true");
    let kind = "application/apply-patch+yaml";
    let applied = send(client, Method::PATCH, &path, kind, &policy("managed", spec)).await;
    assert_eq!(applied.status, StatusCode::OK, "{}", applied.body);
    assert_eq!(applied.warnings[0], "1 of 3 nodes stands in the way of Disabled: w2.");

    // Overrides that do not count.
    let before = stage.policies().get("managed").await.unwrap();
    for (node, seconds, why) in [("w1", -60, "expired: w1."), ("w9", 3600, "no such node: w9.")] {
        let overrides = json!({"spec": {"overrides": [except(node, seconds)]}});
        assert_refused(&merge(client, "managed", overrides).await, why);
        let spec = json!({"apply": "StaticPod", "overrides": [except(node, seconds)]});
        assert_refused(&create(client, "another", spec).await, why);
    }
    let after = stage.policies().get("managed").await.unwrap();
    assert_eq!(after.spec, before.spec);
    assert!(stage.policies().get_opt("another").await.unwrap().is_none());
    // Where Sluice only looks on they are allowed.
    let expired = json!({"spec": {"overrides": [except("w1", -60), except("w9", 3600)]}});
    assert_eq!(merge(client, POLICY, expired.clone()).await.status, StatusCode::OK);

    let metrics = replica.metrics().await;
    let unseen = metrics.keys().filter(|key| key.contains("reason=\"Verdicts"));
    assert_eq!(unseen.count(), 0, "{}", replica.log());

    // Nobody to ask is no refusal: what such a policy does is judged where it would be done.
    drop(replica);
    let answer = merge(client, "managed", expired).await;
    assert_eq!((answer.status, answer.warnings), (StatusCode::OK, Vec::new()));
}
