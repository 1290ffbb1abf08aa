//! Tables as apiservers make them.

use http::Response;
use kube::client::Body;
use serde_json::{Value, json};
use tower_test::mock::{self, Handle};

use super::*;

type Asked = Handle<Request<Body>, Response<Body>>;

fn scripted() -> (Verdicts, Asked, Metrics) {
    let (service, handle) = mock::pair();
    let metrics = Metrics::new();
    (Verdicts::new(Client::new(service, "default"), metrics.clone()), handle, metrics)
}

/// A table with the columns of our definitions, as far as anybody looks.
fn table(rows: &[(&str, Value)], more: Option<&str>) -> Value {
    let rows: Vec<_> = rows
        .iter()
        .map(|(name, verdict)| json!({"cells": [name, 2, verdict, "3d"], "object": null}))
        .collect();
    let columns: Vec<_> = ["Name", "Skew", "Verdict", "Age"]
        .iter()
        .map(|name| {
            json!({
                "name": name, "type": "string", "format": "", "description": "", "priority": 0,
            })
        })
        .collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": "7", "continue": more},
        "columnDefinitions": columns, "rows": rows,
    })
}

/// Answers the next question; tells what was asked.
async fn answer(asked: &mut Asked, status: u16, body: Value) -> String {
    let (request, respond) = asked.next_request().await.unwrap();
    assert_eq!(request.headers()[ACCEPT], TABLE);
    let body = Body::from(serde_json::to_vec(&body).unwrap());
    respond.send_response(Response::builder().status(status).body(body).unwrap());
    request.uri().to_string()
}

#[tokio::test]
async fn a_table_is_asked_for_and_read() {
    let (verdicts, mut asked, _) = scripted();
    let rows = [("a", json!("Safe")), ("b", json!("Blocks")), ("c", Value::Null), ("d", json!(1))];
    let answered = answer(&mut asked, 200, table(&rows, None));
    let (nodes, uri) = tokio::join!(verdicts.read(), answered);
    let path = "/apis/sluice.dev/v1alpha1/streamingnodes";
    assert_eq!(uri, format!("{path}?includeObject=None&limit=500&resourceVersion=0"));
    let expected = [("a", "Safe"), ("b", "Blocks"), ("c", ""), ("d", "")];
    let judged = |verdict: &str| Judged { verdict: verdict.to_owned(), provider: None };
    let expected = expected.map(|(name, verdict)| (name.to_owned(), judged(verdict)));
    assert_eq!(nodes, Nodes::Seen(expected.into()));
}

#[tokio::test]
async fn a_column_that_an_older_definition_lacks_is_read_where_it_is() {
    let (verdicts, mut asked, _) = scripted();
    let table = json!({
        "columnDefinitions": [{"name": "Name"}, {"name": "Verdict"}, {"name": "Provider"}],
        "rows": [{"cells": ["a", "Blocks", "kwok"]}, {"cells": ["b", "Safe", null]}],
    });
    let (nodes, _) = tokio::join!(verdicts.read(), answer(&mut asked, 200, table));
    let Nodes::Seen(nodes) = nodes else { panic!("{nodes:?}") };
    let providers = nodes.into_values().map(|judged| judged.provider).collect::<Vec<_>>();
    assert_eq!(providers, [Some("kwok".to_owned()), None]);
}

#[tokio::test]
async fn pages_follow_each_other() {
    let (verdicts, mut asked, _) = scripted();
    let script = async {
        answer(&mut asked, 200, table(&[("a", json!("Safe"))], Some("eyJ2-_x"))).await;
        answer(&mut asked, 200, table(&[("b", json!("Safe"))], Some(""))).await
    };
    let (nodes, second) = tokio::join!(verdicts.read(), script);
    let Nodes::Seen(nodes) = nodes else { panic!("{nodes:?}") };
    assert_eq!(nodes.into_keys().collect::<Vec<_>>(), ["a", "b"]);
    // A version beside a token is refused.
    assert!(
        second.ends_with("&continue=eyJ2-_x") && !second.contains("resourceVersion"),
        "{second}"
    );
}

#[tokio::test]
async fn what_is_no_answer_tells_why() {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                        "message": "not for you", "reason": "Forbidden", "code": 403});
    let mut columns = table(&[], None);
    columns["columnDefinitions"].as_array_mut().unwrap().remove(2);
    let list = json!({"kind": "StreamingNodeList", "apiVersion": "sluice.dev/v1alpha1",
                      "metadata": {}, "items": []});
    for (code, body, reason, told) in [
        (403, status, "VerdictsRequest", "not for you"),
        (200, columns, "VerdictsColumn", "the CRD of StreamingNodes has no column Verdict"),
        (200, list, "VerdictsMalformed", "something else than a table"),
    ] {
        let (verdicts, mut asked, metrics) = scripted();
        let (nodes, _) = tokio::join!(verdicts.read(), answer(&mut asked, code, body));
        let Nodes::Unseen(why) = nodes else { panic!("{nodes:?}") };
        assert!(why.contains(told), "{why}");
        let counted = format!("sluice_errors_total{{reason=\"{reason}\"}} 1\n");
        assert!(metrics.encode().unwrap().contains(&counted), "{reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_apiserver_that_does_not_answer_is_not_waited_for_by_anybody() {
    let (verdicts, mut asked, _) = scripted();
    let started = tokio::time::Instant::now();
    // The second waits for the first, and no longer than that may have.
    let (first, second, _unanswered) =
        tokio::join!(verdicts.read(), verdicts.read(), asked.next_request());
    for nodes in [first, second] {
        assert_eq!(nodes, Nodes::Unseen("the apiserver did not answer within 3s".to_owned()));
    }
    assert!(started.elapsed() < Duration::from_secs(5), "the apiserver has given up by then");
}
