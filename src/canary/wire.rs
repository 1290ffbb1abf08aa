//! A connection that carries bytes: an upgraded one, or a tunnel of WebSocket messages.

use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

use super::upgrade::chain;

/// How long saying goodbye may take.
pub(super) const GOODBYE: Duration = Duration::from_secs(1);

/// So much is read at once.
const READ: usize = 4 << 10;

/// The connection.
pub(super) enum Wire {
    /// As it is.
    Bare(TokioIo<Upgraded>),
    /// In binary messages.
    Tunnel(Box<WebSocketStream<TokioIo<Upgraded>>>),
}

impl Wire {
    pub(super) async fn send(&mut self, bytes: Vec<u8>) -> Result<(), String> {
        match self {
            Self::Bare(io) => {
                io.write_all(&bytes).await.map_err(|error| chain(&error))?;
                io.flush().await.map_err(|error| chain(&error))
            }
            Self::Tunnel(socket) => {
                socket.send(Message::Binary(bytes.into())).await.map_err(|error| chain(&error))
            }
        }
    }

    /// What comes next; `None` at the end.
    pub(super) async fn receive(&mut self) -> Result<Option<Vec<u8>>, String> {
        match self {
            Self::Bare(io) => {
                let mut bytes = vec![0; READ];
                let count = io.read(&mut bytes).await.map_err(|error| chain(&error))?;
                bytes.truncate(count);
                Ok((count > 0).then_some(bytes))
            }
            Self::Tunnel(socket) => loop {
                match socket.next().await {
                    Some(Ok(Message::Binary(bytes))) => return Ok(Some(bytes.to_vec())),
                    Some(Ok(Message::Close(_))) | None => return Ok(None),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(chain(&error)),
                }
            },
        }
    }

    /// Ends the connection, so that nobody logs a broken one.
    pub(super) async fn close(self) {
        let end = async {
            match self {
                Self::Bare(mut io) => drop(io.shutdown().await),
                Self::Tunnel(mut socket) => drop((*socket).close(None).await),
            }
        };
        let _ = tokio::time::timeout(GOODBYE, end).await;
    }
}
