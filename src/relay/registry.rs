//! The streams that the relay carries, and what it has carried.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{
    head::{Head, Kind},
    places::Places,
    refusal::Refusal,
};

/// A way through the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client to the runtime.
    ToRuntime,
    /// From the runtime to the client.
    ToClient,
}

impl Direction {
    /// Both, in the order of the arrays in [`Totals`].
    pub const ALL: [Self; 2] = [Self::ToRuntime, Self::ToClient];

    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ToRuntime => "to_runtime",
            Self::ToClient => "to_client",
        }
    }
}

/// A stream that is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamInfo {
    /// A number that no other stream of this process has.
    pub id: u64,
    /// What it is for.
    pub kind: Kind,
    /// Who connected: the local kubelet, or whoever follows a redirect.
    pub peer: SocketAddr,
    /// Whether that is another host.
    pub remote: bool,
    /// The client's `User-Agent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// The client as the proxies before us tell it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwarded_for: Option<String>,
    /// When it was opened.
    pub started: Timestamp,
    /// The status with which the runtime answered; 101 for a stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Bytes from the client to the runtime.
    pub to_runtime: u64,
    /// Bytes from the runtime to the client.
    pub to_client: u64,
    /// How long it has waited for its limits, both directions together, in milliseconds.
    pub throttled_millis: u64,
}

/// Another host whose stream the runtime has accepted: it follows redirects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemotePeer {
    /// The host.
    pub peer: IpAddr,
    /// When.
    pub at: Timestamp,
}

/// What has been carried since the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    /// Streams that are open, by [`Kind::ALL`].
    pub active: [u64; Kind::ALL.len()],
    /// Streams that were opened, by [`Kind::ALL`].
    pub opened: [u64; Kind::ALL.len()],
    /// Bytes, by [`Direction::ALL`].
    pub bytes: [u64; 2],
    /// Time that streams have waited for their limits, by [`Direction::ALL`].
    pub throttled: [Duration; 2],
    /// Connections and streams that ended otherwise than they should, by [`Refusal::ALL`].
    pub refused: [u64; Refusal::ALL.len()],
}

/// One open stream; its counters are written by its own task.
#[derive(Debug)]
pub struct Stream {
    pub id: u64,
    pub head: Head,
    pub peer: SocketAddr,
    pub remote: bool,
    pub started: Timestamp,
    pub status: AtomicU16,
    pub bytes: [AtomicU64; 2],
    pub throttled_nanos: [AtomicU64; 2],
}

impl Stream {
    fn info(&self) -> StreamInfo {
        let [to_runtime, to_client] = self.bytes.each_ref().map(|n| n.load(Ordering::Relaxed));
        let throttled: u64 =
            self.throttled_nanos.iter().map(|nanos| nanos.load(Ordering::Relaxed)).sum();
        let status = self.status.load(Ordering::Relaxed);
        StreamInfo {
            id: self.id,
            kind: self.head.kind,
            peer: self.peer,
            remote: self.remote,
            user_agent: self.head.user_agent.clone(),
            forwarded_for: self.head.forwarded_for.clone(),
            started: self.started,
            status: (status != 0).then_some(status),
            to_runtime,
            to_client,
            throttled_millis: throttled / 1_000_000,
        }
    }
}

/// All of them.
#[derive(Debug)]
pub struct Registry {
    next: AtomicU64,
    open: Mutex<BTreeMap<u64, Arc<Stream>>>,
    /// Those of connections that are being carried, streams or not yet.
    places: watch::Sender<Places>,
    opened: [AtomicU64; Kind::ALL.len()],
    bytes: [AtomicU64; 2],
    throttled_nanos: [AtomicU64; 2],
    refused: [AtomicU64; Refusal::ALL.len()],
    remote: watch::Sender<Option<RemotePeer>>,
    /// Ports of our own ends of connections to the runtime.
    own_ports: Ports,
    /// Ports from which the agent's own probes come.
    probe_ports: Ports,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            next: AtomicU64::new(1),
            open: Mutex::default(),
            places: watch::Sender::new(Places::default()),
            opened: Default::default(),
            bytes: Default::default(),
            throttled_nanos: Default::default(),
            refused: Default::default(),
            remote: watch::Sender::new(None),
            own_ports: Ports::default(),
            probe_ports: Ports::default(),
        }
    }
}

impl Registry {
    /// One more connection of at most so many, from another host where one is named; it is over when
    /// the guard is dropped. `None` where there is no place for it.
    pub fn connected(self: &Arc<Self>, most: usize, remote: Option<IpAddr>) -> Option<Connected> {
        let taken = self.places.send_if_modified(|places| places.take(most, remote));
        taken.then(|| Connected { registry: Arc::clone(self), remote })
    }

    /// The places that are taken.
    pub fn places(&self) -> watch::Receiver<Places> {
        self.places.subscribe()
    }

    /// A stream has been opened; it is over when the guard is dropped.
    pub fn open(self: &Arc<Self>, head: Head, peer: SocketAddr, remote: bool) -> Open {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.opened[head.kind.index()].fetch_add(1, Ordering::Relaxed);
        let stream = Arc::new(Stream {
            id,
            head,
            peer,
            remote,
            started: Timestamp::now(),
            status: AtomicU16::new(0),
            bytes: Default::default(),
            throttled_nanos: Default::default(),
        });
        lock(&self.open).insert(id, Arc::clone(&stream));
        Open { registry: Arc::clone(self), stream }
    }

    /// The streams that are open, oldest first.
    pub fn streams(&self) -> Vec<StreamInfo> {
        let open: Vec<_> = lock(&self.open).values().cloned().collect();
        open.iter().map(|stream| stream.info()).collect()
    }

    /// What has been carried.
    pub fn totals(&self) -> Totals {
        let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let mut totals = Totals {
            opened: self.opened.each_ref().map(load),
            bytes: self.bytes.each_ref().map(load),
            throttled: self.throttled_nanos.each_ref().map(load).map(Duration::from_nanos),
            refused: self.refused.each_ref().map(load),
            ..Totals::default()
        };
        for stream in lock(&self.open).values() {
            totals.active[stream.head.kind.index()] += 1;
        }
        totals
    }

    /// A connection ended otherwise than it should.
    pub fn refused(&self, refusal: Refusal) {
        self.refused[refusal.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// Who follows redirects.
    pub fn remote(&self) -> watch::Receiver<Option<RemotePeer>> {
        self.remote.subscribe()
    }

    /// A port of our own end of a connection to the runtime, until the guard is dropped.
    pub fn own_port(self: &Arc<Self>, port: u16) -> PortGuard {
        self.own_ports.add(port);
        PortGuard { registry: Arc::clone(self), port }
    }

    /// Whether this is one of our own ends.
    pub fn is_own(&self, port: u16) -> bool {
        self.own_ports.get(port).is_some()
    }

    /// A probe of the agent's own comes from this port, until what is returned is dropped.
    pub fn expect_probe(self: &Arc<Self>, port: u16) -> Expected {
        let probe = Probe(self.probe_ports.add(port));
        Expected { registry: Arc::clone(self), port, probe }
    }

    /// The probe that comes from there.
    pub fn probe(&self, port: u16) -> Option<Probe> {
        self.probe_ports.get(port).map(Probe)
    }
}

/// Ports that mean something, how often, since one of IPv4 and one of IPv6 may be the same, and
/// whether a connection from there has been answered.
#[derive(Debug, Default)]
struct Ports(Mutex<HashMap<u16, (usize, Arc<AtomicBool>)>>);

impl Ports {
    fn add(&self, port: u16) -> Arc<AtomicBool> {
        let mut ports = lock(&self.0);
        let (uses, answered) = ports.entry(port).or_default();
        *uses += 1;
        Arc::clone(answered)
    }

    fn remove(&self, port: u16) {
        if let Entry::Occupied(mut entry) = lock(&self.0).entry(port) {
            entry.get_mut().0 -= 1;
            if entry.get().0 == 0 {
                entry.remove();
            }
        }
    }

    fn get(&self, port: u16) -> Option<Arc<AtomicBool>> {
        lock(&self.0).get(&port).map(|(_, answered)| Arc::clone(answered))
    }
}

/// The agent's own probe, on its way through the relay.
#[derive(Clone, Debug)]
pub struct Probe(Arc<AtomicBool>);

impl Probe {
    /// The runtime has answered it.
    pub fn answered(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A probe that is expected while this lives.
#[derive(Debug)]
pub struct Expected {
    registry: Arc<Registry>,
    port: u16,
    probe: Probe,
}

impl Expected {
    /// Whether the probe has come to the relay, and the runtime's answer has gone back through it.
    pub fn is_answered(&self) -> bool {
        self.probe.0.load(Ordering::Relaxed)
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.registry.probe_ports.remove(self.port);
    }
}

/// A connection that is being carried.
#[derive(Debug)]
pub struct Connected {
    registry: Arc<Registry>,
    remote: Option<IpAddr>,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.registry.places.send_modify(|places| places.give_back(self.remote));
    }
}

/// A port that is one of ours while this lives.
#[derive(Debug)]
pub struct PortGuard {
    registry: Arc<Registry>,
    port: u16,
}

impl Drop for PortGuard {
    fn drop(&mut self) {
        self.registry.own_ports.remove(self.port);
    }
}

/// An open stream, as its task holds it.
#[derive(Debug)]
pub struct Open {
    registry: Arc<Registry>,
    stream: Arc<Stream>,
}

impl Open {
    /// The runtime has answered.
    pub fn answered(&self, status: u16) {
        self.stream.status.store(status, Ordering::Relaxed);
        // Only an accepted token proves a redirect: anybody can connect and ask.
        if status == 101 && self.stream.remote {
            let remote = RemotePeer { peer: self.stream.peer.ip(), at: Timestamp::now() };
            self.registry.remote.send_replace(Some(remote));
        }
    }

    /// Bytes have moved.
    pub fn moved(&self, direction: Direction, bytes: usize, throttled: Duration) {
        let index = direction as usize;
        self.stream.bytes[index].fetch_add(bytes as u64, Ordering::Relaxed);
        self.registry.bytes[index].fetch_add(bytes as u64, Ordering::Relaxed);
        if !throttled.is_zero() {
            let nanos = u64::try_from(throttled.as_nanos()).unwrap_or(u64::MAX);
            self.stream.throttled_nanos[index].fetch_add(nanos, Ordering::Relaxed);
            self.registry.throttled_nanos[index].fetch_add(nanos, Ordering::Relaxed);
        }
    }

    /// What is known of it.
    pub fn info(&self) -> StreamInfo {
        self.stream.info()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        lock(&self.registry.open).remove(&self.stream.id);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
