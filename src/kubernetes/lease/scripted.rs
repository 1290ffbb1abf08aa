//! An apiserver for tests that holds one Lease and answers as it is told.

use http::{Method, Request, Response};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tower_test::mock::{self, Handle, SendResponse};

use super::candidate;

const COLLECTION: &str = "/apis/coordination.k8s.io/v1/namespaces/sluice/leases";
const OBJECT: &str = "/apis/coordination.k8s.io/v1/namespaces/sluice/leases/controller";

/// An apiserver that holds one Lease and does to requests what it is told.
pub(super) struct Scripted {
    handle: Handle<Request<Body>, Response<Body>>,
    pub(super) lease: Option<Lease>,
    version: u64,
    /// Requests that are never answered.
    pub(super) unanswered: Vec<SendResponse<Response<Body>>>,
}

/// One request, still to be answered.
pub(super) struct Received {
    pub(super) method: Method,
    pub(super) body: Vec<u8>,
    pub(super) respond: SendResponse<Response<Body>>,
}

impl Received {
    pub(super) fn fail(self, status: u16) {
        let reason = match status {
            404 => "NotFound",
            409 => "Conflict",
            503 => "ServiceUnavailable",
            _ => "InternalError",
        };
        let body = json!({"kind": "Status", "status": "Failure", "code": status, "reason": reason});
        self.answer(status, &body);
    }

    pub(super) fn answer(self, status: u16, body: &Value) {
        let body = Body::from(serde_json::to_vec(body).unwrap());
        let response = Response::builder().status(status).body(body).unwrap();
        self.respond.send_response(response);
    }
}

impl Scripted {
    pub(super) fn start() -> (Client, Self) {
        let (service, handle) = mock::pair();
        let server = Self { handle, lease: None, version: 0, unanswered: Vec::new() };
        (Client::new(service, "default"), server)
    }

    pub(super) async fn receive(&mut self) -> Received {
        let (request, respond) = self.handle.next_request().await.unwrap();
        let method = request.method().clone();
        let expected = if method == Method::POST { COLLECTION } else { OBJECT };
        assert_eq!(request.uri().path(), expected);
        let body = request.into_body().collect_bytes().await.unwrap().to_vec();
        Received { method, body, respond }
    }

    /// Receives a request and does as it asks; returns its method.
    pub(super) async fn serve(&mut self) -> Method {
        let received = self.receive().await;
        let method = received.method.clone();
        self.answer(received);
        method
    }

    pub(super) fn answer(&mut self, received: Received) {
        if let Some(status) = self.apply(&received.method, &received.body) {
            return received.fail(status);
        }
        let lease = serde_json::to_value(&self.lease).unwrap();
        received.answer(200, &lease);
    }

    /// Optimistic locking; the status of a refusal.
    pub(super) fn apply(&mut self, method: &Method, body: &[u8]) -> Option<u16> {
        let current = self.lease.as_ref().map(|lease| &lease.metadata.resource_version);
        if method == Method::GET {
            return current.is_none().then_some(404);
        }
        let lease: Lease = serde_json::from_slice(body).unwrap();
        assert_eq!(*method == Method::POST, lease.metadata.resource_version.is_none());
        match current {
            None if *method == Method::PUT => return Some(404),
            Some(_) if *method == Method::POST => return Some(409),
            Some(version) if *version != lease.metadata.resource_version => return Some(409),
            _ => self.store(lease),
        }
        None
    }

    pub(super) fn store(&mut self, mut lease: Lease) {
        self.version += 1;
        lease.metadata.resource_version = Some(self.version.to_string());
        self.lease = Some(lease);
    }

    /// Another candidate writes the Lease.
    pub(super) fn held_by(&mut self, holder: Option<&str>) {
        let mut lease = self.lease.clone().unwrap_or_default();
        lease.metadata.name = Some("controller".to_owned());
        lease.metadata.namespace = Some("sluice".to_owned());
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = holder.map(str::to_owned);
        spec.lease_duration_seconds = Some(15);
        self.store(lease);
    }

    /// Receives a request and never answers it.
    pub(super) async fn hang(&mut self) {
        let received = self.receive().await;
        self.unanswered.push(received.respond);
    }

    pub(super) fn holder(&self) -> Option<&str> {
        candidate::holder(self.lease.as_ref()?.spec.as_ref()?)
    }

    pub(super) fn transitions(&self) -> Option<i32> {
        self.lease.as_ref()?.spec.as_ref()?.lease_transitions
    }
}
