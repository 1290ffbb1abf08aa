//! An apiserver that upgrades, or refuses to, as it is told.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use futures::{SinkExt as _, StreamExt as _};
use http::{
    HeaderMap, Method, Request, Response,
    header::{CONNECTION, LOCATION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use kube::Config;
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};

use super::{
    super::{ApiserverAddress, CanaryPod, Instance, connect},
    spdy,
};
use crate::decision::canary::Transport;

/// What it does to a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// It does not upgrade, but answers this.
    Refuse(u16, String),
    /// It sends the client somewhere else.
    Redirect(String),
    /// It upgrades, and repeats what comes on standard input: for an exec once that has ended, for an
    /// attach each line.
    Repeat,
    /// It upgrades, and says this on channels: those of an exec, or of a port-forward its data, 0, and
    /// its errors, 1.
    Say(Vec<(u8, Vec<u8>)>),
    /// It says this, and breaks off instead of closing.
    BreakOff(Vec<(u8, Vec<u8>)>),
    /// It upgrades to another protocol than was asked for.
    OtherProtocol,
}

type Script = Arc<dyn Fn(&str, Transport) -> Reply + Send + Sync>;

/// A running apiserver.
pub struct Apiserver {
    pub url: String,
    /// The requests that came: path and query, and headers.
    pub seen: Arc<Mutex<Vec<(String, HeaderMap)>>>,
}

impl Apiserver {
    /// One that answers requests by their path and query.
    pub async fn start(script: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_by(move |asked, _| script(asked)).await
    }

    /// One that answers requests by what they ask for, too.
    pub async fn start_by(
        script: impl Fn(&str, Transport) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let apiserver = Self { url, seen: Arc::default() };
        let (script, seen): (Script, _) = (Arc::new(script), apiserver.seen.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, script.clone(), seen.clone()));
            }
        });
        apiserver
    }

    /// One whose certificate is for this name, and who trusts it.
    pub async fn start_tls(
        name: &str,
        script: impl Fn(&str) -> Reply + Send + Sync + 'static,
    ) -> (Self, Config) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let mut config = Config::new("https://unused.example".parse().unwrap());
        config.root_cert = Some(vec![made.cert.der().to_vec()]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let apiserver = Self { url, seen: Arc::default() };
        let by_path = move |asked: &str, _: Transport| script(asked);
        let (script, seen): (Script, _) = (Arc::new(by_path), apiserver.seen.clone());
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(stream) = acceptor.accept(stream).await {
                    tokio::spawn(serve(stream, script.clone(), seen.clone()));
                }
            }
        });
        (apiserver, config)
    }

    /// The way to it.
    pub fn instance(&self) -> Instance {
        let place = ApiserverAddress { name: "cp1".to_owned(), url: self.url.clone() };
        connect(&Config::new("http://unused.example".parse().unwrap()), &place).unwrap()
    }
}

async fn serve<S>(stream: S, script: Script, seen: Arc<Mutex<Vec<(String, HeaderMap)>>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let answer = answer(request, &script, &seen);
        async move { Ok::<_, Infallible>(answer) }
    });
    let server = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let _ = server.with_upgrades().await;
}

fn answer(
    mut request: Request<Incoming>,
    script: &Script,
    seen: &Mutex<Vec<(String, HeaderMap)>>,
) -> Response<String> {
    let asked = request.uri().to_string();
    seen.lock().unwrap().push((asked.clone(), request.headers().clone()));
    let header = |name: &str| {
        let value = request.headers().get(name)?.to_str().unwrap();
        Some(value.to_owned())
    };
    let key = header(SEC_WEBSOCKET_KEY.as_str());
    let transport = if key.is_some() { Transport::WebSocket } else { Transport::Spdy };
    let name = match transport {
        Transport::WebSocket => "sec-websocket-protocol",
        Transport::Spdy => STREAM_PROTOCOL,
    };
    let offered = header(name).unwrap_or_default();
    if transport == Transport::Spdy && !offered.is_empty() {
        assert_eq!((request.method(), header("upgrade").as_deref()), (&Method::POST, Some(SPDY)));
    }
    let accept = |protocol: &str| {
        let response = Response::builder().status(101).header(CONNECTION, "Upgrade");
        let response = match &key {
            Some(key) => response
                .header(UPGRADE, "websocket")
                .header(SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes())),
            None => response.header(UPGRADE, SPDY),
        };
        response.header(name, protocol).body(String::new()).unwrap()
    };
    let reply = script(&asked, transport);
    match reply {
        Reply::Refuse(status, body) => Response::builder().status(status).body(body).unwrap(),
        Reply::Redirect(to) => {
            Response::builder().status(302).header(LOCATION, to).body(String::new()).unwrap()
        }
        Reply::OtherProtocol => accept("base64.channel.k8s.io"),
        Reply::Repeat | Reply::Say(_) | Reply::BreakOff(_) => {
            let response = accept(&offered);
            let upgrade = hyper::upgrade::on(&mut request);
            let is_exec = !asked.contains("/portforward");
            let is_attach = asked.contains("/attach?");
            tokio::spawn(async move {
                let io = TokioIo::new(upgrade.await.unwrap());
                if transport == Transport::Spdy {
                    return spdy::speak(io, is_exec, is_attach, reply).await;
                }
                let socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
                if is_exec {
                    say(socket, is_attach, reply).await
                } else {
                    tunnel(socket, reply).await
                }
            });
            response
        }
    }
}

const STREAM_PROTOCOL: &str = "x-stream-protocol-version";
const SPDY: &str = "SPDY/3.1";

/// An exec or an attach over channels.
async fn say<S>(mut socket: WebSocketStream<S>, is_attach: bool, reply: Reply)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut input: Vec<u8> = Vec::new();
    let (messages, close) = match reply {
        Reply::Repeat => loop {
            let message = socket.next().await.unwrap().unwrap().into_data();
            match message.split_first().unwrap() {
                (0, bytes) => {
                    input.extend(bytes);
                    if is_attach && input.ends_with(b"\n") {
                        break (vec![(1, b"other\n".to_vec()), (1, input)], true);
                    }
                }
                (255, [0]) => break (repeated(&input), true),
                other => panic!("{other:?}"),
            }
        },
        Reply::Say(messages) => (messages, true),
        Reply::BreakOff(messages) => (messages, false),
        other => panic!("{other:?}"),
    };
    for (channel, data) in messages {
        let message = [vec![channel], data].concat();
        // A client that has heard enough may be gone.
        if socket.send(Message::Binary(message.into())).await.is_err() {
            return;
        }
    }
    if close {
        let _ = socket.close(None).await;
        while socket.next().await.is_some_and(|message| message.is_ok()) {}
    }
}

/// What an exec of `repeat` says: an empty message first, as kubelets do.
pub fn repeated(input: &[u8]) -> Vec<(u8, Vec<u8>)> {
    vec![(1, vec![]), (1, [input, b"\n"].concat()), (3, SUCCESS.into())]
}

/// SPDY in the messages of a WebSocket, in pieces that are not those of its frames.
async fn tunnel<S>(mut socket: WebSocketStream<S>, reply: Reply)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (near, far) = tokio::io::duplex(1 << 20);
    let close = !matches!(reply, Reply::BreakOff(_));
    let speaking = tokio::spawn(spdy::speak(far, false, false, reply));
    let (mut read, mut write) = tokio::io::split(near);
    let mut bytes = [0; 7];
    loop {
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Binary(bytes))) => {
                    if write.write_all(&bytes).await.is_err() {
                        break;
                    }
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {}
            },
            count = read.read(&mut bytes) => match count.unwrap() {
                0 => break,
                count => {
                    let message = Message::Binary(bytes[..count].to_vec().into());
                    if socket.send(message).await.is_err() {
                        break;
                    }
                }
            },
        }
    }
    speaking.abort();
    if close {
        let _ = socket.close(None).await;
        while socket.next().await.is_some_and(|message| message.is_ok()) {}
    }
}

/// What a sound node says: to a port-forward its line in any pieces.
pub fn sound(asked: &str) -> Reply {
    if !asked.contains("/portforward") {
        return Reply::Repeat;
    }
    let [one, two] = ["sluice can", "ary sluice-canary-x\n"].map(|part| part.as_bytes().to_vec());
    Reply::Say(vec![(0, one), (0, two)])
}

/// The status of an exec that did what it should, as kubelets write it.
pub const SUCCESS: &str = r#"{"metadata":{},"status":"Success"}"#;

/// Whether this asks for an exec.
pub fn is_exec(asked: &str) -> bool {
    asked.contains("/exec?")
}

/// A canary.
pub fn pod() -> CanaryPod {
    CanaryPod {
        namespace: "sluice-system-canary".to_owned(),
        name: "sluice-canary-x".to_owned(),
        node: "worker-1".to_owned(),
        ready: true,
    }
}
