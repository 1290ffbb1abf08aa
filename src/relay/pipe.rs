//! Pipes through which the kernel moves bytes from one socket to another.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::{io::Interest, net::TcpStream};

/// What a large pipe holds, in bytes.
const LARGE: usize = 1 << 18;

/// Large pipes at once. The kernel lets a user have 64 MiB of pipes (pipe-user-pages-soft) before
/// it makes all new ones tiny, and on a node that user is root, of whom everything else is, too.
const LARGE_MAX: usize = 64;

/// Empty pipes that are kept for the next move.
const KEPT: usize = 64;

/// A pipe that holds what was taken from one socket and not yet given to the other.
#[derive(Debug)]
pub struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    held: usize,
    _large: Option<Large>,
}

/// One of the large pipes.
#[derive(Debug)]
struct Large(Arc<AtomicUsize>);

impl Large {
    fn new(large: &Arc<AtomicUsize>) -> Option<Self> {
        let one = Self(Arc::clone(large));
        (large.fetch_add(1, Ordering::Relaxed) < LARGE_MAX).then_some(one)
    }
}

impl Drop for Large {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pipe {
    fn new(large: &Arc<AtomicUsize>) -> io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // What the kernel does not allow stays as small as it made it: slower, but it works.
        let large = Large::new(large).filter(|_| fcntl_setpipe_size(&writer, LARGE).is_ok());
        Ok(Self { reader, writer, held: 0, _large: large })
    }

    /// Bytes in the pipe.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Takes at most `most` bytes from a socket into the empty pipe; 0 at the stream's end.
    ///
    /// # Errors
    /// What the socket says; `WouldBlock` where nothing is there, and never because the pipe is
    /// full: it must be empty.
    pub fn fill(&mut self, socket: &TcpStream, most: usize) -> io::Result<usize> {
        debug_assert_eq!(self.held, 0, "an empty pipe is filled");
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

/// Pipes that nobody uses: a stream has one only while it holds bytes.
#[derive(Debug, Default)]
pub struct Pipes {
    kept: Mutex<Vec<Pipe>>,
    large: Arc<AtomicUsize>,
}

impl Pipes {
    /// An empty pipe.
    ///
    /// # Errors
    /// Where there is none and none can be made.
    pub fn take(&self) -> io::Result<Pipe> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.map_or_else(|| Pipe::new(&self.large), Ok)
    }

    /// Takes a pipe back. One that still holds something is closed: it is nobody's any more.
    pub fn give(&self, pipe: Pipe) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if pipe.held == 0 && kept.len() < KEPT {
            kept.push(pipe);
        }
    }
}
