//! Bytes arrive, all and as they were.

use sluice::relay::{Direction, Expected, HEAD_MAX, Kind, Limits, Upstream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::stage::{ANSWER, REQUEST, Stage, expect, noise, rest, soon, until};

/// Both ways at once, until both have ended.
async fn large(stage: Stage, length: usize) {
    let (client, runtime) = stage.stream().await;
    let (up, down) = (noise(1, length), noise(2, length / 2 + 7));
    let (mut client_reads, mut client_writes) = client.into_split();
    let (mut runtime_reads, mut runtime_writes) = runtime.into_split();
    let (mut up_read, mut down_read) = (Vec::new(), Vec::new());
    soon(async {
        tokio::try_join!(
            async {
                client_writes.write_all(&up).await?;
                client_writes.shutdown().await
            },
            async {
                runtime_writes.write_all(&down).await?;
                runtime_writes.shutdown().await
            },
            async { runtime_reads.read_to_end(&mut up_read).await.map(drop) },
            async { client_reads.read_to_end(&mut down_read).await.map(drop) },
        )
    })
    .await
    .unwrap();
    assert!(up_read == up && down_read == down, "bytes were lost or changed");
    soon(stage.relay.drained()).await;
    let totals = stage.relay.totals();
    assert_eq!(totals.bytes[Direction::ToRuntime as usize], (REQUEST.len() + up.len()) as u64);
    assert_eq!(totals.bytes[Direction::ToClient as usize], (ANSWER.len() + down.len()) as u64);
    assert_eq!(totals.refused.iter().sum::<u64>(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_data_both_ways_at_once() {
    large(Stage::start().await, 64 << 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_data_both_ways_at_once_with_limits() {
    let stage = Stage::start().await;
    stage.relay.set_limits(Limits { connection: 6 << 20, node: 5 << 20 });
    large(stage, 4 << 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_loses_nothing() {
    let stage = Stage::start().await;
    let (mut client, mut runtime) = stage.stream().await;
    let bytes = noise(3, 16 << 20);
    let sent = bytes.clone();
    let sender = tokio::spawn(async move {
        runtime.write_all(&sent).await.unwrap();
        runtime.shutdown().await.unwrap();
        rest(&mut runtime).await.1.unwrap();
    });
    let mut read = Vec::new();
    let mut part = vec![0; 100_000];
    loop {
        match soon(client.read(&mut part)).await.unwrap() {
            0 => break,
            length => read.extend_from_slice(&part[..length]),
        }
        tokio::task::yield_now().await;
    }
    assert!(read == bytes);
    drop(client);
    sender.await.unwrap();
}

#[tokio::test]
async fn bytes_right_after_the_head_and_the_answer_are_delivered() {
    let stage = Stage::start().await;
    let mut client = stage.connect().await;
    client.write_all(&[REQUEST.as_bytes(), b"early"].concat()).await.unwrap();
    let (mut runtime, _) = soon(stage.runtime.accept()).await.unwrap();
    expect(&mut runtime, &[REQUEST.as_bytes(), b"early"].concat()).await;
    runtime.write_all(&[ANSWER.as_bytes(), b"early, too"].concat()).await.unwrap();
    expect(&mut client, &[ANSWER.as_bytes(), b"early, too"].concat()).await;
}

#[tokio::test]
async fn a_head_and_an_answer_in_pieces() {
    let stage = Stage::start().await;
    let mut client = stage.connect().await;
    client.set_nodelay(true).unwrap();
    for byte in REQUEST.as_bytes() {
        client.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let (mut runtime, _) = soon(stage.runtime.accept()).await.unwrap();
    expect(&mut runtime, REQUEST.as_bytes()).await;
    runtime.set_nodelay(true).unwrap();
    for byte in ANSWER.as_bytes() {
        // Each arrives before the next is sent.
        runtime.write_all(&[*byte]).await.unwrap();
        expect(&mut client, &[*byte]).await;
    }
    assert_eq!(stage.relay.streams()[0].status, Some(101));
}

#[tokio::test]
async fn any_other_answer_is_passed_as_it_came() {
    for answer in [
        "HTTP/1.1 404 Not Found\r\nContent-Length: 11\r\nX-Odd:  kept \r\n\r\nbad token\r\n",
        "HTTP/1.1 403 Forbidden\r\nX-Accepted-Stream-Protocol-Versions: v4.channel.k8s.io\r\n\r\n",
        "HTTP/1.0 500 no\n\nbroken",
        "no HTTP",
        "",
    ] {
        let stage = Stage::start().await;
        let mut client = stage.connect().await;
        client.write_all(REQUEST.as_bytes()).await.unwrap();
        let (mut runtime, _) = soon(stage.runtime.accept()).await.unwrap();
        expect(&mut runtime, REQUEST.as_bytes()).await;
        runtime.write_all(answer.as_bytes()).await.unwrap();
        drop(runtime);
        let (bytes, ended) = rest(&mut client).await;
        assert_eq!(String::from_utf8_lossy(&bytes), answer);
        ended.unwrap();
        assert_eq!(*stage.relay.remote_peers().borrow(), None);
    }
}

#[tokio::test]
async fn what_is_known_of_a_stream() {
    let stage = Stage::start().await;
    let (mut client, mut runtime) = stage.stream().await;
    client.write_all(b"abc").await.unwrap();
    expect(&mut runtime, b"abc").await;
    let sent = (REQUEST.len() + 3) as u64;
    until("the bytes are counted", || stage.relay.streams()[0].to_runtime == sent).await;
    let streams = stage.relay.streams();
    let [stream] = streams.as_slice() else { panic!("{streams:?}") };
    assert_eq!(stream.kind, Kind::Exec);
    assert_eq!(stream.peer, client.local_addr().unwrap());
    assert!(!stream.remote);
    assert_eq!(stream.user_agent.as_deref(), Some("kubectl/v1.20.2"));
    assert_eq!(stream.forwarded_for.as_deref(), Some("10.0.0.9"));
    assert_eq!((stream.status, stream.to_client), (Some(101), ANSWER.len() as u64));
    assert_eq!(stage.relay.totals().active[0], 1);
    drop((client, runtime));
    soon(stage.relay.drained()).await;
    assert_eq!((stage.relay.totals().active[0], stage.relay.totals().opened[0]), (0, 1));
    assert_eq!(stage.relay.streams(), []);
}

#[tokio::test]
async fn tls_is_carried_unseen() {
    let stage = Stage::start().await;
    let mut client = stage.connect().await;
    let hello = [&[0x16, 3, 1][..], &noise(4, 300)].concat();
    client.write_all(&hello).await.unwrap();
    let (mut runtime, _) = soon(stage.runtime.accept()).await.unwrap();
    expect(&mut runtime, &hello).await;
    runtime.write_all(b"alert").await.unwrap();
    expect(&mut client, b"alert").await;
    assert_eq!(stage.relay.streams()[0].kind, Kind::Tls);
}

/// A kubelet passes on what a proxy before it has added, and Go's servers take a mebibyte.
#[tokio::test]
async fn a_head_longer_than_is_looked_at_is_carried_all_the_same() {
    let stage = Stage::start().await;
    for (beginning, kind) in
        [("GET /exec/x HTTP/1.1\r\nX: ", Kind::Exec), ("GET /exec/", Kind::Other)]
    {
        let mut client = stage.connect().await;
        let head = format!("{beginning}{}", "x".repeat(3 * HEAD_MAX));
        client.write_all(head.as_bytes()).await.unwrap();
        let (mut runtime, _) = soon(stage.runtime.accept()).await.unwrap();
        expect(&mut runtime, head.as_bytes()).await;
        runtime.write_all(ANSWER.as_bytes()).await.unwrap();
        expect(&mut client, ANSWER.as_bytes()).await;
        assert_eq!(stage.relay.streams()[0].kind, kind);
        drop((client, runtime));
        soon(stage.relay.drained()).await;
    }
}

/// A probe's connection, and what the relay knows of it.
async fn probe(stage: &Stage) -> (TcpStream, Expected) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let expected = stage.relay.expect_probe(socket.local_addr().unwrap().port());
    let mut probe = socket.connect(stage.address).await.unwrap();
    probe.write_all(REQUEST.as_bytes()).await.unwrap();
    (probe, expected)
}

#[tokio::test]
async fn a_probe_is_carried_and_not_counted() {
    let stage = Stage::start().await;
    let (mut probe, expected) = probe(&stage).await;
    let (mut runtime, _) = soon(stage.runtime.accept()).await.unwrap();
    expect(&mut runtime, REQUEST.as_bytes()).await;
    assert!(!expected.is_answered());
    // It is known to be answered no later than it is.
    runtime.write_all(b"HTTP").await.unwrap();
    expect(&mut probe, b"HTTP").await;
    assert!(expected.is_answered());
    runtime.write_all(b"/1.1 404 Not Found\r\n\r\n").await.unwrap();
    expect(&mut probe, b"/1.1 404 Not Found\r\n\r\n").await;
    assert_eq!(stage.relay.streams(), []);
    drop((probe, runtime, expected));
    soon(stage.relay.drained()).await;
    assert_eq!(stage.relay.totals(), Default::default());
}

/// At these limits a megabyte takes a quarter of an hour.
#[tokio::test]
async fn a_probe_has_no_limit() {
    let stage = Stage::start().await;
    stage.relay.set_limits(Limits { connection: 1_000, node: 1_000 });
    let (mut asked, _expected) = probe(&stage).await;
    let (mut runtime, _) = soon(stage.runtime.accept()).await.unwrap();
    expect(&mut runtime, REQUEST.as_bytes()).await;
    let bytes = noise(8, 1 << 20);
    let (mut reads, mut writes) = asked.split();
    let asks = async { writes.write_all(&bytes).await.unwrap() };
    soon(async { tokio::join!(asks, expect(&mut runtime, &bytes)) }).await;
    let mut answer = vec![0; bytes.len()];
    let answers = async { runtime.write_all(&bytes).await.unwrap() };
    let hears = async { reads.read_exact(&mut answer).await.unwrap() };
    soon(async { tokio::join!(answers, hears) }).await;
    assert!(answer == bytes);
}

/// Streams get an answer of the relay's own where the runtime is not there. To a probe that would say
/// that it is.
#[tokio::test]
async fn a_probe_is_answered_by_nobody_but_the_runtime() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let stage = Stage::start_with(|settings| settings.upstream = Upstream::Fixed(nobody)).await;
    let (mut asked, expected) = probe(&stage).await;
    assert_eq!(rest(&mut asked).await.0, b"");
    assert!(!expected.is_answered());
}
