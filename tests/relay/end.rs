//! How streams end: each side for itself, both at once, and the relay.

use std::io;

use sluice::relay::Refusal;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};

use crate::stage::{ANSWER, REQUEST, Stage, expect, noise, reset, rest, soon, until};

/// More than the kernel takes for a side that does not read.
const PLENTY: usize = 64 << 20;

fn resets(stage: &Stage) -> u64 {
    stage.relay.totals().refused[Refusal::ALL.iter().position(|r| *r == Refusal::Reset).unwrap()]
}

/// One side says that it is done and still hears the other.
async fn half_close(mut first: TcpStream, mut second: TcpStream) {
    first.write_all(b"last words").await.unwrap();
    first.shutdown().await.unwrap();
    let (bytes, ended) = rest(&mut second).await;
    assert_eq!(bytes, b"last words");
    ended.unwrap();
    let answer = noise(5, 3 << 20);
    let sent = answer.clone();
    let writer = tokio::spawn(async move { second.write_all(&sent).await.unwrap() });
    let (bytes, ended) = rest(&mut first).await;
    assert!(bytes == answer);
    ended.unwrap();
    writer.await.unwrap();
}

#[tokio::test]
async fn the_client_ends_first() {
    let stage = Stage::start().await;
    let (client, runtime) = stage.stream().await;
    half_close(client, runtime).await;
    soon(stage.relay.drained()).await;
    assert_eq!(resets(&stage), 0);
}

#[tokio::test]
async fn the_runtime_ends_first() {
    let stage = Stage::start().await;
    let (client, runtime) = stage.stream().await;
    half_close(runtime, client).await;
    soon(stage.relay.drained()).await;
    assert_eq!(resets(&stage), 0);
}

async fn is_reset(stream: &mut TcpStream) {
    let (_, ended) = rest(stream).await;
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_reset_of_one_side_is_one_of_the_other() {
    let stage = Stage::start().await;
    let (client, mut runtime) = stage.stream().await;
    reset(client);
    is_reset(&mut runtime).await;
    let (mut client, runtime) = stage.stream().await;
    reset(runtime);
    is_reset(&mut client).await;
    soon(stage.relay.drained()).await;
    assert_eq!(resets(&stage), 2);
}

#[tokio::test]
async fn what_came_before_a_reset_is_delivered() {
    let stage = Stage::start().await;
    let (mut client, mut runtime) = stage.stream().await;
    let bytes = noise(6, 50_000);
    client.write_all(&bytes).await.unwrap();
    let sent = (REQUEST.len() + bytes.len()) as u64;
    until("it is passed on", || stage.relay.streams()[0].to_runtime == sent).await;
    reset(client);
    soon(stage.relay.drained()).await;
    let (read, ended) = rest(&mut runtime).await;
    assert!(read == bytes);
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

/// Fills all buffers towards a side that reads nothing.
async fn stuff(stream: &mut TcpStream) {
    let full = async {
        loop {
            let writing = tokio::time::timeout(
                std::time::Duration::from_millis(200),
                stream.write_all(&[7; 100_000]),
            );
            if writing.await.is_err() {
                return;
            }
        }
    };
    soon(full).await;
}

#[tokio::test]
async fn a_side_that_is_gone_is_noticed_while_the_other_takes_nothing() {
    let stage = Stage::start().await;
    let (mut client, runtime) = stage.stream().await;
    stuff(&mut client).await;
    // It reads nothing, and then it is gone.
    reset(runtime);
    until("the client hears of it", || {
        matches!(client.try_write(b"x"), Err(error) if error.kind() != io::ErrorKind::WouldBlock)
    })
    .await;
    drop(client);
    soon(stage.relay.drained()).await;

    let (mut client, mut runtime) = stage.stream().await;
    stuff(&mut client).await;
    reset(client);
    // What the relay had is still delivered, and then the end, which is no proper one.
    is_reset(&mut runtime).await;
    soon(stage.relay.drained()).await;
}

#[tokio::test]
async fn the_last_words_of_a_runtime_that_does_not_listen_are_delivered() {
    let stage = Stage::start().await;
    let (mut client, mut runtime) = stage.stream().await;
    client.write_all(b"never read").await.unwrap();
    // More than the client's kernel takes while the client reads nothing.
    let words = noise(7, 1 << 20);
    soon(runtime.write_all(&words)).await.unwrap();
    runtime.shutdown().await.unwrap();
    let (up, down) = ((REQUEST.len() + 10) as u64, (ANSWER.len() + words.len()) as u64);
    until("all is passed on", || {
        let stream = &stage.relay.streams()[0];
        (stream.to_runtime, stream.to_client) == (up, down)
    })
    .await;
    // With bytes that it has not read its kernel sends a reset, after its proper end.
    drop(runtime);
    until("the reset is noticed", || resets(&stage) == 1).await;
    let (read, ended) = rest(&mut client).await;
    assert!(read == words, "{} bytes", read.len());
    ended.unwrap();
    soon(stage.relay.drained()).await;
}

#[tokio::test]
async fn a_stop_lets_running_streams_go_on_and_takes_no_new_ones() {
    let mut stage = Stage::start().await;
    let (mut client, mut runtime) = stage.stream().await;
    stage.stop();
    // Until its listener is gone the kernel still takes connections for it.
    soon(async {
        while TcpStream::connect(stage.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    client.write_all(b"still there?").await.unwrap();
    expect(&mut runtime, b"still there?").await;
    runtime.write_all(b"yes").await.unwrap();
    expect(&mut client, b"yes").await;
    assert!(!stage.served.is_finished());
    assert_eq!(stage.relay.streams().len(), 1);
    drop((client, runtime));
    soon(stage.relay.drained()).await;
    soon(stage.served).await.unwrap();
}

#[tokio::test]
async fn the_end_of_serving_is_the_end_of_its_streams() {
    let stage = Stage::start().await;
    let (mut client, mut runtime) = stage.stream().await;
    stage.served.abort();
    for stream in [&mut client, &mut runtime] {
        let (bytes, _) = rest(stream).await;
        assert!(bytes.is_empty());
    }
    soon(stage.relay.drained()).await;
    // Its port is free again.
    TcpListener::bind(stage.address).await.unwrap();
}

#[tokio::test]
async fn plenty_is_cut_only_by_a_reset() {
    let stage = Stage::start().await;
    let (mut client, mut runtime) = stage.stream().await;
    let writer = tokio::spawn(async move {
        client.write_all(&vec![9; PLENTY]).await.unwrap();
        client
    });
    let mut part = vec![0; 1 << 20];
    let mut read = 0;
    while read < PLENTY {
        read += soon(tokio::io::AsyncReadExt::read(&mut runtime, &mut part)).await.unwrap();
    }
    let client = soon(writer).await.unwrap();
    reset(client);
    is_reset(&mut runtime).await;
}
