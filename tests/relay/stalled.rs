//! Streams whose sides take nothing: what they hold of what all share, and what becomes of them.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use rustix::{fs::OFlags, pipe::fcntl_getpipe_size};
use sluice::relay::Relay;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinSet,
};

use crate::stage::{Stage, alone, noise, soon};

/// As many pipes would be twice what the kernel gives to a user.
const STREAMS: usize = 250;

/// What each side sends: more than the sockets on the way take, most of them.
const BYTES: usize = 2 << 20;

/// Segments of an Ethernet: with those of loopback each socket takes megabytes.
const SEGMENT: u32 = 1448;

/// The buffers of both sides, in bytes.
const BUFFER: usize = 32 << 10;

/// What the kernel gives to a pipe of a user who has too many, in bytes, is less than this.
const WHOLE: usize = 64 << 10;

/// The threads that move bytes: each has a pipe while it does.
fn threads() -> usize {
    std::thread::available_parallelism().unwrap().get()
}

/// The pipes of this process, and what each can hold.
fn pipes() -> BTreeMap<PathBuf, usize> {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap();
    let pipe = |path: PathBuf| {
        let name = fs::read_link(&path).ok()?;
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
        let pipe = name.to_str()?.starts_with("pipe:").then(|| options.open(path))?.ok()?;
        Some((name, fcntl_getpipe_size(pipe).unwrap()))
    };
    descriptors.filter_map(|descriptor| pipe(descriptor.unwrap().path())).collect()
}

/// Keeps what a side sends, and what is sent to it, from filling much memory.
fn narrow<'a>(socket: impl Into<SockRef<'a>>) {
    let socket = socket.into();
    socket.set_tcp_mss(SEGMENT).unwrap();
    socket.set_send_buffer_size(BUFFER).unwrap();
    socket.set_recv_buffer_size(BUFFER).unwrap();
}

async fn narrow_stream(stage: &Stage) -> (TcpStream, TcpStream) {
    let socket = TcpSocket::new_v4().unwrap();
    narrow(&socket);
    stage.lead(socket.connect(stage.address).await.unwrap()).await
}

/// Until nothing moves any more.
async fn rest(relay: &Relay) {
    let mut before = None;
    while before != Some(relay.totals().bytes) {
        before = Some(relay.totals().bytes);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// Sends the bytes from there on, and then the end.
async fn send(mut to: OwnedWriteHalf, bytes: Arc<Vec<u8>>, from: usize) {
    to.write_all(&bytes[from..from + BYTES]).await.unwrap();
    to.shutdown().await.unwrap();
}

/// Reads exactly what [`send`] sends.
async fn receive(mut from: OwnedReadHalf, bytes: Arc<Vec<u8>>, start: usize) {
    let mut rest = &bytes[start..start + BYTES];
    let mut part = vec![0; 64 << 10];
    loop {
        let length = soon(from.read(&mut part)).await.unwrap();
        if length == 0 {
            break;
        }
        assert!(rest.starts_with(&part[..length]), "bytes were lost or changed");
        rest = &rest[length..];
    }
    assert!(rest.is_empty(), "{} bytes were lost", rest.len());
}

#[test]
fn what_is_stalled_holds_no_pipe_and_loses_nothing() {
    if !alone("stalled::what_is_stalled_holds_no_pipe_and_loses_nothing", &[]) {
        return;
    }
    sluice::relay::raise_descriptors();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let others = pipes();
        let pipes = || {
            let mut pipes = pipes();
            pipes.retain(|name, _| !others.contains_key(name));
            pipes
        };
        let stage = Stage::start().await;
        narrow(&stage.runtime);
        let bytes = Arc::new(noise(12, BYTES + 2 * STREAMS));
        let (mut senders, mut stalled) = (JoinSet::new(), Vec::new());
        for number in 0..STREAMS {
            let (client, runtime) = narrow_stream(&stage).await;
            let (client_reads, client_writes) = client.into_split();
            let (runtime_reads, runtime_writes) = runtime.into_split();
            senders.spawn(send(client_writes, Arc::clone(&bytes), number));
            senders.spawn(send(runtime_writes, Arc::clone(&bytes), STREAMS + number));
            stalled.extend([(runtime_reads, number), (client_reads, STREAMS + number)]);
        }
        rest(&stage.relay).await;
        while let Some(ended) = senders.try_join_next() {
            ended.unwrap();
        }
        assert!(senders.len() > STREAMS, "only {} senders wait", senders.len());
        let held = pipes();
        assert!(held.len() <= threads(), "{held:?}");

        let (client, runtime) = stage.stream().await;
        let (client_reads, client_writes) = client.into_split();
        let (runtime_reads, runtime_writes) = runtime.into_split();
        soon(async {
            tokio::join!(
                send(client_writes, Arc::clone(&bytes), 0),
                send(runtime_writes, Arc::clone(&bytes), 1),
                receive(runtime_reads, Arc::clone(&bytes), 0),
                receive(client_reads, Arc::clone(&bytes), 1),
            )
        })
        .await;
        let used = pipes();
        assert!((1..=threads()).contains(&used.len()), "{used:?}");
        assert!(used.values().all(|size| *size >= WHOLE), "{used:?}");

        let mut receivers = JoinSet::new();
        for (reads, from) in stalled {
            receivers.spawn(receive(reads, Arc::clone(&bytes), from));
        }
        while let Some(ended) = receivers.join_next().await {
            ended.unwrap();
        }
        while let Some(ended) = senders.join_next().await {
            ended.unwrap();
        }
        soon(stage.relay.drained()).await;
    });
}
