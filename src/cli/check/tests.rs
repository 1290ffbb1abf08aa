use kube::Config;
use serde_json::{Value, json};

use super::*;
use crate::canary::tests::apiserver::{Apiserver, Reply, sound};
use crate::cli::connect::Place;

const CANARIES: &str = "/api/v1/namespaces/sluice-system-canary/pods?";
const NODES: &str = "/api/v1/nodes?";
const STREAMING_NODES: &str = "/apis/sluice.dev/v1alpha1/streamingnodes?";

fn list(items: Value) -> String {
    json!({"metadata": {}, "items": items}).to_string()
}

fn nodes(names: &[&str]) -> String {
    list(names.iter().map(|name| json!({"metadata": {"name": name}})).collect())
}

/// Canaries of one name, which is all that a sound node's answer holds.
fn canaries(nodes: &[&str]) -> String {
    let pod = |node: &&str| {
        json!({
            "metadata": {"namespace": "sluice-system-canary", "name": "sluice-canary-x"},
            "spec": {"nodeName": node, "containers": []},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        })
    };
    list(nodes.iter().map(pod).collect())
}

fn blocking(names: &[&str]) -> String {
    let node = |name: &&str| {
        json!({
            "apiVersion": "sluice.dev/v1alpha1", "kind": "StreamingNode",
            "metadata": {"name": name}, "spec": {}, "status": {"verdict": "Blocks"},
        })
    };
    list(names.iter().map(node).collect())
}

fn missing() -> Reply {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404,
        "reason": "NotFound", "message": "not found"});
    Reply::Refuse(404, status.to_string())
}

/// A cluster with nodes a, b and c, of which the first two have canaries and b stands in the way.
fn cluster(asked: &str) -> Reply {
    let body = match asked {
        _ if asked.starts_with(CANARIES) => canaries(&["a", "b"]),
        _ if asked.starts_with(NODES) => nodes(&["a", "b", "c"]),
        _ if asked.starts_with(STREAMING_NODES) => blocking(&["b"]),
        _ if asked.contains("/sluice-canary-x/") => return sound(asked),
        _ => return missing(),
    };
    Reply::Refuse(200, body)
}

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn at(apiserver: &Apiserver) -> Cluster {
    let place = Place { server: apiserver.url.clone(), context: None, patience: None };
    Cluster { config: Config::new(apiserver.url.parse().unwrap()), place }
}

/// Checks through an apiserver that is named, as its endpoints cannot be.
async fn check(apiserver: &Apiserver, more: &[&str]) -> Result<CheckOutcome, Error> {
    let line = [&["check", "--apiserver", &apiserver.url][..], more].concat();
    let Line { args } = clap::Parser::parse_from(line);
    outcome(&at(apiserver), args, |_, _| ()).await
}

fn rows(outcome: &CheckOutcome) -> Vec<String> {
    let rows = serde_json::to_value(outcome.rows()).unwrap();
    let text = |row: &Value| {
        format!("{} {} {} {}", row["node"], row["exec"], row["attach"], row["portForward"])
    };
    rows.as_array().unwrap().iter().map(|row| text(row).replace('"', "")).collect()
}

#[tokio::test]
async fn every_node_is_tried_or_named() {
    let apiserver = Apiserver::start(cluster).await;
    let all = check(&apiserver, &[]).await.unwrap();
    let expected = [
        "a Answered Answered Answered",
        "b Answered Answered Answered",
        "c Untested Untested Untested",
    ];
    assert_eq!((rows(&all), all.passed()), (expected.map(str::to_owned).to_vec(), false));
    for (more, expected) in [
        (&["--node", "a"][..], "a Answered Answered Answered"),
        (&["--node", "a", "--node", "b", "--max-nodes", "1"], "b Answered Answered Answered"),
    ] {
        let some = check(&apiserver, more).await.unwrap();
        assert_eq!((rows(&some), some.passed()), (vec![expected.to_owned()], true));
    }
}

#[tokio::test]
async fn what_is_refused_is_no_error() {
    let redirects = |asked: &str| match asked {
        _ if asked.contains("/exec?") => {
            let message = "invalid upgrade response: status code 302";
            let status = json!({"kind": "Status", "message": message, "code": 500});
            Reply::Refuse(500, status.to_string())
        }
        _ => cluster(asked),
    };
    let apiserver = Apiserver::start(redirects).await;
    let outcome = check(&apiserver, &["--node", "a"]).await.unwrap();
    assert_eq!(rows(&outcome), ["a RedirectRefused Answered Answered"]);
    assert!(!outcome.passed());
}

#[tokio::test]
async fn why_nothing_is_tried() {
    let without = |left_out: &'static str, body: fn() -> Reply| {
        move |asked: &str| if asked.starts_with(left_out) { body() } else { cluster(asked) }
    };
    let empty = || Reply::Refuse(200, list(json!([])));
    for (script, more, reason) in [
        (without(CANARIES, empty), &[][..], Some("NoCanary")),
        (without(CANARIES, missing), &[], Some("Unreachable")),
        (without(NODES, missing), &[], Some("Nodes")),
        (without(NODES, empty), &["--node", "a"], Some("NoNode")),
        (without("none", missing), &["--apiserver", "cp1"], Some("ApiserverUrl")),
        // Without a controller nothing stands in the way, and that is all.
        (without(STREAMING_NODES, missing), &["--node", "a"], None),
    ] {
        let apiserver = Apiserver::start(script).await;
        let checked = check(&apiserver, more).await;
        assert_eq!(checked.err().map(|error| error.reason()), reason);
    }
    // Without --apiserver, the Service's endpoints lead the way.
    let apiserver = Apiserver::start(cluster).await;
    let Line { args } = clap::Parser::parse_from(["check"]);
    let error = outcome(&at(&apiserver), args, |_, _| ()).await.unwrap_err();
    assert_eq!(error.reason(), "Unreachable");
}
