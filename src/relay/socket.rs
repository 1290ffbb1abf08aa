//! The sockets on both sides of the relay.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::{
    Error, Limits,
    registry::{PortGuard, Registry},
};

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 4096;

/// A peer that is gone without a word is noticed after about two minutes.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(15))
    .with_retries(4);

/// Faster than this a stream is not held back by what queues before it.
const SHAPED_BELOW: u64 = 16 << 20;

/// A socket that waits for connections, on IPv4 or on IPv6 alone: one that serves both does not
/// tell the original destination of IPv4 connections on every kernel.
#[derive(Debug)]
pub struct Listener(TcpListener);

impl Listener {
    /// Listens. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Where the address is taken, or not there.
    pub fn bind(address: SocketAddr) -> Result<Self, Error> {
        let bind = || {
            let socket = stream_socket(address)?;
            if address.is_ipv6() {
                socket.set_only_v6(true)?;
            }
            socket.set_reuse_address(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            TcpListener::from_std(socket.into())
        };
        bind().map(Self).map_err(|source| Error::Bind { address, source })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    pub(super) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.0.accept().await
    }

    /// Connections from now on are for streams with these limits.
    ///
    /// A sender on loopback has segments of 64 KiB, and its socket buffer holds twenty: megabytes,
    /// which at 100 KiB/s is more than half a minute that a new stream waits behind. Small segments
    /// make a small buffer.
    pub(super) fn shape(&self, limits: Limits) {
        // A kernel that does not want it carries the streams all the same.
        let _ = SockRef::from(&self.0).set_tcp_mss(segment(limits).unwrap_or(0));
    }
}

fn segment(limits: Limits) -> Option<u32> {
    match limits.slowest()? {
        rate if rate < 2 << 20 => Some(536),
        rate if rate < SHAPED_BELOW => Some(1448),
        _ => None,
    }
}

/// What a receive buffer needs for a twentieth of a second.
fn receive_buffer(limits: Limits) -> Option<usize> {
    let rate = limits.slowest().filter(|rate| *rate < SHAPED_BELOW)?;
    Some(usize::try_from(rate / 20).unwrap_or(usize::MAX).clamp(4 << 10, 512 << 10))
}

fn stream_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Prepares one end of a stream.
pub(super) fn prepare(stream: &TcpStream, limits: Limits) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&KEEPALIVE)?;
    if let Some(bytes) = receive_buffer(limits) {
        socket.set_recv_buffer_size(bytes)?;
    }
    Ok(())
}

/// Connects to the runtime. The mark keeps the connection from being sent to the relay again; a
/// kernel that refuses it gets no connection.
pub(super) async fn dial(
    registry: &std::sync::Arc<Registry>,
    address: SocketAddr,
    mark: Option<u32>,
    limits: Limits,
) -> io::Result<(TcpStream, PortGuard)> {
    let socket = stream_socket(address)?;
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    if let Some(bytes) = receive_buffer(limits) {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(bytes) = segment(limits) {
        socket.set_tcp_mss(bytes)?;
    }
    // Bound first, so that the port is known before anybody can see a connection from it.
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    socket.bind(&SocketAddr::new(any, 0).into())?;
    let port = socket.local_addr()?.as_socket().map_or(0, |local| local.port());
    let guard = registry.own_port(port);
    let stream = TcpSocket::from_std_stream(socket.into()).connect(address).await?;
    prepare(&stream, Limits::default())?;
    Ok((stream, guard))
}

/// Where a connection wanted to go before the kernel sent it here; `None` where it wanted to come
/// here.
pub(super) fn original_destination(stream: &TcpStream) -> Option<SocketAddr> {
    let local = stream.local_addr().ok()?;
    let socket = SockRef::from(stream);
    let original = match local {
        SocketAddr::V4(_) => socket.original_dst_v4(),
        SocketAddr::V6(_) => socket.original_dst_v6(),
    };
    original.ok()?.as_socket().filter(|original| *original != local)
}

/// Ends a connection at once, so that the other side sees a reset.
pub(super) fn reset(stream: TcpStream) {
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    drop(stream);
}
