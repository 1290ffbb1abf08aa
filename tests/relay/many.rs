//! Many streams, and what they leave behind: nothing.

use std::fs;

use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet};

use crate::stage::{ANSWER, REQUEST, Stage, alone, expect, noise, rest, soon, until};

const STREAMS: usize = 1_000;

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// What is left of a thousand streams are at most the pipes that are kept for the next.
#[test]
fn a_thousand_streams_leave_no_descriptor() {
    if !alone("many::a_thousand_streams_leave_no_descriptor", &[]) {
        return;
    }
    sluice::relay::raise_descriptors();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stage = Stage::start().await;
        round(&stage, 1).await;
        let before = descriptors();
        for _ in 0..3 {
            round(&stage, STREAMS).await;
            soon(stage.relay.drained()).await;
        }
        // A pipe of two descriptors for each thread is kept; the first round has left one.
        let kept = 2 * std::thread::available_parallelism().unwrap().get();
        until("all descriptors are closed", || descriptors() <= before + kept).await;
        assert_eq!(stage.relay.streams(), []);
        let totals = stage.relay.totals();
        assert_eq!(totals.opened.iter().sum::<u64>(), 3 * STREAMS as u64 + 1);
    });
}

/// Opens so many at once, of which some end properly, some by a reset, and some were refused.
async fn round(stage: &Stage, count: usize) {
    let mut clients = JoinSet::new();
    let mut open: Vec<(TcpStream, TcpStream)> = Vec::new();
    for _ in 0..count {
        open.push(stage.stream().await);
    }
    assert_eq!(stage.relay.streams().len(), count);
    for (number, (mut client, mut runtime)) in open.into_iter().enumerate() {
        clients.spawn(async move {
            let bytes = noise(number as u64, 10_000);
            client.write_all(&bytes).await.unwrap();
            expect(&mut runtime, &bytes).await;
            match number % 3 {
                0 => crate::stage::reset(client),
                1 => crate::stage::reset(runtime),
                _ => {
                    client.shutdown().await.unwrap();
                    rest(&mut runtime).await.1.unwrap();
                }
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_at_once() {
    let stage = Stage::start().await;
    let address = stage.address;
    let mut clients = JoinSet::new();
    for number in 0..200_u64 {
        clients.spawn(async move {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(REQUEST.as_bytes()).await.unwrap();
            expect(&mut client, ANSWER.as_bytes()).await;
            let bytes = noise(number, 100_000);
            let (mut reads, mut writes) = client.split();
            let sending = async {
                writes.write_all(&bytes).await.unwrap();
                writes.shutdown().await.unwrap();
            };
            let mut echo = Vec::new();
            let receiving = tokio::io::AsyncReadExt::read_to_end(&mut reads, &mut echo);
            let ((), received) = soon(async { tokio::join!(sending, receiving) }).await;
            received.unwrap();
            assert!(echo == bytes, "stream {number}");
        });
    }
    let mut echoes = JoinSet::new();
    for _ in 0..200 {
        let (mut runtime, _) = soon(stage.runtime.accept()).await.unwrap();
        echoes.spawn(async move {
            expect(&mut runtime, REQUEST.as_bytes()).await;
            runtime.write_all(ANSWER.as_bytes()).await.unwrap();
            let (mut reads, mut writes) = runtime.split();
            tokio::io::copy(&mut reads, &mut writes).await.unwrap();
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    while let Some(ended) = echoes.join_next().await {
        ended.unwrap();
    }
    soon(stage.relay.drained()).await;
}
