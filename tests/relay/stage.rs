//! A relay, a runtime behind it, and clients before it.

use std::{
    net::SocketAddr,
    process::Command,
    time::{Duration, Instant},
};

use sluice::relay::{Listener, Relay, RelaySettings, Upstream};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};

/// What a kubelet asks.
pub const REQUEST: &str = "POST /exec/s3cr3t HTTP/1.1\r\nHost: node:10250\r\nUser-Agent: kubectl/v1.20.2\r\n\
                           X-Forwarded-For: 10.0.0.9\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n";

/// What a runtime answers.
pub const ANSWER: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n";

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What must come about.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it does not come about")
}

/// Waits until something holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "it does not come about: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A relay that serves, and the runtime's listener to which it leads.
pub struct Stage {
    pub relay: Relay,
    pub address: SocketAddr,
    pub runtime: TcpListener,
    pub served: JoinHandle<()>,
    stop: Option<oneshot::Sender<()>>,
}

impl Stage {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(set: impl FnOnce(&mut RelaySettings)) -> Self {
        let runtime = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut settings = RelaySettings::new(Upstream::Fixed(runtime.local_addr().unwrap()));
        set(&mut settings);
        let relay = Relay::new(settings);
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = relay.clone();
        let served = tokio::spawn(async move {
            serving.serve(listener, async { drop(stopped.await) }).await;
        });
        Self { relay, address, runtime, served, stop: Some(stop) }
    }

    pub fn stop(&mut self) {
        self.stop.take();
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A client and the runtime's end of its stream, after both have been polite.
    pub async fn stream(&self) -> (TcpStream, TcpStream) {
        self.lead(self.connect().await).await
    }

    /// The same for a client that has connected.
    pub async fn lead(&self, mut client: TcpStream) -> (TcpStream, TcpStream) {
        client.write_all(REQUEST.as_bytes()).await.unwrap();
        let (mut runtime, _) = soon(self.runtime.accept()).await.unwrap();
        expect(&mut runtime, REQUEST.as_bytes()).await;
        runtime.write_all(ANSWER.as_bytes()).await.unwrap();
        expect(&mut client, ANSWER.as_bytes()).await;
        (client, runtime)
    }

    /// Fails where the runtime was dialled: the next connection it gets must be this one.
    pub async fn nobody_was_dialled(&self) {
        let own = TcpStream::connect(self.runtime.local_addr().unwrap()).await.unwrap();
        let (_, peer) = soon(self.runtime.accept()).await.unwrap();
        assert_eq!(peer, own.local_addr().unwrap(), "the relay has dialled the runtime");
    }
}

/// Reads exactly these bytes.
pub async fn expect(stream: &mut TcpStream, bytes: &[u8]) {
    let mut read = vec![0; bytes.len()];
    soon(stream.read_exact(&mut read)).await.unwrap();
    assert!(read == bytes, "{:?}", String::from_utf8_lossy(&read));
}

/// Everything until the end, and how it ended.
pub async fn rest(stream: &mut TcpStream) -> (Vec<u8>, std::io::Result<()>) {
    let mut bytes = Vec::new();
    let ended = soon(stream.read_to_end(&mut bytes)).await.map(drop);
    (bytes, ended)
}

/// Ends a connection as a process does that is killed with unread bytes.
pub fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Bytes that are like no other part of themselves.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(length)
    .collect()
}

/// Whether a test runs in a process of its own; if not, starts one and waits for its success. What
/// counts descriptors must not have other tests beside it.
pub fn alone(test: &str, prefix: &[&str]) -> bool {
    const INSIDE: &str = "SLUICE_TEST_ALONE";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let program = std::env::current_exe().unwrap();
    let arguments = ["--exact", test, "--include-ignored", "--nocapture"];
    let mut line: Vec<_> = prefix.iter().map(std::ffi::OsStr::new).collect();
    line.push(program.as_os_str());
    let status =
        Command::new(line[0]).args(&line[1..]).args(arguments).env(INSIDE, "1").status().unwrap();
    assert!(status.success(), "{test}: {status}");
    false
}
