//! One direction of a stream: bytes from one socket to the other, until the stream's end.

use std::{
    io,
    net::Shutdown,
    sync::atomic::{AtomicBool, Ordering},
};

use socket2::SockRef;
use tokio::{net::TcpStream, task};

use super::{
    BREATH, head,
    meter::{Gauge, Meter},
    pipe::{Pipe, Pipes},
    registry::{Direction, Open, Probe},
};

/// The first bytes of an answer, in which its status is: `HTTP/1.1 101`.
const ANSWER: usize = 12;

/// A direction that always has something to move lets others have their turn after so many bytes.
const TURN: usize = 1 << 20;

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
pub enum Carried<'a> {
    /// A stream.
    Stream(Open),
    /// The agent's own probe, of which nothing is counted.
    Probe(&'a Probe),
}

/// One direction.
pub struct Way<'a> {
    pub from: &'a TcpStream,
    pub to: &'a TcpStream,
    pub direction: Direction,
    pub gauge: &'a Gauge,
    pub pipes: &'a Pipes,
    pub carried: &'a Carried<'a>,
    /// Whether the socket that is read has been reset, which a write has been told: an error is told
    /// once only, and what looks like the stream's end after that is none.
    pub from_reset: &'a AtomicBool,
}

impl Way<'_> {
    /// Moves what there is until the stream's end, and passes that on, too. The other direction goes
    /// on: that is what half-closed means.
    pub async fn run(self, first: First) -> Result<(), Broken> {
        let mut meter = Meter::new(self.gauge);
        let ended = match first {
            First::Head(bytes) => {
                self.pass(&bytes, &mut meter).await?;
                false
            }
            First::Answer => self.answer(&mut meter).await?,
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
        let mut turn = 0;
        loop {
            self.from.readable().await.map_err(Broken::From)?;
            // Being ready costs nothing of tokio's budget, and another stream may wait.
            task::consume_budget().await;
            let allowed = meter.allowance().await;
            let Ok(mut pipe) = self.pipes.take() else {
                // No descriptor is left: what there is to move waits where it is.
                meter.moved(allowed, 0);
                tokio::time::sleep(BREATH).await;
                continue;
            };
            let filled = pipe.fill(self.from, allowed.bytes);
            let moved = *filled.as_ref().unwrap_or(&0);
            meter.moved(allowed, moved);
            if moved > 0 {
                self.empty(&mut pipe).await.map_err(Broken::To)?;
                self.moved(moved, meter);
            }
            self.pipes.give(pipe);
            match filled {
                Ok(0) => return Ok(()),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Err(Broken::From(error));
                }
                _ => {}
            }
            turn += moved;
            if turn >= TURN {
                turn = 0;
                task::yield_now().await;
            }
        }
    }

    async fn empty(&self, pipe: &mut Pipe) -> io::Result<()> {
        while pipe.held() > 0 {
            match pipe.drain(self.to) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.to.writable().await?;
                }
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
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
        let mut rest = bytes;
        while !rest.is_empty() {
            self.to.writable().await.map_err(Broken::To)?;
            match self.to.try_write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(Broken::To(error)),
            }
        }
        meter.owe(bytes.len());
        self.moved(bytes.len(), meter);
        Ok(())
    }

    fn moved(&self, bytes: usize, meter: &mut Meter<'_>) {
        if let Carried::Stream(open) = self.carried {
            open.moved(self.direction, bytes, meter.take_throttled());
        }
    }
}
