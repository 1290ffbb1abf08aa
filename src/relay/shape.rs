//! How much may queue before a limited stream.
//!
//! A limit holds bytes back where they come from: in the sender's socket. On loopback that has room
//! for 4 MB, since its segments are 64 KiB and it has room for twenty, and more for each that the
//! receiver lets it have on the way. At 100 KiB/s a stream that kubectl opens within a port-forward
//! would wait 38 s behind that, and kubectl gives up after 30.
//!
//! The sender's buffer is not ours, but what it grows by is: the segments we announce and the room
//! we offer. Both count from the first byte only, so they are set before the handshake.
//!
//! What remains in the sender's socket is 50 to 75 KB: up to five seconds at 16 KiB/s. Where its
//! congestion control is BBR it is more, 7 to 15 s at that rate: BBR lets a socket hold more for each
//! segment on the way, and takes more of them while it looks for the bandwidth. Neither smaller
//! segments nor later acknowledgements bring that below three seconds, and the choice is the node's
//! (`sysctl net.ipv4.tcp_congestion_control`), for what it sends and not for what it gets.

use std::os::fd::AsFd;

use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};
use socket2::SockRef;
use tokio::net::TcpStream;

use super::Limits;

/// From this rate on the sender's 4 MB are a second or less, in bytes per second.
const SMALL_BELOW: u64 = 4 << 20;

/// From this rate on nothing that queues is noticed, in bytes per second.
const SHAPED_BELOW: u64 = 16 << 20;

/// Segments of an Ethernet, in bytes. What a sender has room for follows from the segments that it
/// has on the way, ten at first, and twice as many as [`Shape::buffer`] has let it have: small
/// ones, and few. `cargo bench --bench relay` measures what comes of it.
const SEGMENT: u32 = 1448;

/// The least that a receive buffer is asked for, in bytes.
const BUFFER_MIN: usize = 2304;

/// A receive buffer that holds less than a few segments loses some, and then waits for them.
const SEGMENTS_MIN: usize = 4;

/// The largest segment: that of loopback, in bytes.
const SEGMENT_MAX: usize = 64 << 10;

/// The receive buffer of a stream that has lost its limit, in bytes. The kernel no longer lets it
/// grow by itself once it was set.
pub const UNSHAPED: usize = 4 << 20;

/// What holds a sender back; the default is nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The receive buffer that is asked for, in bytes.
    pub buffer: usize,
    /// The largest segment that is announced, in bytes.
    pub segment: Option<u32>,
}

impl Shape {
    /// That of a new connection; `None` where no limit asks for one.
    pub fn of(limits: Limits) -> Option<Self> {
        let rate = limits.slowest().filter(|rate| *rate < SHAPED_BELOW)?;
        let segment = (rate < SMALL_BELOW).then_some(SEGMENT);
        let buffer = buffer(rate, segment.map_or(SEGMENT_MAX, |_| 0));
        Some(Self { buffer, segment })
    }
}

/// What moves in a fortieth of a second: somewhat more than the limiter takes at once. The kernel
/// makes it twice as much.
fn buffer(rate: u64, segment: usize) -> usize {
    usize::try_from(rate / 40).unwrap_or(usize::MAX).max(BUFFER_MIN).max(SEGMENTS_MIN * segment)
}

/// Applies new limits to a running connection. What its sender has queued is there already, and its
/// segments stay as they are; but no more than needed queues on our side.
pub fn reshape(stream: &TcpStream, before: Limits, limits: Limits) {
    let limited = |limits: Limits| limits.slowest().filter(|rate| *rate < SHAPED_BELOW);
    match (limited(before), limited(limits)) {
        (before, now) if before == now => {}
        (_, Some(rate)) => {
            let segment = SockRef::from(stream).tcp_mss().map_or(SEGMENT_MAX, |mss| mss as usize);
            let small = segment <= SEGMENT as usize;
            receive_buffer(stream, buffer(rate, if small { 0 } else { segment }));
        }
        (_, None) => receive_buffer(stream, UNSHAPED),
    }
}

/// Asks for a receive buffer: beyond the usual bound where we may, else up to it.
pub fn receive_buffer(socket: &impl AsFd, bytes: usize) {
    // A kernel that does not want it carries the stream all the same.
    let _ = set_socket_recv_buffer_size_force(socket, bytes)
        .or_else(|_| set_socket_recv_buffer_size(socket, bytes));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(rate: u64) -> Limits {
        Limits { connection: rate, node: 0 }
    }

    #[test]
    fn what_has_no_limit_or_a_high_one_has_no_shape() {
        for rate in [0, SHAPED_BELOW, u64::MAX] {
            assert_eq!(Shape::of(connection(rate)), None, "{rate}");
        }
    }

    #[test]
    fn the_slower_limit_makes_the_shape() {
        let limits = Limits { connection: 8 << 20, node: 1 << 20 };
        assert_eq!(Shape::of(limits), Shape::of(connection(1 << 20)));
    }

    #[test]
    fn a_buffer_holds_what_the_limiter_takes_at_once_and_whole_segments() {
        for rate in [1, 100 << 10, 1 << 20, SMALL_BELOW - 1, SMALL_BELOW, SHAPED_BELOW - 1] {
            let Some(shape) = Shape::of(connection(rate)) else { panic!("{rate} has a shape") };
            let segment = shape.segment.map_or(SEGMENT_MAX, |segment| segment as usize);
            assert!(shape.buffer as u64 >= rate / 50, "{rate}: {shape:?}");
            assert!(2 * shape.buffer >= 3 * segment, "{rate}: {shape:?}");
        }
    }
}
