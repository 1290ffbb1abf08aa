//! A connection of the agent's own to the runtime's streaming server, as a kubelet makes them, to
//! see whether streams would be answered. It asks for nothing that exists and carries no token.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use super::rules::{PROBE_MARK, RELAY_MARK};
use crate::relay::Relay;

/// How long a probe may take. Elements live longer than this and the pause between two probes
/// together, so that a slow answer alone turns nothing off.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What every HTTP server answers with, Go's TLS server included: it tells clients that do not
/// speak TLS so in plain HTTP.
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

/// Asks through the rules and the relay.
///
/// # Errors
/// Where no answer comes that way.
pub async fn through_relay(relay: &Relay, address: SocketAddr) -> Result<(), Error> {
    let socket = bound(address, PROBE_MARK)?;
    let port = socket.local_addr().map_or(0, |local| local.port());
    let probe = relay.expect_probe(port);
    ask(socket, address).await?;
    if probe.carried() { Ok(()) } else { Err(Error::PastRelay(address)) }
}

/// Asks straight, past every rule.
///
/// # Errors
/// Where no answer comes.
pub async fn straight(address: SocketAddr) -> Result<(), Error> {
    ask(bound(address, RELAY_MARK)?, address).await
}

/// A connection past every rule.
///
/// # Errors
/// If no connection can be made.
pub async fn connect(address: SocketAddr) -> Result<TcpStream, Error> {
    let connected = bound(address, RELAY_MARK)?.connect(address).await;
    connected.map_err(|source| Error::Connection { address, source })
}

/// A socket whose port is known before anybody can see a connection from it.
fn bound(address: SocketAddr, mark: u32) -> Result<TcpSocket, Error> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_mark(mark)?;
        socket.bind(&SocketAddr::new(any, 0).into())?;
        Ok(TcpSocket::from_std_stream(socket.into()))
    };
    socket().map_err(|source| Error::Connection { address, source })
}

async fn ask(socket: TcpSocket, address: SocketAddr) -> Result<(), Error> {
    let asked = async {
        let mut stream = socket.connect(address).await?;
        let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = [0; ANSWER.len()];
        stream.read_exact(&mut answer).await?;
        Ok(answer)
    };
    match tokio::time::timeout(TIMEOUT, asked).await {
        Err(_) => Err(Error::Timeout(address)),
        Ok(Err(source)) => Err(Error::Connection { address, source }),
        Ok(Ok(answer)) if answer == ANSWER => Ok(()),
        Ok(Ok(_)) => Err(Error::NotHttp(address)),
    }
}
