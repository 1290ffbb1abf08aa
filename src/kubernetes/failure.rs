//! What became of a request that failed, in the words of who answered, and not in those of a library.

use std::{error::Error, fmt, io};

use kube::runtime::watcher;

/// Why an apiserver did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It refused, as a right is missing.
    Forbidden {
        /// Its own sentence, which says who may not do what, and on what.
        sentence: String,
        /// Who lacks the right, as far as the sentence tells.
        who: Option<String>,
    },
    /// It refused for another reason.
    Refused(String),
    /// It was asked, and said nothing in time.
    Silent,
    /// Nobody was reached.
    Unreachable(String),
    /// What it said is no answer, or it could not even be asked.
    Other(String),
}

impl Failure {
    /// What became of a request.
    pub fn of(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.is_forbidden() && !status.message.is_empty() => {
                let sentence = status.message.clone();
                Self::Forbidden { who: who(&sentence), sentence }
            }
            kube::Error::Api(status) => Self::Refused(match &*status.message {
                "" => format!("it answered with the code {}", status.code),
                message => message.to_owned(),
            }),
            _ if chain(error).any(is_timeout) => Self::Silent,
            kube::Error::Service(_) | kube::Error::HyperError(_) | kube::Error::ReadEvents(_) => {
                Self::Unreachable(causes(error))
            }
            other => Self::Other(other.to_string()),
        }
    }

    /// The request that failed, if one of these causes is one.
    pub fn among(error: &(dyn Error + 'static)) -> Option<Self> {
        if let Some(boxed) = error.downcast_ref::<Box<kube::Error>>() {
            return Some(Self::of(boxed));
        }
        if let Some(boxed) = error.downcast_ref::<Box<watcher::Error>>() {
            return Self::among(&**boxed);
        }
        if let Some(error) = error.downcast_ref::<watcher::Error>() {
            return error.source().and_then(Self::among);
        }
        error.downcast_ref().map(Self::of)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forbidden { sentence, .. } => f.write_str(sentence),
            Self::Refused(said) | Self::Unreachable(said) | Self::Other(said) => f.write_str(said),
            Self::Silent => f.write_str("nobody answered in time"),
        }
    }
}

/// Who is named in a refusal: `User "jane" cannot list resource …`.
fn who(sentence: &str) -> Option<String> {
    let (_, behind) = sentence.split_once("User \"")?;
    let (name, rest) = behind.split_once('"')?;
    (rest.starts_with(" cannot ") && !name.is_empty()).then(|| name.to_owned())
}

/// An error and what it comes from.
pub fn chain<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

fn is_timeout(error: &(dyn Error + 'static)) -> bool {
    let late = |error: &io::Error| error.kind() == io::ErrorKind::TimedOut;
    error.is::<tower::timeout::error::Elapsed>() || error.downcast_ref().is_some_and(late)
}

/// What a connection failed of. The libraries' own layers say only that something did.
fn causes(error: &kube::Error) -> String {
    let mut causes: Vec<String> = Vec::new();
    for cause in chain(error).skip(1).map(ToString::to_string) {
        let layer = cause.starts_with("client error (");
        if !layer && !causes.iter().any(|known| known.contains(&cause)) {
            causes.push(cause);
        }
    }
    if causes.is_empty() { error.to_string() } else { causes.join(": ") }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn api(code: u16, message: &str) -> kube::Error {
        let reason = if code == 403 { "Forbidden" } else { "InternalError" };
        kube::Error::Api(Status { code, ..Status::failure(message, reason) }.boxed())
    }

    #[test]
    fn an_apiservers_own_sentence_says_it_and_names_who_was_refused() {
        for (message, expected) in [
            (
                "nodes is forbidden: User \"jane\" cannot list resource \"nodes\" in API group \"\" at the cluster scope",
                Some("jane"),
            ),
            ("pods is forbidden: User \"a\\\"b\" is odd", None),
            ("no", None),
        ] {
            let failure = Failure::of(&api(403, message));
            assert_eq!(failure.to_string(), message);
            let Failure::Forbidden { who, .. } = failure else { panic!("{failure:?}") };
            assert_eq!(who.as_deref(), expected);
        }
        assert_eq!(Failure::of(&api(500, "etcd is away")).to_string(), "etcd is away");
        assert_eq!(Failure::of(&api(502, "")).to_string(), "it answered with the code 502");
        // Without a sentence nobody is named, and nothing is said that is not known.
        assert_eq!(Failure::of(&api(403, "")).to_string(), "it answered with the code 403");
    }

    #[test]
    fn a_connection_that_fails_is_told_from_one_that_is_silent() {
        let service = |kind: io::ErrorKind| {
            Failure::of(&kube::Error::Service(Box::new(io::Error::new(kind, "as it was"))))
        };
        assert_eq!(service(io::ErrorKind::TimedOut), Failure::Silent);
        let refused = service(io::ErrorKind::ConnectionRefused);
        assert_eq!(refused, Failure::Unreachable("as it was".to_owned()));
        let elapsed = Box::new(tower::timeout::error::Elapsed::new());
        assert_eq!(Failure::of(&kube::Error::Service(elapsed)), Failure::Silent);
    }

    #[test]
    fn a_request_is_found_behind_a_watch() {
        let error: Box<watcher::Error> =
            Box::new(watcher::Error::InitialListFailed(api(500, "etcd is away")));
        let failure = Failure::among(&error).unwrap();
        assert_eq!(failure, Failure::Refused("etcd is away".to_owned()));
        assert_eq!(Failure::among(&io::Error::other("x")), None);
    }
}
