//! What came of one attempt to make a stream, and what two attempts come to.

use super::{Answer, words};

/// How a stream is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// As kubectl does since 1.31, where it is not refused.
    WebSocket,
    /// As kubectl did until then, and does where a WebSocket is refused.
    Spdy,
}

impl Transport {
    /// Both, in the order in which kubectl takes them.
    pub const ALL: [Self; 2] = [Self::WebSocket, Self::Spdy];

    fn as_str(self) -> &'static str {
        match self {
            Self::WebSocket => "WebSocket",
            Self::Spdy => "SPDY",
        }
    }
}

/// What came of a stream, and in whose words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// What became of it.
    pub answer: Answer,
    /// What was said, if it was not the answer.
    pub said: String,
    /// Whether the request itself was answered with something else than the upgrade: where it was for a
    /// WebSocket, kubectl then asks for SPDY. After an upgrade it does not.
    pub refused: bool,
}

impl Heard {
    /// The canary's answer.
    pub fn answered() -> Self {
        Self { answer: Answer::Answered, said: String::new(), refused: false }
    }

    /// Something else, or nothing.
    pub fn other(answer: Answer, said: &str) -> Self {
        Self { answer, said: words(said), refused: false }
    }

    /// Something else than the upgrade.
    pub fn refused(answer: Answer, said: &str) -> Self {
        Self { refused: true, ..Self::other(answer, said) }
    }

    /// What a stream comes to that was tried over a WebSocket and over SPDY: it works only if it does
    /// for every kubectl, those that begin with a WebSocket and those that do not.
    pub fn both(websocket: &Self, spdy: &Self) -> Self {
        let fails = |heard: &Self| heard.answer != Answer::Answered;
        let (heard, over, other) = match (fails(websocket), fails(spdy)) {
            (true, _) if !websocket.refused => (websocket, Transport::WebSocket, spdy),
            (_, true) => (spdy, Transport::Spdy, websocket),
            // It works, or what works is what kubectl falls back to.
            (_, false) => return Self::answered(),
        };
        let mut heard = heard.clone();
        if heard.said != other.said && !heard.said.is_empty() {
            heard.said = format!("{} (over {})", heard.said, over.as_str());
        }
        heard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What every kubectl comes to: those since 1.31 begin with a WebSocket, and take SPDY where the
    /// request for one is refused; those before take SPDY.
    #[test]
    fn a_stream_works_if_it_does_for_every_kubectl() {
        use Answer::{Answered, Forbidden, NoAnswer, UrlWithoutScheme};
        let works = Heard::answered;
        let refused = || Heard::refused(Forbidden, "no create");
        let broken = || Heard::other(UrlWithoutScheme, "no scheme");
        let silent = || Heard::other(NoAnswer, "nothing");
        for (websocket, spdy, answer, said) in [
            (works(), works(), Answered, ""),
            (refused(), works(), Answered, ""),
            (broken(), works(), UrlWithoutScheme, "no scheme (over WebSocket)"),
            (silent(), works(), NoAnswer, "nothing (over WebSocket)"),
            (works(), refused(), Forbidden, "no create (over SPDY)"),
            (works(), silent(), NoAnswer, "nothing (over SPDY)"),
            (refused(), silent(), NoAnswer, "nothing (over SPDY)"),
            (refused(), refused(), Forbidden, "no create"),
            (broken(), refused(), UrlWithoutScheme, "no scheme (over WebSocket)"),
            (broken(), broken(), UrlWithoutScheme, "no scheme"),
        ] {
            let both = Heard::both(&websocket, &spdy);
            assert_eq!((both.answer, both.said.as_str()), (answer, said), "{websocket:?} {spdy:?}");
            let since_31 = if websocket.refused { &spdy } else { &websocket };
            let work = [since_31, &spdy].iter().all(|heard| heard.answer == Answered);
            assert_eq!(both.answer == Answered, work);
        }
    }
}
