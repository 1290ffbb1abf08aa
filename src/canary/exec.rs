//! An exec into a canary.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use kube::Client;

use super::{
    CONTAINER, CanaryPod, PROGRAM,
    upgrade::{self, CHANNELS, CLOSING_CHANNELS, Channels, Heard},
};
use crate::decision::canary::{Answer, exec_ended, words};

/// As kubectl speaks to apiservers that know it, and else as all know it.
const PROTOCOLS: [&str; 2] = [CLOSING_CHANNELS, CHANNELS];

/// The channels of both for an exec (`pkg/kubelet/cri/streaming/remotecommand`).
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;

/// So much of what a canary prints is kept.
const KEPT: usize = 4 << 10;

/// Has the canary say a word that nobody else can know.
pub(super) async fn exec(client: &Client, pod: &CanaryPod) -> Heard {
    let word = word();
    match upgrade::open(client, &path(pod, &word), &PROTOCOLS).await {
        Ok(mut channels) => {
            let heard = listen(&mut channels, &word).await;
            channels.close().await;
            heard
        }
        Err(heard) => heard,
    }
}

fn path(pod: &CanaryPod, word: &str) -> String {
    let CanaryPod { namespace, name, .. } = pod;
    format!(
        "/api/v1/namespaces/{namespace}/pods/{name}/exec?command={PROGRAM}&command=canary\
         &command=say&command={word}&container={CONTAINER}&stdout=true&stderr=true"
    )
}

/// The standard library seeds its hashers from the system's random source.
fn word() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

async fn listen(channels: &mut Channels, word: &str) -> Heard {
    let (mut output, mut complaint) = (Vec::new(), Vec::new());
    loop {
        let (channel, data) = match channels.next().await {
            Ok(Some(message)) => message,
            Ok(None) => return ended(&complaint, "the exec ended without a status"),
            Err(why) => return ended(&complaint, &format!("the exec broke off: {why}")),
        };
        match channel {
            STDOUT => keep(&mut output, &data),
            STDERR => keep(&mut complaint, &data),
            // Every channel may be opened with an empty message.
            STATUS if !data.is_empty() => {
                return judged(&data, &output, &complaint, word);
            }
            _ => {}
        }
    }
}

fn judged(status: &[u8], output: &[u8], complaint: &[u8], word: &str) -> Heard {
    let [status, output, complaint] = [status, output, complaint].map(String::from_utf8_lossy);
    let answer = exec_ended(&status, &output, word);
    if answer == Answer::Answered {
        return Heard::answered();
    }
    // The canary's own words tell the most, and then the runtime's.
    let said = [complaint, status, output].map(|text| words(&text));
    let said = said.into_iter().find(|said| !said.is_empty()).unwrap_or_default();
    Heard { answer, said }
}

fn ended(complaint: &[u8], otherwise: &str) -> Heard {
    let complaint = String::from_utf8_lossy(complaint);
    let said = if complaint.trim().is_empty() { otherwise } else { &complaint };
    Heard::other(Answer::NotUnderstood, said)
}

fn keep(kept: &mut Vec<u8>, data: &[u8]) {
    let room = KEPT.saturating_sub(kept.len());
    kept.extend(&data[..data.len().min(room)]);
}
