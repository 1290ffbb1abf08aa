//! How long something new waits in a connection that is full: a stream that kubectl opens within a
//! port-forward, for which it has 30 s.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use sluice::relay::Limits;

use crate::{
    Plan,
    contender::Contender,
    report::{Table, ratio},
    role::Process,
    server::{MARK, write_marked},
    stream::open,
};

pub fn measure(plan: &Plan, backend: &Process) -> Vec<Table> {
    let mut table = Table::new(
        "something new in a full stream, seconds until it arrives",
        &["to_client_s", "to_runtime_s"],
    );
    for (name, rate) in [
        ("16 KiB/s", 16 << 10),
        ("100 KiB/s", 100 << 10),
        ("500 KiB/s", 500 << 10),
        ("1 MiB/s", 1 << 20),
        ("4 MiB/s", 4 << 20),
        ("16 MiB/s", 16 << 20),
    ] {
        let contender = Contender::sluice("Sluice", backend, Limits { connection: rate, node: 0 });
        let (address, full) = (contender.address, plan.saturation);
        let (to_client, to_runtime) = thread::scope(|scope| {
            let down = scope.spawn(move || to_client(address, full));
            let up = scope.spawn(move || to_runtime(address, full));
            (down.join().unwrap(), up.join().unwrap())
        });
        table.row(name, [to_client, to_runtime].map(|delay| ratio(delay.as_secs_f64())));
    }
    vec![table]
}

/// The server writes as fast as it can; asked for a mark, it writes one.
fn to_client(address: SocketAddr, full: Duration) -> Duration {
    let mut stream = open(address, "marked-source");
    let mut asks = stream.try_clone().unwrap();
    let asked = thread::spawn(move || {
        thread::sleep(full);
        asks.write_all(b"?").unwrap();
        Instant::now()
    });
    let mut block = vec![0; 64 << 10];
    loop {
        let length = stream.read(&mut block).unwrap();
        if block[..length].contains(&MARK) {
            let arrived = Instant::now();
            return arrived - asked.join().unwrap();
        }
    }
}

/// The client writes as fast as it can; the server answers a mark.
fn to_runtime(address: SocketAddr, full: Duration) -> Duration {
    let mut stream = open(address, "marked-sink");
    let mut writer = stream.try_clone().unwrap();
    let marked = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| write_marked(&mut writer, &marked));
        thread::sleep(full);
        let asked = Instant::now();
        marked.store(true, Ordering::SeqCst);
        stream.read_exact(&mut [0]).unwrap();
        let delay = asked.elapsed();
        stream.shutdown(std::net::Shutdown::Both).unwrap();
        delay
    })
}
