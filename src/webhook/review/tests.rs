//! Reviews as an apiserver sends them, with an apiserver that follows a script.

use axum::http::Request;
use kube::{Client, client::Body as ClientBody};
use serde_json::json;
use tower::ServiceExt;
use tower_test::mock::{self, Handle};

use super::*;
use crate::webhook::rule::{Account, Part};

const AGENT: &str = "system:serviceaccount:sluice-system:sluice-agent";

type Asked = Handle<Request<ClientBody>, axum::http::Response<ClientBody>>;

fn webhook() -> (Router, Asked, Metrics) {
    let (service, handle) = mock::pair();
    let agents = Account { account: "sluice-agent".to_owned(), part: Part::Agent };
    let accounts = Accounts { namespace: "sluice-system".to_owned(), all: vec![agents] };
    let metrics = Metrics::new();
    let client = Client::new(service, "default");
    (router(Reviewer::new(accounts, client, metrics.clone())), handle, metrics)
}

/// A review of a write to the status of node `a`, as Kubernetes 1.20 sends it.
fn review(user: &str, verdict: &str) -> Value {
    let object = |agent: &str, verdict: &str| {
        json!({
            "apiVersion": "sluice.dev/v1alpha1", "kind": "StreamingNode",
            "metadata": {"name": "a", "uid": "n", "resourceVersion": "5"},
            "spec": {}, "status": {"verdict": verdict, "agent": {"flag": agent}},
        })
    };
    let kind = json!({"group": "sluice.dev", "version": "v1alpha1", "kind": "StreamingNode"});
    let resource =
        json!({"group": "sluice.dev", "version": "v1alpha1", "resource": "streamingnodes"});
    json!({
        "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "r1", "kind": kind, "resource": resource, "subResource": "status",
            "requestKind": kind, "requestResource": resource, "requestSubResource": "status",
            "name": "a", "operation": "UPDATE",
            "userInfo": {
                "username": user, "uid": "s1", "groups": ["system:serviceaccounts"],
                "extra": {
                    "authentication.kubernetes.io/pod-name": ["agent-x"],
                    "authentication.kubernetes.io/pod-uid": ["u1"],
                },
            },
            "object": object("Off", verdict), "oldObject": object("On", "Safe"),
            "dryRun": false, "options": {"kind": "PatchOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    })
}

async fn post_to(router: Router, body: Vec<u8>) -> (StatusCode, Value) {
    post_at(NODES, router, body).await
}

async fn post_at(path: &str, router: Router, body: Vec<u8>) -> (StatusCode, Value) {
    let request = Request::post(path).body(Body::from(body)).unwrap();
    let response = router.oneshot(request).await.unwrap();
    let status = response.status();
    let body = to_bytes(response.into_body(), BODY_LIMIT).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

async fn answer(asked: &mut Asked, status: u16, body: Value) {
    answer_at("/api/v1/namespaces/sluice-system/pods/agent-x", asked, status, body).await;
}

async fn answer_at(path: &str, asked: &mut Asked, status: u16, body: Value) {
    let (request, respond) = asked.next_request().await.unwrap();
    assert_eq!(request.uri().path(), path);
    let body = ClientBody::from(serde_json::to_vec(&body).unwrap());
    respond.send_response(axum::http::Response::builder().status(status).body(body).unwrap());
}

fn pod(node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "agent-x", "uid": "u1"},
        "spec": {"nodeName": node, "serviceAccountName": "sluice-agent", "containers": []},
    })
}

fn counted(metrics: &Metrics, result: &str) -> bool {
    let line = format!("sluice_webhook_requests_total{{result=\"{result}\"}} 1\n");
    metrics.encode().unwrap().contains(&line)
}

#[tokio::test]
async fn the_pod_is_looked_up_and_decides() {
    let status = |code: u16, reason: &str| {
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
               "message": "no", "reason": reason, "code": code})
    };
    for (code, body, allowed, result, reason) in [
        (200, pod("a"), true, "allowed", ""),
        (200, pod("b"), false, "denied", "OtherNode"),
        (404, status(404, "NotFound"), false, "denied", "PodGone"),
        (403, status(403, "Forbidden"), false, "failed", "PodUnknown"),
        (500, status(500, "InternalError"), false, "failed", "PodUnknown"),
    ] {
        let (router, mut asked, metrics) = webhook();
        let body = async { answer(&mut asked, code, body).await };
        let review = serde_json::to_vec(&review(AGENT, "Safe")).unwrap();
        let ((http, verdict), ()) = tokio::join!(post_to(router, review), body);
        assert_eq!(http, StatusCode::OK);
        assert_eq!(verdict["apiVersion"], "admission.k8s.io/v1");
        let response = &verdict["response"];
        assert_eq!((&response["uid"], &response["allowed"]), (&json!("r1"), &json!(allowed)));
        assert!(counted(&metrics, result), "{verdict}");
        let message = response["status"]["message"].as_str().unwrap_or_default();
        assert_eq!(message.contains(&format!("({reason})")), !allowed, "{verdict}");
        if !allowed {
            let code = if result == "failed" { 503 } else { 403 };
            assert_eq!(response["status"]["code"], code, "{verdict}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_apiserver_that_does_not_answer_is_a_refusal_in_time() {
    let (router, mut asked, metrics) = webhook();
    let started = tokio::time::Instant::now();
    let review = serde_json::to_vec(&review(AGENT, "Safe")).unwrap();
    let (verdict, _unanswered) = tokio::join!(post_to(router, review), asked.next_request());
    assert_eq!(verdict.1["response"]["allowed"], false);
    assert!(started.elapsed() < Duration::from_secs(5), "the apiserver has given up by then");
    assert!(counted(&metrics, "failed"));
}

#[tokio::test]
async fn nothing_is_looked_up_for_others_or_for_what_is_wrong_anyway() {
    for (user, verdict, allowed) in [("admin", "Blocks", true), (AGENT, "Blocks", false)] {
        let (router, mut asked, _) = webhook();
        let review = serde_json::to_vec(&review(user, verdict)).unwrap();
        let (_, answer) = post_to(router, review).await;
        assert_eq!(answer["response"]["allowed"], allowed, "{answer}");
        // The webhook and its client are gone: whatever was asked would be here.
        assert!(asked.next_request().await.is_none());
    }
}

/// A review of a policy that is created, or changed where there is an old spec.
fn policy(old: Option<Value>, new: Value) -> Vec<u8> {
    let kind = json!({"group": "sluice.dev", "version": "v1alpha1", "kind": "StreamingPolicy"});
    let resource =
        json!({"group": "sluice.dev", "version": "v1alpha1", "resource": "streamingpolicies"});
    let object = |spec: Value| {
        json!({
            "apiVersion": "sluice.dev/v1alpha1", "kind": "StreamingPolicy",
            "metadata": {"name": "gate"}, "spec": spec,
        })
    };
    let review = json!({
        "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "r1", "kind": kind, "resource": resource, "requestKind": kind,
            "requestResource": resource, "name": "gate",
            "operation": if old.is_some() { "UPDATE" } else { "CREATE" },
            "userInfo": {"username": "admin", "groups": ["system:masters"]},
            "object": object(new), "oldObject": old.map(object), "dryRun": false,
        },
    });
    serde_json::to_vec(&review).unwrap()
}

fn nodes(verdict: &str) -> Value {
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {},
        "columnDefinitions": [{"name": "Name"}, {"name": "Verdict"}],
        "rows": [{"cells": ["old1", verdict]}],
    })
}

#[tokio::test]
async fn a_policy_is_held_against_the_nodes() {
    let list = "/apis/sluice.dev/v1alpha1/streamingnodes";
    let disabled = json!({"streamingProxyRedirects": "Disabled"});
    let managed = json!({
        "apply": "StaticPod",
        "overrides": [{"node": "typo", "reason": "r", "expires": "2999-01-01T00:00:00Z"}],
    });
    for (spec, code, body, allowed, told) in [
        (&disabled, 200, nodes("Safe"), true, ""),
        (&disabled, 200, nodes("Blocks"), true, "1 of 1 nodes stands in the way"),
        (&disabled, 500, json!({}), true, "Which nodes stand in the way could not be judged"),
        (&managed, 200, nodes("Safe"), false, "no such node: typo"),
        (&managed, 500, json!({}), true, "apply: StaticPod turns nothing"),
    ] {
        let (router, mut asked, metrics) = webhook();
        let script = answer_at(list, &mut asked, code, body);
        let review = policy(None, spec.clone());
        let ((http, answer), ()) = tokio::join!(post_at(POLICIES, router, review), script);
        assert_eq!(http, StatusCode::OK);
        let response = &answer["response"];
        assert_eq!(response["allowed"], allowed, "{answer}");
        let said = match allowed {
            true => response["warnings"][0].as_str().unwrap_or_default(),
            false => response["status"]["message"].as_str().unwrap(),
        };
        assert!(said.contains(told) && said.is_empty() == told.is_empty(), "{answer}");
        assert_eq!(response.get("warnings").is_some(), allowed && !told.is_empty(), "{answer}");
        assert!(counted(&metrics, if allowed { "allowed" } else { "denied" }), "{answer}");
        if !allowed {
            assert_eq!(response["status"]["code"], 403);
            assert!(said.ends_with(" (OverrideWithoutNode)"), "{said}");
        }
    }
}

#[tokio::test]
async fn nodes_are_not_read_for_a_policy_that_needs_none() {
    let disabled = json!({"streamingProxyRedirects": "Disabled"});
    for (old, new) in [
        (None, json!({"proxy": {}})),
        (Some(disabled.clone()), disabled),
        // Not ours to judge: of another version, or against the schema.
        (None, json!({"streamingProxyRedirects": "Perhaps"})),
        (None, json!("text")),
        (None, Value::Null),
    ] {
        let (router, mut asked, _) = webhook();
        let (_, answer) = post_at(POLICIES, router, policy(old, new)).await;
        let response = &answer["response"];
        assert!(response["allowed"] == true && response.get("warnings").is_none(), "{answer}");
        assert!(asked.next_request().await.is_none());
    }
}

#[tokio::test]
async fn what_is_no_review_is_no_permission() {
    let too_much = vec![b' '; BODY_LIMIT + 1];
    let no_request = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"});
    let mut odd = review("admin", "Safe");
    odd["request"]["operation"] = json!("CONJURE");
    for (body, expected) in [
        (Vec::new(), StatusCode::BAD_REQUEST),
        (b"{}".to_vec(), StatusCode::BAD_REQUEST),
        (serde_json::to_vec(&no_request).unwrap(), StatusCode::BAD_REQUEST),
        (serde_json::to_vec(&odd).unwrap(), StatusCode::BAD_REQUEST),
        (too_much, StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let (router, _asked, metrics) = webhook();
        let (status, _) = post_to(router, body).await;
        assert_eq!(status, expected);
        assert!(counted(&metrics, "malformed"));
    }
}
