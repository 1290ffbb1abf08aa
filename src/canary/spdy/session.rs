//! Streams of SPDY over one connection.

use std::collections::VecDeque;

use super::{Decoder, Encoder, Frame};
use crate::canary::wire::Wire;

/// Streams over a connection that the server has agreed to.
pub struct Session {
    wire: Wire,
    encoder: Encoder,
    decoder: Decoder,
    /// What came while something else was waited for.
    aside: VecDeque<Frame>,
    /// The number of the next stream. A client's are odd.
    next: u32,
}

impl Session {
    /// Speaks over this connection.
    pub fn new(wire: Wire) -> Self {
        let (encoder, decoder) = (Encoder::default(), Decoder::default());
        Self { wire, encoder, decoder, aside: VecDeque::new(), next: 1 }
    }

    /// Opens a stream. What is sent on one that the server has not taken yet is lost, so that is
    /// waited for.
    ///
    /// # Errors
    /// Where the server does not take it: why.
    pub async fn open(&mut self, headers: &[(&str, &str)]) -> Result<u32, String> {
        let stream = self.next;
        self.next += 2;
        self.wire.send(self.encoder.open(stream, headers)).await?;
        loop {
            match self.read().await? {
                Some(Frame::Reply { stream: taken }) if taken == stream => return Ok(stream),
                Some(Frame::Reset { stream: refused, status }) if refused == stream => {
                    return Err(format!("a stream was refused with the status {status}"));
                }
                Some(frame) => self.aside.push_back(frame),
                None => return Err("the connection ended before a stream was taken".to_owned()),
            }
        }
    }

    /// Sends data on a stream; `last` where nothing more comes.
    ///
    /// # Errors
    /// Where the connection is broken: why.
    pub async fn send(&mut self, stream: u32, bytes: &[u8], last: bool) -> Result<(), String> {
        self.wire.send(Encoder::data(stream, bytes, last)).await
    }

    /// The next data of a stream, and whether they are its last; `None` at the connection's end.
    ///
    /// # Errors
    /// Where a stream was reset, or the connection is broken: why.
    pub async fn next(&mut self) -> Result<Option<(u32, Vec<u8>, bool)>, String> {
        loop {
            let frame = match self.aside.pop_front() {
                Some(frame) => Some(frame),
                None => self.read().await?,
            };
            match frame {
                Some(Frame::Data { stream, bytes, last }) => {
                    return Ok(Some((stream, bytes, last)));
                }
                Some(Frame::Reset { status, .. }) => {
                    return Err(format!("a stream was reset with the status {status}"));
                }
                Some(Frame::Reply { .. } | Frame::Ping { .. } | Frame::Other) => {}
                None => return Ok(None),
            }
        }
    }

    /// A frame; pings are answered.
    async fn read(&mut self) -> Result<Option<Frame>, String> {
        loop {
            match self.decoder.frame()? {
                Some(Frame::Ping { id }) => self.wire.send(Encoder::ping(id)).await?,
                Some(frame) => return Ok(Some(frame)),
                None => match self.wire.receive().await? {
                    Some(bytes) => self.decoder.take(&bytes),
                    None => return Ok(None),
                },
            }
        }
    }

    /// Ends everything.
    pub async fn close(mut self) {
        // Nothing is lost with it.
        let _ = self.wire.send(Encoder::goodbye()).await;
        self.wire.close().await;
    }
}
