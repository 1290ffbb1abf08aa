//! An exec into a canary.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use kube::Client;

use super::{
    CONTAINER, CanaryPod, PROGRAM,
    remote::{Channel, Remote},
};
use crate::decision::canary::{Answer, Heard, Transport, exec_ended, words};

/// So much of what a canary prints is kept.
const KEPT: usize = 4 << 10;

/// Has the canary repeat a word that nobody else can know. It does so at the end of its standard input,
/// which has to reach it.
pub(super) async fn exec(client: &Client, pod: &CanaryPod, transport: Transport) -> Heard {
    let word = word();
    match Remote::open(client, &path(pod), transport).await {
        Ok(mut remote) => {
            // Where the other side has ended already, it has said why.
            if remote.write(word.as_bytes()).await.is_ok() {
                let _ = remote.end_input().await;
            }
            let heard = listen(&mut remote, &word).await;
            remote.close().await;
            heard
        }
        Err(heard) => heard,
    }
}

fn path(pod: &CanaryPod) -> String {
    let CanaryPod { namespace, name, .. } = pod;
    format!(
        "/api/v1/namespaces/{namespace}/pods/{name}/exec?command={PROGRAM}&command=canary\
         &command=repeat&container={CONTAINER}&stdin=true&stdout=true&stderr=true"
    )
}

/// The standard library seeds its hashers from the system's random source.
pub(super) fn word() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

async fn listen(remote: &mut Remote, word: &str) -> Heard {
    let (mut output, mut complaint) = (Vec::new(), Vec::new());
    loop {
        let (channel, data) = match remote.next().await {
            Ok(Some(message)) => message,
            Ok(None) => return ended(&complaint, "the exec ended without a status"),
            Err(why) => return ended(&complaint, &format!("the exec broke off: {why}")),
        };
        match channel {
            Channel::Stdout => keep(&mut output, &data),
            Channel::Stderr => keep(&mut complaint, &data),
            // Every channel may be opened with an empty message.
            Channel::Status if !data.is_empty() => {
                return judged(&data, &output, &complaint, word);
            }
            Channel::Status | Channel::Stdin => {}
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
    Heard::other(answer, &said)
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

#[cfg(test)]
mod tests {
    use super::word;

    #[test]
    fn every_exec_has_another_word() {
        let (one, two) = (word(), word());
        assert!(one != two && one.len() == 16, "{one} {two}");
    }
}
