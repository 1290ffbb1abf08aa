//! How exact limits are, and how fairly they are shared.

use std::{
    io::Read,
    net::SocketAddr,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sluice::relay::Limits;

use crate::{
    Plan,
    contender::Contender,
    report::{Table, ratio},
    role::Process,
    stream::open,
};

const WINDOW: Duration = Duration::from_millis(100);

/// Streams that share a limit.
const STREAMS: usize = 100;

/// What arrives, and when.
fn arrivals(address: SocketAddr, watch: Duration) -> Vec<(Duration, usize)> {
    let mut stream = open(address, "marked-source");
    let started = Instant::now();
    let mut block = vec![0; 1 << 20];
    let mut arrivals = Vec::new();
    loop {
        let length = stream.read(&mut block).unwrap();
        let now = started.elapsed();
        if now >= watch {
            return arrivals;
        }
        arrivals.push((now, length));
    }
}

fn fullest_window(arrivals: &[(Duration, usize)]) -> usize {
    let (mut fullest, mut sum, mut first) = (0, 0, 0);
    for (now, bytes) in arrivals {
        sum += bytes;
        while *now - arrivals[first].0 >= WINDOW {
            sum -= arrivals[first].1;
            first += 1;
        }
        fullest = fullest.max(sum);
    }
    fullest
}

pub fn measure(plan: &Plan, backend: &Process) -> Vec<Table> {
    vec![accuracy(plan, backend), sharing(plan, backend)]
}

fn accuracy(plan: &Plan, backend: &Process) -> Table {
    let mut table = Table::new(
        format!("one stream with a limit, over {:?}", plan.watch),
        &["error_percent", "fullest_100ms_of_rate", "cpu_percent"],
    );
    for (name, rate) in [
        ("16 KiB/s", 16 << 10),
        ("100 KiB/s", 100 << 10),
        ("1 MiB/s", 1 << 20),
        ("4 MiB/s", 4 << 20),
        ("16 MiB/s", 16 << 20),
        ("128 MiB/s", 128 << 20),
        ("1 GiB/s", 1 << 30),
    ] {
        let contender = Contender::sluice("Sluice", backend, Limits { connection: rate, node: 0 });
        let used = contender.processor();
        let arrivals = arrivals(contender.address, plan.watch);
        let used = contender.processor() - used;
        let sum: usize = arrivals.iter().map(|(_, bytes)| bytes).sum();
        let expected = rate as f64 * plan.watch.as_secs_f64();
        let error = 100.0 * (sum as f64 / expected - 1.0);
        let fullest = fullest_window(&arrivals) as f64 / (rate as f64 * WINDOW.as_secs_f64());
        let percent = 100.0 * used.as_secs_f64() / plan.watch.as_secs_f64();
        table.row(name, [error, fullest, percent].map(ratio));
    }
    table
}

fn sharing(plan: &Plan, backend: &Process) -> Table {
    let mut table = Table::new(
        format!("{STREAMS} streams that share a limit, over {:?}", plan.watch),
        &["error_percent", "least_of_mean_percent", "most_of_mean_percent", "cpu_percent"],
    );
    for (name, rate) in [("1 MiB/s", 1 << 20), ("10 MiB/s", 10 << 20), ("200 MiB/s", 200 << 20)] {
        let contender = Contender::sluice("Sluice", backend, Limits { connection: 0, node: rate });
        let used = contender.processor();
        let start = Barrier::new(STREAMS);
        let sums: Vec<usize> = thread::scope(|scope| {
            let streams: Vec<_> = (0..STREAMS)
                .map(|_| scope.spawn(|| shared(contender.address, plan.watch, &start)))
                .collect();
            streams.into_iter().map(|stream| stream.join().unwrap()).collect()
        });
        let used = contender.processor() - used;
        let sum: usize = sums.iter().sum();
        let mean = sum as f64 / STREAMS as f64;
        let percent = |bytes: usize| 100.0 * (bytes as f64 / mean - 1.0);
        let least = percent(sums.iter().copied().min().unwrap_or(0));
        let most = percent(sums.iter().copied().max().unwrap_or(0));
        let error = 100.0 * (sum as f64 / (rate as f64 * plan.watch.as_secs_f64()) - 1.0);
        let cpu = 100.0 * used.as_secs_f64() / plan.watch.as_secs_f64();
        let row: [Value; 4] = [ratio(error), json!(round(least)), json!(round(most)), ratio(cpu)];
        table.row(name, row);
    }
    table
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// What one of many gets in a time that begins when all are there and busy.
fn shared(address: SocketAddr, watch: Duration, start: &Barrier) -> usize {
    let mut stream = open(address, "marked-source");
    let mut block = vec![0; 64 << 10];
    start.wait();
    let begun = Instant::now();
    let busy = Duration::from_millis(500);
    let mut sum = 0;
    loop {
        let length = stream.read(&mut block).unwrap();
        let now = begun.elapsed();
        if now >= busy + watch {
            return sum;
        }
        if now >= busy {
            sum += length;
        }
    }
}
