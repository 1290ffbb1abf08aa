//! One stream's life: its head, the runtime's answer, and then bytes that nobody looks at.

use std::{
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::{Fuse, FutureExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::TcpStream,
    sync::watch,
    time::timeout,
};

use super::{
    Shared,
    half_duplex::{Broken, Carried, First, HalfDuplex},
    head::{self, HEAD_MAX, Head, Kind, Progress},
    refusal::Refusal,
    registry::{Direction, Open, PortGuard, Probe},
    shared_limiter::Limits,
    socket,
};

/// What is still to be read of a connection that we end is read for so long: closed with unread
/// bytes it would be reset, and what it was told may be lost with it.
const LINGER: Duration = Duration::from_secs(1);

/// Of a refused request no more than this is read, in bytes.
const REFUSED: u64 = 1 << 20;

/// What a side had sent before its connection broke is passed on for so long.
const FINISH: Duration = Duration::from_secs(30);

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
    pub probe: Option<Probe>,
}

/// A stream that has begun.
struct Begun {
    client: TcpStream,
    runtime: TcpStream,
    carried: Carried,
    started: Instant,
    /// What its sockets are prepared for.
    limits: Limits,
    changes: watch::Receiver<Limits>,
    _port: PortGuard,
}

/// Carries a connection to its end.
///
/// What comes before and after the stream is boxed: most of its life it waits for neither, and a
/// future is as large as the largest that it may wait for.
pub fn carry(
    shared: &Arc<Shared>,
    client: TcpStream,
    route: Route,
) -> impl Future<Output = ()> + Send {
    // Arguments of an `async fn` would stay in its future for as long as that lives.
    let beginning = Box::pin(begin(shared, client, route));
    async move {
        let Some((mut begun, head)) = beginning.await else { return };
        let ended = relay(shared, &mut begun, head).await;
        Box::pin(finish(shared, begun, ended)).await;
    }
}

/// Ends what is still there of a stream, and tells of it.
async fn finish(shared: &Arc<Shared>, begun: Begun, ended: End) {
    let Begun { client, runtime, carried, started, .. } = begun;
    let broken = match ended {
        End::Both => None,
        End::Broken { error, client: client_is_broken, complete } => {
            if let Carried::Stream(_) = carried {
                shared.registry.refused(Refusal::Reset);
            }
            let (gone, other) =
                if client_is_broken { (client, runtime) } else { (runtime, client) };
            socket::reset(gone);
            end(other, complete).await;
            Some(error.unwrap_or_else(|| io::ErrorKind::ConnectionReset.into()))
        }
    };
    if let Carried::Stream(open) = carried {
        log(&open, started, broken);
    }
}

/// One line at the end of a stream. Of the request only what cannot let anybody in.
fn log(open: &Open, started: Instant, broken: Option<io::Error>) {
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
        error = broken.map(|error| error.to_string()),
        "stream ended",
    );
}

/// Begins a stream; `None` for a connection that was refused.
async fn begin(
    shared: &Arc<Shared>,
    mut client: TcpStream,
    route: Route,
) -> Option<(Begun, Vec<u8>)> {
    let mut changes = shared.limits.subscribe();
    let limits = *changes.borrow_and_update();
    // A socket that cannot be prepared is gone already, as reading it tells.
    let _ = socket::prepare(&client, !route.remote);
    match connect(shared, &mut client, &route, limits).await {
        Ok((head, bytes, runtime, port)) => {
            let carried = match route.probe {
                Some(probe) => Carried::Probe(probe),
                None => Carried::Stream(shared.registry.open(head, route.peer, route.remote)),
            };
            let started = Instant::now();
            let begun = Begun { client, runtime, carried, started, limits, changes, _port: port };
            Some((begun, bytes))
        }
        Err(refusal) => {
            if route.probe.is_none() {
                shared.registry.refused(refusal);
                tracing::info!(peer = %route.peer, reason = refusal.reason(), "stream refused");
            }
            None
        }
    }
}

/// Reads the head and connects to the runtime.
async fn connect(
    shared: &Arc<Shared>,
    client: &mut TcpStream,
    route: &Route,
    limits: Limits,
) -> Result<(Head, Vec<u8>, TcpStream, PortGuard), Refusal> {
    let mut bytes = Vec::new();
    let read = timeout(shared.settings.head_timeout, read_head(client, &mut bytes)).await;
    let head = match read.unwrap_or(Err(Refusal::HeadTimeout)) {
        Ok(head) => head,
        Err(refusal) => {
            refuse(client, "400 Bad Request", refusal.reason()).await;
            return Err(refusal);
        }
    };
    let dial = socket::dial(&shared.registry, route.runtime, shared.mark(), limits);
    let dialled = timeout(shared.settings.dial_timeout, dial).await;
    match dialled.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok((runtime, port)) => Ok((head, bytes, runtime, port)),
        Err(error) => {
            // A probe is answered by the runtime or by nobody.
            if head.kind != Kind::Tls && route.probe.is_none() {
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
    let tell = async {
        client.write_all(answer.as_bytes()).await?;
        client.shutdown().await?;
        tokio::io::copy(&mut client.take(REFUSED), &mut tokio::io::sink()).await
    };
    let _ = timeout(LINGER, tell).await;
}

/// How a stream ended.
#[derive(Debug)]
enum End {
    /// Both sides have said all they had to say.
    Both,
    /// An error ended it.
    Broken {
        /// What it was.
        error: Option<io::Error>,
        /// Whether it was the client's side.
        client: bool,
        /// Whether the other side has had the end of this side's bytes before that.
        complete: bool,
    },
}

/// Moves bytes both ways until both have ended. When one side's connection is broken, the other
/// still gets what that side had sent before; nothing waits for a side that is gone.
async fn relay(shared: &Arc<Shared>, begun: &mut Begun, head: Vec<u8>) -> End {
    let Begun { client, runtime, carried, limits, changes, .. } = begun;
    let (client, runtime, carried) = (&*client, &*runtime, &*carried);
    let (client_reset, runtime_reset) = (AtomicBool::new(false), AtomicBool::new(false));
    let way = |from, to, direction, from_reset| HalfDuplex {
        from,
        to,
        direction,
        limiter: match carried {
            Carried::Stream(_) => &shared.limiters[direction as usize],
            Carried::Probe(_) => &shared.unlimited,
        },
        pipes: &shared.pipes,
        carried,
        from_reset,
    };
    let up = way(client, runtime, Direction::ToRuntime, &client_reset);
    let down = way(runtime, client, Direction::ToClient, &runtime_reset);
    let (mut up, mut down) =
        (pin!(up.run(First::Head(head)).fuse()), pin!(down.run(First::Answer).fuse()));
    let (mut up_ended, mut down_ended) = (false, false);
    let (client_is_broken, error, read_out) = loop {
        // A direction that waits for its limits, or for the other side to take something, does not
        // read, and so would not see that its own side is gone.
        tokio::select! {
            biased;
            ended = &mut up, if !up_ended => match ended {
                Ok(()) => up_ended = true,
                Err(Broken::From(error)) => break (true, Some(error), true),
                Err(Broken::To(error)) => break (false, Some(error), down_ended),
            },
            ended = &mut down, if !down_ended => match ended {
                Ok(()) => down_ended = true,
                Err(Broken::From(error)) => break (false, Some(error), true),
                Err(Broken::To(error)) => break (true, Some(error), up_ended),
            },
            _ = client.ready(Interest::ERROR) => break (true, None, up_ended),
            _ = runtime.ready(Interest::ERROR) => break (false, None, down_ended),
            Ok(()) = changes.changed() => {
                let before = std::mem::replace(limits, *changes.borrow_and_update());
                for socket in [client, runtime] {
                    socket::reshape(socket, before, *limits);
                }
            }
        }
        if up_ended && down_ended {
            return End::Both;
        }
    };
    // A reset that follows a proper end is a broken pipe.
    if error.as_ref().is_some_and(|error| error.kind() != io::ErrorKind::BrokenPipe) {
        let reset = if client_is_broken { &client_reset } else { &runtime_reset };
        reset.store(true, Ordering::Relaxed);
    }
    let mut complete = if client_is_broken { up_ended } else { down_ended };
    // Nobody polls the other direction any more. It must not keep its place in the line for the node's
    // tokens, or hold them: everybody else would wait.
    if client_is_broken {
        down.set(Fuse::terminated())
    } else {
        up.set(Fuse::terminated())
    }
    if !read_out {
        let rest = async { if client_is_broken { up.await } else { down.await } };
        complete = matches!(Box::pin(timeout(FINISH, rest)).await, Ok(Ok(())));
    }
    End::Broken { error, client: client_is_broken, complete }
}

/// Ends the side that is still there after the other's connection broke.
async fn end(stream: TcpStream, complete: bool) {
    if complete {
        // It has had a proper end; a reset now could take bytes away that it has not read yet.
        discard(stream).await;
    } else {
        let _ = timeout(LINGER, socket::sent(&stream)).await;
        socket::reset(stream);
    }
}

/// Reads what is still coming, for a while: a connection that is closed with unread bytes is reset.
async fn discard(mut stream: TcpStream) {
    let rest = async { tokio::io::copy(&mut stream, &mut tokio::io::sink()).await };
    let _ = timeout(LINGER, rest).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::{Relay, RelaySettings, Upstream, pipe::tests::connection};

    #[tokio::test]
    async fn an_idle_stream_takes_no_memory_for_what_it_does_not_wait_for() {
        let address = ([127, 0, 0, 1], 1).into();
        let relay = Relay::new(RelaySettings::new(Upstream::Fixed(address)));
        let (_client, stream) = connection().await;
        let route = Route { peer: address, remote: false, runtime: address, probe: None };
        let size = size_of_val(&carry(&relay.0, stream, route));
        assert!(size <= 1800, "{size} bytes");
    }
}
