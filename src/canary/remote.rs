//! The streams of a command in a container, or of a container itself, over a WebSocket or over SPDY.

use futures::{SinkExt as _, StreamExt as _};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use kube::Client;
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

use super::{
    spdy::session::Session,
    upgrade::{self, chain},
    wire::{GOODBYE, Wire},
};
use crate::decision::canary::{Answer, Heard, Transport};

/// What kubectl offers over WebSockets, and nothing else: the first byte of a message is its channel
/// (`k8s.io/apimachinery/pkg/util/remotecommand`). An apiserver that knows it translates it, or has the
/// kubelet do that (KEP-4006). Others refuse it, and kubectl then takes SPDY.
const CHANNELS: &str = "v5.channel.k8s.io";

/// What all speak over SPDY, of which kubectl offers older ones, too.
const STREAMS: &str = "v4.channel.k8s.io";

/// A channel, with its number in messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Channel {
    Stdin = 0,
    Stdout = 1,
    Stderr = 2,
    Status = 3,
}

impl Channel {
    /// In the order in which kubectl opens them over SPDY.
    const ALL: [Self; 4] = [Self::Status, Self::Stdin, Self::Stdout, Self::Stderr];

    fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|channel| *channel as u8 == number)
    }

    /// The header `streamType` of its stream.
    fn kind(self) -> &'static str {
        match self {
            Self::Stdin => "stdin",
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Status => "error",
        }
    }
}

/// The channel on which a message ends another one: the one that it names.
const CLOSE: u8 = 255;

/// The streams.
pub(super) enum Remote {
    /// Channels of a WebSocket.
    WebSocket(Box<WebSocketStream<TokioIo<Upgraded>>>),
    /// Streams of SPDY, and which channel each is.
    Spdy(Session, Vec<(u32, Channel)>),
}

impl Remote {
    /// Opens all of them; the error is what came instead.
    pub(super) async fn open(
        client: &Client,
        path: &str,
        transport: Transport,
    ) -> Result<Self, Heard> {
        match transport {
            Transport::WebSocket => {
                let socket = upgrade::websocket(client, path, CHANNELS).await?;
                Ok(Self::WebSocket(Box::new(socket)))
            }
            Transport::Spdy => {
                let mut session =
                    Session::new(Wire::Bare(upgrade::spdy(client, path, STREAMS).await?));
                let mut streams = Vec::new();
                for channel in Channel::ALL {
                    let opened = session.open(&[("streamtype", channel.kind())]).await;
                    let stream = opened.map_err(|why| Heard::other(Answer::NotUnderstood, &why))?;
                    streams.push((stream, channel));
                }
                Ok(Self::Spdy(session, streams))
            }
        }
    }

    /// Writes to standard input.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.send(bytes, false).await
    }

    /// Ends standard input, and nothing else.
    pub(super) async fn end_input(&mut self) -> Result<(), String> {
        self.send(&[], true).await
    }

    async fn send(&mut self, bytes: &[u8], last: bool) -> Result<(), String> {
        match self {
            Self::WebSocket(socket) => {
                let input = Channel::Stdin as u8;
                let message =
                    if last { vec![CLOSE, input] } else { [&[input][..], bytes].concat() };
                socket.send(Message::Binary(message.into())).await.map_err(|error| chain(&error))
            }
            Self::Spdy(session, streams) => {
                let input = streams.iter().find(|(_, channel)| *channel == Channel::Stdin);
                let Some((stream, _)) = input else { return Ok(()) };
                session.send(*stream, bytes, last).await
            }
        }
    }

    /// The next message and its channel; `None` at the end, and why, where it was none.
    pub(super) async fn next(&mut self) -> Result<Option<(Channel, Vec<u8>)>, String> {
        match self {
            Self::WebSocket(socket) => loop {
                match socket.next().await {
                    Some(Ok(Message::Binary(bytes))) => {
                        let split = bytes.split_first();
                        let known = split.and_then(|(number, data)| {
                            Some((Channel::of(*number)?, data.to_vec()))
                        });
                        if known.is_some() {
                            return Ok(known);
                        }
                    }
                    Some(Ok(Message::Close(_))) | None => return Ok(None),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(chain(&error)),
                }
            },
            Self::Spdy(session, streams) => loop {
                let Some((stream, bytes, last)) = session.next().await? else { return Ok(None) };
                let channel = streams.iter().find(|(known, _)| *known == stream);
                let Some((_, channel)) = channel.copied() else { continue };
                // The status is the last that comes; without one, nothing does.
                if last && bytes.is_empty() && channel == Channel::Status {
                    return Ok(None);
                }
                return Ok(Some((channel, bytes)));
            },
        }
    }

    /// Ends the streams, so that nobody logs broken ones.
    pub(super) async fn close(self) {
        match self {
            Self::WebSocket(mut socket) => {
                let _ = tokio::time::timeout(GOODBYE, (*socket).close(None)).await;
            }
            Self::Spdy(session, _) => session.close().await,
        }
    }
}
