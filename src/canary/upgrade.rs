//! The upgrade of a request to a WebSocket or to SPDY, and everything that a refusal says.

use std::{error::Error, fmt::Write as _, future, pin::Pin};

use http::{
    Request, Response, StatusCode,
    header::{
        AsHeaderName, CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
        SEC_WEBSOCKET_VERSION, UPGRADE,
    },
};
use hyper::{body::Body as _, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use kube::{Client, client::Body};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::{client::generate_key, derive_accept_key},
        protocol::{Role, WebSocketConfig},
    },
};

use crate::decision::canary::{Answer, Heard, classify, words};

/// The protocol of upgrades that kubectl had alone before 1.31 (1.29 in alpha), and falls back to.
const SPDY: &str = "SPDY/3.1";

/// The protocol within SPDY (`k8s.io/apimachinery/pkg/util/httpstream`).
const STREAM_PROTOCOL: &str = "x-stream-protocol-version";

/// So many bytes of a refusal are read. Statuses are a few hundred.
const BODY_MAX: usize = 16 << 10;

/// So many bytes may come in one message. A canary says a word.
const MESSAGE_MAX: usize = 64 << 10;

/// Asks for a WebSocket; the error is what came instead.
///
/// kube has the same in its feature `ws`, but that takes every answer below 400 for one and hides what
/// others hold. Nothing here follows a redirect.
pub(super) async fn websocket(
    client: &Client,
    path: &str,
    protocol: &str,
) -> Result<WebSocketStream<TokioIo<Upgraded>>, Heard> {
    let key = generate_key();
    let request = Request::get(path)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, &key)
        .header(SEC_WEBSOCKET_PROTOCOL, protocol);
    let response = ask(client, request).await?;
    // RFC 6455, 4.1: the server has read our key, and takes the protocol that we speak.
    let accepted = derive_accept_key(key.as_bytes());
    if !says(&response, SEC_WEBSOCKET_ACCEPT, &accepted)
        || !says(&response, SEC_WEBSOCKET_PROTOCOL, protocol)
    {
        return Err(other_protocol(&format!("a WebSocket that speaks {protocol}")));
    }
    let limits = WebSocketConfig::default()
        .read_buffer_size(4 << 10)
        .max_message_size(Some(MESSAGE_MAX))
        .max_frame_size(Some(MESSAGE_MAX));
    let io = upgraded(response).await?;
    Ok(WebSocketStream::from_raw_socket(io, Role::Client, Some(limits)).await)
}

/// Asks for SPDY; the error is what came instead.
pub(super) async fn spdy(
    client: &Client,
    path: &str,
    protocol: &str,
) -> Result<TokioIo<Upgraded>, Heard> {
    let request = Request::post(path)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, SPDY)
        .header(STREAM_PROTOCOL, protocol);
    let response = ask(client, request).await?;
    let upgrade = response.headers().get(UPGRADE);
    let is_spdy = upgrade.is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(SPDY.as_bytes()));
    if !is_spdy || !says(&response, STREAM_PROTOCOL, protocol) {
        return Err(other_protocol(&format!("{SPDY} with {protocol}")));
    }
    upgraded(response).await
}

/// Sends a request for an upgrade; the error is what came instead of one.
async fn ask(client: &Client, request: http::request::Builder) -> Result<Response<Body>, Heard> {
    let request = request.body(Body::empty());
    let request = request.map_err(|error| Heard::other(Answer::NotUnderstood, &chain(&error)))?;
    let response = client.send(request).await;
    let response =
        response.map_err(|error| Heard::other(Answer::ApiserverUnreachable, &chain(&error)))?;
    let status = response.status();
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response);
    }
    let text = text(response.into_body()).await;
    let said = if text.trim().is_empty() { status.to_string() } else { words(&text) };
    Err(Heard::refused(classify(status.as_u16(), &text), &said))
}

fn says(response: &Response<Body>, name: impl AsHeaderName, value: &str) -> bool {
    response.headers().get(name).is_some_and(|header| header == value)
}

fn other_protocol(wanted: &str) -> Heard {
    let said = format!("the upgrade does not lead to {wanted}");
    Heard::refused(Answer::NotUnderstood, &said)
}

async fn upgraded(response: Response<Body>) -> Result<TokioIo<Upgraded>, Heard> {
    let upgraded = hyper::upgrade::on(response).await;
    upgraded.map(TokioIo::new).map_err(|error| Heard::other(Answer::NotUnderstood, &chain(&error)))
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
pub(super) fn chain(error: &dyn Error) -> String {
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
