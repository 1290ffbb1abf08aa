//! Kubernetes Events about cluster-scoped objects.
//!
//! They are core/v1 Events in the namespace `default` whose `involvedObject`
//! has no namespace and whose `eventTime` is unset. An apiserver of 1.20
//! refuses what kube's own recorder sends for such objects: with an `eventTime`
//! it demands the namespace `kube-system` (`legacyValidateEvent` in its
//! `pkg/apis/core/validation/events.go`).
//!
//! Events are for people and may be lost; the engine never waits for one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::count::CountErrors;

/// Where Events about cluster-scoped objects are kept, as in client-go's
/// `tools/record/event.go` (`makeEvent`).
const NAMESPACE: &str = "default";

/// Who reports, as `kubectl describe` shows it.
const COMPONENT: &str = "sluice";

/// The longest message in bytes; newer apiservers refuse longer ones.
const MESSAGE_LIMIT: usize = 1024;

/// The longest name of an object in bytes (a DNS subdomain, RFC 1123).
const NAME_LIMIT: usize = 253;

/// How many Events may wait to be sent.
const QUEUE: usize = 256;

/// How long one request may take before the next Event has its turn.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Why an Event was not created.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The apiserver refused it or could not be reached.
    #[error("cannot create an Event: {0}")]
    Request(#[from] kube::Error),
    /// The apiserver did not answer in time.
    #[error("cannot create an Event: no answer within {REQUEST_TIMEOUT:?}")]
    Timeout,
}

impl Error {
    /// The error's kind as a metric label.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Request(_) => "EventRequest",
            Self::Timeout => "EventTimeout",
        }
    }
}

/// The cluster-scoped object that an Event is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Regarding {
    /// Such as `v1` or `sluice.dev/v1alpha1`.
    pub api_version: String,
    /// Such as `Node`.
    pub kind: String,
    /// The object's name.
    pub name: String,
    /// The object's UID, by which `kubectl describe` finds its Events.
    pub uid: Option<String>,
    /// The version of the object that the Event was caused by.
    pub resource_version: Option<String>,
}

/// Whether an Event tells of the expected or of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Information.
    Normal,
    /// Somebody might want to look into it.
    Warning,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRecord {
    /// To which object.
    pub regarding: Regarding,
    /// How bad it is: the Event's `type`.
    pub severity: Severity,
    /// Why, in one word for programs, such as `NodesMayRedirect`.
    pub reason: String,
    /// Why, in a sentence for people; cut after 1024 bytes.
    pub message: String,
}

/// What became of a Kubernetes Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventResult {
    /// The apiserver has it.
    Created,
    /// The apiserver refused it or could not be reached.
    Failed,
    /// It was thrown away, because too many were waiting or the process ended.
    Dropped,
}

impl EventResult {
    /// Each.
    pub const ALL: [Self; 3] = [Self::Created, Self::Failed, Self::Dropped];

    /// Its name as a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
        }
    }
}

/// Counts what becomes of Events, and the requests that failed.
pub trait CountEvents: CountErrors {
    /// One more.
    fn event(&self, result: EventResult);
}

/// Sends Events, one after the other, in a task of its own.
#[derive(Debug)]
pub struct Publisher<C> {
    queue: mpsc::Sender<(EventRecord, Timestamp)>,
    worker: JoinHandle<()>,
    /// How many are in the queue or being sent.
    waiting: Arc<AtomicUsize>,
    counts: C,
}

impl<C: CountEvents> Publisher<C> {
    /// Starts the sending task; must be called within a tokio runtime.
    ///
    /// `instance` names this process, such as its Pod. What becomes of each
    /// Event is counted in `counts`.
    #[must_use]
    pub fn new(client: Client, instance: String, counts: C) -> Self {
        let (queue, records) = mpsc::channel(QUEUE);
        let waiting = Arc::new(AtomicUsize::new(0));
        let sender = Sender {
            api: Api::namespaced(client, NAMESPACE),
            instance,
            waiting: waiting.clone(),
            counts: counts.clone(),
        };
        Self { queue, worker: tokio::spawn(sender.run(records)), waiting, counts }
    }

    /// Has an Event sent at the next opportunity. Never waits: with 256 of
    /// them waiting already, it is dropped and counted.
    pub fn publish(&self, record: &EventRecord) {
        let item = (record.clone(), Timestamp::now());
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if self.queue.try_send(item).is_err() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.counts.event(EventResult::Dropped);
            tracing::debug!(reason = record.reason, "too many events waiting");
        }
    }

    /// Sends what is waiting, for at most `limit`; the rest is dropped and counted.
    pub async fn drain(self, limit: Duration) {
        let Self { queue, mut worker, waiting, counts } = self;
        // The task ends by itself when it has emptied the queue.
        drop(queue);
        if tokio::time::timeout(limit, &mut worker).await.is_err() {
            worker.abort();
            // The outcome is known; what matters is that it counts no more.
            let _ = worker.await;
            for _ in 0..waiting.load(Ordering::Relaxed) {
                counts.event(EventResult::Dropped);
            }
        }
    }
}

/// The sending task's part.
struct Sender<C> {
    api: Api<Event>,
    instance: String,
    waiting: Arc<AtomicUsize>,
    counts: C,
}

impl<C: CountEvents> Sender<C> {
    async fn run(self, mut records: mpsc::Receiver<(EventRecord, Timestamp)>) {
        let mut last = Timestamp::MIN;
        while let Some((record, time)) = records.recv().await {
            // The name carries the time, so no two may be the same.
            let tick = last.checked_add(SignedDuration::from_nanos(1));
            let unique = tick.map_or(time, |tick| time.max(tick));
            last = unique;
            let event = event(&record, &self.instance, time, unique);
            let result = create(&self.api, &event).await;
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            match result {
                Ok(()) => self.counts.event(EventResult::Created),
                Err(error) => {
                    self.counts.event(EventResult::Failed);
                    self.counts.error(error.reason());
                    tracing::warn!(%error, reason = error.reason(), event = record.reason, "event lost");
                }
            }
        }
    }
}

async fn create(api: &Api<Event>, event: &Event) -> Result<(), Error> {
    let parameters = PostParams::default();
    match tokio::time::timeout(REQUEST_TIMEOUT, api.create(&parameters, event)).await {
        Ok(answer) => Ok(answer.map(drop)?),
        Err(_) => Err(Error::Timeout),
    }
}

fn event(record: &EventRecord, instance: &str, time: Timestamp, unique: Timestamp) -> Event {
    let regarding = &record.regarding;
    Event {
        metadata: ObjectMeta {
            namespace: Some(NAMESPACE.to_owned()),
            name: Some(name(&regarding.name, unique)),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some(regarding.api_version.clone()),
            kind: Some(regarding.kind.clone()),
            name: Some(regarding.name.clone()),
            uid: regarding.uid.clone(),
            resource_version: regarding.resource_version.clone(),
            ..ObjectReference::default()
        },
        type_: Some(
            match record.severity {
                Severity::Normal => "Normal",
                Severity::Warning => "Warning",
            }
            .to_owned(),
        ),
        reason: Some(record.reason.clone()),
        message: Some(cut(&record.message, MESSAGE_LIMIT).to_owned()),
        count: Some(1),
        first_timestamp: Some(Time(time)),
        last_timestamp: Some(Time(time)),
        source: Some(EventSource { component: Some(COMPONENT.to_owned()), host: None }),
        reporting_component: Some(COMPONENT.to_owned()),
        reporting_instance: Some(instance.to_owned()),
        ..Event::default()
    }
}

/// `<object>.<nanoseconds since 1970 in hexadecimal>`, as client-go names them,
/// but never too long for a name.
fn name(object: &str, time: Timestamp) -> String {
    let suffix = format!("{:x}", time.as_nanosecond());
    let room = NAME_LIMIT.saturating_sub(suffix.len() + 1);
    // What is cut may leave a dot or a dash at the end, where none is allowed.
    let object = cut(object, room).trim_end_matches(['.', '-']);
    format!("{object}.{suffix}")
}

/// The longest beginning of `text` that has at most `limit` bytes.
fn cut(text: &str, limit: usize) -> &str {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::metrics::Metrics;
    use http::{Method, Request, Response};
    use kube::client::Body;
    use tower_test::mock::{self, Handle};

    type Apiserver = Handle<Request<Body>, Response<Body>>;

    fn apiserver() -> (Client, Apiserver) {
        let (service, handle) = mock::pair();
        (Client::new(service, "default"), handle)
    }

    fn record(message: &str) -> EventRecord {
        EventRecord {
            regarding: Regarding {
                api_version: "sluice.dev/v1alpha1".to_owned(),
                kind: "StreamingPolicy".to_owned(),
                name: "cluster".to_owned(),
                uid: Some("1234".to_owned()),
                resource_version: None,
            },
            severity: Severity::Warning,
            reason: "NodesMayRedirect".to_owned(),
            message: message.to_owned(),
        }
    }

    fn counted(metrics: &Metrics, result: &str, count: u64) -> bool {
        let line = format!("sluice_events_total{{result=\"{result}\"}} {count}\n");
        metrics.encode().unwrap().contains(&line)
    }

    async fn answer(server: &mut Apiserver, status: u16) -> serde_json::Value {
        let (request, respond) = server.next_request().await.unwrap();
        assert_eq!(request.method(), Method::POST);
        assert_eq!(request.uri().path(), "/api/v1/namespaces/default/events");
        let body = request.into_body().collect_bytes().await.unwrap();
        let response = Response::builder().status(status);
        let answer = if status < 300 { body.to_vec() } else { b"{}".to_vec() };
        respond.send_response(response.body(Body::from(answer)).unwrap());
        serde_json::from_slice(&body).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_sent() {
        let (client, mut server) = apiserver();
        let metrics = Metrics::new();
        let publisher = Publisher::new(client, "sluice-0".to_owned(), metrics.clone());
        publisher.publish(&record("three nodes may redirect"));
        publisher.publish(&record("two nodes may redirect"));
        let first = answer(&mut server, 201).await;
        let second = answer(&mut server, 500).await;
        publisher.drain(Duration::from_secs(1)).await;

        assert_eq!(first["involvedObject"]["name"], "cluster");
        assert_eq!(first["involvedObject"].get("namespace"), None);
        assert_eq!(first.get("eventTime"), None);
        assert_eq!(first["type"], "Warning");
        assert_eq!(first["reason"], "NodesMayRedirect");
        assert_eq!(first["reportingInstance"], "sluice-0");
        assert_eq!(first["firstTimestamp"], first["lastTimestamp"]);
        assert_ne!(first["metadata"]["name"], second["metadata"]["name"]);
        assert!(counted(&metrics, "created", 1));
        assert!(counted(&metrics, "failed", 1));
        assert!(counted(&metrics, "dropped", 0));
    }

    #[tokio::test(start_paused = true)]
    async fn too_many_are_dropped_and_counted() {
        let (client, mut server) = apiserver();
        let metrics = Metrics::new();
        let publisher = Publisher::new(client, "sluice-0".to_owned(), metrics.clone());
        for _ in 0..QUEUE + 5 {
            publisher.publish(&record("again"));
        }
        assert!(counted(&metrics, "dropped", 5));
        // An apiserver that never answers holds up nothing for longer than told.
        let (request, ()) = tokio::join!(server.next_request(), async {
            publisher.drain(Duration::from_secs(3)).await;
        });
        assert!(request.is_some());
        assert!(counted(&metrics, "dropped", 5 + QUEUE as u64));
    }

    #[test]
    fn names_fit() {
        let time = Timestamp::new(1_700_000_000, 1).unwrap();
        assert_eq!(name("cluster", time), "cluster.17979cfe362a0001");
        let long = format!("{}-.{}", "a".repeat(234), "b".repeat(17));
        let cut = name(&long, time);
        assert_eq!(cut, format!("{}.17979cfe362a0001", "a".repeat(234)));
        assert!(cut.len() <= NAME_LIMIT);
    }

    #[test]
    fn messages_are_cut_between_characters() {
        assert_eq!(cut("short", 1024), "short");
        let text = format!("{}é", "a".repeat(1023));
        assert_eq!(cut(&text, 1024).len(), 1023);
    }
}
