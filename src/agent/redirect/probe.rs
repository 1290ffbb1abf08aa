//! A connection of the agent's own to the runtime's streaming server, as a kubelet makes them, to
//! see whether streams would be answered. It asks for nothing that exists and carries no token.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use super::{
    certificate,
    rules::{PROBE_MARK, RELAY_MARK},
};
use crate::{agent::cri::Server, relay::Relay};

/// How long a probe may take. Elements live longer than this and the pause between two probes
/// together, so that a slow answer alone turns nothing off.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What every HTTP server answers with.
const ANSWER: &[u8] = b"HTTP/1.";

/// Why streams would not be answered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection failed.
    #[error("a probe of the runtime's streaming server at {address} failed: {source}")]
    Connection {
        /// The streaming server.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// There was no answer in time.
    #[error("the runtime's streaming server at {0} has not answered a probe within {TIMEOUT:?}")]
    Timeout(SocketAddr),
    /// There was an answer that is not HTTP.
    #[error("what answers at {0} is no streaming server")]
    NotHttp(SocketAddr),
    /// It was answered, but not through the relay: the rules have no effect.
    #[error(
        "a probe of {0} reached the runtime past the relay: something else has changed the node's rules"
    )]
    PastRelay(SocketAddr),
}

impl Error {
    /// A short, stable name for the report, the log and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Connection { .. } => "StreamingUnreachable",
            Self::Timeout(_) => "StreamingSlow",
            Self::NotHttp(_) => "StreamingNotHttp",
            Self::PastRelay(_) => "RulesWithoutEffect",
        }
    }
}

/// How a probe comes to the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// By its mark, before anybody else does.
    Mark,
    /// As everybody else's streams do.
    Live,
}

/// Asks through the rules and the relay, and has the kernel bring streams there for another lifetime
/// of its rules, which begins at the time that is returned.
///
/// # Errors
/// Where the runtime's answer does not come back that way; then nothing is renewed.
pub async fn through_relay(
    relay: &Relay,
    address: SocketAddr,
    server: &Server,
    by: By,
) -> Result<Instant, Error> {
    let failed = |source| Error::Connection { address, source };
    let socket = bound(address, (by == By::Mark).then_some(PROBE_MARK)).map_err(failed)?;
    let port = socket.local_addr().map_err(failed)?.port();
    let expected = relay.expect_probe(port);
    let stream = ask(socket, address, server).await?;
    if !expected.is_answered() {
        return Err(Error::PastRelay(address));
    }
    // The rules look for the mark on the packet that ends it.
    let socket = SockRef::from(&stream);
    socket.set_mark(PROBE_MARK).map_err(failed)?;
    let renewed = Instant::now();
    socket.shutdown(std::net::Shutdown::Write).map_err(failed)?;
    Ok(renewed)
}

/// Asks straight, past every rule.
///
/// # Errors
/// Where no answer comes.
pub async fn straight(address: SocketAddr, server: &Server) -> Result<(), Error> {
    let socket = bound(address, Some(RELAY_MARK));
    let socket = socket.map_err(|source| Error::Connection { address, source })?;
    ask(socket, address, server).await.map(drop)
}

/// A connection past every rule.
///
/// # Errors
/// If no connection can be made.
pub async fn connect(address: SocketAddr) -> Result<TcpStream, Error> {
    let connected = async { bound(address, Some(RELAY_MARK))?.connect(address).await };
    connected.await.map_err(|source| Error::Connection { address, source })
}

/// A socket whose port is known before anybody can see a connection from it.
fn bound(address: SocketAddr, mark: Option<u32>) -> io::Result<TcpSocket> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // What fails must not look like an end: only a proper one renews anything.
    socket.set_linger(Some(Duration::ZERO))?;
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    socket.bind(&SocketAddr::new(any, 0).into())?;
    Ok(TcpSocket::from_std_stream(socket.into()))
}

/// Asks and waits for the beginning of the answer.
async fn ask(socket: TcpSocket, address: SocketAddr, server: &Server) -> Result<TcpStream, Error> {
    let asked = async {
        let mut stream = socket.connect(address).await?;
        let answer = if server.tls {
            // Asked without TLS it would answer, too, and complain in the runtime's log each time.
            answer(&mut certificate::connect(&mut stream, &server.host).await?, address).await?
        } else {
            answer(&mut stream, address).await?
        };
        Ok((stream, answer))
    };
    match tokio::time::timeout(TIMEOUT, asked).await {
        Err(_) => Err(Error::Timeout(address)),
        Ok(Err(source)) => Err(Error::Connection { address, source }),
        Ok(Ok((stream, answer))) if answer == ANSWER => Ok(stream),
        Ok(Ok(_)) => Err(Error::NotHttp(address)),
    }
}

async fn answer(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    address: SocketAddr,
) -> io::Result<[u8; ANSWER.len()]> {
    let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut answer = [0; ANSWER.len()];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}
