//! One stream's life: its head, the runtime's answer, and then bytes that nobody looks at.

use std::{
    io,
    net::Shutdown,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{
    Shared,
    head::{self, HEAD_MAX, Head, Kind, Progress},
    meter::{Gauge, Meter},
    pipe::{Pipe, Pipes},
    refusal::Refusal,
    registry::{Direction, Open},
    socket,
};

/// Of a refused request so much is read before it is closed, in bytes and time: a connection that
/// is closed with unread bytes is reset, and the answer may be lost with it.
const LINGER: (usize, Duration) = (1 << 16, Duration::from_secs(1));

/// The first bytes of an answer, in which its status is.
const ANSWER: usize = 256;

/// Where a connection leads and what it is.
#[derive(Debug)]
pub struct Route {
    /// Who connected.
    pub peer: SocketAddr,
    /// Whether that is another host.
    pub remote: bool,
    /// The runtime's streaming server.
    pub runtime: SocketAddr,
    /// The agent's own probe: carried, but no stream.
    pub probe: bool,
}

/// Carries a connection to its end.
pub async fn carry(shared: &Arc<Shared>, mut client: TcpStream, route: Route) {
    match begin(shared, &mut client, &route).await {
        Ok((head, bytes, runtime, _port)) => {
            let open = (!route.probe).then(|| shared.registry.open(head, route.peer, route.remote));
            let started = Instant::now();
            let ended = relay(shared, &client, &runtime, bytes, open.as_ref()).await;
            if ended.is_err() {
                if !route.probe {
                    shared.registry.refused(Refusal::Reset);
                }
                socket::reset(client);
                socket::reset(runtime);
            }
            if let Some(open) = open {
                log(&open, started, ended);
            }
        }
        Err(refusal) => {
            if !route.probe {
                shared.registry.refused(refusal);
                tracing::info!(peer = %route.peer, reason = refusal.reason(), "stream refused");
            }
        }
    }
}

/// One line at the end of a stream. Of the request only what cannot let anybody in.
fn log(open: &Open, started: Instant, ended: io::Result<()>) {
    let info = open.info();
    tracing::info!(
        id = info.id,
        kind = info.kind.as_str(),
        peer = %info.peer,
        remote = info.remote,
        user_agent = info.user_agent,
        forwarded_for = info.forwarded_for,
        status = info.status,
        to_runtime = info.to_runtime,
        to_client = info.to_client,
        seconds = started.elapsed().as_secs_f64(),
        throttled_seconds = info.throttled_millis as f64 / 1000.0,
        error = ended.err().map(|error| error.to_string()),
        "stream ended",
    );
}

type Begun = (Head, Vec<u8>, TcpStream, super::registry::PortGuard);

/// Reads the head and connects to the runtime.
async fn begin(
    shared: &Arc<Shared>,
    client: &mut TcpStream,
    route: &Route,
) -> Result<Begun, Refusal> {
    let mut bytes = Vec::new();
    let read = timeout(shared.settings.head_timeout, read_head(client, &mut bytes)).await;
    let head = match read.unwrap_or(Err(Refusal::HeadTimeout)) {
        Ok(head) => head,
        Err(refusal) => {
            refuse(client, "400 Bad Request", refusal.reason()).await;
            return Err(refusal);
        }
    };
    let dial = socket::dial(&shared.registry, route.runtime, shared.mark(), shared.limits());
    let dialled = timeout(shared.settings.dial_timeout, dial).await;
    match dialled.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok((runtime, port)) => Ok((head, bytes, runtime, port)),
        Err(error) => {
            if head.kind != Kind::Tls {
                // As the kubelet says it.
                let text = format!("error dialing backend: dial tcp {}: {error}", route.runtime);
                refuse(client, "500 Internal Server Error", &text).await;
            }
            Err(Refusal::Dial)
        }
    }
}

async fn read_head(client: &mut TcpStream, bytes: &mut Vec<u8>) -> Result<Head, Refusal> {
    loop {
        match head::read(bytes) {
            Progress::Done(head) => return Ok(head),
            Progress::Garbage => return Err(Refusal::HeadGarbage),
            Progress::TooLong => return Err(Refusal::HeadTooLong),
            Progress::More => {}
        }
        bytes.reserve(1024);
        let room = (HEAD_MAX - bytes.len().min(HEAD_MAX)) as u64;
        match client.take(room).read_buf(bytes).await {
            Ok(0) | Err(_) => return Err(Refusal::HeadEnded),
            Ok(_) => {}
        }
    }
}

async fn refuse(client: &mut TcpStream, status: &str, text: &str) {
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{text}\n",
        text.len() + 1
    );
    let linger = async {
        client.write_all(answer.as_bytes()).await?;
        client.shutdown().await?;
        tokio::io::copy(&mut client.take(LINGER.0 as u64), &mut tokio::io::sink()).await
    };
    let _ = timeout(LINGER.1, linger).await;
}

/// Moves bytes both ways until both have ended; an error of either side is the end of both.
async fn relay(
    shared: &Arc<Shared>,
    client: &TcpStream,
    runtime: &TcpStream,
    head: Vec<u8>,
    open: Option<&Open>,
) -> io::Result<()> {
    let way = |from, to, direction| Way {
        from,
        to,
        direction,
        gauge: &shared.gauges[direction as usize],
        pipes: &shared.pipes,
        open,
    };
    tokio::try_join!(
        way(client, runtime, Direction::ToRuntime).run(First::Head(head)),
        way(runtime, client, Direction::ToClient).run(First::Answer),
    )?;
    Ok(())
}

/// What comes before the bytes that nobody looks at.
enum First {
    /// A head that was read already.
    Head(Vec<u8>),
    /// An answer whose status is wanted.
    Answer,
}

/// One direction.
struct Way<'a> {
    from: &'a TcpStream,
    to: &'a TcpStream,
    direction: Direction,
    gauge: &'a Gauge,
    pipes: &'a Pipes,
    open: Option<&'a Open>,
}

impl Way<'_> {
    async fn run(self, first: First) -> io::Result<()> {
        let mut meter = Meter::new(self.gauge);
        let passed = match first {
            First::Head(bytes) => self.pass(&bytes).await?,
            First::Answer => {
                let mut bytes = vec![0; ANSWER];
                let length = self.read(&mut bytes).await?;
                if let (Some(open), Some(status)) = (self.open, head::status(&bytes[..length])) {
                    open.answered(status);
                }
                self.pass(&bytes[..length]).await?
            }
        };
        if passed > 0 {
            meter.owe(passed);
            self.moved(passed, &mut meter);
            self.pump(&mut meter).await?;
        }
        // The other direction goes on: that is what half-closed means.
        match SockRef::from(self.to).shutdown(Shutdown::Write) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(error),
            _ => Ok(()),
        }
    }

    /// Until the stream's end.
    async fn pump(&self, meter: &mut Meter<'_>) -> io::Result<()> {
        let mut pipe: Option<Pipe> = None;
        loop {
            // Its turn in tokio's budget is what lets other streams of this thread have theirs.
            self.from.readable().await?;
            let allowed = meter.allowance().await;
            let held = match &mut pipe {
                Some(pipe) => pipe,
                None => pipe.insert(self.pipes.take()?),
            };
            let filled = held.fill(self.from, allowed);
            let moved = *filled.as_ref().unwrap_or(&0);
            meter.moved(allowed, moved).await;
            match filled {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Idle: the pipe is another stream's.
                    if let Some(pipe) = pipe.take() {
                        self.pipes.give(pipe);
                    }
                    continue;
                }
                Err(error) => return Err(error),
            }
            while held.held() > 0 {
                match held.drain(self.to) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.to.writable().await?;
                    }
                    Err(error) => return Err(error),
                }
            }
            self.moved(moved, meter);
        }
    }

    async fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            self.from.readable().await?;
            match self.from.try_read(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }

    async fn pass(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut passed = 0;
        while passed < bytes.len() {
            self.to.writable().await?;
            match self.to.try_write(&bytes[passed..]) {
                Ok(written) => passed += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(passed)
    }

    fn moved(&self, bytes: usize, meter: &mut Meter<'_>) {
        if let Some(open) = self.open {
            open.moved(self.direction, bytes, meter.take_throttled());
        }
    }
}
