//! What the agent tells Prometheus. The streams' numbers are the relay's own, read when they are
//! asked for. Every label value is written in the source.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
    time::Instant,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        info::Info,
    },
    registry::{Registry, Unit},
};

use tokio::sync::watch;

use super::redirect::Standing;
use crate::{
    node::status,
    relay::{Direction, Kind, Refusal, Relay},
};

/// All metrics of the process; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    draining: Gauge,
    reports: Family<ByResult, Counter<u64, AtomicU64>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByResult {
    result: &'static str,
}

impl Metrics {
    /// Metrics of a registry of their own.
    pub fn new(relay: Relay, standing: watch::Receiver<Standing>) -> Self {
        let mut registry = Registry::with_prefix("sluice_agent");
        let reports = Family::<ByResult, _>::default();
        registry.register_collector(Box::new(Relaying(standing)));
        let draining = Gauge::default();
        let help = "Open streams of this node's agents that end when these have";
        registry.register("streams_draining", help, draining.clone());
        registry.register("reports", "Reports to the StreamingNode", reports.clone());
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The program", build);
        registry.register_collector(Box::new(Streams(relay)));
        for result in status::Error::REASONS.into_iter().chain(["ok"]) {
            drop(reports.get_or_create(&ByResult { result }));
        }
        Self(Arc::new(Inner { registry, draining, reports }))
    }

    /// A report was written (`ok`), or was not (the error's reason).
    pub fn reported(&self, result: &'static str) {
        self.0.reports.get_or_create(&ByResult { result }).inc();
    }

    /// All of them as OpenMetrics text; so many streams are `draining` on this node.
    ///
    /// # Errors
    /// Never, as far as is known: the text goes to memory.
    pub fn encode(&self, draining: usize) -> Result<String, fmt::Error> {
        self.0.draining.set(i64::try_from(draining).unwrap_or(i64::MAX));
        let mut text = String::new();
        text::encode(&mut text, &self.0.registry)?;
        Ok(text)
    }
}

/// Whether streams pass through the agent, at the moment of the question: an agent whose loop hangs
/// says so no longer than the kernel's own rules last.
#[derive(Debug)]
struct Relaying(watch::Receiver<Standing>);

impl Collector for Relaying {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let gauge = ConstGauge::new(i64::from(self.0.borrow().relays(Instant::now())));
        let help = "Whether streams pass through the agent";
        gauge.encode(encoder.encode_descriptor("relaying", help, None, gauge.metric_type())?)
    }
}

/// The relay's numbers.
#[derive(Debug)]
struct Streams(Relay);

impl Collector for Streams {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let totals = self.0.totals();
        let kinds = || Kind::ALL.map(Kind::as_str).into_iter();
        let ways = || Direction::ALL.map(Direction::as_str).into_iter();
        gauges(&mut encoder, "streams_active", "Open streams", "kind", kinds().zip(totals.active))?;
        let opened = kinds().zip(totals.opened);
        counters(&mut encoder, "streams_opened", "Streams opened", None, "kind", opened)?;
        let bytes = ways().zip(totals.bytes);
        counters(&mut encoder, "stream_bytes", "Bytes carried", None, "direction", bytes)?;
        let throttled = ways().zip(totals.throttled.map(|time| time.as_secs_f64()));
        let help = "Time that streams have waited for their limits";
        let unit = Some(Unit::Seconds);
        counters(&mut encoder, "throttled", help, unit, "direction", throttled)?;
        let errors = Refusal::ALL.map(Refusal::reason).into_iter().zip(totals.refused);
        let help = "Connections that were not carried, or not to their end";
        counters(&mut encoder, "stream_errors", help, None, "reason", errors)
    }
}

fn gauges(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &str,
    values: impl Iterator<Item = (&'static str, u64)>,
) -> fmt::Result {
    let kind = prometheus_client::metrics::MetricType::Gauge;
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for (value, number) in values {
        let labels = [(label, value)];
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        ConstGauge::new(number).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn counters<N>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<Unit>,
    label: &str,
    values: impl Iterator<Item = (&'static str, N)>,
) -> fmt::Result
where
    ConstCounter<N>: EncodeMetric,
{
    let kind = prometheus_client::metrics::MetricType::Counter;
    let mut family = encoder.encode_descriptor(name, help, unit.as_ref(), kind)?;
    for (value, number) in values {
        let labels = [(label, value)];
        ConstCounter::new(number).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        agent::redirect::Want,
        api::FailurePolicy,
        relay::{RelaySettings, Upstream},
    };

    #[test]
    fn every_series_is_there_from_the_start() {
        let nowhere = "127.0.0.1:1".parse().unwrap();
        let relay = Relay::new(RelaySettings::new(Upstream::Fixed(nowhere)));
        let want = Want::Relay(FailurePolicy::Open);
        let standing = Standing { proven: Some(Instant::now()), ..Standing::new(want) };
        let (standing, stands) = watch::channel(standing);
        let metrics = Metrics::new(relay, stands);
        metrics.reported("ok");
        let text = metrics.encode(3).unwrap();
        crate::docs::assert_metrics("The agent", &text);
        // The series of a family come in any order.
        let mut series: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        series.sort_unstable();
        insta::assert_snapshot!(series.join("\n").replace(env!("CARGO_PKG_VERSION"), "VERSION"));
        assert!(series.contains(&"sluice_agent_relaying 1"));

        // Nobody has said otherwise since, and the kernel's rules have expired.
        let long_ago = Instant::now().checked_sub(Duration::from_secs(9));
        standing.send_modify(|standing| standing.proven = long_ago);
        assert!(metrics.encode(0).unwrap().contains("\nsluice_agent_relaying 0\n"));
    }
}
