//! What becomes of a WebSocket to one node, today and after an upgrade.
//!
//! The cells are those of exec and attach, whose WebSockets have to be translated to the SPDY that
//! runtimes speak. A port-forward carries SPDY in its WebSocket, so nothing is translated, and no
//! URL breaks it.

use super::gates::StreamGate::{ExtendToKubelet, NodeDeclaredFeatures, TranslateStreamClose};
use crate::{
    decision::apiserver::Apiserver,
    kubernetes::{feature_gates::FeatureGates, version::Minor},
};

/// The first kubelet that has no dockershim: its docker is cri-dockerd's.
const WITHOUT_DOCKERSHIM: Minor = Minor(24);

/// The URL with which a runtime answers a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StreamingUrl {
    /// It has a scheme.
    Absolute,
    /// It has none, such as `//[::]:10010/cri/exec/…`: a kubelet that translates takes it for TLS.
    SchemeLess,
    /// Nobody knows.
    #[default]
    Unknown,
}

/// Who says with which URL a runtime answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Teller {
    /// The node's agent.
    Agent,
    /// An admin, by the annotation.
    Annotation,
}

/// What is known of one node. Its name is kept by whoever holds the nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeFacts {
    /// The kubelet's version; `None` where it cannot be read.
    pub kubelet: Option<Minor>,
    /// The gates that the kubelet is set to; `None` where nobody sees them.
    pub gates: Option<FeatureGates>,
    /// What its Node declares that the kubelet can; `None` where it declares nothing.
    pub declared: Option<Vec<String>>,
    /// The runtime as the Node names it, such as `containerd://2.1.0`.
    pub runtime: String,
    /// What somebody on the node saw its runtime answer, or an admin said.
    pub url: Option<StreamingUrl>,
    /// Who says so.
    pub url_by: Option<Teller>,
}

/// What becomes of a WebSocket, the farther it comes the later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cell {
    /// Nobody translates it: clients have to speak SPDY.
    Spdy,
    /// The apiserver translates it to SPDY.
    Translated,
    /// It comes to the kubelet, which translates it.
    Through,
    /// It comes to the kubelet, which takes the runtime's URL for TLS: exec and attach fail.
    Broken,
    /// It may fail.
    Unknown,
}

impl Cell {
    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spdy => "Spdy",
            Self::Translated => "Translated",
            Self::Through => "Through",
            Self::Broken => "Broken",
            Self::Unknown => "Unknown",
        }
    }

    /// Whether exec and attach work for certain.
    pub fn is_safe(self) -> bool {
        !matches!(self, Self::Broken | Self::Unknown)
    }
}

impl NodeFacts {
    /// Whether its Node declares that it takes WebSockets, which is what an apiserver goes by.
    pub fn declares(&self) -> bool {
        self.declared.iter().flatten().any(|feature| feature == ExtendToKubelet.as_str())
    }

    /// The URL with which its runtime answers, once it runs a kubelet of this minor.
    pub fn url(&self, kubelet: Option<Minor>) -> StreamingUrl {
        let (name, _) = self.runtime.split_once("://").unwrap_or_default();
        let shim = |minor: Option<Minor>| minor.is_some_and(|minor| minor < WITHOUT_DOCKERSHIM);
        match (name, self.url) {
            // What dockershim answers says nothing of the cri-dockerd that comes after it.
            ("docker", _) if shim(self.kubelet) && !shim(kubelet) => StreamingUrl::Unknown,
            (_, Some(url)) => url,
            // containerd and CRI-O have always put the scheme in.
            ("containerd" | "cri-o", None) => StreamingUrl::Absolute,
            (_, None) => StreamingUrl::Unknown,
        }
    }

    /// What its Node says of whether the kubelet takes WebSockets; `None` where it says nothing.
    ///
    /// That a Node names no feature says something only where the kubelet would declare it, and every
    /// apiserver would have stored it: one without the gate drops what kubelets declare.
    fn declaration(&self, apiservers: &[Apiserver]) -> Option<bool> {
        if self.declares() {
            return Some(true);
        }
        let declared = self.declared.is_some()
            || NodeDeclaredFeatures.is_on(self.kubelet, self.gates.as_ref()) == Some(true);
        (declared && store(apiservers)).then_some(false)
    }

    /// Whether what is said of its kubelet's gates is not what its Node declares.
    ///
    /// A version without the gate declares nothing, so there the Node's word is of another kubelet.
    pub(super) fn gates_contradicted(&self, apiservers: &[Apiserver]) -> bool {
        let has = self.kubelet.is_some_and(|running| running >= ExtendToKubelet.first());
        let by_gates = ExtendToKubelet.is_on(self.kubelet, self.gates.as_ref());
        let declared = self.declaration(apiservers);
        has && by_gates.is_some() && declared.is_some() && by_gates != declared
    }

    /// The gates that its kubelet is set to, as far as nothing contradicts that.
    fn gates_believed(&self, apiservers: &[Apiserver]) -> Option<&FeatureGates> {
        self.gates.as_ref().filter(|_| !self.gates_contradicted(apiservers))
    }

    /// Whether a kubelet that can take WebSockets declares that it does.
    pub(super) fn declares_what_it_can(&self) -> bool {
        self.declares() && self.kubelet.is_none_or(|running| running >= ExtendToKubelet.first())
    }

    /// Whether the kubelet takes WebSockets now; `None` where that cannot be told.
    fn takes_now(&self, apiservers: &[Apiserver]) -> Option<bool> {
        let by_gates = ExtendToKubelet.is_on(self.kubelet, self.gates.as_ref());
        match (by_gates, self.declaration(apiservers)) {
            (Some(on), Some(declared)) if on != declared => None,
            (Some(on), _) => Some(on),
            (None, declared) => declared,
        }
    }

    /// Whether it takes them, and declares so, once it runs this later minor, or declares anew.
    fn takes_at(
        &self,
        minor: Option<Minor>,
        apiservers: &[Apiserver],
    ) -> (Option<bool>, Option<bool>) {
        let gates = self.gates_believed(apiservers);
        let said = match ExtendToKubelet.is_on(minor, gates) {
            // It was set so by somebody, or it is the default; and it stays so while it can be set.
            None if self.kubelet.is_some_and(|running| running >= ExtendToKubelet.first()) => {
                self.takes_now(apiservers)
            }
            told => told,
        };
        let declares = match (said, NodeDeclaredFeatures.is_on(minor, gates)) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            _ => None,
        };
        (said, declares)
    }
}

/// The cell of a node today: the worst that some apiserver puts it in.
pub fn cell_today(node: &NodeFacts, apiservers: &[Apiserver]) -> Cell {
    let side = Side {
        takes: node.takes_now(apiservers),
        declares: Some(node.declares()),
        url: node.url(node.kubelet),
    };
    worst(apiservers, |apiserver| side.cell(apiserver.minor, apiserver.gates.as_ref()))
}

/// The same once every apiserver, and then its kubelet, runs at least this minor with the gates of
/// today.
pub fn cell_at(node: &NodeFacts, apiservers: &[Apiserver], minor: Minor) -> Cell {
    let later = |running: Option<Minor>| running.map(|running| running.max(minor));
    let kubelet = later(node.kubelet);
    // Where an apiserver of today drops what kubelets declare, one of then does not.
    let lasts = node.declares() || store(apiservers);
    let (takes, declares) = match node.kubelet {
        Some(running) if running >= minor && lasts => {
            (node.takes_now(apiservers), Some(node.declares()))
        }
        _ => node.takes_at(kubelet, apiservers),
    };
    let side = Side { takes, declares, url: node.url(kubelet) };
    worst(apiservers, |apiserver| {
        let at = later(apiserver.minor).or(Some(minor));
        side.cell(at, apiserver.gates.as_ref())
    })
}

/// Whether every apiserver stores what kubelets declare.
fn store(apiservers: &[Apiserver]) -> bool {
    let stores = |apiserver: &Apiserver| {
        NodeDeclaredFeatures.is_on(apiserver.minor, apiserver.gates.as_ref()) == Some(true)
    };
    apiservers.iter().all(stores)
}

fn worst(apiservers: &[Apiserver], cell: impl Fn(&Apiserver) -> Cell) -> Cell {
    let cells = apiservers.iter().map(cell);
    // One through which exec fails for certain is worse than one through which it may.
    cells.max_by_key(|cell| (*cell == Cell::Broken, *cell)).unwrap_or(Cell::Unknown)
}

/// The node's side of a stream. What is `None` may be either.
struct Side {
    /// The kubelet translates WebSockets.
    takes: Option<bool>,
    /// The apiserver believes that it does.
    declares: Option<bool>,
    url: StreamingUrl,
}

impl Side {
    /// What becomes of a WebSocket through an apiserver of this minor with these gates: `Unknown` if one
    /// of the ways that it may go fails or may fail, the farthest of them otherwise.
    fn cell(&self, minor: Option<Minor>, gates: Option<&FeatureGates>) -> Cell {
        let both = |known: Option<bool>| match known {
            Some(known) => vec![known],
            None => vec![false, true],
        };
        let mut cells = Vec::new();
        for translates in both(TranslateStreamClose.is_on(minor, gates)) {
            for extends in both(ExtendToKubelet.is_on(minor, gates)) {
                for declares in both(self.declares) {
                    for takes in both(self.takes) {
                        // A kubelet declares what it takes; only an old word of the Node may differ.
                        let possible = self.declares.is_some() || takes || !declares;
                        if possible {
                            cells.push(self.way(translates, extends && declares, takes));
                        }
                    }
                }
            }
        }
        match (cells.iter().min(), cells.iter().max()) {
            (Some(least), Some(most)) if least == most || most.is_safe() => *most,
            _ => Cell::Unknown,
        }
    }

    /// `pkg/registry/core/pod/rest/subresources.go` and `pkg/kubelet/server/server.go` of 1.36 to 1.38.
    fn way(&self, translates: bool, hands_on: bool, takes: bool) -> Cell {
        match (translates, hands_on, takes) {
            (true, false, _) => Cell::Translated,
            // Who does not translate hands every upgrade on, asked or not.
            (true, true, true) | (false, _, true) => match self.url {
                StreamingUrl::Absolute => Cell::Through,
                StreamingUrl::SchemeLess => Cell::Broken,
                StreamingUrl::Unknown => Cell::Unknown,
            },
            (false, _, false) => Cell::Spdy,
            // The Node declares what its kubelet does not do.
            (true, true, false) => Cell::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXTEND: &str = "ExtendWebSocketsToKubelet";

    fn apiserver(minor: u16, gates: Option<&str>) -> Apiserver {
        let gates = gates
            .map(|gates| FeatureGates::from_args([format!("--feature-gates={gates}").as_str()]));
        Apiserver { name: "cp".to_owned(), minor: Some(Minor(minor)), gates, unseen: None }
    }

    fn node(kubelet: u16, gates: Option<&[(&str, bool)]>, declares: bool) -> NodeFacts {
        let set = |pairs: &[(&str, bool)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
        };
        NodeFacts {
            kubelet: Some(Minor(kubelet)),
            gates: gates.map(set),
            declared: declares.then(|| vec![EXTEND.to_owned()]),
            runtime: "docker://28.0.0".to_owned(),
            url: Some(StreamingUrl::SchemeLess),
            url_by: Some(Teller::Agent),
        }
    }

    #[test]
    fn cells_of_a_runtime_without_a_scheme_today() {
        use Cell::{Broken, Spdy, Translated, Unknown};
        let off: &[(&str, bool)] = &[(EXTEND, false)];
        let none: &[(&str, bool)] = &[];
        for (apiserver_minor, gates, node, expected) in [
            (28, Some(""), node(28, Some(none), false), Spdy),
            (29, Some(""), node(29, Some(none), false), Spdy),
            (30, Some(""), node(28, None, false), Translated),
            (35, Some(""), node(35, Some(none), false), Translated),
            (36, Some(""), node(35, None, false), Translated),
            (36, Some(""), node(36, Some(none), true), Broken),
            (36, Some(""), node(36, None, true), Broken),
            (37, Some(""), node(36, None, true), Broken),
            // A gate off on either side.
            (36, Some("ExtendWebSocketsToKubelet=false"), node(36, None, true), Translated),
            (36, Some("AllBeta=false"), node(36, Some(off), false), Spdy),
            (36, Some(""), node(36, Some(off), false), Translated),
            // What the apiserver believes counts.
            (36, Some(""), node(36, None, false), Translated),
            // One that does not translate hands it on, whatever it believes.
            (
                36,
                Some("TranslateStreamCloseWebsocketRequests=false"),
                node(36, Some(none), true),
                Broken,
            ),
            (36, Some("TranslateStreamCloseWebsocketRequests=false"), node(35, None, false), Spdy),
            (
                36,
                Some("TranslateStreamCloseWebsocketRequests=false"),
                node(36, None, false),
                Unknown,
            ),
            // The apiserver's command line is not seen.
            (36, None, node(36, None, true), Unknown),
            (36, None, node(35, None, false), Translated.max(Spdy)),
            // The Node says what is not so, or not any more.
            (36, Some(""), node(35, None, true), Unknown),
            (36, Some(""), node(36, Some(off), true), Unknown),
        ] {
            let seen = cell_today(&node, &[apiserver(apiserver_minor, gates)]);
            assert_eq!(seen, expected, "1.{apiserver_minor} {gates:?} {node:?}");
            // Where the URL has a scheme, nothing fails but what contradicts itself.
            let whole = NodeFacts { url: Some(StreamingUrl::Absolute), ..node.clone() };
            let seen = cell_today(&whole, &[apiserver(apiserver_minor, gates)]);
            let all = [apiserver(apiserver_minor, gates)];
            let contradicts = node.declares() && node.takes_now(&all) != Some(true);
            assert_eq!(seen.is_safe(), !contradicts || expected.is_safe(), "{node:?}");
        }
    }

    /// A kubelet ahead of an apiserver that drops what it declares: once all of them store it, it
    /// declares, and WebSockets come to it.
    #[test]
    fn silence_counts_only_where_every_apiserver_would_have_stored_a_word() {
        let none: &[(&str, bool)] = &[];
        let silent = node(36, Some(none), false);
        let empty = NodeFacts { declared: Some(vec!["Other".to_owned()]), ..silent.clone() };
        let (old, new) = (apiserver(35, Some("")), apiserver(36, Some("")));
        let dropping =
            apiserver(36, Some("NodeDeclaredFeatures=false,ExtendWebSocketsToKubelet=false"));
        let storing = apiserver(35, Some("NodeDeclaredFeatures=true"));
        for (apiservers, expected, contradicted) in [
            (vec![old.clone()], Cell::Broken, false),
            (vec![new.clone(), old], Cell::Broken, false),
            (vec![new.clone(), dropping], Cell::Broken, false),
            // It would have been stored: the kubelet does not do what is said of its gates, or has not
            // said so yet.
            (vec![new], Cell::Translated, true),
            (vec![storing], Cell::Translated, true),
        ] {
            for node in [&silent, &empty] {
                assert_eq!(cell_today(node, &apiservers), Cell::Translated, "{apiservers:?}");
                let seen = cell_at(node, &apiservers, Minor(36));
                assert_eq!(seen, expected, "{node:?} {apiservers:?}");
                assert_eq!(node.gates_contradicted(&apiservers), contradicted, "{apiservers:?}");
            }
        }
    }

    #[test]
    fn gates_that_are_said_and_not_declared_are_not_believed() {
        let none: &[(&str, bool)] = &[];
        let off: &[(&str, bool)] = &[(EXTEND, false)];
        for (node, contradicted, then) in [
            (node(37, Some(none), true), false, Cell::Broken),
            (node(37, Some(none), false), true, Cell::Broken),
            (node(37, Some(off), false), false, Cell::Broken),
            (node(37, Some(off), true), true, Cell::Broken),
            (node(37, None, false), false, Cell::Broken),
            // Nothing of it is said of a version that does not declare it.
            (node(35, Some(none), true), false, Cell::Broken),
            (node(36, Some(&[("AllBeta", false)]), false), false, Cell::Broken),
        ] {
            let all = [apiserver(37, Some(""))];
            assert_eq!(node.gates_contradicted(&all), contradicted, "{node:?}");
            assert_eq!(cell_at(&node, &all, Minor(38)), then, "{node:?}");
        }
        // Where the gate may still be off, nobody knows.
        let silent = node(36, Some(none), false);
        assert_eq!(cell_at(&silent, &[apiserver(36, Some(""))], Minor(37)), Cell::Unknown);
    }

    #[test]
    fn the_worst_apiserver_counts() {
        let node = node(36, None, true);
        let off = apiserver(36, Some("ExtendWebSocketsToKubelet=false"));
        let (on, unseen) = (apiserver(36, Some("")), apiserver(36, None));
        assert_eq!(cell_today(&node, &[off.clone(), on.clone()]), Cell::Broken);
        assert_eq!(cell_today(&node, &[unseen.clone(), on]), Cell::Broken);
        assert_eq!(cell_today(&node, &[unseen, off]), Cell::Unknown);
        assert_eq!(cell_today(&node, &[]), Cell::Unknown);
    }

    #[test]
    fn cells_of_a_runtime_without_a_scheme_after_an_upgrade() {
        use Cell::{Broken, Translated, Unknown};
        let off: &[(&str, bool)] = &[(EXTEND, false)];
        let none: &[(&str, bool)] = &[];
        for (node, gates, minor, expected) in [
            (node(34, Some(none), false), Some(""), 35, Translated),
            (node(34, Some(none), false), Some(""), 36, Broken),
            (node(34, Some(none), false), Some(""), 38, Broken),
            (node(34, Some(off), false), Some(""), 36, Translated),
            (node(36, Some(off), false), Some(""), 37, Translated),
            // It is planned to be locked to on.
            (node(36, Some(off), false), Some(""), 38, Broken),
            (node(35, Some(&[("AllBeta", false)]), false), Some(""), 36, Translated),
            // Somebody may have turned the beta ones off.
            (node(35, None, false), Some(""), 36, Unknown),
            (node(36, None, true), Some(""), 37, Broken),
            (node(36, None, false), Some(""), 37, Unknown),
            (node(35, Some(none), false), None, 36, Unknown),
            (node(35, Some(none), false), None, 38, Broken),
            (node(35, Some(none), false), Some("ExtendWebSocketsToKubelet=false"), 36, Translated),
        ] {
            let seen = cell_at(&node, &[apiserver(35, gates)], Minor(minor));
            assert_eq!(seen, expected, "1.{minor} {gates:?} {node:?}");
            let whole = NodeFacts { url: Some(StreamingUrl::Absolute), ..node };
            assert!(cell_at(&whole, &[apiserver(35, gates)], Minor(minor)).is_safe());
        }
    }

    #[test]
    fn what_is_known_of_a_url() {
        use StreamingUrl::{Absolute, SchemeLess, Unknown};
        for (runtime, kubelet, seen, then, expected) in [
            ("containerd://1.7.0", 35, None, 36, Absolute),
            ("cri-o://1.35.0", 35, None, 36, Absolute),
            ("docker://28.0.0", 35, None, 36, Unknown),
            ("docker://28.0.0", 35, Some(Absolute), 36, Absolute),
            ("docker://28.0.0", 35, Some(SchemeLess), 36, SchemeLess),
            ("containerd://1.7.0", 35, Some(SchemeLess), 36, SchemeLess),
            // dockershim goes with the upgrade.
            ("docker://20.10.0", 23, Some(Absolute), 23, Absolute),
            ("docker://20.10.0", 23, Some(Absolute), 36, Unknown),
            ("", 35, None, 36, Unknown),
            ("containerd", 35, None, 36, Unknown),
        ] {
            let (runtime, kubelet) = (runtime.to_owned(), Some(Minor(kubelet)));
            let facts = NodeFacts { runtime, kubelet, url: seen, ..NodeFacts::default() };
            assert_eq!(facts.url(Some(Minor(then))), expected, "{facts:?}");
        }
    }
}
