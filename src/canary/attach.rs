//! An attach to a canary.

use kube::Client;

use super::{
    CONTAINER, CanaryPod,
    exec::word,
    remote::{Channel, Remote},
};
use crate::decision::canary::{Answer, Heard, Transport, attach_ended, words};

/// So much of what the canary says is looked through for the word. Others may be attached to it, too.
const KEPT: usize = 4 << 10;

/// Has the canary repeat a line that nobody else can know, from the standard input that it was started
/// with.
pub(super) async fn attach(client: &Client, pod: &CanaryPod, transport: Transport) -> Heard {
    let CanaryPod { namespace, name, .. } = pod;
    let path = format!(
        "/api/v1/namespaces/{namespace}/pods/{name}/attach?container={CONTAINER}\
         &stdin=true&stdout=true&stderr=true"
    );
    let word = word();
    match Remote::open(client, &path, transport).await {
        Ok(mut remote) => {
            // Where the other side has ended already, it has said why.
            let _ = remote.write(format!("{word}\n").as_bytes()).await;
            let heard = listen(&mut remote, &word).await;
            remote.close().await;
            heard
        }
        Err(heard) => heard,
    }
}

async fn listen(remote: &mut Remote, word: &str) -> Heard {
    let mut output: Vec<u8> = Vec::new();
    loop {
        let ended = |why: &str| Heard::other(Answer::NotUnderstood, why);
        let (channel, data) = match remote.next().await {
            Ok(Some(message)) => message,
            Ok(None) => return ended("the attach ended without a word"),
            Err(why) => return ended(&format!("the attach broke off: {why}")),
        };
        match channel {
            Channel::Stdout => {
                output.extend(&data);
                if output.windows(word.len()).any(|part| part == word.as_bytes()) {
                    return Heard::answered();
                }
                let old = output.len().saturating_sub(KEPT);
                output.drain(..old);
            }
            // Every channel may be opened with an empty message.
            Channel::Status if !data.is_empty() => {
                let status = String::from_utf8_lossy(&data);
                return Heard::other(attach_ended(&status), &words(&status));
            }
            Channel::Status | Channel::Stderr | Channel::Stdin => {}
        }
    }
}
