//! SPDY/3.1, as far as a client of exec, attach and port-forward speaks it with
//! `github.com/moby/spdystream`, which apiservers, kubelets and runtimes have: streams that the client
//! opens, data on them, and their ends. Pure; [`session`] speaks it over a connection.
//!
//! The headers of a stream are compressed with one zlib stream for the whole connection. What is sent
//! needs no compression for that: deflate has blocks that are stored as they are. What comes holds
//! nothing that matters here, and is skipped.

pub(super) mod session;

/// The bit of a control frame, and the version.
const CONTROL: [u8; 2] = [0x80, 3];

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;

/// The flag of the last frame that one side sends on a stream.
const FIN: u8 = 1;

/// The length of what stands before each frame's content.
const HEAD: usize = 8;

/// So much may come in one frame. Those of spdystream have 32 KiB at most.
const FRAME_MAX: usize = 256 << 10;

/// Behind each stored block, as after a flush: Go gives out what it has read only then.
const EMPTY_BLOCK: [u8; 5] = [0, 0, 0, 0xff, 0xff];

/// What a zlib stream begins with, without a dictionary.
const ZLIB: [u8; 2] = [0x78, 0x01];

/// What the other side sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Data on a stream.
    Data {
        /// The stream.
        stream: u32,
        /// The data.
        bytes: Vec<u8>,
        /// Nothing more comes on it.
        last: bool,
    },
    /// The other side takes a stream.
    Reply {
        /// The stream.
        stream: u32,
    },
    /// A stream has ended before it was through.
    Reset {
        /// The stream.
        stream: u32,
        /// Why, as SPDY numbers it.
        status: u32,
    },
    /// A question whether anybody is there, to be answered with the same.
    Ping {
        /// Its number: even where the server asks.
        id: u32,
    },
    /// Nothing that a client has to know.
    Other,
}

/// Reads frames.
#[derive(Debug, Default)]
pub struct Decoder(Vec<u8>);

impl Decoder {
    /// Takes bytes as they come.
    pub fn take(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    /// The next frame, once all of it is there.
    ///
    /// # Errors
    /// Where what came is no SPDY: why.
    pub fn frame(&mut self) -> Result<Option<Frame>, &'static str> {
        let Some((head, rest)) = self.0.split_first_chunk::<HEAD>() else { return Ok(None) };
        let [a, b, c, d, flags, length @ ..] = *head;
        let length = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        let is_control = a & 0x80 != 0;
        if is_control && [a, b] != CONTROL {
            return Err("what came is no SPDY/3.1");
        }
        if length > FRAME_MAX {
            return Err("a frame of SPDY is too long");
        }
        let Some(content) = rest.get(..length) else { return Ok(None) };
        let number = |at: usize| match content.get(at..).and_then(<[u8]>::first_chunk::<4>) {
            Some(bytes) => Ok(u32::from_be_bytes(*bytes)),
            None => Err("a frame of SPDY is too short"),
        };
        let frame = match u16::from_be_bytes([c, d]) {
            _ if !is_control => Frame::Data {
                stream: u32::from_be_bytes([a, b, c, d]),
                bytes: content.to_vec(),
                last: flags & FIN != 0,
            },
            SYN_REPLY => Frame::Reply { stream: number(0)? },
            RST_STREAM => Frame::Reset { stream: number(0)?, status: number(4)? },
            PING => Frame::Ping { id: number(0)? },
            _ => Frame::Other,
        };
        self.0.drain(..HEAD + length);
        Ok(Some(frame))
    }
}

/// Writes frames.
#[derive(Debug, Default)]
pub struct Encoder {
    /// Whether the zlib stream of headers has begun.
    begun: bool,
}

impl Encoder {
    /// Opens a stream with these headers; their names are small letters.
    pub fn open(&mut self, stream: u32, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut pairs = size(headers.len()).to_vec();
        for (name, value) in headers {
            for text in [name, value] {
                pairs.extend(size(text.len()));
                pairs.extend(text.as_bytes());
            }
        }
        // The stream, no other that it belongs to, and its priority.
        let mut content = [stream.to_be_bytes(), [0; 4]].concat();
        content.extend([0; 2]);
        if !std::mem::replace(&mut self.begun, true) {
            content.extend(ZLIB);
        }
        // A stored block holds 64 KiB, and headers of ours have a hundred bytes.
        for block in pairs.chunks(usize::from(u16::MAX)) {
            let length = u16::try_from(block.len()).unwrap_or_default();
            content.push(0);
            content.extend(length.to_le_bytes());
            content.extend((!length).to_le_bytes());
            content.extend(block);
        }
        content.extend(EMPTY_BLOCK);
        control(SYN_STREAM, &content)
    }

    /// Data on a stream; `last` where nothing more comes.
    pub fn data(stream: u32, bytes: &[u8], last: bool) -> Vec<u8> {
        let flags = if last { FIN } else { 0 };
        framed(stream.to_be_bytes(), flags, bytes)
    }

    /// The answer to a ping.
    pub fn ping(id: u32) -> Vec<u8> {
        control(PING, &id.to_be_bytes())
    }

    /// The end of everything, without an error.
    pub fn goodbye() -> Vec<u8> {
        control(GOAWAY, &[0; 8])
    }
}

fn control(kind: u16, content: &[u8]) -> Vec<u8> {
    let [high, low] = kind.to_be_bytes();
    framed([CONTROL[0], CONTROL[1], high, low], 0, content)
}

fn framed(start: [u8; 4], flags: u8, content: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = size(content.len());
    [&start[..], &[flags], &length[..], content].concat()
}

fn size(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests;
