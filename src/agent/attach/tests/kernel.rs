//! The rules in a real kernel, a real relay behind them, and a runtime that is played.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::oneshot,
    task::{JoinHandle, JoinSet},
};

use super::{
    net::{Net, run},
    *,
};
use crate::{
    agent::{
        attach,
        cri::{
            Server,
            played::{Played, Playing},
        },
    },
    relay::{Listener, Refusal},
};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const PORT: u16 = 34567;
const REQUEST: &[u8] = b"POST /exec/t0k3n HTTP/1.1\r\nHost: node\r\n\r\n";
const ANSWER: &str = "HTTP/1.1 101 Switching Protocols";

fn at(ip: &str) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), PORT)
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let came = tokio::time::timeout(PATIENCE, future).await;
    came.unwrap_or_else(|_| panic!("it does not come about: {what}"))
}

/// A streaming server: it accepts each exec, and knows nothing else. It ends streams by itself when
/// told to.
struct Streaming(JoinHandle<()>);

impl Streaming {
    async fn listen(address: SocketAddr) -> Self {
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
}

impl Streaming {
    /// It is gone, and all its streams with it.
    async fn end(self) {
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
struct Node {
    relay: Relay,
    serving: Vec<JoinHandle<()>>,
    playing: Playing,
    wishes: watch::Sender<Option<Proxy>>,
    kubelet: watch::Sender<Kubelet>,
    attached: watch::Receiver<Option<Attached>>,
    standing: watch::Receiver<Standing>,
    stop: Option<oneshot::Sender<()>>,
}

fn proxy(failure_policy: FailurePolicy) -> Option<Proxy> {
    Some(Proxy { failure_policy, ..Proxy::default() })
}

/// A relay that takes what the kernel brings, and where.
fn relay() -> (Relay, Vec<SocketAddr>, Vec<JoinHandle<()>>) {
    let relay = Relay::new(RelaySettings::new(Upstream::Destination { mark: RELAY_MARK }));
    let (mut listeners, mut serving) = (Vec::new(), Vec::new());
    for any in ["127.0.0.1:0", "[::1]:0"] {
        let listener = Listener::transparent(any.parse().unwrap(), RELAY_MARK).unwrap();
        listeners.push(listener.local_addr().unwrap());
        let relay = relay.clone();
        serving.push(tokio::spawn(async move {
            relay.serve(listener, std::future::pending()).await;
        }));
    }
    (relay, listeners, serving)
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}/exec/t0k3n")
}

impl Node {
    /// One whose runtime says that it streams from there.
    fn start(address: SocketAddr, policy: FailurePolicy) -> Self {
        let (relay, listeners, serving) = relay();
        let playing = Played::of(&url(address)).start();
        let cri_socket = Some(playing.socket().display().to_string());
        let runtime = RuntimeSettings { cri_socket, own: own() };
        let settings = Settings { listeners, nft: "nft".into(), runtime };
        let (wishes, wish) = watch::channel(proxy(policy));
        let (kubelet, kubelets) = watch::channel(Kubelet::default());
        let (attaching, attached) = watch::channel(None);
        let (stands, standing) = watch::channel(Standing::new(Want::Nothing));
        let (stop, stopped) = oneshot::channel();
        let channels = Channels {
            wishes: wish,
            kubelet: kubelets,
            attached: attaching,
            standing: stands,
            unattached: Shutdown::triggered().0,
        };
        let stopped = async move { drop(stopped.await) };
        let host = Host::new("/".into());
        tokio::spawn(attach::run(settings, relay.clone(), host, channels, || {}, stopped));
        let stop = Some(stop);
        Self { relay, serving, playing, wishes, kubelet, attached, standing, stop }
    }

    async fn is(&mut self, what: &str, is: impl Fn(&Attached) -> bool) -> Attached {
        let is = |now: &Option<Attached>| now.as_ref().is_some_and(&is);
        let found = soon(what, self.attached.wait_for(is)).await.unwrap();
        found.clone().unwrap()
    }

    async fn relays(&mut self, address: SocketAddr) {
        let relays = |now: &Attached| {
            now.outcome.streams == Streams::Relayed && now.answers == Some(address)
        };
        self.is(&format!("streams to {address} are relayed"), relays).await;
    }

    /// How many execs the relay has carried.
    fn carried(&self) -> u64 {
        self.relay.totals().opened[0]
    }

    /// The relay's process is killed: nobody listens, and what it held is gone.
    async fn kill_the_relay(&mut self) {
        for serving in self.serving.drain(..) {
            serving.abort();
            let _ = serving.await;
        }
    }
}

/// Opens a stream and tells how the runtime answers.
async fn exec(address: SocketAddr) -> std::io::Result<(TcpStream, String)> {
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
async fn exec_from(port: u16, address: SocketAddr) -> std::io::Result<(TcpStream, String)> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port))?;
    ask(socket.connect(address).await?).await
}

#[test]
#[ignore = "needs root and nft: make relay-test"]
fn streams_of_this_host_and_of_others_are_brought_to_the_relay() {
    let (here, there) = (Net::new(), Net::new());
    here.connect(&there);
    for (ip, peer) in [
        ("127.0.0.1", None),
        ("::1", None),
        ("10.9.0.1", Some("10.9.0.2")),
        ("fd00::1", Some("fd00::2")),
    ] {
        here.with(async || {
            let _streaming = Streaming::listen(at(ip)).await;
            let mut node = Node::start(at(ip), FailurePolicy::Open);
            node.relays(at(ip)).await;
            let (stream, answer) = exec(at(ip)).await.unwrap();
            assert_eq!(answer, ANSWER);
            let streams = node.relay.streams();
            let [carried] = streams.as_slice() else { panic!("{streams:?}") };
            assert_eq!((carried.peer, carried.remote), (stream.local_addr().unwrap(), false));
            assert_eq!(*node.relay.remote_peers().borrow(), None);
            let Some(peer) = peer else { return };
            let asked = tokio::task::spawn_blocking({
                let there = there.asker();
                move || there.ask(ip, PORT)
            });
            assert_eq!(asked.await.unwrap(), ANSWER);
            let found = node.relay.remote_peers().borrow().unwrap();
            assert_eq!(found.peer, peer.parse::<IpAddr>().unwrap());
        });
    }
}

/// What the relay listens at is for the kernel alone.
#[test]
#[ignore = "needs root and nft: make relay-test"]
fn nobody_is_served_at_the_relays_own_port_or_for_another_destination() {
    Net::new().with(async || {
        let (relay, listeners, _serving) = relay();
        let refused = |refusal: Refusal| {
            relay.totals().refused[Refusal::ALL.iter().position(|r| *r == refusal).unwrap()]
        };
        for listener in &listeners {
            assert!(exec(*listener).await.is_err());
        }
        assert_eq!(refused(Refusal::NotRedirected), 2);
        let _streaming = Streaming::listen(at("127.0.0.1")).await;
        let script = rules::install(&[at("127.0.0.1")], listeners[0], FailurePolicy::Open, &[]);
        run(&format!("nft -f - <<'END'\n{script}END"));
        run(&format!("nft add element ip sluice live '{{ 127.0.0.1 . {PORT} timeout 1m }}'"));
        // The rules are wider than what is allowed.
        assert!(exec(at("127.0.0.1")).await.is_err());
        assert_eq!(refused(Refusal::NotRuntime), 1);
        relay.allow([at("127.0.0.1")]);
        assert_eq!(exec(at("127.0.0.1")).await.unwrap().1, ANSWER);
    });
}

#[test]
#[ignore = "needs root and nft: make relay-test"]
fn past_a_dead_relay_streams_go_at_once() {
    Net::new().with(async || {
        let _streaming = Streaming::listen(at("127.0.0.1")).await;
        let mut node = Node::start(at("127.0.0.1"), FailurePolicy::Open);
        node.relays(at("127.0.0.1")).await;
        let (mut held, _) = exec(at("127.0.0.1")).await.unwrap();
        node.kill_the_relay().await;
        for _ in 0..200 {
            assert_eq!(exec(at("127.0.0.1")).await.unwrap().1, ANSWER);
        }
        assert_eq!(node.carried(), 1);
        // What it held learns of it.
        let ended = soon("the end", held.read_to_end(&mut Vec::new())).await;
        assert!(ended.is_err() || ended.is_ok_and(|read| read < 64));
        let direct = |now: &Attached| now.outcome.streams == Streams::Direct;
        assert_eq!(node.is("it is told", direct).await.outcome.reason, "RulesWithoutEffect");
    });
}

/// Also what comes from a port whose last connection the relay has ended, and where connections are
/// not tracked.
#[test]
#[ignore = "needs root and nft: make relay-test"]
fn closed_refuses_all_that_the_relay_does_not_take() {
    let (here, there) = (Net::new(), Net::new());
    here.connect(&there);
    here.with(async || {
        run("nft -f - <<'END'
table inet untracked {
  chain out { type filter hook output priority raw; notrack; }
  chain in { type filter hook prerouting priority raw; notrack; }
}
END");
        let _streaming = Streaming::listen("0.0.0.0:34567".parse().unwrap()).await;
        let mut node = Node::start(at("10.9.0.1"), FailurePolicy::Closed);
        node.relays(at("10.9.0.1")).await;
        for port in 41_000..41_020 {
            let (mut stream, answer) =
                exec_from(port, at("10.9.0.1")).await.unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(answer, ANSWER);
            // The runtime ends it first, so that it is the relay's end that lingers.
            stream.write_all(b"x").await.unwrap();
            soon("the end", stream.read_to_end(&mut Vec::new())).await.unwrap();
        }
        soon("the streams to end", node.relay.drained()).await;
        node.kill_the_relay().await;
        for port in 41_000..41_040 {
            let refused = exec_from(port, at("10.9.0.1")).await;
            assert!(refused.is_err(), "a stream from port {port} went past the relay");
        }
        let there = there.asker();
        let asked = tokio::task::spawn_blocking(move || there.ask("10.9.0.1", PORT));
        assert_eq!(asked.await.unwrap(), "");
        node.is("it is told", |now| now.outcome.streams == Streams::Refused).await;
        // Nobody wants it any more.
        node.wishes.send_replace(None);
        node.is("it is let go", |now| now.outcome.reason == "NotWanted").await;
        assert_eq!(exec(at("10.9.0.1")).await.unwrap().1, ANSWER);
    });
}

/// The relay answers for itself where it cannot reach the runtime, and that proves nothing.
#[test]
#[ignore = "needs root and nft: make relay-test"]
fn a_runtime_that_moves_is_followed_and_nothing_else_is_said_meanwhile() {
    Net::new().with(async || {
        let mut address = at("127.0.0.1");
        let mut streaming = Streaming::listen(address).await;
        let mut node = Node::start(address, FailurePolicy::Open);
        node.relays(address).await;
        for port in [PORT + 1, PORT + 2] {
            streaming.end().await;
            let gone = node.is("it is seen", |now| now.outcome.streams != Streams::Relayed).await;
            assert_eq!(gone.outcome.reason, "StreamingUnreachable");
            assert!(!node.standing.borrow().relays(Instant::now()));
            address.set_port(port);
            streaming = Streaming::listen(address).await;
            node.playing.change(|played| played.url = Ok(url(address)));
            node.relays(address).await;
            assert_eq!(exec(address).await.unwrap().1, ANSWER);
        }
        assert_eq!(node.carried(), 2);
        // dockershim, whose kubelet begins to redirect.
        streaming.end().await;
        node.playing.change(|played| played.url = Ok("/cri/exec/t0k3n".to_owned()));
        let through = |now: &Attached| now.outcome.reason == state::THROUGH_KUBELET;
        node.is("it is named", through).await;
    });
}

#[test]
#[ignore = "needs root and nft: make relay-test"]
fn a_runtime_that_takes_its_time_is_relayed_all_along() {
    Net::new().with(async || {
        let _streaming = Streaming::listen(at("127.0.0.1")).await;
        let mut node = Node::start(at("127.0.0.1"), FailurePolicy::Open);
        node.relays(at("127.0.0.1")).await;
        node.playing.change(|played| played.slow = Duration::from_millis(3500));
        let started = Instant::now();
        let mut execs = 0;
        while started.elapsed() < LIFETIME + LIFETIME / 2 {
            // Each new kubelet has it asked again.
            execs += 1;
            node.kubelet.send_modify(|kubelet| kubelet.process = Some((execs, 1)));
            assert_eq!(exec(at("127.0.0.1")).await.unwrap().1, ANSWER);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(node.carried(), u64::from(execs));
        assert_eq!(node.attached.borrow().as_ref().unwrap().outcome.streams, Streams::Relayed);
    });
}

#[test]
#[ignore = "needs root and nft: make relay-test"]
fn rules_that_somebody_takes_away_come_back() {
    Net::new().with(async || {
        let _streaming = Streaming::listen(at("127.0.0.1")).await;
        let mut node = Node::start(at("127.0.0.1"), FailurePolicy::Closed);
        node.relays(at("127.0.0.1")).await;
        run("nft flush ruleset");
        soon("a stream through the relay", async {
            while node.carried() == 0 {
                // Until the rules are back they pass, and until the first probe has they do not.
                let _ = exec(at("127.0.0.1")).await;
            }
        })
        .await;
        // What an agent of an older release has left is taken away as well.
        run("nft 'flush ruleset; add table ip sluice; add chain ip sluice output \
             { type nat hook output priority -110; }; add rule ip sluice output tcp dport 34567 redirect to :9'");
        let before = node.carried();
        soon("a stream through the relay", async {
            while node.carried() == before {
                let _ = exec(at("127.0.0.1")).await;
            }
        })
        .await;
        drop(node.stop.take());
    });
}

/// Such as `localhost`, which is 127.0.0.1 and ::1.
#[test]
#[ignore = "needs root and nft: make relay-test"]
fn of_a_name_with_several_addresses_all_that_answer_are_relayed() {
    Net::new().with(async || {
        let (relay, listeners, _serving) = relay();
        let mut keeper = Keeper::new(listeners, Nft("nft".into()), relay.clone());
        let addresses = vec![at("127.0.0.1"), at("::1")];
        let server = Server { addresses, host: "localhost".to_owned(), tls: false };
        let nobody = keeper.attach(&server, FailurePolicy::Open).await.unwrap_err();
        assert_eq!(nobody.reason, "StreamingUnreachable");
        for (listens, carried) in
            [(vec!["::1"], 1), (vec!["127.0.0.1"], 2), (vec!["127.0.0.1", "::1"], 4)]
        {
            let mut streaming = Vec::new();
            for ip in &listens {
                streaming.push(Streaming::listen(at(ip)).await);
            }
            let found = keeper.attach(&server, FailurePolicy::Open).await.unwrap();
            assert!(found.proven.is_some(), "{listens:?}");
            for ip in &listens {
                assert_eq!(exec(at(ip)).await.unwrap().1, ANSWER);
            }
            assert_eq!(relay.totals().opened[0], carried, "{listens:?}");
            for one in streaming {
                one.end().await;
            }
        }
    });
}

/// The class of CVE-2020-8558, and a host's own firewall.
#[test]
#[ignore = "needs root and nft: make relay-test"]
fn neighbours_reach_what_they_reach_without_an_agent() {
    let (here, there) = (Net::new(), Net::new());
    here.connect(&there);
    there.with(async || run("ip link set lo down; ip route add 127.0.0.1 via 10.9.0.1"));
    here.with(async || {
        let neighbour = async |host: &'static str| {
            let there = there.asker();
            tokio::task::spawn_blocking(move || there.ask(host, PORT)).await.unwrap()
        };
        let streaming = Streaming::listen(at("127.0.0.1")).await;
        let mut node = Node::start(at("127.0.0.1"), FailurePolicy::Open);
        node.relays(at("127.0.0.1")).await;
        for host in ["127.0.0.1", "10.9.0.1"] {
            assert_eq!(neighbour(host).await, "", "{host}");
        }
        assert_eq!(node.carried(), 0);
        streaming.end().await;
        run("nft -f - <<'END'
table inet firewall {
  chain in { type filter hook input priority 0; policy drop; iif lo accept; tcp dport 34567 accept; }
}
END");
        let _streaming = Streaming::listen(at("10.9.0.1")).await;
        node.playing.change(|played| played.url = Ok(url(at("10.9.0.1"))));
        node.relays(at("10.9.0.1")).await;
        assert_eq!(neighbour("10.9.0.1").await, ANSWER);
        assert_eq!(node.carried(), 1);
    });
}
