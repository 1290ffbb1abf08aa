//! A port-forward to a canary.

use kube::Client;

use super::{
    CanaryPod, PORT, greeting,
    upgrade::{self, CHANNELS, Channels, Heard},
};
use crate::decision::canary::{Answer, forward_ended};

/// The channels of one forwarded port. The first two bytes of each are the port's number
/// (`pkg/kubelet/cri/streaming/portforward/websocket.go`).
const DATA: u8 = 0;
const ERROR: u8 = 1;
const PREFIX: usize = 2;

/// So much is read in search of a line's end.
const KEPT: usize = 4 << 10;

/// Connects to the canary's port, and hears whether it is the canary that answers.
pub(super) async fn forward(client: &Client, pod: &CanaryPod) -> Heard {
    let CanaryPod { namespace, name, .. } = pod;
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/portforward?ports={PORT}");
    match upgrade::open(client, &path, &[CHANNELS]).await {
        Ok(mut channels) => {
            let heard = listen(&mut channels, &greeting(name)).await;
            channels.close().await;
            heard
        }
        Err(heard) => heard,
    }
}

async fn listen(channels: &mut Channels, expected: &str) -> Heard {
    let (mut data, mut error) = (Vec::new(), Vec::new());
    let broke = loop {
        match channels.next().await {
            Ok(Some((DATA, more))) => data.extend(more),
            Ok(Some((ERROR, more))) => error.extend(more),
            Ok(Some(_)) => {}
            Ok(None) => break None,
            Err(why) => break Some(why),
        }
        if without_prefix(&data).contains(&b'\n') || !without_prefix(&error).is_empty() {
            break None;
        }
        if data.len() + error.len() > KEPT {
            break None;
        }
    };
    let text = |bytes| String::from_utf8_lossy(without_prefix(bytes)).into_owned();
    let (line, error) = (text(&data), text(&error));
    match forward_ended(&error, &line, expected) {
        Answer::Answered => Heard::answered(),
        answer if !error.is_empty() => Heard::other(answer, &error),
        answer => match broke {
            Some(why) => Heard::other(answer, &format!("the port-forward broke off: {why}")),
            None if line.is_empty() => Heard::other(answer, "the port-forward ended before a word"),
            None => Heard::other(answer, &line),
        },
    }
}

fn without_prefix(bytes: &[u8]) -> &[u8] {
    bytes.get(PREFIX..).unwrap_or_default()
}
