//! `POST /validate/streamingnodes`: an AdmissionReview comes in, looks up the token's pod where the
//! rule needs it, and goes out with the verdict.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    core::{
        DynamicObject, Status,
        admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, Operation},
    },
};
use serde_json::Value;

use super::rule::{self, Accounts, Ask, Denial, Found};
use crate::controller::metrics::{Admission, Metrics};

/// Where reviews are sent.
pub const PATH: &str = "/validate/streamingnodes";

/// A review holds the object before and after, each of which etcd keeps below 1.5 MiB.
const BODY_LIMIT: usize = 3 << 20;

/// How long the body of a request may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the apiserver may take to show the pod. Both limits together with some time on the way
/// stay below the 5 s for which the chart has the apiserver wait for a verdict; a body that takes
/// long to arrive is not the apiserver's.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);

/// Answers reviews; clones share everything.
#[derive(Clone)]
pub struct Reviewer(Arc<Inner>);

struct Inner {
    accounts: Accounts,
    pods: Api<Pod>,
    metrics: Metrics,
}

impl Reviewer {
    /// A reviewer of what these accounts do. The client must not retry: a verdict cannot wait.
    pub fn new(accounts: Accounts, client: kube::Client, metrics: Metrics) -> Self {
        let pods = Api::namespaced(client, &accounts.namespace);
        Self(Arc::new(Inner { accounts, pods, metrics }))
    }

    async fn judge(&self, request: &AdmissionRequest<DynamicObject>) -> Result<(), Denial> {
        let nothing = BTreeMap::new();
        let [old, new] = [&request.old_object, &request.object].map(plain);
        let asked = rule::Request {
            user: request.user_info.username.as_deref().unwrap_or_default(),
            extra: request.user_info.extra.as_ref().unwrap_or(&nothing),
            operation: match request.operation {
                Operation::Create => rule::Operation::Create,
                Operation::Update => rule::Operation::Update,
                Operation::Delete => rule::Operation::Delete,
                Operation::Connect => rule::Operation::Other,
            },
            subresource: request.sub_resource.as_deref().unwrap_or_default(),
            name: &request.name,
            old: old.as_ref(),
            new: new.as_ref(),
        };
        match rule::ask(&self.0.accounts, &asked)? {
            Ask::Nothing => Ok(()),
            Ask::Pod(named, account) => {
                let found = self.look_up(&named.name).await;
                rule::judge(account, &request.name, &named, &found)
            }
        }
    }

    /// Asks the apiserver itself: a standby watches no pods, and a cache could be behind.
    async fn look_up(&self, pod: &str) -> Found {
        match tokio::time::timeout(LOOKUP_TIMEOUT, self.0.pods.get_opt(pod)).await {
            Ok(Ok(None)) => Found::Nothing,
            Ok(Ok(Some(pod))) => {
                let spec = pod.spec.unwrap_or_default();
                Found::Pod(rule::Pod {
                    uid: pod.metadata.uid.unwrap_or_default(),
                    account: spec.service_account_name.unwrap_or_default(),
                    node: spec.node_name,
                })
            }
            Ok(Err(error)) => Found::Unknown(format!("the apiserver says: {error}")),
            Err(_) => Found::Unknown(format!("no answer within {LOOKUP_TIMEOUT:?}")),
        }
    }

    async fn review(&self, body: &[u8]) -> Result<AdmissionReview<DynamicObject>, String> {
        let review: AdmissionReview<DynamicObject> =
            serde_json::from_slice(body).map_err(|error| format!("no AdmissionReview: {error}"))?;
        let request: AdmissionRequest<DynamicObject> =
            review.try_into().map_err(|_| "the AdmissionReview holds no request".to_owned())?;
        let mut response = AdmissionResponse::from(&request);
        let result = match self.judge(&request).await {
            Ok(()) => Admission::Allowed,
            Err(denial) => {
                let (object, reason) = (&request.name, denial.reason());
                tracing::warn!(object, reason, "refused a write: {denial}");
                response.allowed = false;
                response.result = refusal(&denial);
                if denial.is_passing() { Admission::Failed } else { Admission::Denied }
            }
        };
        self.0.metrics.admission(result);
        Ok(response.into_review())
    }
}

/// The refusal as the program gets it. The apiserver puts the webhook's name before the message.
fn refusal(denial: &Denial) -> Status {
    let (code, reason) = match denial.is_passing() {
        true => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
        false => (StatusCode::FORBIDDEN, "Forbidden"),
    };
    let message = format!("{denial} ({})", denial.reason());
    Status::failure(&message, reason).with_code(code.as_u16())
}

/// An object as plain JSON; one that cannot be told so is missing.
fn plain(object: &Option<DynamicObject>) -> Option<Value> {
    serde_json::to_value(object.as_ref()?).ok()
}

/// The one page that there is.
pub fn router(reviewer: Reviewer) -> Router {
    Router::new().route(PATH, post(validate)).with_state(reviewer)
}

async fn validate(State(reviewer): State<Reviewer>, body: Body) -> Response {
    let malformed = |status: StatusCode, why: String| {
        reviewer.0.metrics.admission(Admission::Malformed);
        (status, format!("{why}\n")).into_response()
    };
    let body = match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, BODY_LIMIT)).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) => return malformed(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
        Err(_) => return malformed(StatusCode::REQUEST_TIMEOUT, "the body is late".to_owned()),
    };
    let review = match reviewer.review(&body).await {
        Ok(review) => review,
        Err(why) => return malformed(StatusCode::BAD_REQUEST, why),
    };
    match serde_json::to_vec(&review) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests;
