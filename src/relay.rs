//! The relay: carries exec, attach and port-forward streams between whoever asks and the runtime's
//! streaming server, at no more than the limits, and looks at nothing but the head of the request
//! and the status of the answer.
//!
//! Bytes move by splice(2), within the kernel. The kernel brings connections here that were meant for
//! the runtime (`crate::agent::redirect`), and their own address is still the one that they were
//! meant for. The relay knows nothing of Kubernetes.

mod descriptors;
mod half_duplex;
mod head;
mod limiter;
mod line;
mod pipe;
mod places;
mod refusal;
mod registry;
mod shape;
mod share;
mod shared_limiter;
mod socket;
mod stream;
mod threads;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use tokio::{net::TcpStream, sync::watch, task::JoinSet};

use pipe::Pipes;
use registry::{Connected, Registry};
use shared_limiter::SharedLimiter;
use stream::Route;
use threads::Threads;

pub use descriptors::raise as raise_descriptors;
pub use head::{HEAD_MAX, Kind};
pub use refusal::Refusal;
pub use registry::{Direction, Expected, RemotePeer, StreamInfo, Totals};
pub use shared_limiter::Limits;
pub use socket::Listener;

/// How long to wait before the next attempt when there was no descriptor for a connection.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// How long a relay that stops waits for one more connection that the kernel has already accepted.
const ACCEPT_DRAIN: Duration = Duration::from_millis(1);

/// Why the relay cannot work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen for streams on {address}: {source}")]
    Bind {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
}

impl Error {
    /// A short, stable name for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Bind { .. } => "RelayBind",
        }
    }
}

/// Where connections are led.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// Where they were meant to go, if that is allowed ([`Relay::allow`]). The relay's own
    /// connections carry the mark, by which the kernel knows not to bring them back.
    Destination {
        /// The mark (SO_MARK).
        mark: u32,
    },
    /// To one place, whoever connects: for tests and benchmarks, which have no rules in the kernel.
    Fixed(SocketAddr),
}

/// How the relay works.
#[derive(Clone, Copy, Debug)]
pub struct RelaySettings {
    /// Where connections are led.
    pub upstream: Upstream,
    /// How long a request's head may take.
    pub head_timeout: Duration,
    /// How long connecting to the runtime may take.
    pub dial_timeout: Duration,
    /// Connections that are carried at once; more are reset. A part of them is kept for this host's
    /// own.
    pub connections: usize,
}

impl RelaySettings {
    /// The usual settings: 20,000 connections, or as many as this process may have descriptors for
    /// (see [`raise_descriptors`]).
    pub fn new(upstream: Upstream) -> Self {
        Self {
            upstream,
            head_timeout: Duration::from_secs(10),
            dial_timeout: Duration::from_secs(5),
            connections: descriptors::connections(),
        }
    }
}

/// The relay; clones are the same one.
#[derive(Clone, Debug)]
pub struct Relay(Arc<Shared>);

/// What all streams share.
#[derive(Debug)]
struct Shared {
    settings: RelaySettings,
    limits: watch::Sender<Limits>,
    /// By [`Direction`].
    limiters: [SharedLimiter; 2],
    /// For the agent's own probes, which must not wait for anybody's streams.
    unlimited: SharedLimiter,
    allowed: RwLock<Vec<SocketAddr>>,
    registry: Arc<Registry>,
    pipes: Pipes,
    threads: Threads,
}

impl Shared {
    fn mark(&self) -> Option<u32> {
        match self.settings.upstream {
            Upstream::Destination { mark } => Some(mark),
            Upstream::Fixed(_) => None,
        }
    }
}

impl Relay {
    /// A relay without limits that is allowed to dial nothing.
    pub fn new(settings: RelaySettings) -> Self {
        let now = Instant::now();
        Self(Arc::new(Shared {
            settings,
            limits: watch::Sender::new(Limits::default()),
            limiters: [SharedLimiter::new(now), SharedLimiter::new(now)],
            unlimited: SharedLimiter::new(now),
            allowed: RwLock::default(),
            registry: Arc::default(),
            pipes: Pipes::default(),
            threads: Threads::default(),
        }))
    }

    /// Changes the limits, of running streams too. Limits that are the same wake no stream.
    pub fn set_limits(&self, limits: Limits) {
        self.0.limits.send_if_modified(|now| {
            let changed = *now != limits;
            if changed {
                *now = limits;
                for limiter in &self.0.limiters {
                    limiter.set(limits);
                }
            }
            changed
        });
    }

    /// The destinations that may be dialled: the runtime's streaming server, and nothing else.
    pub fn allow(&self, destinations: impl IntoIterator<Item = SocketAddr>) {
        let allowed = destinations.into_iter().collect();
        *self.0.allowed.write().unwrap_or_else(PoisonError::into_inner) = allowed;
    }

    /// A connection from this local port is the agent's own probe while the guard lives: it is
    /// carried, counted nowhere, and answered by nobody but the runtime.
    pub fn expect_probe(&self, local_port: u16) -> Expected {
        self.0.registry.expect_probe(local_port)
    }

    /// The streams that are open, oldest first.
    pub fn streams(&self) -> Vec<StreamInfo> {
        self.0.registry.streams()
    }

    /// The last stream that another host opened and the runtime accepted: a followed redirect.
    pub fn remote_peers(&self) -> watch::Receiver<Option<RemotePeer>> {
        self.0.registry.remote()
    }

    /// What has been carried since the start.
    pub fn totals(&self) -> Totals {
        self.0.registry.totals()
    }

    /// Whether nothing is carried.
    pub fn is_idle(&self) -> bool {
        self.0.registry.places().borrow().taken() == 0
    }

    /// Resolves when nothing is carried.
    pub async fn drained(&self) {
        let mut places = self.0.registry.places();
        // It fails when the registry is gone, and then nothing is carried either.
        let _ = places.wait_for(|places| places.taken() == 0).await;
    }

    /// Takes connections until `stop` resolves, and those that the kernel has accepted by then. What
    /// they bring is carried by threads of the relay's own.
    /// Streams that are open go on; when this future is dropped, they end.
    pub async fn serve(&self, listener: Listener, stop: impl Future<Output = ()>) {
        let mut changes = self.0.limits.subscribe();
        let mut limits = Limits::default();
        let mut streams = JoinSet::new();
        let own = listener.local_addr().ok();
        let mut stop = std::pin::pin!(stop);
        changes.mark_changed();
        loop {
            tokio::select! {
                biased;
                () = &mut stop => break,
                Some(_) = streams.join_next() => {}
                Ok(()) = changes.changed() => {
                    let before = std::mem::replace(&mut limits, *changes.borrow_and_update());
                    listener.shape(before, limits);
                }
                accepted = listener.accept() => self.accepted(accepted, own, &mut streams).await,
            }
        }
        // No more than can have been waiting: whoever goes on connecting must not keep us.
        for _ in 0..socket::BACKLOG {
            match tokio::time::timeout(ACCEPT_DRAIN, listener.accept()).await {
                Ok(Ok(accepted)) => self.accepted(Ok(accepted), own, &mut streams).await,
                _ => break,
            }
        }
        drop(listener);
        while streams.join_next().await.is_some() {}
    }

    async fn accepted(
        &self,
        accepted: io::Result<(TcpStream, SocketAddr)>,
        own: Option<SocketAddr>,
        streams: &mut JoinSet<()>,
    ) {
        match accepted {
            Ok((stream, peer)) => match self.route(&stream, peer, own) {
                Ok((route, connected)) => self.carry(stream, route, connected, streams),
                Err(refusal) => {
                    self.0.registry.refused(refusal);
                    tracing::debug!(%peer, reason = refusal.reason(), "connection refused");
                    socket::reset(stream);
                }
            },
            // It was gone before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            // The connection waits in the kernel until there is a descriptor for it.
            Err(error) => {
                self.0.registry.refused(Refusal::Descriptors);
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }

    /// Lets one of the threads carry a stream.
    fn carry(
        &self,
        stream: TcpStream,
        route: Route,
        connected: Connected,
        streams: &mut JoinSet<()>,
    ) {
        let shared = Arc::clone(&self.0);
        let carry = async move {
            let _connected = connected;
            // From now on its events are to wake this thread alone.
            match stream.into_std().and_then(TcpStream::from_std) {
                Ok(stream) => stream::carry(&shared, stream, route).await,
                Err(error) => tracing::warn!(%error, "cannot carry a connection"),
            }
        };
        streams.spawn_on(carry, &self.0.threads.next());
    }

    /// Where a connection leads that has come to our own address `own`.
    fn route(
        &self,
        stream: &TcpStream,
        peer: SocketAddr,
        own: Option<SocketAddr>,
    ) -> Result<(Route, Connected), Refusal> {
        let local = stream.local_addr().map_err(|_| Refusal::NotRedirected)?;
        let runtime = match self.0.settings.upstream {
            Upstream::Fixed(address) => address,
            Upstream::Destination { .. } if Some(local) == own => {
                return Err(Refusal::NotRedirected);
            }
            Upstream::Destination { .. } => local,
        };
        let registry = &self.0.registry;
        let near = [local.ip(), runtime.ip()].contains(&peer.ip()) || socket::is_local(peer.ip());
        // Should a connection of ours come back in spite of its mark, it ends here: a relay that
        // carries itself opens thousands in a second.
        if near && registry.is_own(peer.port()) {
            return Err(Refusal::Loop);
        }
        let probe = registry.probe(peer.port()).filter(|_| near);
        if self.0.mark().is_some() {
            let allowed = self.0.allowed.read().unwrap_or_else(PoisonError::into_inner);
            if !allowed.contains(&runtime) {
                return Err(Refusal::NotRuntime);
            }
        }
        // A probe is refused as well: a relay that is full is no way for anybody, and the kernel
        // sends the next streams straight to the runtime.
        let remote = (!near).then_some(peer.ip());
        let connected = registry.connected(self.0.settings.connections, remote);
        let connected = connected.ok_or(Refusal::TooMany)?;
        Ok((Route { peer, remote: !near, runtime, probe }, connected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_are_the_same_wake_nobody() {
        let relay = Relay::new(RelaySettings::new(Upstream::Fixed(([127, 0, 0, 1], 1).into())));
        let mut streams = relay.0.limits.subscribe();
        for connection in [1000, 0, 2000] {
            let limits = Limits { connection, node: 0 };
            relay.set_limits(limits);
            assert!(streams.has_changed().unwrap());
            assert_eq!(*streams.borrow_and_update(), limits);
            relay.set_limits(limits);
            assert!(!streams.has_changed().unwrap());
        }
    }
}
