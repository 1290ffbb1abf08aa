//! Limits, as far as no clock is needed; how exact they are is a benchmark.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sluice::relay::Limits;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinHandle,
};

use crate::stage::{ANSWER, REQUEST, Stage, expect, noise, soon, until};

/// At this limit a megabyte takes a quarter of an hour: whatever arrives was not held.
const SLOW: u64 = 1_000;

const MEGABYTE: usize = 1 << 20;

fn send(mut stream: TcpStream, bytes: Vec<u8>) -> JoinHandle<TcpStream> {
    tokio::spawn(async move {
        stream.write_all(&bytes).await.unwrap();
        stream
    })
}

#[tokio::test]
async fn a_limit_changes_while_a_stream_runs() {
    for limits in [Limits { connection: SLOW, node: 0 }, Limits { connection: 0, node: SLOW }] {
        let stage = Stage::start().await;
        let (client, mut runtime) = stage.stream().await;
        let bytes = noise(8, MEGABYTE);
        let client = send(client, bytes.clone()).await.unwrap();
        expect(&mut runtime, &bytes).await;

        stage.relay.set_limits(limits);
        let sender = send(client, bytes.clone());
        until("it waits for its limit", || stage.relay.streams()[0].throttled_millis > 0).await;
        assert!(stage.relay.streams()[0].to_runtime < (2 * MEGABYTE + REQUEST.len()) as u64);

        stage.relay.set_limits(Limits::default());
        expect(&mut runtime, &bytes).await;
        soon(sender).await.unwrap();
    }
}

#[tokio::test]
async fn a_limit_that_was_there_first_is_lifted() {
    for limits in [Limits { connection: SLOW, node: 0 }, Limits { connection: 0, node: SLOW }] {
        let stage = Stage::start().await;
        stage.relay.set_limits(limits);
        let (client, mut runtime) = stage.stream().await;
        let bytes = noise(9, MEGABYTE);
        let sender = send(client, bytes.clone());
        until("it waits for its limit", || stage.relay.streams()[0].throttled_millis > 0).await;
        stage.relay.set_limits(Limits::default());
        expect(&mut runtime, &bytes).await;
        soon(sender).await.unwrap();
    }
}

#[tokio::test]
async fn a_direction_that_waits_does_not_hold_up_the_other() {
    for limits in [Limits { connection: SLOW, node: 0 }, Limits { connection: 0, node: SLOW }] {
        let stage = Stage::start().await;
        stage.relay.set_limits(limits);
        let (mut client, mut runtime) = stage.stream().await;
        client.set_nodelay(true).unwrap();
        let full = noise(10, 20_000);
        client.write_all(&full).await.unwrap();
        until("it waits for its limit", || stage.relay.streams()[0].throttled_millis > 0).await;
        runtime.write_all(b"a few bytes").await.unwrap();
        expect(&mut client, b"a few bytes").await;
        let stream = &stage.relay.streams()[0];
        assert!(stream.to_runtime < (REQUEST.len() + full.len()) as u64, "{stream:?}");
        assert!(stream.to_client >= ANSWER.len() as u64);
    }
}

#[tokio::test]
async fn a_stream_that_waits_for_its_limit_ends_with_its_client() {
    let stage = Stage::start().await;
    stage.relay.set_limits(Limits { connection: SLOW, node: 0 });
    let (client, mut runtime) = stage.stream().await;
    let sender = send(client, noise(11, 2_000));
    let client = soon(sender).await.unwrap();
    until("it waits for its limit", || stage.relay.streams()[0].throttled_millis > 0).await;
    crate::stage::reset(client);
    let (_, ended) = crate::stage::rest(&mut runtime).await;
    assert!(ended.is_err());
    soon(stage.relay.drained()).await;
}

/// Writes until nobody listens.
fn flood(mut to: OwnedWriteHalf) -> JoinHandle<()> {
    tokio::spawn(async move { while to.write_all(&[7; 1 << 16]).await.is_ok() {} })
}

/// One half of it cannot be said to anybody any more, and stands in line for the node's tokens.
#[tokio::test]
async fn a_stream_that_is_cut_keeps_nobody_waiting() {
    let stage = Stage::start().await;
    stage.relay.set_limits(Limits { connection: 0, node: 1 << 20 });
    let (mut other, sender) = stage.stream().await;
    flood(sender.into_split().1);

    let (client, runtime) = stage.stream().await;
    // So it is reset when it is closed.
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    let ((mut reads, writes), (_unread, answers)) = (client.into_split(), runtime.into_split());
    flood(answers);
    let writing = flood(writes);
    let reading = tokio::spawn(async move {
        while reads.read(&mut [0; 1 << 16]).await.is_ok_and(|bytes| bytes > 0) {}
    });
    // Its runtime reads nothing, so that it is stuck sooner or later.
    let told = || stage.relay.streams()[1].to_runtime;
    until("it has been told something", || told() > 100_000).await;
    loop {
        let before = told();
        // The other has what the limit leaves to it meanwhile.
        expect_some(&mut other, 1 << 19).await;
        if told() == before {
            break;
        }
    }
    for task in [writing, reading] {
        task.abort();
        let _ = task.await;
    }
    // The relay goes on for half a minute with what such a stream has said before.
    let came = tokio::time::timeout(Duration::from_secs(20), expect_some(&mut other, 1 << 21));
    came.await.expect("it has to wait");
}

async fn expect_some(stream: &mut TcpStream, bytes: usize) {
    soon(stream.read_exact(&mut vec![0; bytes])).await.unwrap();
}

/// Writes until nobody listens, and counts.
fn count(mut to: OwnedWriteHalf) -> Arc<AtomicU64> {
    let written = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&written);
    tokio::spawn(async move {
        while let Ok(bytes) = to.write(&[7; 1 << 12]).await {
            counter.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    });
    written
}

fn discard(mut from: OwnedReadHalf) {
    tokio::spawn(async move {
        while from.read(&mut [0; 1 << 16]).await.is_ok_and(|bytes| bytes > 0) {}
    });
}

/// Something new in a full stream waits for what was written before it and has not been carried.
#[tokio::test]
async fn what_waits_before_a_low_limit_is_less_than_six_seconds_of_it() {
    const RATE: u64 = 16 << 10;
    // How much a sender's socket takes follows from its congestion control, too. Every kernel has this
    // one, and with the usual one (cubic) it is as much: 50 to 75 KB.
    const USUAL: &[u8] = b"reno";
    let stage = Stage::start().await;
    stage.relay.set_limits(Limits { connection: RATE, node: 0 });
    // Once one is carried, connections have what the limit asks for from their handshake on.
    drop(stage.stream().await);
    soon(stage.relay.drained()).await;

    SockRef::from(&stage.runtime).set_tcp_congestion(USUAL).unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    SockRef::from(&socket).set_tcp_congestion(USUAL).unwrap();
    let (client, runtime) = stage.lead(socket.connect(stage.address).await.unwrap()).await;
    let ((client_reads, client_writes), (runtime_reads, runtime_writes)) =
        (client.into_split(), runtime.into_split());
    discard(client_reads);
    discard(runtime_reads);
    let (up, down) = (count(client_writes), count(runtime_writes));
    let mut most = [0; 2];
    until("it has been full for a while", || {
        let stream = &stage.relay.streams()[0];
        let carried = [
            stream.to_runtime.saturating_sub(REQUEST.len() as u64),
            stream.to_client.saturating_sub(ANSWER.len() as u64),
        ];
        let written = [&up, &down].map(|written| written.load(Ordering::Relaxed));
        for (most, (written, carried)) in most.iter_mut().zip(written.into_iter().zip(carried)) {
            *most = written.saturating_sub(carried).max(*most);
        }
        carried.iter().all(|carried| *carried > 4 * RATE)
    })
    .await;
    assert!(most.iter().all(|most| *most < 6 * RATE), "{most:?} bytes");
}
