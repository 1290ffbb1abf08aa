//! How much the relay costs, how exact its limits are, and what else one could put in its place.
//!
//! `cargo bench --bench relay` takes about ten minutes, `-- --quick` two; `-- --only PART` does one
//! part. The load runs on the same machine and competes with whatever carries it. Each contender is
//! a process of its own, so that what it uses can be told from the rest.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod contender;
mod delay;
mod idle;
mod limit;
mod report;
mod role;
mod server;
mod stream;
mod throughput;
#[path = "../usage.rs"]
mod usage;

use std::{path::PathBuf, time::Duration};

use serde_json::json;

use contender::Contender;
use report::Table;

/// How much is measured.
pub struct Plan {
    quick: bool,
    /// Rounds, of which the median counts; all contenders have their turn in each.
    rounds: usize,
    /// Bytes of one transfer.
    bytes: u64,
    /// Rounds of echoes.
    turns: usize,
    /// How long a limit is watched.
    watch: Duration,
    /// How long a stream is saturated before the delay behind its data is measured.
    saturation: Duration,
}

const PARTS: [&str; 5] = ["throughput", "latency", "idle", "limit", "delay"];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if role::play(&arguments) {
        return;
    }
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let only = arguments.iter().skip_while(|argument| *argument != "--only").nth(1);
    let plan = if quick {
        Plan {
            quick,
            rounds: 3,
            bytes: 512 << 20,
            turns: 15,
            watch: Duration::from_secs(2),
            saturation: Duration::from_secs(3),
        }
    } else {
        Plan {
            quick,
            rounds: 5,
            bytes: 1 << 30,
            turns: 101,
            watch: Duration::from_secs(5),
            saturation: Duration::from_secs(10),
        }
    };
    let backend = role::Process::server();
    let mut tables: Vec<Table> = Vec::new();
    for part in PARTS {
        if only.is_some_and(|only| only != part) {
            continue;
        }
        eprintln!("{part}");
        tables.extend(match part {
            "throughput" => throughput::measure(&plan, &backend),
            "latency" => stream::latency(&plan, &backend),
            "idle" => idle::measure(&plan, &backend),
            "limit" => limit::measure(&plan, &backend),
            _ => delay::measure(&plan, &backend),
        });
    }
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let report = json!({
        "made": "cargo bench --bench relay",
        "quick": quick,
        "sluice": env!("CARGO_PKG_VERSION"),
        "machine": usage::machine(),
        "load_average_at_the_end": load.split_whitespace().next(),
        "beside": contender::versions(),
        "note": "the load shares the machine with what carries it; medians over rounds",
        "tables": tables.iter().map(Table::json).collect::<Vec<_>>(),
    });
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from);
    let folder = target.join("bench");
    std::fs::create_dir_all(&folder).unwrap();
    let text = serde_json::to_string_pretty(&report).unwrap();
    std::fs::write(folder.join("relay.json"), text).unwrap();
    println!("{}", usage::machine());
    for table in &tables {
        table.print();
    }
}

/// The value in the middle.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Those that carry without a limit, started; those that are not installed are told and left out.
pub fn contenders(backend: &role::Process) -> Vec<Contender> {
    Contender::ALL.iter().filter_map(|start| start(backend)).collect()
}
