//! What is not carried.

use std::time::Duration;

use proptest::{prelude::*, test_runner::TestRunner};
use sluice::relay::{HEAD_MAX, Listener, Refusal, Relay, RelaySettings, Upstream};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};

use crate::stage::{REQUEST, Stage, noise, rest, soon};

fn count(stage: &Stage, refusal: Refusal) -> u64 {
    stage.relay.totals().refused[Refusal::ALL.iter().position(|r| *r == refusal).unwrap()]
}

/// What is answered to somebody who sends this and no more.
async fn answer(stage: &Stage, bytes: &[u8]) -> String {
    let mut client = stage.connect().await;
    // It may be refused before all of it is sent.
    let _ = client.write_all(bytes).await;
    let _ = client.shutdown().await;
    let (answer, _) = rest(&mut client).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn garbage_is_answered_and_leads_nowhere() {
    let stage = Stage::start().await;
    let endless = vec![b'A'; 10 * HEAD_MAX];
    let cases: [(&[u8], Refusal); 9] = [
        (b"", Refusal::HeadEnded),
        (b"GET /exec/x HTTP/1.1\r\nHost: x\r\n", Refusal::HeadEnded),
        (b"\0\0\0\0", Refusal::HeadGarbage),
        (b"\r\n\r\n", Refusal::HeadGarbage),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Refusal::HeadGarbage),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Refusal::HeadGarbage),
        (b"GET /exec/x\r\n\r\n", Refusal::HeadGarbage),
        (b"GET /exec/\xff HTTP/1.1\r\n\r\n", Refusal::HeadGarbage),
        (&endless, Refusal::HeadGarbage),
    ];
    for (bytes, refusal) in cases {
        let before = count(&stage, refusal);
        let answer = answer(&stage, bytes).await;
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
        assert!(answer.ends_with(&format!("\r\n\r\n{}\n", refusal.reason())), "{answer}");
        soon(stage.relay.drained()).await;
        assert_eq!(count(&stage, refusal), before + 1, "{refusal:?}");
    }
    stage.nobody_was_dialled().await;
    assert_eq!(stage.relay.totals().opened.iter().sum::<u64>(), 0);
}

#[test]
fn any_garbage_is_answered_and_leads_nowhere() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let stage = runtime.block_on(Stage::start());
    // Parts of real requests, and anything else, in any order. A TLS hello is carried unseen, and a
    // whole request is one: neither is garbage.
    let piece = prop_oneof![
        prop::sample::select(vec!["GET ", "/exec/x", " HTTP/1.1", "\r\n", "\n", " ", "Host: x"])
            .prop_map(|text| text.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..300),
        (any::<u64>(), 0..3 * HEAD_MAX).prop_map(|(seed, length)| noise(seed, length)),
    ];
    let garbage = prop::collection::vec(piece, 0..8)
        .prop_map(|pieces| pieces.concat())
        .prop_filter("TLS", |bytes| bytes.first() != Some(&0x16))
        .prop_filter("a request", |bytes| {
            !bytes.windows(8).any(|window| window == b"HTTP/1.1")
                || !bytes.starts_with(b"GET /exec/x HTTP/1.1")
        })
        // What is long is passed on, whatever it may be.
        .prop_filter("long", |bytes| !bytes.starts_with(b"GET ") || bytes.len() < HEAD_MAX);
    let mut runner = TestRunner::new(ProptestConfig { cases: 200, ..ProptestConfig::default() });
    runner
        .run(&garbage, |bytes| {
            let answer = runtime.block_on(answer(&stage, &bytes));
            prop_assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
            Ok(())
        })
        .unwrap();
    runtime.block_on(stage.nobody_was_dialled());
}

#[tokio::test]
async fn a_head_that_does_not_come_is_not_waited_for() {
    let stage =
        Stage::start_with(|settings| settings.head_timeout = Duration::from_millis(50)).await;
    let mut client = stage.connect().await;
    client.write_all(b"GET /exec/x HT").await.unwrap();
    let (answer, _) = rest(&mut client).await;
    assert!(answer.starts_with(b"HTTP/1.1 400 "));
    drop(client);
    soon(stage.relay.drained()).await;
    assert_eq!(count(&stage, Refusal::HeadTimeout), 1);
    stage.nobody_was_dialled().await;
}

#[tokio::test]
async fn a_runtime_that_is_not_there_is_told_as_the_kubelet_does() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let stage = Stage::start_with(|settings| settings.upstream = Upstream::Fixed(nobody)).await;
    let mut client = stage.connect().await;
    client.write_all(REQUEST.as_bytes()).await.unwrap();
    let (answer, ended) = rest(&mut client).await;
    ended.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 500 Internal Server Error\r\n"), "{answer}");
    let text = format!("\r\n\r\nerror dialing backend: dial tcp {nobody}: ");
    assert!(answer.contains(&text), "{answer}");
    drop(client);
    soon(stage.relay.drained()).await;
    assert_eq!(count(&stage, Refusal::Dial), 1);
}

#[tokio::test]
async fn more_connections_than_allowed_are_reset() {
    let stage = Stage::start_with(|settings| settings.connections = 1).await;
    let (client, runtime) = stage.stream().await;
    let mut second = stage.connect().await;
    let (bytes, ended) = rest(&mut second).await;
    assert!(bytes.is_empty() && ended.is_err());
    assert_eq!(count(&stage, Refusal::TooMany), 1);
    drop((client, runtime));
    soon(stage.relay.drained()).await;
    stage.stream().await;
}

#[tokio::test]
async fn a_relay_does_not_carry_itself() {
    // A relay whose runtime is the relay: its own connection comes back to it.
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let relay = Relay::new(RelaySettings::new(Upstream::Fixed(address)));
    let serving = relay.clone();
    tokio::spawn(async move { serving.serve(listener, std::future::pending()).await });
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(REQUEST.as_bytes()).await.unwrap();
    // The reset comes while it connects, or right after.
    let (bytes, ended) = rest(&mut client).await;
    assert!(bytes.starts_with(b"HTTP/1.1 500 ") || bytes.is_empty() && ended.is_err());
    soon(relay.drained()).await;
    let own = Refusal::ALL.iter().position(|refusal| *refusal == Refusal::Loop).unwrap();
    assert_eq!(relay.totals().refused[own], 1);
}
