//! HTTPS: TLS by rustls, HTTP by hyper, everything bounded in number and in time.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::process::shutdown::Shutdown;

/// Connections at a time. Each carries one request at a time, so this bounds requests, too.
/// Apiservers need a few dozen; who else holds some open has to let go after [`IDLE`].
const CONNECTIONS: usize = 256;

/// How long the TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// How long the head of the next request may take to arrive.
const IDLE: Duration = Duration::from_secs(30);

/// How long connections are still taken once the process is to end: until every node has heard that
/// this replica no longer stands behind the Service.
const LINGER: Duration = Duration::from_secs(2);

/// How long requests in progress may take after that.
const GRACE: Duration = Duration::from_secs(5);

/// After an error of `accept`, which mostly means that there are no more descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Listens on `address`; port 0 takes a free one.
///
/// # Errors
/// When the operating system refuses.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves `router` until some time after `shutdown` has resolved.
pub async fn serve(
    listener: TcpListener,
    tls: ServerConfig,
    router: Router,
    shutdown: impl Future<Output = ()>,
) {
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let (trigger, ending) = Shutdown::triggered();
    let mut connections = JoinSet::new();
    let end = async {
        shutdown.await;
        tokio::time::sleep(LINGER).await;
    };
    let mut end = std::pin::pin!(end);
    loop {
        // Who cannot be served yet waits in the kernel's queue.
        let accepted = async {
            let permit = permits.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, stream) = tokio::select! {
            () = &mut end => break,
            Some(_) = connections.join_next() => continue,
            (permit, accepted) = accepted => match accepted {
                Ok((stream, _)) => (permit, stream),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection to the webhook");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
        };
        let (acceptor, router, ending) = (acceptor.clone(), router.clone(), ending.clone());
        connections.spawn(async move {
            connection(stream, &acceptor, router, ending).await;
            drop(permit);
        });
    }
    drop(listener);
    trigger.request();
    let finish = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, finish).await.is_err() {
        tracing::warn!("requests to the webhook were still in progress");
    }
}

async fn connection(stream: TcpStream, acceptor: &TlsAcceptor, router: Router, ending: Shutdown) {
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        // An apiserver that does not trust the certificate is seen here, and so is every scanner.
        Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => return tracing::debug!("a TLS handshake took too long"),
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = ending.requested() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection to the webhook failed");
    }
}
