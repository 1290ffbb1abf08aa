//! One direction of a stream: bytes from one socket to the other, until the stream's end.
//!
//! A future is as large as the largest that it may wait for. What an idle stream does not wait for is
//! boxed, so that it takes memory only while it is waited for.

use std::{
    io,
    net::Shutdown,
    sync::atomic::{AtomicBool, Ordering},
};

use socket2::SockRef;
use tokio::{net::TcpStream, task};

use super::{
    ACCEPT_RETRY_DELAY, head,
    pipe::{Failed, Moved, Pipes},
    registry::{Direction, Open, Probe},
    shared_limiter::{Meter, SharedLimiter},
    socket,
};

/// The first bytes of an answer, in which its status is: `HTTP/1.1 101`.
const ANSWER: usize = 12;

/// A direction that always has something to move lets others have their turn after so many bytes.
const TURN: usize = 1 << 20;

/// What a move costs a socket beside its bytes, at most, in bytes.
const OVERHEAD: usize = 2 << 10;

/// Which socket an error is of.
#[derive(Debug)]
pub enum Broken {
    /// The one that is read. What it had sent before has been passed on.
    From(io::Error),
    /// The one that is written.
    To(io::Error),
}

/// What comes before the bytes that nobody looks at.
pub enum First {
    /// A head that was read already.
    Head(Vec<u8>),
    /// An answer whose status is wanted.
    Answer,
}

/// What is carried.
pub enum Carried {
    /// A stream.
    Stream(Open),
    /// The agent's own probe, of which nothing is counted.
    Probe(Probe),
}

/// What the side that is written takes, as it was seen some moves ago: asking the kernel each time
/// would cost small moves more than they cost themselves.
#[derive(Debug, Default)]
struct Room {
    seen: usize,
    left: usize,
}

impl Room {
    fn new(seen: usize) -> Self {
        Self { seen, left: seen }
    }

    /// So many bytes were moved, for which the kernel counts somewhat more.
    fn took(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes + OVERHEAD);
    }

    /// Whether it must be asked for again.
    fn is_old(&self) -> bool {
        self.left <= self.seen / 2
    }
}

/// One direction.
pub struct HalfDuplex<'a> {
    pub from: &'a TcpStream,
    pub to: &'a TcpStream,
    pub direction: Direction,
    pub limiter: &'a SharedLimiter,
    pub pipes: &'a Pipes,
    pub carried: &'a Carried,
    /// Whether the socket that is read has been reset, which a write has been told: an error is told
    /// once only, and what looks like the stream's end after that is none.
    pub from_reset: &'a AtomicBool,
}

impl<'a> HalfDuplex<'a> {
    /// Moves what there is until the stream's end, and passes that on, too. The other direction goes
    /// on: that is what half-closed means.
    #[expect(clippy::manual_async_fn, reason = "it would hold its arguments twice")]
    pub fn run(self, first: First) -> impl Future<Output = Result<(), Broken>> + Send + use<'a> {
        async move {
            let mut meter = Meter::new(self.limiter);
            let ended = match first {
                First::Head(bytes) => {
                    Box::pin(self.pass(&bytes, &mut meter)).await?;
                    false
                }
                First::Answer => Box::pin(self.answer(&mut meter)).await?,
            };
            if !ended {
                self.pump(&mut meter).await?;
            }
            if self.from_reset.load(Ordering::Relaxed) {
                return Err(Broken::From(io::ErrorKind::ConnectionReset.into()));
            }
            match SockRef::from(self.to).shutdown(Shutdown::Write) {
                Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(Broken::To(error)),
                _ => Ok(()),
            }
        }
    }

    /// Passes the beginning of an answer on as it comes; tells whether the stream ended there.
    async fn answer(&self, meter: &mut Meter<'_>) -> Result<bool, Broken> {
        let mut seen = [0; ANSWER];
        let mut length = 0;
        while length < ANSWER {
            let read = self.read(&mut seen[length..]).await.map_err(Broken::From)?;
            if read == 0 {
                return Ok(true);
            }
            // Before whoever has asked can see it.
            if let Carried::Probe(probe) = self.carried {
                probe.answered();
            }
            self.pass(&seen[length..length + read], meter).await?;
            length += read;
        }
        if let (Carried::Stream(open), Some(status)) = (self.carried, head::status(&seen)) {
            open.answered(status);
        }
        Ok(false)
    }

    /// Until the stream's end.
    async fn pump(&self, meter: &mut Meter<'_>) -> Result<(), Broken> {
        let (mut turn, mut room) = (0, Room::default());
        loop {
            self.from.readable().await.map_err(Broken::From)?;
            // Being ready costs nothing of tokio's budget, and another stream may wait.
            task::consume_budget().await;
            if room.is_old() {
                room = Room::new(self.room().await?);
            }
            let allowed = meter.allowance().await;
            let moved = self.pipes.carry(self.from, self.to, allowed.bytes.min(room.left));
            meter.moved(allowed, moved.as_ref().map_or(0, |moved| moved.taken));
            match moved {
                Ok(Moved { taken: 0, .. }) => return Ok(()),
                Ok(Moved { taken, left }) => {
                    room.took(taken);
                    if !left.is_empty() {
                        Box::pin(self.write(&left)).await.map_err(Broken::To)?;
                        room = Room::default();
                    }
                    self.moved(taken, meter);
                    turn += taken;
                }
                // What there is to move waits where it is.
                Err(Failed::Pipe) => Box::pin(tokio::time::sleep(ACCEPT_RETRY_DELAY)).await,
                Err(Failed::From(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(Failed::From(error)) => return Err(Broken::From(error)),
                Err(Failed::To(error)) => return Err(Broken::To(error)),
            }
            if turn >= TURN {
                turn = 0;
                task::yield_now().await;
            }
        }
    }

    /// Waits until the side that is written takes something, and tells how much. Until then what has
    /// come stays in the socket that is read, where it holds its sender back.
    async fn room(&self) -> Result<usize, Broken> {
        loop {
            match socket::room(self.to) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                room => return room.map_err(Broken::To),
            }
            if Box::pin(self.ended_or_writable()).await? {
                // The stream's end needs no room.
                return Ok(1);
            }
        }
    }

    /// Waits until the side that is written can be, and tells whether the stream has ended instead.
    async fn ended_or_writable(&self) -> Result<bool, Broken> {
        if self.from.peek(&mut [0]).await.map_err(Broken::From)? == 0 {
            return Ok(true);
        }
        self.to.writable().await.map_err(Broken::To)?;
        Ok(false)
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

    /// Passes on what was read to be looked at; its tokens are paid later.
    async fn pass(&self, bytes: &[u8], meter: &mut Meter<'_>) -> Result<(), Broken> {
        self.write(bytes).await.map_err(Broken::To)?;
        meter.owe(bytes.len());
        self.moved(bytes.len(), meter);
        Ok(())
    }

    async fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            self.to.writable().await?;
            match self.to.try_write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn moved(&self, bytes: usize, meter: &mut Meter<'_>) {
        if let Carried::Stream(open) = self.carried {
            open.moved(self.direction, bytes, meter.take_throttled());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::Arc,
        time::{Duration, Instant},
    };

    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::relay::{
        head::{Head, Kind},
        pipe::tests::connection,
        registry::Registry,
    };

    /// Longer than anything here takes on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn the_end_is_passed_on_to_a_side_that_takes_nothing() {
        let ((mut source, from), (to, _sink)) = (connection().await, connection().await);
        to.writable().await.unwrap();
        while socket::room(&to).is_ok() {
            to.try_write(&[0; 100_000]).unwrap();
        }
        let (limiter, pipes) = (SharedLimiter::new(Instant::now()), Pipes::default());
        let registry = Arc::new(Registry::default());
        let head = Head::unseen(Kind::Tls);
        let way = HalfDuplex {
            from: &from,
            to: &to,
            direction: Direction::ToClient,
            limiter: &limiter,
            pipes: &pipes,
            carried: &Carried::Stream(registry.open(head, from.peer_addr().unwrap(), false)),
            from_reset: &AtomicBool::new(false),
        };
        source.shutdown().await.unwrap();
        let ended = tokio::time::timeout(PATIENCE, way.run(First::Head(Vec::new()))).await;
        ended.expect("it waits for the side that takes nothing").unwrap();
    }
}
