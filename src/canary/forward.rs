//! A port-forward to a canary.

use kube::Client;

use super::{CanaryPod, PORT, greeting, spdy::session::Session, upgrade, wire::Wire};
use crate::decision::canary::{Answer, Heard, Transport, forward_ended};

/// What kubectl speaks for a port-forward: two streams of SPDY for each connection
/// (`k8s.io/apimachinery/pkg/util/portforward`).
const STREAMS: &str = "portforward.k8s.io";

/// The same in a tunnel of WebSocket messages: the apiserver takes SPDY out of them (KEP-4006).
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// So much is read in search of a line's end.
const KEPT: usize = 4 << 10;

/// Connects to the canary's port, and hears whether it is the canary that answers.
pub(super) async fn forward(client: &Client, pod: &CanaryPod, transport: Transport) -> Heard {
    let CanaryPod { namespace, name, .. } = pod;
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/portforward");
    let wire = match transport {
        Transport::WebSocket => upgrade::websocket(client, &path, TUNNEL)
            .await
            .map(|socket| Wire::Tunnel(Box::new(socket))),
        Transport::Spdy => upgrade::spdy(client, &path, STREAMS).await.map(Wire::Bare),
    };
    match wire {
        Ok(wire) => {
            let mut session = Session::new(wire);
            let heard = listen(&mut session, &greeting(name)).await;
            session.close().await;
            heard
        }
        Err(heard) => heard,
    }
}

async fn listen(session: &mut Session, expected: &str) -> Heard {
    let (errors, data) = match connect(session).await {
        Ok(streams) => streams,
        Err(why) => return broken(&why),
    };
    let (mut line, mut error): (Vec<u8>, Vec<u8>) = Default::default();
    // What went wrong may be told only after the data have ended.
    let mut open = 2;
    let broke = loop {
        match session.next().await {
            Ok(Some((stream, more, last))) if stream == data || stream == errors => {
                let kept = if stream == data { &mut line } else { &mut error };
                kept.extend(more);
                open -= i32::from(last);
            }
            Ok(Some(_)) => {}
            Ok(None) => break None,
            Err(why) => break Some(why),
        }
        let told = line.contains(&b'\n') || !error.is_empty();
        if told || open <= 0 || line.len() > KEPT {
            break None;
        }
    };
    let [line, error] = [line, error].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    match forward_ended(&error, &line, expected) {
        Answer::Answered => Heard::answered(),
        answer if !error.is_empty() => Heard::other(answer, &error),
        answer => match broke {
            Some(why) => Heard { answer, ..broken(&why) },
            None if line.is_empty() => Heard::other(answer, "the port-forward ended before a word"),
            None => Heard::other(answer, &line),
        },
    }
}

fn broken(why: &str) -> Heard {
    Heard::other(Answer::NotUnderstood, &format!("the port-forward broke off: {why}"))
}

/// The streams of errors and of data of one connection to the port.
async fn connect(session: &mut Session) -> Result<(u32, u32), String> {
    let port = PORT.to_string();
    let headers = |kind| [("streamtype", kind), ("port", port.as_str()), ("requestid", "0")];
    let errors = session.open(&headers("error")).await?;
    session.send(errors, &[], true).await?;
    let data = session.open(&headers("data")).await?;
    Ok((errors, data))
}
