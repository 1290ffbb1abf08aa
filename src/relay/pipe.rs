//! Pipes through which the kernel moves bytes from one socket to another.
//!
//! The kernel gives a user 64 MiB of pipes (pipe-user-pages-soft) before it makes all new ones tiny,
//! and on a node that user is root, of whom everything else is, too. So a pipe is nobody's for longer
//! than one move takes: there are as many as threads that move something, however many streams wait.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::{
    param::page_size,
    pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice},
};
use tokio::{io::Interest, net::TcpStream};

/// What a pipe is to hold, in bytes: as much as the kernel gives to anybody (pipe-max-size).
const SIZE: usize = 1 << 20;

/// Why nothing was moved, or not all of what was taken.
#[derive(Debug)]
pub enum Failed {
    /// No descriptor is left for a pipe.
    Pipe,
    /// The socket that is read says so; `WouldBlock` where nothing is there.
    From(io::Error),
    /// The socket that is written says so.
    To(io::Error),
}

/// What one move has done.
#[derive(Debug, PartialEq, Eq)]
pub struct Moved {
    /// Bytes that were taken from one socket; 0 at the stream's end.
    pub taken: usize,
    /// The last of them, which the other socket did not take. They are to be given to it before
    /// anything else is.
    pub left: Vec<u8>,
}

/// Empty pipes that are kept for the next moves.
#[derive(Debug, Default)]
pub struct Pipes(Mutex<Vec<Pipe>>);

impl Pipes {
    /// Moves at most `most` bytes, and does not wait. Whoever asks for more than the socket `to` has
    /// room for gets the rest back as a copy in memory.
    ///
    /// # Errors
    /// What one of the sockets says, or where there is no pipe and none can be made.
    pub fn carry(&self, from: &TcpStream, to: &TcpStream, most: usize) -> Result<Moved, Failed> {
        let kept = self.kept().pop();
        let mut pipe = kept.map_or_else(Pipe::new, Ok).map_err(|_| Failed::Pipe)?;
        pipe.grow();
        let moved = pipe.carry(from, to, most);
        // One that still holds something is closed: it is nobody's any more.
        if pipe.held == 0 {
            self.kept().push(pipe);
        }
        moved
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Pipe>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A pipe that holds what was taken from one socket and not yet given to the other.
#[derive(Debug)]
struct Pipe {
    reader: File,
    writer: OwnedFd,
    held: usize,
    /// What it has room for, in bytes.
    size: usize,
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let size = fcntl_getpipe_size(&writer)?;
        Ok(Self { reader: reader.into(), writer, held: 0, size })
    }

    /// What the kernel does not allow now stays as small as it is: slower, but it works.
    fn grow(&mut self) {
        if self.size < SIZE {
            self.size = fcntl_setpipe_size(&self.writer, SIZE).unwrap_or(self.size);
        }
    }

    fn carry(&mut self, from: &TcpStream, to: &TcpStream, most: usize) -> Result<Moved, Failed> {
        let taken = self.fill(from, most).map_err(Failed::From)?;
        while self.held > 0 {
            match self.drain(to) {
                Ok(0) => return Err(Failed::To(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(Failed::To(error)),
            }
        }
        Ok(Moved { taken, left: self.rest().map_err(Failed::To)? })
    }

    /// Takes at most `most` bytes from a socket into the empty pipe; 0 at the stream's end.
    fn fill(&mut self, socket: &TcpStream, most: usize) -> io::Result<usize> {
        // Each page of a full pipe holds a byte at least. With fewer bytes than that the pipe is not full,
        // so the socket is empty, and it says when more comes: that need not be tried.
        let few = most.min(self.size / page_size());
        let filled = socket.try_io(Interest::READABLE, || {
            self.held = splice(socket, None, &self.writer, None, most, FLAGS)?;
            if (1..few).contains(&self.held) {
                Err(io::ErrorKind::WouldBlock.into())
            } else {
                Ok(())
            }
        });
        if self.held == 0 {
            filled?;
        }
        Ok(self.held)
    }

    /// Gives what is held to a socket, as much as it takes now.
    fn drain(&mut self, socket: &TcpStream) -> io::Result<usize> {
        let bytes = socket.try_io(Interest::WRITABLE, || {
            Ok(splice(&self.reader, None, socket, None, self.held, FLAGS)?)
        })?;
        self.held -= bytes;
        Ok(bytes)
    }

    /// Takes out what is still held.
    fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::with_capacity(self.held);
        (&self.reader).take(self.held as u64).read_to_end(&mut rest)?;
        self.held -= rest.len();
        Ok(rest)
    }
}

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

#[cfg(test)]
pub mod tests {
    use futures::FutureExt;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::relay::socket::room;

    /// Two ends of a connection.
    pub async fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    /// Carries bytes that come in such pieces to a side that reads nothing, each time at most as many
    /// as `room` says, until it says nothing more or some are left. Tells how many were left, once all
    /// that was taken has been accounted for.
    async fn carry(piece: usize, room: fn(&TcpStream) -> io::Result<usize>) -> usize {
        let bytes: Vec<u8> = (0..32_u32 << 20).map(|n| (n % 251) as u8).collect();
        let ((mut source, from), (to, mut sink)) = (connection().await, connection().await);
        let (sent, pipes) = (bytes.clone(), Pipes::default());
        let sender = tokio::spawn(async move {
            source.set_nodelay(true).unwrap();
            for piece in sent.chunks(piece) {
                source.write_all(piece).await.unwrap();
            }
        });
        to.writable().await.unwrap();
        let (mut taken, mut left) = (0, Vec::new());
        while let (Ok(most), true) = (room(&to), left.is_empty()) {
            from.readable().await.unwrap();
            match pipes.carry(&from, &to, most) {
                Ok(moved) => {
                    assert!(moved.taken <= most);
                    taken += moved.taken;
                    left = moved.left;
                }
                Err(Failed::From(error)) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                Err(failed) => panic!("{failed:?}"),
            }
        }
        sender.abort();
        drop(to);
        let mut arrived = Vec::new();
        sink.read_to_end(&mut arrived).await.unwrap();
        assert!([&arrived[..], &left].concat() == bytes[..taken], "bytes were lost or changed");
        assert_eq!(pipes.kept().iter().map(|pipe| pipe.held).collect::<Vec<_>>(), [0]);
        left.len()
    }

    #[tokio::test]
    async fn what_is_not_taken_comes_back_and_the_pipe_is_free() {
        for piece in [1000, 1 << 20] {
            assert!(carry(piece, |_| Ok(SIZE)).await > 0, "{piece}");
        }
    }

    #[tokio::test]
    async fn a_socket_is_asked_again_only_where_a_full_pipe_may_have_left_something() {
        let ((mut source, from), (to, _sink)) = (connection().await, connection().await);
        let mut pipe = Pipe::new().unwrap();
        pipe.size = fcntl_setpipe_size(&pipe.writer, 1).unwrap();
        for (length, size) in [(32_000, pipe.size), (10, SIZE)] {
            pipe.size = fcntl_setpipe_size(&pipe.writer, size).unwrap();
            source.write_all(&vec![7; length]).await.unwrap();
            to.writable().await.unwrap();
            let mut taken = 0;
            while taken < length {
                assert!(from.readable().now_or_never().is_some() || taken == 0, "{taken}");
                from.readable().await.unwrap();
                taken += pipe.carry(&from, &to, SIZE).unwrap().taken;
            }
            assert_eq!(taken, length);
        }
        assert!(from.readable().now_or_never().is_none());
    }

    #[tokio::test]
    async fn of_what_there_is_room_for_next_to_nothing_comes_back() {
        for piece in [100, 1448, 32 << 10, 1 << 20] {
            let left = carry(piece, room).await;
            assert!(left < 32 << 10, "{left} bytes of pieces of {piece}");
        }
    }
}
