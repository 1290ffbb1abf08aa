//! Limits, as far as no clock is needed; how exact they are is a benchmark.

use std::time::Duration;

use sluice::relay::Limits;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, tcp::OwnedWriteHalf},
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
