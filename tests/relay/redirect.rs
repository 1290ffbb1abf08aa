//! Connections that the kernel sends to the relay, in a network namespace of their own: needs root,
//! `nft`, `ip` and `nsenter`.

use std::{
    net::{IpAddr, SocketAddr},
    process::{Child, Command, Stdio},
};

use sluice::relay::{Listener, Refusal, Relay, Settings, Upstream};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};

use crate::stage::{ANSWER, PATIENCE, REQUEST, alone, expect, rest, soon, until};

const RELAY: u16 = 15190;
const RUNTIME: u16 = 34567;
const MARK: u32 = 1;

/// The rules as the node agent makes them: by destination, except for what is marked.
const RULES: &str = "
table inet sluice {
  chain streams {
    meta mark 0x1 return
    ip daddr { 127.0.0.1, 10.9.0.1 } tcp dport { 34567, 34568 } redirect to :15190
    ip6 daddr { ::1, fd00::1 } tcp dport 34567 redirect to :15190
  }
  chain output { type nat hook output priority -110; jump streams; }
  chain prerouting { type nat hook prerouting priority -110; jump streams; }
}";

fn run(line: &str) {
    eprintln!("+ {line}");
    let status = Command::new("sh").args(["-euc", line]).status().unwrap();
    assert!(status.success(), "{line}: {status}");
}

/// Another host, which a cable joins to this one.
struct Neighbour(Child);

impl Neighbour {
    fn start() -> Self {
        let child = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && echo up && exec sleep 600"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut neighbour = Self(child);
        let mut up = [0; 3];
        let out = neighbour.0.stdout.as_mut().unwrap();
        std::io::Read::read_exact(out, &mut up).unwrap();
        let id = neighbour.0.id();
        run(&format!(
            "ip link add cable type veth peer name cable netns {id}
             ip addr add 10.9.0.1/24 dev cable; ip addr add fd00::1/64 dev cable nodad
             ip link set cable up
             nsenter --net=/proc/{id}/ns/net sh -euc '
               ip addr add 10.9.0.2/24 dev cable; ip addr add fd00::2/64 dev cable nodad
               ip link set cable up'"
        ));
        neighbour
    }

    /// Connects from there, asks, and tells the first line of the answer.
    fn ask(&self, host: &'static str, port: u16) -> tokio::task::JoinHandle<String> {
        let net = format!("--net=/proc/{}/ns/net", self.0.id());
        let script = format!(
            "exec 3<>/dev/tcp/{host}/{port}; printf 'GET /exec/x HTTP/1.1\\r\\n\\r\\n' >&3; \
             IFS= read -r line <&3; printf %s \"$line\""
        );
        tokio::task::spawn_blocking(move || {
            let out = Command::new("nsenter").args([&net, "bash", "-c", &script]).output().unwrap();
            String::from_utf8(out.stdout).unwrap()
        })
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn address(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

async fn serve(mark: u32) -> Relay {
    let relay = Relay::new(Settings::new(Upstream::OriginalDestination { mark }));
    relay.allow(["127.0.0.1", "10.9.0.1", "::1", "fd00::1"].map(|ip| address(ip, RUNTIME)));
    for any in ["0.0.0.0", "::"] {
        let listener = Listener::bind(address(any, RELAY)).unwrap();
        let relay = relay.clone();
        tokio::spawn(async move { relay.serve(listener, std::future::pending()).await });
    }
    relay
}

fn count(relay: &Relay, refusal: Refusal) -> u64 {
    relay.totals().refused[Refusal::ALL.iter().position(|r| *r == refusal).unwrap()]
}

/// Nobody is served who comes there.
async fn is_refused(relay: &Relay, destination: SocketAddr, refusal: Refusal) {
    let before = count(relay, refusal);
    // The reset may come while it still connects.
    if let Ok(mut client) = TcpStream::connect(destination).await {
        let _ = client.write_all(REQUEST.as_bytes()).await;
        let (bytes, ended) = rest(&mut client).await;
        assert!(bytes.is_empty() && ended.is_err(), "{destination}");
    }
    until("it is counted", || count(relay, refusal) > before).await;
    assert_eq!(count(relay, refusal), before + 1, "{destination}");
}

#[test]
#[ignore = "needs root and nft: make relay-test"]
fn redirected_connections_are_carried_and_others_refused() {
    let name = "redirect::redirected_connections_are_carried_and_others_refused";
    if !alone(name, &["unshare", "--net"]) {
        return;
    }
    run("ip link set lo up");
    let neighbour = Neighbour::start();
    run(&format!("nft -f - <<'END'\n{RULES}\nEND"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let relay = serve(MARK).await;
        for ip in ["127.0.0.1", "::1", "10.9.0.1", "fd00::1"] {
            local(&relay, address(ip, RUNTIME)).await;
        }
        assert_eq!(*relay.remote_peers().borrow(), None);
        for (ip, peer) in [("10.9.0.1", "10.9.0.2"), ("fd00::1", "fd00::2")] {
            remote(&relay, &neighbour, ip, peer.parse().unwrap()).await;
        }
        for ip in ["127.0.0.1", "::1", "10.9.0.1", "fd00::1"] {
            is_refused(&relay, address(ip, RELAY), Refusal::NotRedirected).await;
        }
        // The rules are wider than what is allowed.
        is_refused(&relay, address("127.0.0.1", RUNTIME + 1), Refusal::NotRuntime).await;
        assert_eq!(neighbour.ask("10.9.0.1", RELAY).await.unwrap(), "");
        assert_eq!(count(&relay, Refusal::Loop), 0);
    });
    // Only then is the port free again.
    runtime.shutdown_timeout(PATIENCE);
    // Its mark is not the one that the rules know: its own connection comes back.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let relay = soon(serve(MARK + 1)).await;
        for ip in ["127.0.0.1", "10.9.0.1", "fd00::1"] {
            let before = count(&relay, Refusal::Loop);
            let mut client = TcpStream::connect(address(ip, RUNTIME)).await.unwrap();
            client.write_all(REQUEST.as_bytes()).await.unwrap();
            let (bytes, ended) = rest(&mut client).await;
            assert!(bytes.starts_with(b"HTTP/1.1 500 ") || bytes.is_empty() && ended.is_err());
            soon(relay.drained()).await;
            assert_eq!(count(&relay, Refusal::Loop), before + 1, "{ip}");
        }
    });
}

/// A kubelet of this host, by whichever address.
async fn local(relay: &Relay, destination: SocketAddr) {
    let server = TcpListener::bind(destination).await.unwrap();
    let mut client = TcpStream::connect(destination).await.unwrap();
    client.write_all(REQUEST.as_bytes()).await.unwrap();
    let (mut end, _) = soon(server.accept()).await.unwrap();
    expect(&mut end, REQUEST.as_bytes()).await;
    end.write_all(ANSWER.as_bytes()).await.unwrap();
    expect(&mut client, ANSWER.as_bytes()).await;
    let streams = relay.streams();
    let [stream] = streams.as_slice() else { panic!("{streams:?}") };
    assert_eq!((stream.peer, stream.remote), (client.local_addr().unwrap(), false));
    drop((client, end));
    soon(relay.drained()).await;
}

/// Somebody on another host who follows a redirect.
async fn remote(relay: &Relay, neighbour: &Neighbour, ip: &'static str, peer: IpAddr) {
    let server = TcpListener::bind(address(ip, RUNTIME)).await.unwrap();
    let asked = neighbour.ask(ip, RUNTIME);
    let (mut end, _) = soon(server.accept()).await.unwrap();
    until("the stream is known", || !relay.streams().is_empty()).await;
    let stream = relay.streams().remove(0);
    assert_eq!((stream.peer.ip(), stream.remote), (peer, true));
    end.write_all(ANSWER.as_bytes()).await.unwrap();
    assert_eq!(soon(asked).await.unwrap(), "HTTP/1.1 101 Switching Protocols\r");
    assert_eq!(relay.remote_peers().borrow().unwrap().peer, peer);
    drop(end);
    soon(relay.drained()).await;
}
