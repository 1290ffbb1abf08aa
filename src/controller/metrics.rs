//! What Sluice tells Prometheus.
//!
//! Every label value is a `&'static str` written in the source, so the number
//! of series is bounded by the program, never by what a cluster holds.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

mod labels;

use crate::kubernetes::{
    count::CountErrors,
    events::{CountEvents, EventResult},
};
pub use labels::{Admission, Effect, Kind, WriteResult};
use labels::{Build, KindEffect, KindResult, OfKind, Reason, Redirects, ResultOnly};

/// All metrics of the process; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    leader: Gauge,
    nodes: Family<Redirects, Gauge>,
    blocking_nodes: Gauge,
    failing_nodes: Gauge,
    safe_to_disable: Gauge,
    decisions: Family<Reason, Counter>,
    evaluations: Counter<u64, AtomicU64>,
    evaluation_duration: Histogram,
    watch_events: Family<KindEffect, Counter>,
    writes: Family<KindResult, Counter>,
    errors: Family<Reason, Counter>,
    events: Family<ResultOnly, Counter>,
    watch_healthy: Family<OfKind, Gauge>,
    admissions: Family<ResultOnly, Counter>,
    certificate_until: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Metrics of their own registry, all at zero.
    ///
    /// Series whose labels are known beforehand exist from the start, so that
    /// the first increase is one for `rate()`, too.
    #[must_use]
    pub fn new() -> Self {
        let mut inner = Inner {
            registry: Registry::with_prefix("sluice"),
            leader: Gauge::default(),
            nodes: Family::default(),
            blocking_nodes: Gauge::default(),
            failing_nodes: Gauge::default(),
            safe_to_disable: Gauge::default(),
            decisions: Family::default(),
            evaluations: Counter::default(),
            // 50 µs to 1.6 s: a handful of nodes to many thousands.
            evaluation_duration: Histogram::new(exponential_buckets(0.000_05, 2.0, 16)),
            watch_events: Family::default(),
            writes: Family::default(),
            errors: Family::default(),
            events: Family::default(),
            watch_healthy: Family::default(),
            admissions: Family::default(),
            certificate_until: Gauge::default(),
        };
        inner.register();
        let metrics = Self(Arc::new(inner));
        for kind in Kind::ALL {
            // An alarm about a watch that is not well must not ring where there is none.
            if !Kind::OPTIONAL.contains(&kind) {
                metrics.watch_healthy(kind, false);
            }
            for effect in Effect::ALL {
                drop(metrics.0.watch_events.get_or_create(&labels(kind, effect)));
            }
            for result in WriteResult::ALL {
                drop(metrics.0.writes.get_or_create(&outcome(kind, result)));
            }
        }
        for result in EventResult::ALL {
            let result = result.as_str();
            drop(metrics.0.events.get_or_create(&ResultOnly { result }));
        }
        for result in Admission::ALL {
            let result = result.as_str();
            drop(metrics.0.admissions.get_or_create(&ResultOnly { result }));
        }
        metrics
    }

    /// This process leads, or no longer does.
    pub fn leader(&self, leading: bool) {
        self.0.leader.set(i64::from(leading));
    }

    /// How many nodes there are of which it is known that they redirect, that
    /// they do not, and so on: one call for each `redirects`.
    pub fn nodes(&self, redirects: &'static str, count: usize) {
        let nodes = self.0.nodes.get_or_create(&Redirects { redirects });
        nodes.set(number(count));
    }

    /// How many nodes' execs fail now: they redirect, and an apiserver has the gate off.
    pub fn failing_nodes(&self, count: usize) {
        self.0.failing_nodes.set(number(count));
    }

    /// How many nodes stand against turning the feature gate off.
    pub fn blocking_nodes(&self, count: usize) {
        self.0.blocking_nodes.set(number(count));
    }

    /// Whether the feature gate may be turned off.
    pub fn safe_to_disable(&self, safe: bool) {
        self.0.safe_to_disable.set(i64::from(safe));
    }

    /// A decision was taken for this reason.
    pub fn decision(&self, reason: &'static str) {
        self.0.decisions.get_or_create(&Reason { reason }).inc();
    }

    /// The cluster was judged, which took this long.
    pub fn evaluated(&self, duration: Duration) {
        self.0.evaluations.inc();
        self.0.evaluation_duration.observe(duration.as_secs_f64());
    }

    /// A watch delivered something.
    pub fn watch_event(&self, kind: Kind, effect: Effect) {
        self.0.watch_events.get_or_create(&labels(kind, effect)).inc();
    }

    /// An object was written, or was not.
    pub fn write(&self, kind: Kind, result: WriteResult) {
        self.0.writes.get_or_create(&outcome(kind, result)).inc();
    }

    /// Something failed; `reason` is what the error's `reason()` says.
    pub fn error(&self, reason: &'static str) {
        self.0.errors.get_or_create(&Reason { reason }).inc();
    }

    /// A Kubernetes Event was sent, or was not.
    pub fn event(&self, result: EventResult) {
        let result = result.as_str();
        self.0.events.get_or_create(&ResultOnly { result }).inc();
    }

    /// Whether the watch of this kind is being served.
    pub fn watch_healthy(&self, kind: Kind, healthy: bool) {
        let kind = kind.as_str();
        let gauge = self.0.watch_healthy.get_or_create(&OfKind { kind });
        gauge.set(i64::from(healthy));
    }

    /// The webhook has answered a question.
    pub fn admission(&self, result: Admission) {
        let result = result.as_str();
        self.0.admissions.get_or_create(&ResultOnly { result }).inc();
    }

    /// When the webhook's certificate expires, in seconds of Unix time.
    pub fn certificate_until(&self, seconds: i64) {
        self.0.certificate_until.set(seconds);
    }

    /// All metrics in the OpenMetrics text format.
    ///
    /// # Errors
    ///
    /// When a metric cannot be written as text, which none of ours does.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut body = String::new();
        text::encode(&mut body, &self.0.registry)?;
        Ok(body)
    }
}

impl Inner {
    /// Names and explains each metric. The library adds `sluice_` in front and
    /// `_total`, `_info` and the unit behind.
    fn register(&mut self) {
        let version = env!("CARGO_PKG_VERSION");
        let registry = &mut self.registry;
        registry.register("build", "The running program's version", Info::new(Build { version }));
        registry.register("leader", "1 if this process holds the Lease", self.leader.clone());
        registry.register(
            "nodes",
            "Nodes by whether their kubelet redirects streaming requests",
            self.nodes.clone(),
        );
        registry.register(
            "blocking_nodes",
            "Nodes that stand against turning StreamingProxyRedirects off",
            self.blocking_nodes.clone(),
        );
        registry.register(
            "failing_nodes",
            "Nodes that redirect while StreamingProxyRedirects is off somewhere, so that exec fails",
            self.failing_nodes.clone(),
        );
        registry.register(
            "safe_to_disable",
            "1 if StreamingProxyRedirects may be turned off",
            self.safe_to_disable.clone(),
        );
        registry.register("decisions", "Decisions by their reason", self.decisions.clone());
        registry.register(
            "evaluations",
            "How often the cluster was judged",
            self.evaluations.clone(),
        );
        registry.register_with_unit(
            "evaluation_duration",
            "How long judging the cluster took",
            Unit::Seconds,
            self.evaluation_duration.clone(),
        );
        registry.register(
            "watch_events",
            "What watches delivered, by what it changed",
            self.watch_events.clone(),
        );
        registry.register("writes", "Writes to the apiserver by their result", self.writes.clone());
        registry.register("errors", "Errors by their reason", self.errors.clone());
        registry.register(
            "events",
            "Kubernetes Events by what became of them",
            self.events.clone(),
        );
        registry.register(
            "watch_healthy",
            "1 while the watch of this kind is being served",
            self.watch_healthy.clone(),
        );
        registry.register(
            "webhook_requests",
            "Questions to the admission webhook by their answer",
            self.admissions.clone(),
        );
        registry.register_with_unit(
            "webhook_certificate_expiration_timestamp",
            "When the webhook's certificate expires, in Unix time; 0 without one",
            Unit::Seconds,
            self.certificate_until.clone(),
        );
    }
}

fn labels(kind: Kind, effect: Effect) -> KindEffect {
    KindEffect { kind: kind.as_str(), effect: effect.as_str() }
}

fn outcome(kind: Kind, result: WriteResult) -> KindResult {
    KindResult { kind: kind.as_str(), result: result.as_str() }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl CountErrors for Metrics {
    fn error(&self, reason: &'static str) {
        Self::error(self, reason);
    }
}

impl CountEvents for Metrics {
    fn event(&self, result: EventResult) {
        Self::event(self, result);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels() {
        let metrics = Metrics::new();
        metrics.leader(true);
        metrics.nodes("never", 3);
        metrics.blocking_nodes(2);
        metrics.failing_nodes(1);
        metrics.safe_to_disable(false);
        metrics.decision("NodesMayRedirect");
        metrics.evaluated(Duration::from_millis(1));
        metrics.watch_event(Kind::Node, Effect::Changed);
        metrics.write(Kind::StreamingPolicy, WriteResult::Conflict);
        metrics.error("LeaseTimeout");
        metrics.event(EventResult::Dropped);
        metrics.watch_healthy(Kind::Node, true);
        metrics.admission(Admission::Denied);
        metrics.certificate_until(1_800_000_000);
        let text = metrics.encode().unwrap();
        for line in [
            concat!("sluice_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "sluice_leader 1",
            "sluice_nodes{redirects=\"never\"} 3",
            "sluice_blocking_nodes 2",
            "sluice_failing_nodes 1",
            "sluice_safe_to_disable 0",
            "sluice_decisions_total{reason=\"NodesMayRedirect\"} 1",
            "sluice_evaluations_total 1",
            "sluice_evaluation_duration_seconds_count 1",
            "sluice_watch_events_total{kind=\"Node\",effect=\"changed\"} 1",
            "sluice_watch_events_total{kind=\"Node\",effect=\"malformed\"} 0",
            "sluice_writes_total{kind=\"StreamingPolicy\",result=\"conflict\"} 1",
            "sluice_errors_total{reason=\"LeaseTimeout\"} 1",
            "sluice_events_total{result=\"dropped\"} 1",
            "sluice_watch_healthy{kind=\"Node\"} 1",
            "sluice_watch_healthy{kind=\"StreamingNode\"} 0",
            "sluice_webhook_requests_total{result=\"denied\"} 1",
            "sluice_webhook_requests_total{result=\"allowed\"} 0",
            "sluice_webhook_certificate_expiration_timestamp_seconds 1800000000",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} in:\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        crate::docs::assert_metrics("The controller", &text);
    }

    #[test]
    fn clones_share_their_numbers() {
        let metrics = Metrics::new();
        metrics.clone().leader(true);
        assert!(metrics.encode().unwrap().contains("sluice_leader 1\n"));
    }
}
