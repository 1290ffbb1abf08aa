//! Limits, as far as no clock is needed; how exact they are is a benchmark.

use sluice::relay::Limits;
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinHandle};

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
