//! The other side of SPDY, which takes the streams that it is asked for and says what it is told.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::apiserver::{Reply, repeated};

/// The streams of an exec and of a port-forward, with the numbers by which tests name them.
const OF_EXEC: [(&str, u8); 4] = [("stdin", 0), ("stdout", 1), ("stderr", 2), ("error", 3)];
const OF_FORWARD: [(&str, u8); 2] = [("data", 0), ("error", 1)];

/// The number of the ping that is sent first, and has to come back.
const PING: [u8; 12] = [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 2];

/// Takes the streams, and says what it is told on them.
pub async fn speak(
    mut io: impl AsyncRead + AsyncWrite + Unpin,
    is_exec: bool,
    is_attach: bool,
    reply: Reply,
) {
    let kinds: &[(&str, u8)] = if is_exec { &OF_EXEC } else { &OF_FORWARD };
    let (mut streams, mut input): (Vec<(u8, Vec<u8>)>, Vec<u8>) = Default::default();
    let (mut ended, mut pinged) = (false, false);
    io.write_all(&PING).await.unwrap();
    while streams.len() < kinds.len() || !pinged || (!ended && matches!(reply, Reply::Repeat)) {
        let mut head = [0; 8];
        io.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[5], head[6], head[7]]);
        let mut content = vec![0; length as usize];
        io.read_exact(&mut content).await.unwrap();
        match head {
            [0x80, 3, 0, 1, ..] => {
                let kind = kind(&content);
                let (_, number) = kinds.iter().find(|(known, _)| *known == kind).unwrap();
                streams.push((*number, content[..4].to_vec()));
                let taken = [&[0x80, 3, 0, 2, 0, 0, 0, 4], &content[..4]].concat();
                io.write_all(&taken).await.unwrap();
            }
            [0x80, 3, 0, 6, ..] => pinged = [&head[..], &content[..]].concat() == PING,
            [0x80, ..] => panic!("{head:?}"),
            data if streams.iter().any(|(n, stream)| *n == 0 && stream[..] == data[..4]) => {
                input.extend(content);
                ended |= data[4] == 1 || (is_attach && input.ends_with(b"\n"));
            }
            _ => {}
        }
    }
    let (messages, close) = match reply {
        Reply::Repeat if is_attach => (vec![(1, b"other\n".to_vec()), (1, input)], true),
        Reply::Repeat => (repeated(&input), true),
        Reply::Say(messages) => (messages, true),
        Reply::BreakOff(messages) => (messages, false),
        other => panic!("{other:?}"),
    };
    let framed = |number: u8, last: bool, data: &[u8]| {
        let (_, stream) = streams.iter().find(|(known, _)| *known == number).unwrap();
        let [_, length @ ..] = u32::try_from(data.len()).unwrap().to_be_bytes();
        [&stream[..], &[u8::from(last)], &length, data].concat()
    };
    for (number, data) in messages {
        // A client that has heard enough may be gone.
        if io.write_all(&framed(number, false, &data)).await.is_err() {
            return;
        }
    }
    if close {
        for (_, number) in kinds {
            let _ = io.write_all(&framed(*number, true, &[])).await;
        }
        let _ = io.read_to_end(&mut Vec::new()).await;
    }
}

/// The header `streamtype` of a block that is stored as it is.
fn kind(content: &[u8]) -> String {
    const NAME: &[u8] = b"streamtype";
    let at = content.windows(NAME.len()).position(|part| part == NAME).unwrap() + NAME.len();
    let length = u32::from_be_bytes(*content[at..].first_chunk().unwrap()) as usize;
    String::from_utf8(content[at + 4..][..length].to_vec()).unwrap()
}
