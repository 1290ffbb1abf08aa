//! An apiserver that upgrades, or refuses to, as it is told.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use futures::SinkExt as _;
use http::{
    HeaderMap, Request, Response,
    header::{
        CONNECTION, LOCATION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
        UPGRADE,
    },
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use kube::Config;
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};

use super::super::{ApiserverAddress, CanaryPod, Instance, connect, upgrade::CHANNELS};

/// What it does to a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// It does not upgrade, but answers this.
    Refuse(u16, String),
    /// It sends the client somewhere else.
    Redirect(String),
    /// It upgrades, and says this on channels.
    Say(Vec<(u8, Vec<u8>)>),
    /// It says this, and breaks off instead of closing.
    BreakOff(Vec<(u8, Vec<u8>)>),
    /// It upgrades to another protocol than was asked for.
    OtherProtocol,
}

type Script = Arc<dyn Fn(&str) -> Reply + Send + Sync>;

/// A running apiserver.
pub struct Apiserver {
    pub url: String,
    /// The requests that came: path and query, and headers.
    pub seen: Arc<Mutex<Vec<(String, HeaderMap)>>>,
}

impl Apiserver {
    /// One that answers requests by their path and query.
    pub async fn start(script: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
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
        let (script, seen): (Script, _) = (Arc::new(script), apiserver.seen.clone());
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
    let key = request.headers().get(SEC_WEBSOCKET_KEY).cloned();
    let mut accept = |protocol: &str| {
        let response = Response::builder()
            .status(101)
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_ref().unwrap().as_bytes()))
            .header(SEC_WEBSOCKET_PROTOCOL, protocol);
        (response.body(String::new()).unwrap(), hyper::upgrade::on(&mut request))
    };
    match script(&asked) {
        Reply::Refuse(status, body) => Response::builder().status(status).body(body).unwrap(),
        Reply::Redirect(to) => {
            Response::builder().status(302).header(LOCATION, to).body(String::new()).unwrap()
        }
        Reply::Say(messages) => {
            let (response, upgrade) = accept(CHANNELS);
            tokio::spawn(say(upgrade, messages, true));
            response
        }
        Reply::BreakOff(messages) => {
            let (response, upgrade) = accept(CHANNELS);
            tokio::spawn(say(upgrade, messages, false));
            response
        }
        Reply::OtherProtocol => accept("base64.channel.k8s.io").0,
    }
}

async fn say(upgrade: OnUpgrade, messages: Vec<(u8, Vec<u8>)>, close: bool) {
    let io = TokioIo::new(upgrade.await.unwrap());
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
    for (channel, data) in messages {
        let message = [vec![channel], data].concat();
        // A client that has heard enough may be gone.
        if socket.send(Message::Binary(message.into())).await.is_err() {
            return;
        }
    }
    if close {
        let _ = socket.close(None).await;
    }
}

/// What a sound node says: to an exec an empty message first, as kubelets do, and to a port-forward
/// the port on both channels, and then data in any pieces.
pub fn sound(asked: &str) -> Reply {
    if let Some(word) = word(asked) {
        let word = word.as_bytes().to_vec();
        return Reply::Say(vec![(1, vec![]), (1, word), (3, SUCCESS.into())]);
    }
    let port = 8080u16.to_le_bytes().to_vec();
    let [one, two] = ["sluice can", "ary sluice-canary-x\n"].map(|part| part.as_bytes().to_vec());
    Reply::Say(vec![(0, port.clone()), (1, port), (0, one), (0, two)])
}

/// The status of an exec that did what it should, as kubelets write it.
pub const SUCCESS: &str = r#"{"metadata":{},"status":"Success"}"#;

/// The word that an exec asks for.
pub fn word(asked: &str) -> Option<&str> {
    let (_, rest) = asked.split_once("command=say&command=")?;
    rest.split('&').next()
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
