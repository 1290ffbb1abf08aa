//! The sockets on both sides of the relay.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::sockopt::socket_send_buffer_size,
};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::{
    io::Interest,
    net::{TcpListener, TcpSocket, TcpStream},
};

use super::{
    Error, Limits,
    registry::{PortGuard, Registry},
    shape::{Shape, UNSHAPED, receive_buffer},
};

pub(super) use super::shape::reshape;

/// Connections that the kernel keeps until they are accepted.
pub(super) const BACKLOG: i32 = 4096;

/// A peer that is gone without a word is noticed after about two minutes.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(15))
    .with_retries(4);

/// The congestion control within a host, where no other connection is in the way. Every kernel has it,
/// and it sends at once; a host's usual one may pace what it sends (BBR), and that takes a timer for
/// every few segments.
const UNPACED: &[u8] = b"reno";

/// As a time to wait: none.
const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// A socket that waits for connections, on IPv4 or on IPv6 alone.
#[derive(Debug)]
pub struct Listener(TcpListener);

impl Listener {
    /// Listens for whoever connects to this address. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Where the address is taken, or not there.
    pub fn bind(address: SocketAddr) -> Result<Self, Error> {
        Self::listen(address, |_| Ok(()))
    }

    /// Listens for connections to other addresses, which nftables' `tproxy` brings here. The mark is
    /// on all that it sends, and is how the kernel's rules know the socket (`socket mark`). Must be
    /// called within a tokio runtime, by a process with `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// Where the address is taken, or not there, or the process may not do this.
    pub fn transparent(address: SocketAddr, mark: u32) -> Result<Self, Error> {
        Self::listen(address, |socket| {
            // The option of IPv4 is one of the socket, whatever its family.
            socket.set_ip_transparent_v4(true)?;
            socket.set_mark(mark)
        })
    }

    fn listen(
        address: SocketAddr,
        prepare: impl Fn(&Socket) -> io::Result<()>,
    ) -> Result<Self, Error> {
        let listen = || {
            let socket = stream_socket(address)?;
            if address.is_ipv6() {
                socket.set_only_v6(true)?;
            }
            prepare(&socket)?;
            socket.set_reuse_address(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            TcpListener::from_std(socket.into())
        };
        listen().map(Self).map_err(|source| Error::Bind { address, source })
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

    /// Connections from now on are for streams with these limits. They inherit what is set here, and
    /// have it before their first byte.
    pub(super) fn shape(&self, before: Limits, limits: Limits) {
        let (before, now) = (Shape::of(before), Shape::of(limits));
        if before == now {
            return;
        }
        // A kernel that does not want it carries the streams all the same.
        let _ =
            SockRef::from(&self.0).set_tcp_mss(now.and_then(|shape| shape.segment).unwrap_or(0));
        receive_buffer(&self.0, now.map_or(UNSHAPED, |shape| shape.buffer));
    }
}

fn stream_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Prepares one end of a stream; a local one ends on this host.
pub(super) fn prepare(stream: &TcpStream, local: bool) -> io::Result<()> {
    let socket = SockRef::from(stream);
    if local {
        // A kernel that does not want it carries the stream all the same.
        let _ = socket.set_tcp_congestion(UNPACED);
    }
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&KEEPALIVE)
}

/// Connects to the runtime. The mark keeps the connection from being brought to the relay again; a
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
    if let Some(shape) = Shape::of(limits) {
        receive_buffer(&socket, shape.buffer);
        if let Some(segment) = shape.segment {
            socket.set_tcp_mss(segment)?;
        }
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
    prepare(&stream, true)?;
    Ok((stream, guard))
}

/// Whether an address is one of this host's. A kubelet that connects to the runtime by the node's
/// address comes from there, and so may other processes of a node with many addresses.
pub(super) fn is_local(address: IpAddr) -> bool {
    if address.is_loopback() {
        return true;
    }
    // Binding is refused for addresses of others, unless the host was told to allow it. Where that
    // is so, only the address itself is sure: it is the one from which it is reached.
    let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
    let setting = format!("/proc/sys/net/{family}/ip_nonlocal_bind");
    if std::fs::read_to_string(setting).is_ok_and(|text| text.trim() != "0") {
        let unspecified: IpAddr = match address {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let source = UdpSocket::bind((unspecified, 0)).and_then(|socket| {
            socket.connect((address, 9))?;
            socket.local_addr()
        });
        return source.is_ok_and(|source| source.ip() == address);
    }
    UdpSocket::bind((address, 0)).is_ok()
}

/// How many bytes a socket takes now, at least.
///
/// # Errors
/// What the socket says; `WouldBlock` where it is not worth writing to it yet.
pub(super) fn room(stream: &TcpStream) -> io::Result<usize> {
    stream.try_io(Interest::WRITABLE, || {
        match poll(&mut [PollFd::new(stream, PollFlags::OUT)], Some(&NOW)) {
            Ok(0) | Err(Errno::INTR) => Err(io::ErrorKind::WouldBlock.into()),
            // The kernel calls a socket writable while a third of its buffer is free.
            Ok(_) => Ok((socket_send_buffer_size(stream)? / 3).max(1)),
            Err(error) => Err(error.into()),
        }
    })
}

/// Waits until the kernel has sent everything that it was given for a connection.
pub(super) async fn sent(stream: &TcpStream) {
    // So a socket is only ready to be written when nothing waits to be sent.
    let _ = SockRef::from(stream).set_tcp_notsent_lowat(1);
    while let Ok(0) = poll(&mut [PollFd::new(stream, PollFlags::OUT)], Some(&NOW)) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Ends a connection at once, so that the other side sees a reset.
pub(super) fn reset(stream: TcpStream) {
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    drop(stream);
}
