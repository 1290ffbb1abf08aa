//! Pipes through which the kernel moves bytes from one socket to another.

use std::{io, os::fd::OwnedFd, sync::Mutex};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::{io::Interest, net::TcpStream};

/// What a pipe is asked to hold, in bytes. The kernel may allow less.
pub const CAPACITY: usize = 1 << 20;

/// Empty pipes that are kept for the next stream that moves bytes.
const KEPT: usize = 64;

/// A pipe that holds what was taken from one socket and not yet given to the other.
#[derive(Debug)]
pub struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    held: usize,
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Refused where the user's pipes hold too much already; then it is 64 KiB, which is enough.
        let _ = fcntl_setpipe_size(&writer, CAPACITY);
        Ok(Self { reader, writer, held: 0 })
    }

    /// Bytes in the pipe.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Takes at most `most` bytes from a socket into the empty pipe; 0 at the stream's end.
    ///
    /// # Errors
    /// What the socket says; `WouldBlock` where nothing is there.
    pub fn fill(&mut self, socket: &TcpStream, most: usize) -> io::Result<usize> {
        let bytes = socket.try_io(Interest::READABLE, || {
            Ok(splice(socket, None, &self.writer, None, most, FLAGS)?)
        })?;
        self.held += bytes;
        Ok(bytes)
    }

    /// Gives what is held to a socket, as much as it takes now.
    ///
    /// # Errors
    /// What the socket says; `WouldBlock` where it takes nothing.
    pub fn drain(&mut self, socket: &TcpStream) -> io::Result<usize> {
        let bytes = socket.try_io(Interest::WRITABLE, || {
            Ok(splice(&self.reader, None, socket, None, self.held, FLAGS)?)
        })?;
        self.held -= bytes;
        Ok(bytes)
    }
}

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

/// Pipes that nobody uses: an idle stream holds none.
#[derive(Debug, Default)]
pub struct Pipes(Mutex<Vec<Pipe>>);

impl Pipes {
    /// An empty pipe.
    ///
    /// # Errors
    /// Where there is none and none can be made.
    pub fn take(&self) -> io::Result<Pipe> {
        let kept = self.lock().pop();
        kept.map_or_else(Pipe::new, Ok)
    }

    /// Takes a pipe back. One that still holds something is closed: it is nobody's any more.
    pub fn give(&self, pipe: Pipe) {
        let mut kept = self.lock();
        if pipe.held == 0 && kept.len() < KEPT {
            kept.push(pipe);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Pipe>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
