//! A kubelet that answers every request with a redirect, and the runtime that it leads to.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::{Request, Response, StatusCode, header::LOCATION};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::PostParams};
use serde_json::json;
use sluice::canary::CanaryPod;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, rustls};

use crate::apiserver::nodes;

/// Where the redirects lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leads {
    /// To the kubelet's own address.
    Here,
    /// To another name of the same machine: `ValidateProxyRedirects` compares names.
    Elsewhere,
}

impl Leads {
    fn host(self) -> &'static str {
        match self {
            Self::Here => "127.0.0.1",
            Self::Elsewhere => "localhost",
        }
    }

    fn node(self) -> &'static str {
        match self {
            Self::Here => "here",
            Self::Elsewhere => "elsewhere",
        }
    }
}

/// The kubelet, with a Node and a pod on it, until it is dropped.
pub struct Kubelet {
    leads: Leads,
    reached: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Kubelet {
    pub async fn start(client: &Client, leads: Leads) -> Self {
        let mut tasks = JoinSet::new();
        let reached = Arc::new(AtomicUsize::new(0));
        let runtime = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let location =
            format!("http://{}:{}/exec/token", leads.host(), runtime.local_addr().unwrap().port());
        tasks.spawn(serve_runtime(runtime, reached.clone()));
        let kubelet = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = kubelet.local_addr().unwrap().port();
        tasks.spawn(serve_redirects(kubelet, location));

        let mut node = nodes::node(leads.node(), "v1.18.0");
        node["status"]["addresses"] = json!([{"type": "InternalIP", "address": "127.0.0.1"}]);
        node["status"]["daemonEndpoints"] = json!({"kubeletEndpoint": {"Port": port}});
        nodes::create(client, node).await;
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": leads.node(), "namespace": "default"},
            "spec": {
                "nodeName": leads.node(),
                "automountServiceAccountToken": false,
                "containers": [{"name": "canary", "image": "canary"}],
            },
        });
        let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
        pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
        Self { leads, reached, _tasks: tasks }
    }

    /// What the canary asks.
    pub fn pod(&self) -> CanaryPod {
        CanaryPod {
            namespace: "default".into(),
            name: self.leads.node().into(),
            node: self.leads.node().into(),
            ready: true,
        }
    }

    /// How many connections the runtime got.
    pub fn runtime_was_reached(&self) -> usize {
        self.reached.load(Ordering::SeqCst)
    }
}

/// Counts who comes, and has no stream for anybody.
async fn serve_runtime(listener: TcpListener, reached: Arc<AtomicUsize>) {
    let mut streams = JoinSet::new();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        reached.fetch_add(1, Ordering::SeqCst);
        streams.spawn(async move {
            let _ = stream.read(&mut [0; 4096]).await;
            let answer = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let _ = stream.write_all(answer.as_bytes()).await;
        });
    }
}

async fn serve_redirects(listener: TcpListener, location: String) {
    let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(vec![certified.cert.der().clone()], key.into())
    .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let mut streams = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, location) = (acceptor.clone(), location.clone());
        streams.spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let answer = service_fn(move |_: Request<Incoming>| {
                let answer = Response::builder()
                    .status(StatusCode::FOUND)
                    .header(LOCATION, &location)
                    .body(String::new())
                    .unwrap();
                async { Ok::<_, Infallible>(answer) }
            });
            let connection = hyper::server::conn::http1::Builder::new();
            let _ = connection.serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}
