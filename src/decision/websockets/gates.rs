//! The gates by which streams become WebSockets, version by version.
//!
//! Apiserver and kubelet are built from one list of gates (`pkg/features/kube_features.go`) and take
//! the same of them, so there is one history of each. The gates of redirects are in
//! [`crate::decision::migration`]. `make facts` asks the real binaries of both.

use crate::{
    decision::migration::{Since, Stage, at},
    kubernetes::{feature_gates::FeatureGates, version::Minor},
};

/// A gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StreamGate {
    /// The apiserver translates the WebSocket of an exec or attach to SPDY (KEP-4006).
    TranslateStreamClose,
    /// The apiserver takes the SPDY of a port-forward out of a WebSocket (KEP-4006).
    PortForward,
    /// A WebSocket needs the right to `create`, as SPDY does.
    AuthorizeCreate,
    /// The apiserver hands WebSockets on to kubelets that declare that they take them, and kubelets
    /// take and declare them (KEP-4006).
    ExtendToKubelet,
    /// Kubelets declare in their Node's status what they can (KEP-5328).
    NodeDeclaredFeatures,
}

/// What a component does about a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Behaviour {
    /// There is no such gate yet: the feature is off, and who names the gate does not start.
    NotThereYet,
    /// The gate can be set; unset means `default`.
    Settable {
        /// Whether it is on where nobody set it.
        default: bool,
        /// What sets it beside its own name.
        stage: Stage,
    },
    /// It is beta and on, and others that are on by default depend on it: who sets it to false, and not
    /// them, does not start.
    Needed,
    /// Who sets it to anything else does not start.
    Locked {
        /// What it is.
        to: bool,
    },
}

/// The last minor of which something is known.
pub const LAST: Minor = Minor(38);

/// From this minor on the table holds what is planned, not what was released.
pub const PLANNED: Minor = Minor(38);

/// From this minor on a component does not start where a gate is on and one that it depends on is off.
const DEPENDENCIES: Minor = Minor(36);

const fn since(minor: u16, behaviour: Behaviour) -> Since<Behaviour> {
    Since { minor: Minor(minor), behaviour }
}

const ALPHA: Behaviour = Behaviour::Settable { default: false, stage: Stage::Alpha };
const BETA: Behaviour = Behaviour::Settable { default: true, stage: Stage::Beta };
const ON: Behaviour = Behaviour::Locked { to: true };

const TRANSLATE: &[Since<Behaviour>] = &[since(29, ALPHA), since(30, BETA), since(38, ON)];
const PORT_FORWARD: &[Since<Behaviour>] = &[since(30, ALPHA), since(31, BETA), since(38, ON)];
const AUTHORIZE: &[Since<Behaviour>] = &[since(35, BETA), since(38, ON)];
const EXTEND: &[Since<Behaviour>] = &[since(36, BETA), since(38, ON)];
// In 1.36 ExtendWebSocketsToKubelet, RestartAllContainersOnContainerExits and two gates of resizing
// depend on it (`defaultKubernetesFeatureGateDependencies`).
const DECLARED: &[Since<Behaviour>] =
    &[since(35, ALPHA), since(36, Behaviour::Needed), since(37, ON)];

impl StreamGate {
    /// Every gate.
    pub const ALL: [Self; 5] = [
        Self::TranslateStreamClose,
        Self::PortForward,
        Self::AuthorizeCreate,
        Self::ExtendToKubelet,
        Self::NodeDeclaredFeatures,
    ];

    /// Its name in `--feature-gates`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TranslateStreamClose => "TranslateStreamCloseWebsocketRequests",
            Self::PortForward => "PortForwardWebsockets",
            Self::AuthorizeCreate => "AuthorizePodWebsocketUpgradeCreatePermission",
            Self::ExtendToKubelet => "ExtendWebSocketsToKubelet",
            Self::NodeDeclaredFeatures => "NodeDeclaredFeatures",
        }
    }

    /// Its history, oldest first. Before the first entry there is no such gate.
    ///
    /// Source: `pkg/features/kube_features.go` and the generated
    /// `test/compatibility_lifecycle/reference/versioned_feature_list.yaml` of 1.35.4, 1.36.3 and
    /// 1.37.2; for 1.38 those of 1.38.0-beta.0, and the graduation criteria of KEP-4006.
    fn history(self) -> &'static [Since<Behaviour>] {
        match self {
            Self::TranslateStreamClose => TRANSLATE,
            Self::PortForward => PORT_FORWARD,
            Self::AuthorizeCreate => AUTHORIZE,
            Self::ExtendToKubelet => EXTEND,
            Self::NodeDeclaredFeatures => DECLARED,
        }
    }

    /// What an apiserver or a kubelet of this minor does about it. Past [`LAST`] the last that is
    /// known.
    pub fn at(self, minor: Minor) -> Behaviour {
        at(self.history(), minor).unwrap_or(Behaviour::NotThereYet)
    }

    /// The first minor with the gate.
    pub fn first(self) -> Minor {
        self.history().first().map_or(LAST, |since| since.minor)
    }

    /// The gate that somebody meant who wrote this name, which is none; `None` where it is far from
    /// every gate, or is one.
    pub fn meant_by(name: &str) -> Option<&'static str> {
        let near = |gate: &&str| {
            *gate != name
                && (gate.eq_ignore_ascii_case(name)
                    || distance(&gate.to_ascii_lowercase(), &name.to_ascii_lowercase()) <= 2)
        };
        // Names of a few letters are near to everything.
        let all_of_a_stage = |stage: &&str| *stage != name && stage.eq_ignore_ascii_case(name);
        let by_name = Self::ALL.into_iter().map(Self::as_str).find(near);
        let meant = by_name.or_else(|| [ALL_ALPHA, ALL_BETA].into_iter().find(all_of_a_stage));
        meant.filter(|_| !names().any(|gate| gate == name))
    }

    /// Whether it is on in a component of this minor that is set to these gates; `None` where that
    /// cannot be told. `set` is `None` where nobody sees them.
    pub fn is_on(self, minor: Option<Minor>, set: Option<&FeatureGates>) -> Option<bool> {
        // Its gates are those of a version that is not told.
        if set.is_some_and(FeatureGates::of_another_version) {
            return None;
        }
        let (default, stage) = match self.at(minor?) {
            Behaviour::NotThereYet => return Some(false),
            Behaviour::Locked { to } => return Some(to),
            Behaviour::Settable { default, stage } => (default, stage),
            Behaviour::Needed => (true, Stage::Beta),
        };
        let set = set.filter(|set| set.unreadable().is_none())?;
        let all = match stage {
            Stage::Alpha => set.get(ALL_ALPHA),
            Stage::Beta => set.get(ALL_BETA),
            Stage::Deprecated => None,
        };
        Some(set.get(self.as_str()).or(all).unwrap_or(default))
    }
}

/// The names that set every gate of a stage.
pub const ALL_ALPHA: &str = "AllAlpha";
/// The same for the beta ones.
pub const ALL_BETA: &str = "AllBeta";

/// Every name that sets one of the gates.
pub fn names() -> impl Iterator<Item = &'static str> {
    StreamGate::ALL.into_iter().map(StreamGate::as_str).chain([ALL_ALPHA, ALL_BETA])
}

/// So many letters have to be put in, left out or changed to make one text of another.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, a) in one.bytes().enumerate() {
        let mut above_left = std::mem::replace(&mut row[0], at + 1);
        for (index, b) in other.bytes().enumerate() {
            let changed = above_left + usize::from(a != b);
            above_left = row[index + 1];
            row[index + 1] = changed.min(above_left + 1).min(row[index] + 1);
        }
    }
    row[other.len()]
}

/// Why a component does not start with a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// There is no such gate yet.
    NotThereYet,
    /// It is locked to the other value.
    Locked,
    /// Others that are on depend on it.
    Needed,
    /// What becomes of it that late is not known.
    Beyond,
}

/// The gates of a set with which a component of this minor does not start, and why. What of the set
/// cannot be read is not judged.
pub fn refused(minor: Minor, set: &FeatureGates) -> Vec<(StreamGate, Refusal)> {
    let refusal = |gate: StreamGate| match (gate.at(minor), set.get(gate.as_str())) {
        (Behaviour::NotThereYet, Some(_)) => Some(Refusal::NotThereYet),
        (Behaviour::Locked { to }, Some(value)) if value != to => Some(Refusal::Locked),
        (_, Some(_)) if minor > LAST => Some(Refusal::Beyond),
        (Behaviour::Needed, value) => {
            let others_off = set.get(ALL_BETA) == Some(false);
            let off = !value.unwrap_or(!others_off);
            let used = StreamGate::ExtendToKubelet.is_on(Some(minor), Some(set)) != Some(false);
            (off && (used || !others_off)).then_some(Refusal::Needed)
        }
        _ => None,
    };
    StreamGate::ALL.into_iter().filter_map(|gate| Some((gate, refusal(gate)?))).collect()
}

/// Whether a component of this minor may not start because the beta gates are all off and others are
/// on, which may depend on one of them: from 1.36 on gates have dependencies. What the gates of streams
/// depend on is known, and is in [`refused`].
pub fn needs_beta(minor: Minor, set: &FeatureGates) -> bool {
    let known = |name: &str| StreamGate::ALL.into_iter().any(|gate| gate.as_str() == name);
    let others = set.iter().any(|(name, on)| on && name != ALL_BETA && !known(name));
    minor >= DEPENDENCIES && set.get(ALL_BETA) == Some(false) && others
}

/// Whether a component that runs `from` may have been started with a gate with which it would not
/// start at some minor up to `to`. That matters where nobody sees its gates.
///
/// `declares` says that the component is a kubelet whose Node declares that it takes WebSockets: then
/// the gates by which it does are on.
pub fn may_be_refused(from: Minor, to: Minor, declares: bool) -> bool {
    let on = [StreamGate::ExtendToKubelet, StreamGate::NodeDeclaredFeatures];
    let alone = |gate: StreamGate, value: bool, minor: Minor| match gate.at(minor) {
        Behaviour::NotThereYet => Some(Refusal::NotThereYet),
        Behaviour::Locked { to } if value != to => Some(Refusal::Locked),
        _ if minor > LAST => Some(Refusal::Beyond),
        Behaviour::Needed if !value => Some(Refusal::Needed),
        _ => None,
    };
    let last = to.0.min(LAST.max(from).0.saturating_add(1));
    let mut values = StreamGate::ALL.into_iter().flat_map(|gate| [(gate, false), (gate, true)]);
    values.any(|(gate, value)| {
        let excluded = declares && !value && on.contains(&gate);
        // What others need may be off where they are off, too.
        let why = alone(gate, value, from);
        let starts = matches!(why, None | Some(Refusal::Needed | Refusal::Beyond));
        let mut ahead = (from.0.saturating_add(1)..=last).map(Minor);
        !excluded && starts && ahead.any(|minor| alone(gate, value, minor).is_some())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(&str, bool)]) -> FeatureGates {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
    }

    #[test]
    fn the_history_is_the_published_one() {
        use StreamGate::{
            AuthorizeCreate, ExtendToKubelet, NodeDeclaredFeatures, PortForward,
            TranslateStreamClose,
        };
        for minor in 18..=38 {
            let by = |alpha: u16, beta: u16, locked: u16| match minor {
                _ if minor < alpha => Behaviour::NotThereYet,
                _ if minor < beta => ALPHA,
                _ if minor < locked => BETA,
                _ => ON,
            };
            let declared = match minor {
                ..=34 => Behaviour::NotThereYet,
                35 => ALPHA,
                36 => Behaviour::Needed,
                _ => ON,
            };
            for (gate, expected) in [
                (TranslateStreamClose, by(29, 30, 38)),
                (PortForward, by(30, 31, 38)),
                (AuthorizeCreate, by(35, 35, 38)),
                (ExtendToKubelet, by(36, 36, 38)),
                (NodeDeclaredFeatures, declared),
            ] {
                assert_eq!(gate.at(Minor(minor)), expected, "{gate:?} at 1.{minor}");
            }
        }
        for gate in StreamGate::ALL {
            assert!(gate.history().is_sorted_by_key(|since| since.minor));
            assert_eq!(gate.at(Minor(99)), gate.at(LAST));
            assert!(gate.history().iter().all(|since| since.minor <= LAST));
        }
    }

    #[test]
    fn on_by_name_by_stage_and_by_default() {
        const E: &str = "ExtendWebSocketsToKubelet";
        let nothing = set(&[]);
        for (minor, set, expected) in [
            (35, Some(set(&[(E, true)])), Some(false)),
            (36, Some(nothing.clone()), Some(true)),
            (36, Some(set(&[(E, false)])), Some(false)),
            (36, Some(set(&[(ALL_BETA, false)])), Some(false)),
            (36, Some(set(&[(ALL_BETA, false), (E, true)])), Some(true)),
            (36, Some(set(&[(ALL_ALPHA, true)])), Some(true)),
            (36, None, None),
            (35, None, Some(false)),
            (38, None, Some(true)),
            (38, Some(set(&[(E, false)])), Some(true)),
            (36, Some(FeatureGates::from_args(["--feature-gates=$(GATES)"])), None),
            (38, Some(FeatureGates::from_args(["--emulated-version=1.35"])), None),
            (35, Some(nothing.clone().as_of_another_version(true)), None),
            (35, Some(nothing.clone().as_of_another_version(false)), Some(false)),
        ] {
            let on = StreamGate::ExtendToKubelet.is_on(Some(Minor(minor)), set.as_ref());
            assert_eq!(on, expected, "1.{minor} {set:?}");
        }
        assert_eq!(StreamGate::ExtendToKubelet.is_on(None, Some(&nothing)), None);
        let alpha = set(&[(ALL_ALPHA, true)]);
        assert_eq!(
            StreamGate::NodeDeclaredFeatures.is_on(Some(Minor(35)), Some(&alpha)),
            Some(true)
        );
    }

    #[test]
    fn a_name_that_is_nearly_a_gate_was_meant_as_it() {
        const E: &str = "ExtendWebSocketsToKubelet";
        for (name, meant) in [
            ("ExtendWebSocketToKubelet", Some(E)),
            ("extendwebsocketstokubelet", Some(E)),
            ("ExtendWebsocketsToKubelet", Some(E)),
            ("ExtendWebSocketsToKubelett ", Some(E)),
            ("Node-Declared-Features", Some("NodeDeclaredFeatures")),
            ("allbeta", Some(ALL_BETA)),
            ("ALLALPHA", Some(ALL_ALPHA)),
            (E, None),
            (ALL_ALPHA, None),
            ("AllBetas", None),
            ("ExtendWebSocketsToKube", None),
            ("StreamingProxyRedirects", None),
            ("A", None),
            ("", None),
        ] {
            assert_eq!(StreamGate::meant_by(name), meant, "{name}");
        }
    }

    /// The messages of the real binaries: see `tests/facts`.
    #[test]
    fn what_a_component_does_not_start_with() {
        use Refusal::{Beyond, Locked, Needed, NotThereYet};
        const E: &str = "ExtendWebSocketsToKubelet";
        const D: &str = "NodeDeclaredFeatures";
        for (minor, pairs, expected) in [
            (35, &[(E, false)][..], Some((E, NotThereYet))),
            (35, &[(E, true)], Some((E, NotThereYet))),
            (36, &[(E, false)], None),
            (37, &[(E, false)], None),
            (38, &[(E, false)], Some((E, Locked))),
            (38, &[(E, true)], None),
            (39, &[(E, true)], Some((E, Beyond))),
            (34, &[(D, true)], Some((D, NotThereYet))),
            (35, &[(D, false)], None),
            (36, &[(D, false)], Some((D, Needed))),
            // Others need it, too.
            (36, &[(D, false), (E, false)], Some((D, Needed))),
            (36, &[(D, false), (ALL_BETA, false)], None),
            (36, &[(ALL_BETA, false)], None),
            (36, &[(ALL_BETA, false), (E, true)], Some((D, Needed))),
            (36, &[(ALL_BETA, false), (E, true), (D, true)], None),
            (37, &[(D, false)], Some((D, Locked))),
            (37, &[(ALL_BETA, false)], None),
            (
                28,
                &[("TranslateStreamCloseWebsocketRequests", true)],
                Some(("TranslateStreamCloseWebsocketRequests", NotThereYet)),
            ),
            (35, &[("Other", false)], None),
        ] {
            let seen = refused(Minor(minor), &set(pairs));
            let seen: Vec<_> = seen.iter().map(|(gate, why)| (gate.as_str(), *why)).collect();
            assert_eq!(seen, Vec::from_iter(expected), "1.{minor} {pairs:?}");
        }
    }

    #[test]
    fn what_may_stop_a_component_of_which_nothing_is_seen() {
        for (from, to, declares, expected) in [
            (33, 34, false, false),
            // Whoever runs 1.34 has no gate that 1.35 refuses.
            (34, 35, false, false),
            (28, 35, false, false),
            // NodeDeclaredFeatures=false.
            (35, 36, false, true),
            (36, 37, false, true),
            (36, 37, true, false),
            // The apiserver's gates may have been given to every component.
            (37, 38, true, true),
            (37, 37, false, false),
            (34, 36, false, false),
            // Nobody knows how long a locked gate stays.
            (38, 39, true, true),
            (40, 41, true, true),
            (40, 40, false, false),
        ] {
            let seen = may_be_refused(Minor(from), Minor(to), declares);
            assert_eq!(seen, expected, "1.{from} to 1.{to}");
        }
    }
}
