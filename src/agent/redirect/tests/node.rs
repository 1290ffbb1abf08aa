//! A node's agent as far as streams go, and a runtime that is played.

use std::rc::Rc;

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::oneshot,
    task::{JoinHandle, JoinSet},
};

use super::*;
use crate::{
    agent::{
        claim::{Claim, Role},
        cri::fake::{Played, Playing},
        redirect,
    },
    relay::Listener,
};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub const PORT: u16 = 34567;
const REQUEST: &[u8] = b"POST /exec/t0k3n HTTP/1.1\r\nHost: node\r\n\r\n";
pub const ANSWER: &str = "HTTP/1.1 101 Switching Protocols";

pub fn at(ip: &str) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), PORT)
}

pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let came = tokio::time::timeout(PATIENCE, future).await;
    came.unwrap_or_else(|_| panic!("it does not come about: {what}"))
}

/// A streaming server: it accepts each exec, and knows nothing else. It ends streams by itself when
/// told to.
pub struct Streaming(JoinHandle<()>);

impl Streaming {
    pub async fn listen(address: SocketAddr) -> Self {
        let socket = if address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() };
        let socket = socket.unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(1024).unwrap();
        Self(tokio::spawn(async move {
            let mut streams = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                streams.spawn(answer(stream));
            }
        }))
    }

    /// It is gone, and all its streams with it.
    pub async fn end(self) {
        self.0.abort();
        let _ = self.0.await;
    }
}

async fn answer(mut stream: TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_buf(&mut head).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
    let text = if head.windows(6).any(|part| part == b"/exec/") {
        format!("{ANSWER}\r\n\r\n")
    } else {
        "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned()
    };
    let _ = stream.write_all(text.as_bytes()).await;
    // One byte more, and the stream's end comes from here.
    let _ = stream.read(&mut [0]).await;
}

/// A node's agent, as far as streams go.
pub struct Node {
    pub relay: Relay,
    serving: Vec<JoinHandle<()>>,
    pub playing: Playing,
    pub wishes: watch::Sender<Option<Proxy>>,
    pub kubelet: watch::Sender<Kubelet>,
    pub attached: watch::Receiver<Option<Attached>>,
    pub standing: watch::Receiver<Standing>,
    pub role: watch::Receiver<Role>,
    pub stop: Option<oneshot::Sender<()>>,
    attaching: JoinHandle<()>,
    /// What the node's agents share.
    run: Rc<TempDir>,
}

fn proxy(failure_policy: FailurePolicy) -> Option<Proxy> {
    Some(Proxy { failure_policy, ..Proxy::default() })
}

/// A relay that takes what the kernel brings, and where.
pub fn relay() -> (Relay, Vec<SocketAddr>, Vec<JoinHandle<()>>) {
    relay_until(std::future::pending)
}

fn relay_until<F: Future<Output = ()> + Send + 'static>(
    stop: impl Fn() -> F,
) -> (Relay, Vec<SocketAddr>, Vec<JoinHandle<()>>) {
    let relay = Relay::new(RelaySettings::new(Upstream::Destination { mark: RELAY_MARK }));
    let (mut listeners, mut serving) = (Vec::new(), Vec::new());
    for any in ["127.0.0.1:0", "[::1]:0"] {
        let listener = Listener::transparent(any.parse().unwrap(), RELAY_MARK).unwrap();
        listeners.push(listener.local_addr().unwrap());
        let (relay, stop) = (relay.clone(), stop());
        serving.push(tokio::spawn(async move { relay.serve(listener, stop).await }));
    }
    (relay, listeners, serving)
}

pub fn url(address: SocketAddr) -> String {
    format!("http://{address}/exec/t0k3n")
}

impl Node {
    /// One whose runtime says that it streams from there.
    pub fn start(address: SocketAddr, policy: FailurePolicy) -> Self {
        Self::begin(address, policy, Rc::new(tempfile::tempdir().unwrap()))
    }

    /// Another agent of the same node, for the same runtime.
    pub fn beside(&self, address: SocketAddr, policy: FailurePolicy) -> Self {
        Self::begin(address, policy, Rc::clone(&self.run))
    }

    fn begin(address: SocketAddr, policy: FailurePolicy, run: Rc<TempDir>) -> Self {
        let (unattached, stop_taking) = Shutdown::triggered();
        let (relay, listeners, serving) = relay_until(|| stop_taking.requested());
        let playing = Played::of(&url(address)).start();
        let cri_socket = Some(playing.socket().display().to_string());
        let runtime = RuntimeSettings { cri_socket, own: own() };
        let settings = RedirectSettings { listeners, nft: "nft".into(), runtime };
        let (wishes, wish) = watch::channel(proxy(policy));
        let (kubelet, kubelets) = watch::channel(Kubelet::default());
        let (attaching, attached) = watch::channel(None);
        let (stands, standing) = watch::channel(Standing::new(Want::Nothing));
        let (stop, stopped) = oneshot::channel();
        let (roles, role) = watch::channel(Role::Waiting);
        let channels = Channels {
            wishes: wish,
            kubelet: kubelets,
            attached: attaching,
            standing: stands,
            unattached,
            role: roles,
        };
        let stopped = async move { drop(stopped.await) };
        let host = Host::new("/".into());
        let (carrying, folder) = (relay.clone(), run.path().to_owned());
        let attaching = tokio::spawn(async move {
            let claim = Claim::wait(&folder).await.unwrap();
            channels.role.send_replace(Role::Acting);
            redirect::run(settings, carrying, host, channels, claim, || {}, stopped).await;
        });
        let stop = Some(stop);
        Self {
            relay,
            serving,
            playing,
            wishes,
            kubelet,
            attached,
            standing,
            role,
            stop,
            attaching,
            run,
        }
    }

    pub async fn is(&mut self, what: &str, is: impl Fn(&Attached) -> bool) -> Attached {
        let is = |now: &Option<Attached>| now.as_ref().is_some_and(&is);
        let found = soon(what, self.attached.wait_for(is)).await.unwrap();
        found.clone().unwrap()
    }

    pub async fn relays(&mut self, address: SocketAddr) {
        let relays = |now: &Attached| {
            now.outcome.streams == Streams::Relayed && now.answers == Some(address)
        };
        self.is(&format!("streams to {address} are relayed"), relays).await;
    }

    /// It is told to end.
    pub fn stop(&mut self) {
        drop(self.stop.take());
    }

    /// It takes nothing more, and what it held has ended.
    pub async fn ends(&mut self) {
        for serving in self.serving.drain(..) {
            soon("the agent's end", serving).await.unwrap();
        }
    }

    /// How many execs the relay has carried.
    pub fn carried(&self) -> u64 {
        self.relay.totals().opened[0]
    }

    /// It hangs: from now on it proves nothing, and says nothing.
    pub fn hang(&self) {
        self.attaching.abort();
    }

    /// The relay's process is killed: nobody listens, and what it held is gone.
    pub async fn kill_the_relay(&mut self) {
        for serving in self.serving.drain(..) {
            serving.abort();
            let _ = serving.await;
        }
    }
}

/// Opens a stream and tells how the runtime answers.
pub async fn exec(address: SocketAddr) -> std::io::Result<(TcpStream, String)> {
    let stream = TcpStream::connect(address).await?;
    ask(stream).await
}

async fn ask(mut stream: TcpStream) -> std::io::Result<(TcpStream, String)> {
    stream.write_all(REQUEST).await?;
    let mut answer = vec![0; ANSWER.len()];
    soon("an answer", stream.read_exact(&mut answer)).await?;
    Ok((stream, String::from_utf8_lossy(&answer).into_owned()))
}

/// One from this port.
pub async fn exec_from(port: u16, address: SocketAddr) -> std::io::Result<(TcpStream, String)> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port))?;
    ask(socket.connect(address).await?).await
}
