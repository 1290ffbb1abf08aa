//! `POST /validate/streamingnodes` and `POST /validate/streamingpolicies`: an AdmissionReview comes
//! in, the apiserver is asked for what the rule needs, and the verdict goes out.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    core::{
        DynamicObject, Status,
        admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, Operation},
    },
};
use serde::Deserialize;
use serde_json::Value;

use super::{
    policy::{self, nodes::Verdicts, rule::Nodes},
    rule::{self, Accounts, Denial, Found, Question},
};
use crate::{
    api::StreamingPolicySpec,
    controller::metrics::{Admission, Metrics},
};

/// Where reviews of StreamingNodes are sent.
pub const NODES: &str = "/validate/streamingnodes";

/// Where reviews of StreamingPolicies are sent.
pub const POLICIES: &str = "/validate/streamingpolicies";

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
    verdicts: Verdicts,
    metrics: Metrics,
}

/// Why a write is refused, as whoever writes is told.
struct Refusal {
    message: String,
    reason: &'static str,
    /// Whether the same request may be allowed a moment later.
    passing: bool,
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        let (reason, passing) = (denial.reason(), denial.is_passing());
        debug_assert!(Denial::REASONS.contains(&reason), "{reason}");
        Self { message: denial.to_string(), reason, passing }
    }
}

impl From<policy::rule::Denial> for Refusal {
    fn from(denial: policy::rule::Denial) -> Self {
        let reason = denial.reason();
        debug_assert!(policy::rule::Denial::REASONS.contains(&reason), "{reason}");
        Self { message: denial.to_string(), reason, passing: false }
    }
}

type Request = AdmissionRequest<DynamicObject>;

impl Reviewer {
    /// A reviewer of policies, and of what these accounts do. The client must not retry: a verdict
    /// cannot wait.
    pub fn new(accounts: Accounts, client: kube::Client, metrics: Metrics) -> Self {
        let pods = Api::namespaced(client.clone(), &accounts.namespace);
        let verdicts = Verdicts::new(client, metrics.clone());
        Self(Arc::new(Inner { accounts, pods, verdicts, metrics }))
    }

    /// Judges a write to a StreamingNode.
    async fn node(&self, request: &Request) -> Result<Vec<String>, Refusal> {
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
            Question::Nothing => {}
            Question::Pod(named, account) => {
                let found = self.look_up(&named.name).await;
                rule::judge(account, &request.name, &named, &found)?;
            }
        }
        Ok(Vec::new())
    }

    /// Judges a write to a StreamingPolicy. What cannot be read as one is the schema's to refuse.
    async fn policy(&self, request: &Request) -> Result<Vec<String>, Refusal> {
        let old = request.old_object.as_ref().and_then(spec);
        let Some(new) = request.object.as_ref().and_then(spec) else { return Ok(Vec::new()) };
        let nodes = match policy::rule::needs_nodes(old.as_ref(), &new) {
            true => self.0.verdicts.read().await,
            false => Nodes::Seen(BTreeMap::new()),
        };
        let warnings = policy::rule::judge(old.as_ref(), &new, &nodes, Timestamp::now())?;
        Ok(warnings.iter().map(ToString::to_string).collect())
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

    async fn review(&self, of: Of, body: &[u8]) -> Result<AdmissionReview<DynamicObject>, String> {
        let review: AdmissionReview<DynamicObject> =
            serde_json::from_slice(body).map_err(|error| format!("no AdmissionReview: {error}"))?;
        let request: Request =
            review.try_into().map_err(|_| "the AdmissionReview holds no request".to_owned())?;
        let mut response = AdmissionResponse::from(&request);
        let judged = match of {
            Of::Node => self.node(&request).await,
            Of::Policy => self.policy(&request).await,
        };
        let result = match judged {
            Ok(warnings) => {
                // An apiserver before 1.19 does not know the field, and an empty list says nothing.
                response.warnings = (!warnings.is_empty()).then_some(warnings);
                Admission::Allowed
            }
            Err(refusal) => {
                let (object, reason) = (&request.name, refusal.reason);
                tracing::warn!(object, reason, "refused a write: {}", refusal.message);
                response.allowed = false;
                response.result = refusal.status();
                if refusal.passing { Admission::Failed } else { Admission::Denied }
            }
        };
        self.0.metrics.admission(result);
        Ok(response.into_review())
    }
}

impl Refusal {
    /// The refusal as the client gets it. The apiserver puts the webhook's name before the message.
    fn status(&self) -> Status {
        let (code, reason) = match self.passing {
            true => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
            false => (StatusCode::FORBIDDEN, "Forbidden"),
        };
        let message = format!("{} ({})", self.message, self.reason);
        Status::failure(&message, reason).with_code(code.as_u16())
    }
}

/// An object as plain JSON; one that cannot be told so is missing.
fn plain(object: &Option<DynamicObject>) -> Option<Value> {
    serde_json::to_value(object.as_ref()?).ok()
}

/// The spec of a policy, if it is one.
fn spec(object: &DynamicObject) -> Option<StreamingPolicySpec> {
    StreamingPolicySpec::deserialize(object.data.get("spec")?).ok()
}

/// What a review is about.
#[derive(Clone, Copy)]
enum Of {
    Node,
    Policy,
}

/// The two pages that there are.
pub fn router(reviewer: Reviewer) -> Router {
    let page =
        |of| post(move |State(reviewer): State<Reviewer>, body: Body| validate(of, reviewer, body));
    Router::new()
        .route(NODES, page(Of::Node))
        .route(POLICIES, page(Of::Policy))
        .with_state(reviewer)
}

async fn validate(of: Of, reviewer: Reviewer, body: Body) -> Response {
    let malformed = |status: StatusCode, why: String| {
        reviewer.0.metrics.admission(Admission::Malformed);
        (status, format!("{why}\n")).into_response()
    };
    let body = match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, BODY_LIMIT)).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) => return malformed(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
        Err(_) => return malformed(StatusCode::REQUEST_TIMEOUT, "the body is late".to_owned()),
    };
    let review = match reviewer.review(of, &body).await {
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
