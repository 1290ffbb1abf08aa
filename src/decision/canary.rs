//! What a canary's answer means: whether streams reach a node through an apiserver, and if not, why and
//! what to do.
//!
//! A canary is a pod of Sluice's own on a node. A real exec, attach and port-forward into it is the
//! truth that everything else only infers. Each is made in both ways in which there are kubectls: over
//! a WebSocket, and over SPDY, which a kubectl also takes when its WebSocket is refused. An apiserver or
//! kubelet that refuses says so in words, and the same words have been there since long before 1.18;
//! what they are is looked up in
//! `staging/src/k8s.io/apimachinery/pkg/util/proxy/upgradeaware.go`, `…/pkg/util/net/http.go`
//! (`ConnectWithRedirects`), `…/pkg/util/httpstream` and `pkg/kubelet/server/server.go`.

mod failure;
mod heard;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde::Deserialize;

pub use failure::{Failure, advice, failures};
pub use heard::{Heard, Transport};

/// So many characters of an answer's own words are repeated.
const QUOTED: usize = 300;

/// Where kubelets listen for the apiserver unless told otherwise.
const KUBELET_PORT: &str = ":10250";

/// What became of one exec, attach or port-forward into a canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Answer {
    /// The canary answered what it was asked.
    Answered,
    /// The kubelet answered with a redirect, and the apiserver did not follow it.
    RedirectRefused,
    /// The apiserver would have followed the redirect, but not to another host.
    HostnameMismatch,
    /// The request arrived without what makes it an upgrade: something between mangles headers.
    UpgradeHeadersMissing,
    /// The kubelet was asked, and its runtime gave it no stream into the canary.
    RuntimeUnreachable,
    /// The kubelet was asked by WebSocket, and took its runtime's URL, which has no scheme, for TLS.
    UrlWithoutScheme,
    /// The apiserver did not reach the kubelet.
    KubeletUnreachable,
    /// Whoever asked, or the apiserver at the kubelet, may not.
    Forbidden,
    /// The apiserver itself did not answer, or only to say that it cannot.
    ApiserverUnreachable,
    /// Nothing came in time.
    NoAnswer,
    /// An answer that fits none of the above.
    NotUnderstood,
}

impl Answer {
    /// Every answer.
    pub const ALL: [Self; 11] = [
        Self::Answered,
        Self::RedirectRefused,
        Self::HostnameMismatch,
        Self::UpgradeHeadersMissing,
        Self::RuntimeUnreachable,
        Self::UrlWithoutScheme,
        Self::KubeletUnreachable,
        Self::Forbidden,
        Self::ApiserverUnreachable,
        Self::NoAnswer,
        Self::NotUnderstood,
    ];

    /// The stable name that conditions, metrics and tables use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "Answered",
            Self::RedirectRefused => "RedirectRefused",
            Self::HostnameMismatch => "HostnameMismatch",
            Self::UpgradeHeadersMissing => "UpgradeHeadersMissing",
            Self::RuntimeUnreachable => "RuntimeUnreachable",
            Self::UrlWithoutScheme => "UrlWithoutScheme",
            Self::KubeletUnreachable => "KubeletUnreachable",
            Self::Forbidden => "Forbidden",
            Self::ApiserverUnreachable => "ApiserverUnreachable",
            Self::NoAnswer => "NoAnswer",
            Self::NotUnderstood => "NotUnderstood",
        }
    }
}

/// All streams into the canary of one node through one apiserver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The apiserver's name: that of its node, or its address.
    pub instance: String,
    /// The canary's node.
    pub node: String,
    /// What became of the exec.
    pub exec: Answer,
    /// What became of the attach.
    pub attach: Answer,
    /// What became of the port-forward.
    pub port_forward: Answer,
    /// What was said instead of an answer, word for word; empty where all were answered.
    pub said: String,
}

impl Probe {
    /// A probe, of each stream's answer and what was said instead.
    pub fn new(
        instance: &str,
        node: &str,
        exec: (Answer, &str),
        attach: (Answer, &str),
        forward: (Answer, &str),
    ) -> Self {
        let all = [(exec.1, "exec"), (attach.1, "attach"), (forward.1, "port-forward")];
        let told: Vec<(&str, &str)> =
            all.into_iter().filter(|(said, _)| !said.is_empty()).collect();
        let said = match told.as_slice() {
            [] => String::new(),
            [(first, _), rest @ ..] if rest.iter().all(|(said, _)| said == first) => {
                (*first).to_owned()
            }
            told => {
                let parts: Vec<String> =
                    told.iter().map(|(said, kind)| format!("{said} ({kind})")).collect();
                parts.join("; ")
            }
        };
        let (instance, node) = (instance.to_owned(), node.to_owned());
        let [exec, attach, port_forward] = [exec.0, attach.0, forward.0];
        Self { instance, node, exec, attach, port_forward, said }
    }

    /// What became of each stream.
    pub fn answers(&self) -> [Answer; 3] {
        [self.exec, self.attach, self.port_forward]
    }

    /// Whether all streams got through.
    pub fn passed(&self) -> bool {
        self.answers().iter().all(|answer| *answer == Answer::Answered)
    }
}

/// A `metav1.Status`, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
struct Status {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    reason: String,
}

impl Status {
    /// As an apiserver answers with it.
    fn read(body: &str) -> Option<Self> {
        serde_json::from_str::<Self>(body).ok().filter(|status| status.kind == "Status")
    }

    /// As a kubelet or runtime ends an exec with it, which leaves out the kind.
    fn read_bare(body: &str) -> Option<Self> {
        let status = serde_json::from_str::<Self>(body).ok()?;
        matches!(status.status.as_str(), "Success" | "Failure").then_some(status)
    }
}

/// What an answer says, as one short line: the message of a Status, or else the text.
pub fn words(body: &str) -> String {
    let status = Status::read(body).or_else(|| Status::read_bare(body));
    let message = status.map(|status| status.message);
    let text = message.as_deref().unwrap_or(body);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().filter(|c| !c.is_control()).take(QUOTED).collect()
}

/// What it means that an upgrade was not made.
///
/// An apiserver speaks in Statuses. Text is the kubelet's, or that of something in between: what a
/// kubelet or runtime answers with 400 or more is passed on as it is.
pub fn classify(status: u16, body: &str) -> Answer {
    let of_apiserver = Status::read(body);
    let text = of_apiserver.as_ref().map_or(body, |status| &status.message);
    let says = |all: &[&str]| all.iter().any(|words| text.contains(words));
    // Before the fix of CVE-2020-8559 the kubelet's redirect itself came back.
    if (300..400).contains(&status) {
        return Answer::RedirectRefused;
    }
    if let Some(answer) = redirected(text).or_else(|| without_scheme(text)) {
        return answer;
    }
    if status == 426 || says(HEADERS) {
        return Answer::UpgradeHeadersMissing;
    }
    if says(DIALLING) {
        // The apiserver dials the runtime, too: where a redirect leads.
        let kubelets = of_apiserver.is_some() && dialled(text).is_none_or(is_kubelet);
        return if kubelets { Answer::KubeletUnreachable } else { Answer::RuntimeUnreachable };
    }
    if says(RUNTIME) {
        return Answer::RuntimeUnreachable;
    }
    match status {
        401 | 403 if !says(NEGOTIATION) => Answer::Forbidden,
        429 | 502..=504 => Answer::ApiserverUnreachable,
        500 if says(CUT_OFF) && of_apiserver.is_some() => Answer::KubeletUnreachable,
        500 if says(CUT_OFF) => Answer::RuntimeUnreachable,
        _ => Answer::NotUnderstood,
    }
}

/// What an apiserver says of a kubelet's redirect.
fn redirected(text: &str) -> Option<Answer> {
    let says = |all: &[&str]| all.iter().any(|words| text.contains(words));
    if says(REDIRECT) {
        return Some(Answer::RedirectRefused);
    }
    says(OTHER_HOST).then_some(Answer::HostnameMismatch)
}

/// The gate is off; or it is on, and where the redirect leads cannot be followed. The last is of an
/// apiserver that translates, and has neither.
const REDIRECT: &[&str] = &[
    "invalid upgrade response: status code 3",
    "too many redirects (",
    "response missing Location header",
    "malformed Location header",
    "redirect not allowed",
];

/// What a kubelet says that translates a WebSocket itself (KEP-4006), of a URL that begins with `//`.
fn without_scheme(text: &str) -> Option<Answer> {
    let says = |words: &str| text.contains(words);
    (says("Post \"//") && says("server gave HTTP response to HTTPS client"))
        .then_some(Answer::UrlWithoutScheme)
}

/// `ValidateProxyRedirects`.
const OTHER_HOST: &[&str] = &["hostname mismatch: expected "];

/// The first is the apiserver's and the kubelet's; the second and third are what a runtime says to a
/// SPDY request, the others to a WebSocket. To a port-forward that is neither, kubelets of 1.20 say
/// nothing, with status 200.
const HEADERS: &[&str] = &[
    "Upgrade request required",
    "invalid upgrade response: status code 2",
    "missing upgrade headers in request",
    "X-Stream-Protocol-Version is required",
    "missing or bad upgrade",
    "missing or bad WebSocket",
    "not websocket protocol",
    "query parameter \"port\" is required",
];

const DIALLING: &[&str] = &["error dialing backend", "error sending request: "];

/// The kubelet knows no such container, or the call to its runtime failed, and with it the request for
/// a stream.
const RUNTIME: &[&str] = &[
    "container not found",
    "rpc error: code = ",
    "streaming method ",
    "maximum number of in-flight requests exceeded",
];

/// A refusal that has nothing to do with rights, although its status is 403.
const NEGOTIATION: &[&str] = &["unable to negotiate protocol"];

/// What was reached did not answer in HTTP.
const CUT_OFF: &[&str] = &["EOF", "connection reset by peer", "broken pipe", "malformed HTTP "];

/// The address in `dial tcp 10.0.0.1:2->10.0.0.2:3: i/o timeout`; `None` where no address was dialled,
/// but a name or a tunnel.
fn dialled(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("dial tcp ")?;
    let address = rest.split(' ').next()?.trim_end_matches([':', ',']);
    Some(address.rsplit_once("->").map_or(address, |(_, to)| to))
}

fn is_kubelet(address: &str) -> bool {
    address.ends_with(KUBELET_PORT)
}

/// What an exec that was upgraded came to: `status` is what came on the channel of errors, `output`
/// on that of standard output, and `word` what the canary was to repeat.
pub fn exec_ended(status: &str, output: &str, word: &str) -> Answer {
    match Status::read_bare(status) {
        Some(status) if status.status == "Success" && output.trim_end() == word => Answer::Answered,
        // The canary ran, and did something else.
        Some(status) if status.status == "Success" => Answer::NotUnderstood,
        Some(status) if status.reason == "NonZeroExitCode" => Answer::NotUnderstood,
        Some(status) => not_begun(&status.message),
        None => Answer::NotUnderstood,
    }
}

/// What an attach that was upgraded ended with, before the canary's word came.
pub fn attach_ended(status: &str) -> Answer {
    match Status::read_bare(status) {
        Some(status) if status.status == "Failure" => not_begun(&status.message),
        Some(_) | None => Answer::NotUnderstood,
    }
}

/// What it means that no command ran. An apiserver that translates has made the upgrade itself by then,
/// and says here what it would have answered instead of one.
fn not_begun(text: &str) -> Answer {
    let at_kubelet = || match dialled(text).is_some_and(is_kubelet) {
        true => Answer::KubeletUnreachable,
        false => Answer::RuntimeUnreachable,
    };
    redirected(text).or_else(|| without_scheme(text)).unwrap_or_else(at_kubelet)
}

/// What a port-forward that was upgraded came to: `error` is what came on its channel of errors,
/// `line` the first of its data, and `expected` what the canary was to say.
pub fn forward_ended(error: &str, line: &str, expected: &str) -> Answer {
    match (error.is_empty(), line.trim_end() == expected) {
        (true, true) => Answer::Answered,
        (true, false) => Answer::NotUnderstood,
        (false, _) => Answer::RuntimeUnreachable,
    }
}

/// Which nodes to try, where not all can be: at most `max`, the candidates first, then a sample that
/// is spread evenly over the rest by name. The same nodes give the same sample.
///
/// A candidate counts whether it is among `all` or not: that there is nothing to try it with must be
/// seen, not skipped.
pub fn sample<'a>(
    candidates: &BTreeSet<&str>,
    all: impl Iterator<Item = &'a str>,
    max: usize,
) -> Vec<String> {
    let rest: BTreeSet<&str> = all.filter(|name| !candidates.contains(name)).collect();
    let mut chosen = spread(candidates, max);
    chosen.extend(spread(&rest, max - chosen.len()));
    chosen
}

fn spread(names: &BTreeSet<&str>, max: usize) -> Vec<String> {
    let (count, wanted) = (names.len(), names.len().min(max));
    let is_chosen = |index: usize| (index + 1) * wanted / count > index * wanted / count;
    let chosen = names.iter().enumerate().filter(|(index, _)| is_chosen(*index));
    chosen.map(|(_, name)| (*name).to_owned()).collect()
}
