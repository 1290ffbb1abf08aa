//! The upgrade of a request to a WebSocket with channels, and everything that a refusal says.

use std::{error::Error, fmt::Write as _, future, pin::Pin, time::Duration};

use futures::StreamExt as _;
use http::{
    Request, Response, StatusCode,
    header::{
        CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
        SEC_WEBSOCKET_VERSION, UPGRADE,
    },
};
use hyper::{body::Body as _, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use kube::{Client, client::Body};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::{client::generate_key, derive_accept_key},
        protocol::{Role, WebSocketConfig},
    },
};

use crate::decision::canary::{Answer, classify, words};

/// The channels' protocol: the first byte of a message is its channel. Every kubelet and apiserver
/// from 1.18 to 1.37 speaks it (`staging/src/k8s.io/apiserver/pkg/util/wsstream`).
pub(super) const CHANNELS: &str = "v4.channel.k8s.io";

/// The same for exec since 1.29, and what kubectl speaks. An apiserver that knows it translates it, or has
/// the kubelet do that (KEP-4006), while it passes [`CHANNELS`] through to the runtime: a canary that
/// spoke nothing else would be answered where no kubectl is.
pub(super) const CLOSING_CHANNELS: &str = "v5.channel.k8s.io";

/// So many bytes of a refusal are read. Statuses are a few hundred.
const BODY_MAX: usize = 16 << 10;

/// So many bytes may come in one message. A canary says a word.
const MESSAGE_MAX: usize = 64 << 10;

/// How long saying goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// What came of a stream, and in whose words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) answer: Answer,
    /// What was said, if it was not the answer.
    pub(super) said: String,
}

impl Heard {
    pub(super) fn answered() -> Self {
        Self { answer: Answer::Answered, said: String::new() }
    }

    pub(super) fn other(answer: Answer, said: &str) -> Self {
        Self { answer, said: words(said) }
    }
}

/// Messages on channels, to and from a canary.
pub(super) struct Channels(WebSocketStream<TokioIo<Upgraded>>);

/// Asks for an upgrade; the error is what came instead.
///
/// kube has the same in its feature `ws`, but that takes every answer below 400 for one and hides what
/// others hold. Nothing here follows a redirect. Of `protocols` the server takes the first that it
/// speaks.
pub(super) async fn open(
    client: &Client,
    path: &str,
    protocols: &[&str],
) -> Result<Channels, Heard> {
    let offered = protocols.join(", ");
    let key = generate_key();
    let request = Request::get(path)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, &key)
        .header(SEC_WEBSOCKET_PROTOCOL, &offered)
        .body(Body::empty())
        .map_err(|error| Heard::other(Answer::NotUnderstood, &chain(&error)))?;
    let response = client.send(request).await;
    let response =
        response.map_err(|error| Heard::other(Answer::ApiserverUnreachable, &chain(&error)))?;
    let status = response.status();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        let text = text(response.into_body()).await;
        let said = if text.trim().is_empty() { status.to_string() } else { words(&text) };
        return Err(Heard { answer: classify(status.as_u16(), &text), said });
    }
    if !is_ours(&response, &key, protocols) {
        let said = format!("the upgrade does not lead to a WebSocket that speaks {offered}");
        return Err(Heard::other(Answer::NotUnderstood, &said));
    }
    let upgraded = hyper::upgrade::on(response)
        .await
        .map_err(|error| Heard::other(Answer::NotUnderstood, &chain(&error)))?;
    let limits = WebSocketConfig::default()
        .read_buffer_size(4 << 10)
        .max_message_size(Some(MESSAGE_MAX))
        .max_frame_size(Some(MESSAGE_MAX));
    let io = TokioIo::new(upgraded);
    Ok(Channels(WebSocketStream::from_raw_socket(io, Role::Client, Some(limits)).await))
}

/// RFC 6455, 4.1: the server has read our key, and took a protocol that we speak.
fn is_ours(response: &Response<Body>, key: &str, protocols: &[&str]) -> bool {
    let says =
        |name, value: &str| response.headers().get(name).is_some_and(|header| header == value);
    says(SEC_WEBSOCKET_ACCEPT, &derive_accept_key(key.as_bytes()))
        && protocols.iter().any(|protocol| says(SEC_WEBSOCKET_PROTOCOL, protocol))
}

/// What a body holds. Where it breaks off, what came until then.
async fn text(mut body: Body) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < BODY_MAX {
        match future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            Some(Ok(frame)) => bytes.extend(frame.into_data().unwrap_or_default()),
            Some(Err(_)) | None => break,
        }
    }
    bytes.truncate(BODY_MAX);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An error with all its causes: the outermost of a client is rarely the one that tells.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            let _ = write!(text, ": {words}");
        }
        cause = error.source();
    }
    text
}

impl Channels {
    /// The next message and its channel; `None` at the end, and why, where it was none.
    pub(super) async fn next(&mut self) -> Result<Option<(u8, Vec<u8>)>, String> {
        loop {
            match self.0.next().await {
                Some(Ok(Message::Binary(bytes))) => {
                    if let Some((channel, data)) = bytes.split_first() {
                        return Ok(Some((*channel, data.to_vec())));
                    }
                }
                Some(Ok(Message::Close(_))) | None => return Ok(None),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(chain(&error)),
            }
        }
    }

    /// Ends the stream, so that nobody logs a broken one.
    pub(super) async fn close(mut self) {
        let _ = tokio::time::timeout(GOODBYE, self.0.close(None)).await;
    }
}
