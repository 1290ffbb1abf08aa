//! An apiserver whose answers are written down, for tests of what only reads.

use std::{collections::BTreeMap, pin::pin};

use http::{Method, Request, Response};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tower_test::mock;

/// Gives these answers by path and query, and 404 to everything else, until its last client is gone;
/// whoever writes makes it panic.
pub fn apiserver(answers: &[(&str, u16, Value)]) -> (Client, JoinHandle<()>) {
    serve(answers, None)
}

/// The same, and whoever creates a SubjectAccessReview gets this answer.
pub fn apiserver_with(
    answers: &[(&str, u16, Value)],
    review: (u16, Value),
) -> (Client, JoinHandle<()>) {
    serve(answers, Some(review))
}

fn serve(answers: &[(&str, u16, Value)], review: Option<(u16, Value)>) -> (Client, JoinHandle<()>) {
    const REVIEWS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews?";
    let answers: BTreeMap<String, (u16, Value)> = answers
        .iter()
        .map(|(path, code, body)| ((*path).to_owned(), (*code, body.clone())))
        .collect();
    let (service, handle) = mock::pair::<Request<Body>, Response<Body>>();
    let serving = tokio::spawn(async move {
        let mut handle = pin!(handle);
        while let Some((request, respond)) = handle.next_request().await {
            let (path, missing) = (request.uri().to_string(), (404, failure(404, "NotFound")));
            let (code, body) = match &review {
                Some(review) if request.method() == Method::POST && path == REVIEWS => review,
                _ => {
                    assert_eq!(request.method(), Method::GET);
                    answers.get(&path).unwrap_or(&missing)
                }
            };
            let body = Body::from(serde_json::to_vec(body).unwrap());
            respond.send_response(Response::builder().status(*code).body(body).unwrap());
        }
    });
    (Client::new(service, "default"), serving)
}

/// The `Status` with which an apiserver refuses.
pub fn failure(code: u16, reason: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "message": reason,
        "reason": reason, "code": code})
}
