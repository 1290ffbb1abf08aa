//! How much goes through, and what it costs the one that carries it.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr},
    thread,
    time::Instant,
};

use crate::{
    Plan, contenders, median,
    report::{Table, maybe, ratio},
    role::Process,
    stream::open,
};

/// Streams at once in the last part.
const STREAMS: u64 = 8;

type Transfer = fn(SocketAddr, u64);

fn download(address: SocketAddr, bytes: u64) {
    let mut stream = open(address, &format!("source/{bytes}"));
    let mut block = vec![0; 256 << 10];
    let mut read = 0;
    while read < bytes {
        let length = stream.read(&mut block).unwrap() as u64;
        assert!(length > 0, "{address}: the stream ended after {read} of {bytes} bytes");
        read += length;
    }
}

fn upload(address: SocketAddr, bytes: u64) {
    let mut stream = open(address, "sink");
    let block = vec![0; 128 << 10];
    for _ in 0..bytes / block.len() as u64 {
        stream.write_all(&block).unwrap();
    }
    // Go's relays end both ways when one has ended; the others still bring the answer.
    stream.shutdown(Shutdown::Write).unwrap();
    let _ = stream.read(&mut [0]);
}

fn downloads(address: SocketAddr, bytes: u64) {
    thread::scope(|scope| {
        for _ in 0..STREAMS {
            scope.spawn(|| download(address, bytes / STREAMS));
        }
    });
}

pub fn measure(plan: &Plan, backend: &Process) -> Vec<Table> {
    let parts: [(&str, Transfer); 3] = [
        ("one stream to the client", download),
        ("one stream to the runtime", upload),
        ("eight streams to the client", downloads),
    ];
    let contenders = contenders(backend);
    let mut tables = Vec::new();
    for (title, transfer) in parts {
        let mut rounds = vec![(Vec::new(), Vec::new()); contenders.len()];
        for round in 0..=plan.rounds {
            for (contender, (rates, costs)) in contenders.iter().zip(&mut rounds) {
                eprintln!("  round {round}: {} at {}", contender.name, contender.address);
                let used = contender.processor();
                let started = Instant::now();
                transfer(contender.address, plan.bytes);
                let gigabytes = plan.bytes as f64 / 1e9;
                let rate = gigabytes / started.elapsed().as_secs_f64();
                // The first round is for whatever has to warm up.
                if round > 0 {
                    rates.push(rate);
                    costs.push((contender.processor() - used).as_secs_f64() / gigabytes);
                }
            }
        }
        let mut table = Table::new(title, &["GB_per_s", "cpu_s_per_GB"]);
        for (contender, (rates, costs)) in contenders.iter().zip(&rounds) {
            let cost = (contender.name != "direct").then(|| median(costs));
            table.row(contender.name, [ratio(median(rates)), maybe(cost)]);
        }
        tables.push(table);
    }
    tables
}
