//! The head of a request to a streaming server, read as far as it has to be and never changed.

use serde::{Deserialize, Serialize};

/// No more of a head is looked at than this, in bytes; the rest is passed on unread, as long a head as
/// the runtime may take.
pub const HEAD_MAX: usize = 16_384;

/// The longest method that is looked for, in bytes.
const METHOD_MAX: usize = 16;

/// So much of a header is kept for people to read, in characters.
const TEXT_MAX: usize = 200;

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `kubectl exec`, and `cp`.
    Exec,
    /// `kubectl attach`.
    Attach,
    /// `kubectl port-forward`.
    PortForward,
    /// The streaming server speaks TLS: what is inside cannot be seen.
    Tls,
    /// Something else that the streaming server may know.
    Other,
}

impl Kind {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 5] =
        [Self::Exec, Self::Attach, Self::PortForward, Self::Tls, Self::Other];

    /// The name in metrics and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Attach => "attach",
            Self::PortForward => "portforward",
            Self::Tls => "tls",
            Self::Other => "other",
        }
    }

    pub(super) fn index(self) -> usize {
        self as usize
    }
}

/// What Go's HTTP client calls itself: a kubelet that does not pass the client's own name on. It tells
/// nobody anything.
const GO_CLIENT: &str = "Go-http-client/";

/// What is known of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// What the stream is for.
    pub kind: Kind,
    /// The `User-Agent` of the client; `None` where it is only that of the last proxy before us.
    pub user_agent: Option<String>,
    /// The client's address as the proxies before us tell it (`X-Forwarded-For`).
    pub forwarded_for: Option<String>,
}

impl Head {
    /// A stream of which no more than this can be seen.
    pub fn unseen(kind: Kind) -> Self {
        Self { kind, user_agent: None, forwarded_for: None }
    }
}

/// How far the reading has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It goes on.
    More,
    /// It is complete, or goes on beyond [`HEAD_MAX`].
    Done(Head),
    /// It is none.
    Garbage,
}

/// Reads the first bytes of a connection. The token in the path is looked past: it lets its holder
/// into a container once, so it is neither kept nor logged.
pub fn read(bytes: &[u8]) -> Progress {
    match bytes.first() {
        None => return Progress::More,
        // A TLS record of the type handshake (RFC 8446, section 5.1).
        Some(0x16) => return Progress::Done(Head::unseen(Kind::Tls)),
        Some(_) => {}
    }
    let Some(line_end) = bytes.iter().position(|byte| *byte == b'\n') else {
        let method = bytes.iter().take_while(|byte| **byte != b' ');
        return match () {
            () if !method.clone().all(u8::is_ascii_uppercase) || method.count() > METHOD_MAX => {
                Progress::Garbage
            }
            () if bytes.len() >= HEAD_MAX => Progress::Done(Head::unseen(Kind::Other)),
            () => Progress::More,
        };
    };
    let Some(kind) = request_line(&bytes[..line_end]) else { return Progress::Garbage };
    let end = end(&bytes[line_end..]);
    let Some(end) = end.or_else(|| (bytes.len() >= HEAD_MAX).then(|| bytes.len() - line_end))
    else {
        return Progress::More;
    };
    let headers = &bytes[line_end..line_end + end];
    Progress::Done(Head {
        kind,
        user_agent: header(headers, "user-agent").filter(|agent| !agent.starts_with(GO_CLIENT)),
        forwarded_for: header(headers, "x-forwarded-for"),
    })
}

/// `METHOD SP request-target SP HTTP/1.x CR` (RFC 9112, section 3).
fn request_line(line: &[u8]) -> Option<Kind> {
    let line = std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line)).ok()?;
    let mut words = line.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let well_formed = (1..=METHOD_MAX).contains(&method.len())
        && method.bytes().all(|byte| byte.is_ascii_uppercase())
        && matches!(version, "HTTP/1.1" | "HTTP/1.0")
        && words.next().is_none();
    if !well_formed {
        return None;
    }
    let path = target.split('?').next().unwrap_or_default();
    // containerd and CRI-O: /exec/TOKEN; cri-dockerd has a prefix.
    let kind = path.split('/').find_map(|segment| match segment {
        "exec" => Some(Kind::Exec),
        "attach" => Some(Kind::Attach),
        "portforward" => Some(Kind::PortForward),
        _ => None,
    });
    Some(kind.unwrap_or(Kind::Other))
}

/// Where the empty line ends, counted from the newline of the request line.
fn end(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    while let Some(newline) = rest.iter().position(|byte| *byte == b'\n') {
        rest = &rest[newline + 1..];
        let empty = [&b"\n"[..], b"\r\n"].into_iter().find(|line| rest.starts_with(line));
        if let Some(line) = empty {
            return Some(bytes.len() - rest.len() + line.len());
        }
    }
    None
}

fn header(headers: &[u8], name: &str) -> Option<String> {
    let value = headers.split(|byte| *byte == b'\n').find_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        line[..colon].eq_ignore_ascii_case(name.as_bytes()).then(|| &line[colon + 1..])
    })?;
    let text: String = String::from_utf8_lossy(value)
        .trim()
        .chars()
        .filter(|c| !c.is_control())
        .take(TEXT_MAX)
        .collect();
    (!text.is_empty()).then_some(text)
}

/// The status code of the first line of an answer, such as 101 of `HTTP/1.1 101 Switching
/// Protocols`.
pub fn status(bytes: &[u8]) -> Option<u16> {
    let line = bytes.strip_prefix(b"HTTP/1.")?;
    let digits = std::str::from_utf8(line.get(2..5)?).ok()?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXEC: &str = "POST /exec/s3cr3t HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: kubectl/v1.20.2\r\n\
                        X-Forwarded-For: 10.0.0.1, 10.0.0.2\r\nUpgrade: SPDY/3.1\r\n\r\n";

    fn done(kind: Kind) -> Progress {
        Progress::Done(Head { kind, user_agent: None, forwarded_for: None })
    }

    #[test]
    fn heads() {
        let long = format!("GET /exec/x HTTP/1.1\r\nX: {}\r\n", "x".repeat(HEAD_MAX));
        let line = format!("GET /{} HTTP/1.1\r\n", "x".repeat(HEAD_MAX));
        for (bytes, expected) in [
            ("", Progress::More),
            ("GE", Progress::More),
            ("GET /attach/x HTTP/1.1\r\n", Progress::More),
            ("GET /attach/x HTTP/1.1\r\nHost: x\r\n", Progress::More),
            ("GET /attach/x HTTP/1.1\r\n\r\n", done(Kind::Attach)),
            ("GET /attach/x HTTP/1.1\n\nrest", done(Kind::Attach)),
            ("POST /portforward/x?a=/exec/ HTTP/1.1\r\nA: b\r\n\r\n\r\n", done(Kind::PortForward)),
            ("POST /cri/exec/x HTTP/1.0\r\n\r\n", done(Kind::Exec)),
            ("GET / HTTP/1.1\r\n\r\n", done(Kind::Other)),
            ("GET /executive HTTP/1.1\r\n\r\n", done(Kind::Other)),
            ("get / HTTP/1.1\r\n\r\n", Progress::Garbage),
            ("GET / HTTP/2.0\r\n\r\n", Progress::Garbage),
            ("GET  / HTTP/1.1\r\n\r\n", Progress::Garbage),
            ("GET /\r\n\r\n", Progress::Garbage),
            ("\r\n", Progress::Garbage),
            ("\0\0\0", Progress::Garbage),
            ("AAAAAAAAAAAAAAAAAAAAAAAA", Progress::Garbage),
            ("AAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1\r\n\r\n", Progress::Garbage),
            ("\u{16}\u{3}\u{1}", Progress::Done(Head::unseen(Kind::Tls))),
            (&long, done(Kind::Exec)),
            (&long[..HEAD_MAX - 1], Progress::More),
            (&line, done(Kind::Other)),
            (&line[..HEAD_MAX], done(Kind::Other)),
            (&line[..HEAD_MAX - 1], Progress::More),
        ] {
            assert_eq!(read(bytes.as_bytes()), expected, "{bytes:.60}");
        }
    }

    #[test]
    fn what_is_kept_of_the_headers_is_bounded_and_never_the_token() {
        let Progress::Done(head) = read(EXEC.as_bytes()) else { panic!("a head") };
        assert_eq!(head.user_agent.as_deref(), Some("kubectl/v1.20.2"));
        assert_eq!(head.forwarded_for.as_deref(), Some("10.0.0.1, 10.0.0.2"));
        assert!(!format!("{head:?}").contains("s3cr3t"));
        let agent = format!("GET / HTTP/1.1\r\nUSER-AGENT: a\u{7}b{}\r\n\r\n", "x".repeat(1000));
        let Progress::Done(head) = read(agent.as_bytes()) else { panic!("a head") };
        let kept = head.user_agent.unwrap();
        assert!(kept.starts_with("abx") && kept.len() == TEXT_MAX, "{kept}");
        let kubelet = EXEC.replace("kubectl/v1.20.2", "Go-http-client/1.1");
        let Progress::Done(head) = read(kubelet.as_bytes()) else { panic!("a head") };
        assert_eq!(head.user_agent, None);
    }

    #[test]
    fn statuses() {
        for (bytes, expected) in [
            ("HTTP/1.1 101 Switching Protocols\r\n", Some(101)),
            ("HTTP/1.0 404", Some(404)),
            ("HTTP/1.1 4", None),
            ("HTTP/1.1 abc", None),
            ("\u{16}\u{3}", None),
            ("", None),
        ] {
            assert_eq!(status(bytes.as_bytes()), expected, "{bytes}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let _ = (read(&bytes), status(&bytes));
        }

        #[test]
        fn a_part_of_a_head_asks_for_more(cut in 0..EXEC.len()) {
            prop_assert_eq!(read(&EXEC.as_bytes()[..cut]), Progress::More);
        }
    }
}
