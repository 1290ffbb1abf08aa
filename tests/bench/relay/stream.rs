//! Opening streams, and how long a byte is on its way.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Instant,
};

use crate::{
    Plan, contenders, median,
    report::{Table, micros},
    role::Process,
};

/// Opens a stream for something that the server knows.
pub fn open(address: SocketAddr, what: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    let request = format!(
        "POST /exec/{what} HTTP/1.1\r\nHost: node:10250\r\nContent-Length: 0\r\n\
         Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    stream
}

/// Echoes of one turn: turns are short, so that whatever else the machine does meets all alike.
const ECHOES: usize = 1_000;

/// The way of one byte there and back, sorted, in microseconds.
fn echoes(stream: &mut TcpStream) -> Vec<f64> {
    let mut byte = [7];
    let mut times: Vec<f64> = (0..ECHOES)
        .map(|_| {
            let started = Instant::now();
            stream.write_all(&byte).unwrap();
            stream.read_exact(&mut byte).unwrap();
            started.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times
}

pub fn latency(plan: &Plan, backend: &Process) -> Vec<Table> {
    let contenders = contenders(backend);
    let mut streams: Vec<_> =
        contenders.iter().map(|contender| open(contender.address, "echo")).collect();
    let mut rounds = vec![Vec::new(); contenders.len()];
    for round in 0..=plan.turns {
        for (stream, rounds) in streams.iter_mut().zip(&mut rounds) {
            let times = echoes(stream);
            // The first round is for whatever has to warm up.
            if round > 0 {
                rounds.push((times[ECHOES / 2], times[ECHOES * 99 / 100]));
            }
        }
    }
    let mut table = Table::new(
        "echo of 1 byte, in microseconds",
        &["p50_us", "p99_us", "added_p50_us", "added_p99_us"],
    );
    let medians = |rounds: &[(f64, f64)]| {
        let p50: Vec<f64> = rounds.iter().map(|(p50, _)| *p50).collect();
        let p99: Vec<f64> = rounds.iter().map(|(_, p99)| *p99).collect();
        (median(&p50), median(&p99))
    };
    let direct = medians(&rounds[0]);
    for (contender, rounds) in contenders.iter().zip(&rounds) {
        let (p50, p99) = medians(rounds);
        table.row(contender.name, [p50, p99, p50 - direct.0, p99 - direct.1].map(micros));
    }
    vec![table]
}
