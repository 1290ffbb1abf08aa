//! How much the controller needs, and how fast it is, with thousands of nodes that a real apiserver
//! of Kubernetes 1.20.15 stores.
//!
//! `cargo bench --bench controller` takes about ten minutes, `-- --quick` one. The apiserver, etcd
//! and the load run on the same machine as the controller and compete with it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../apiserver/mod.rs"]
mod apiserver;
mod fleet;
#[path = "../replica/mod.rs"]
mod replica;
mod usage;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt};
use kube::{
    Api, Client,
    api::{PostParams, WatchEvent, WatchParams},
};
use serde_json::{Value, json};
use sluice::api::StreamingPolicy;

use apiserver::{Apiserver, Running, definitions, nodes, within};
use replica::Replica;
use usage::{Memory, machine, memory, processor};

/// Changes whose way to the policy's status is timed.
const CHANGES: usize = 120;

/// Each node reports once in so many seconds.
const HEARTBEAT: usize = 10;

/// The largest fleet that is had report: more reports than this gives a small machine cannot store.
const REPORTING: usize = 5_000;

/// How long the largest fleet may take to be judged.
const LIMIT: Duration = Duration::from_secs(600);

#[tokio::main]
async fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let sizes = if quick { vec![1_000] } else { vec![5_000, 20_000] };
    let reporting = Duration::from_secs(if quick { 10 } else { 60 });
    let mut runs = Vec::new();
    for size in sizes {
        runs.push(measure(size, reporting).await);
    }
    let report = json!({
        "made": "cargo bench --bench controller",
        "quick": quick,
        "sluice": env!("CARGO_PKG_VERSION"),
        "kubernetes": apiserver::VERSION,
        "machine": machine(),
        "note": "apiserver, etcd and the load share the machine with the controller",
        "runs": runs.iter().map(Run::json).collect::<Vec<_>>(),
    });
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from);
    let folder = target.join("bench");
    std::fs::create_dir_all(&folder).unwrap();
    let text = serde_json::to_string_pretty(&report).unwrap();
    std::fs::write(folder.join("controller.json"), text).unwrap();
    println!("{}", machine());
    for run in &runs {
        run.print();
    }
}

/// What was measured with one number of nodes.
struct Run {
    nodes: usize,
    node_bytes: usize,
    first_verdict: Duration,
    all_written: Duration,
    startup_processor: Duration,
    filled: Memory,
    resumed: Memory,
    resumed_verdict: Duration,
    latencies: Vec<Duration>,
    heartbeats: Option<Heartbeats>,
}

/// What thousands of nodes that report cost.
struct Heartbeats {
    wanted_rate: usize,
    count: usize,
    duration: Duration,
    processor: Duration,
    writes: f64,
    evaluations: f64,
    memory: Memory,
}

async fn measure(size: usize, reporting: Duration) -> Run {
    eprintln!("{size} nodes");
    let server = Apiserver::start_with(&[
        // The load is ours alone; it is the controller that is measured.
        "--enable-priority-and-fairness=false",
        "--max-requests-inflight=0",
        "--max-mutating-requests-inflight=0",
    ])
    .await;
    let client = server.client().await;
    definitions::install(&client, definitions::Schema::Shipped).await;
    nodes::control_plane(&client, "cp1").await;
    let policies: Api<StreamingPolicy> = Api::all(client.clone());
    let policy = json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "StreamingPolicy",
        "metadata": {"name": "gate"}, "spec": {"streamingProxyRedirects": "Disabled"},
    });
    let policy = serde_json::from_value(policy).unwrap();
    policies.create(&PostParams::default(), &policy).await.unwrap();
    fleet::create(&client, size).await;
    let node_bytes = fleet::stored_bytes(&client, size / 2).await;

    let started = Instant::now();
    let mut replica = Replica::start(&server, "a").await;
    within(LIMIT, "the policy has a verdict", async || {
        policies.get("gate").await.ok()?.status.map(drop)
    })
    .await;
    let first_verdict = started.elapsed();
    within(LIMIT, "every node has its object", async || {
        let written = replica.sum("sluice_writes_total{kind=\"StreamingNode\",result=\"ok\"").await;
        (written >= (size + 1) as f64).then_some(())
    })
    .await;
    let all_written = started.elapsed();
    rest(&replica).await;
    let startup_processor = processor(replica.id());
    let filled = memory(replica.id());
    eprintln!("  all written after {all_written:.1?}: {filled:.0?}");

    // A later leader finds everything as it has to be.
    apiserver::signal(&mut replica, "TERM");
    within(LIMIT, "the first replica ends", async || replica.exited()).await;
    let started = Instant::now();
    let mut replica = Replica::start(&server, "b").await;
    within(LIMIT, "the second replica judges", async || {
        (replica.sum("sluice_decisions_total").await > 0.0).then_some(())
    })
    .await;
    let resumed_verdict = started.elapsed();
    rest(&replica).await;
    let resumed = memory(replica.id());
    eprintln!("  judged anew after {resumed_verdict:.1?}: {resumed:.0?}");

    let latencies = latencies(&client, size).await;
    rest(&replica).await;
    let heartbeats = match size <= REPORTING {
        true => Some(heartbeats(&client, &mut replica, size, reporting).await),
        false => None,
    };
    Run {
        nodes: size,
        node_bytes,
        first_verdict,
        all_written,
        startup_processor,
        filled,
        resumed,
        resumed_verdict,
        latencies,
        heartbeats,
    }
}

/// Waits until the replica writes nothing any more.
async fn rest(replica: &Replica) {
    let (mut last, mut same) = (-1.0, 0);
    within(LIMIT, "the replica comes to rest", async || {
        let writes = replica.sum("sluice_writes_total").await;
        same = if writes == last { same + 1 } else { 0 };
        last = writes;
        tokio::time::sleep(Duration::from_millis(50)).await;
        (same == 20).then_some(())
    })
    .await;
}

/// The times from sending a node's new version to hearing of the policy's new status.
async fn latencies(client: &Client, size: usize) -> Vec<Duration> {
    let policies: Api<StreamingPolicy> = Api::all(client.clone());
    let start = policies.get("gate").await.unwrap().metadata.resource_version.unwrap();
    let watch = policies.watch(&WatchParams::default().timeout(290), &start).await.unwrap();
    let mut blocking = Box::pin(watch.try_filter_map(|event| async move {
        Ok(match event {
            WatchEvent::Modified(policy) => policy.status.map(|status| status.nodes.blocking),
            _ => None,
        })
    }));
    let mut times = Vec::new();
    for change in 0..CHANGES {
        // One node ages, and is upgraded again; a prime spreads them over the fleet.
        let node = fleet::name(change / 2 * 7919 % size);
        let (version, expected) =
            if change % 2 == 0 { (fleet::OLD, 1) } else { (fleet::MODERN, 0) };
        let started = Instant::now();
        nodes::upgrade(client, &node, version).await;
        while blocking.next().await.unwrap().unwrap() != expected {}
        times.push(started.elapsed());
    }
    times.sort();
    times
}

async fn heartbeats(
    client: &Client,
    replica: &mut Replica,
    size: usize,
    duration: Duration,
) -> Heartbeats {
    let wanted_rate = size / HEARTBEAT;
    let writes = replica.sum("sluice_writes_total").await;
    let evaluations = replica.sum("sluice_evaluations_total").await;
    let used = processor(replica.id());
    let started = Instant::now();
    let count = fleet::heartbeats(client, size, wanted_rate, duration).await;
    let duration = started.elapsed();
    eprintln!("  {count} heartbeats in {duration:.0?}");
    Heartbeats {
        wanted_rate,
        count,
        duration,
        processor: processor(replica.id()) - used,
        writes: replica.sum("sluice_writes_total").await - writes,
        evaluations: replica.sum("sluice_evaluations_total").await - evaluations,
        memory: memory(replica.id()),
    }
}

impl Heartbeats {
    fn rate(&self) -> f64 {
        self.count as f64 / self.duration.as_secs_f64()
    }

    /// Percent of a core, as it was.
    fn percent(&self) -> f64 {
        100.0 * self.processor.as_secs_f64() / self.duration.as_secs_f64()
    }

    /// Percent of a core at the rate that was wanted, if it was not reached.
    fn percent_at_wanted(&self) -> f64 {
        self.percent() * self.wanted_rate as f64 / self.rate()
    }
}

impl Run {
    fn quantile(&self, of_hundred: usize) -> Duration {
        self.latencies[(self.latencies.len() * of_hundred / 100).min(self.latencies.len() - 1)]
    }

    fn print(&self) {
        let row = |what: &str, value: String| println!("  {what:<44} {value}");
        let ms = |time: Duration| format!("{:.0} ms", time.as_secs_f64() * 1e3);
        let mib = |memory: Memory| format!("{:.1} MiB, peak {:.1} MiB", memory.now, memory.peak);
        println!("{} nodes of {} bytes", self.nodes, self.node_bytes);
        row("start to the first verdict", ms(self.first_verdict));
        row("start to every node's object written", ms(self.all_written));
        row("processor time until then", ms(self.startup_processor));
        row("resident after that", mib(self.filled));
        row("start to a verdict with all objects there", ms(self.resumed_verdict));
        row("resident after that", mib(self.resumed));
        let (p50, p99) = (self.quantile(50), self.quantile(99));
        let max = self.latencies[self.latencies.len() - 1];
        let times = format!("p50 {}, p99 {}, max {}", ms(p50), ms(p99), ms(max));
        row("a node's new version to the policy's status", times);
        if let Some(beats) = &self.heartbeats {
            let rate = format!("{:.0}/s of {}/s wanted", beats.rate(), beats.wanted_rate);
            row("heartbeats", rate);
            let percent = format!(
                "{:.1} % of a core, {:.1} % at the wanted rate",
                beats.percent(),
                beats.percent_at_wanted()
            );
            row("  the controller's processor", percent);
            row("  writes, evaluations", format!("{}, {}", beats.writes, beats.evaluations));
            row("  resident", mib(beats.memory));
        }
    }

    fn json(&self) -> Value {
        let ms = |time: Duration| (time.as_secs_f64() * 1e3).round();
        let mib = |memory: Memory| json!({"resident_mib": memory.now, "peak_mib": memory.peak});
        let heartbeats = self.heartbeats.as_ref().map(|beats| {
            json!({
                "wanted_per_s": beats.wanted_rate,
                "achieved_per_s": beats.rate(),
                "count": beats.count,
                "seconds": beats.duration.as_secs_f64(),
                "core_percent": beats.percent(),
                "core_percent_at_wanted_rate": beats.percent_at_wanted(),
                "writes": beats.writes,
                "evaluations": beats.evaluations,
                "memory": mib(beats.memory),
            })
        });
        json!({
            "nodes": self.nodes,
            "node_bytes": self.node_bytes,
            "first_verdict_ms": ms(self.first_verdict),
            "all_written_ms": ms(self.all_written),
            "processor_until_written_ms": ms(self.startup_processor),
            "memory_after_writing": mib(self.filled),
            "second_leader_verdict_ms": ms(self.resumed_verdict),
            "memory_of_second_leader": mib(self.resumed),
            "changes": self.latencies.len(),
            "change_to_status_ms": {
                "p50": ms(self.quantile(50)),
                "p99": ms(self.quantile(99)),
                "max": ms(self.latencies[self.latencies.len() - 1]),
            },
            "heartbeats": heartbeats,
        })
    }
}
