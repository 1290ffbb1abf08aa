//! What streams cost that nothing moves through.

use std::{net::SocketAddr, thread, time::Duration};

use rustix::process::{Resource, getrlimit};
use serde_json::json;
use socket2::SockRef;

use crate::{
    Plan, contenders,
    report::{Table, ratio},
    role::Process,
    stream::open,
};

/// A process has this many descriptors beside those of its streams, at most.
const OTHER: u64 = 512;

pub fn measure(plan: &Plan, backend: &Process) -> Vec<Table> {
    let counts = if plan.quick { vec![1_000] } else { vec![1_000, 10_000] };
    counts.into_iter().map(|count| table(backend, count)).collect()
}

fn table(backend: &Process, wanted: usize) -> Table {
    let mut table = Table::new(
        format!("{wanted} idle streams, or as many as there are descriptors for"),
        &["streams", "resident_MiB", "KiB_per_stream"],
    );
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    // Each a new one: memory that one had before is not given back.
    for contender in contenders(backend).into_iter().skip(1) {
        let possible = descriptors.saturating_sub(OTHER) / contender.descriptors;
        let count = wanted.min(usize::try_from(possible).unwrap_or(wanted));
        drop(open(contender.address, "echo"));
        thread::sleep(Duration::from_millis(200));
        let before = contender.resident();
        let streams: Vec<_> = (0..count)
            .map(|number| {
                // A client's ports are as many as there are for one address of the server.
                let host = [127, 0, 0, 1 + (number % 4) as u8];
                open(SocketAddr::from((host, contender.address.port())), "idle")
            })
            .collect();
        thread::sleep(Duration::from_millis(500));
        let after = contender.resident();
        let each = (after - before) / count as f64;
        table.row(contender.name, [json!(count), ratio(after / 1024.0), ratio(each)]);
        for stream in streams {
            // A proper end would keep its port for a minute, and the next one needs them.
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
        drop(open(backend.address, "forget"));
    }
    table
}
