//! The gates with which a component would not start, somewhere on the way to a version.

use super::gates::{
    ALL_BETA, LAST, PLANNED, Refusal, StreamGate, may_be_refused, needs_beta, refused,
};
use crate::kubernetes::{feature_gates::FeatureGates, version::Minor};

/// A gate that keeps a component from starting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cliff {
    /// The first minor at which it does; that which runs already where it would not start again.
    pub at: Minor,
    /// The gate.
    pub gate: StreamGate,
    /// What it is set to by its name; `None` where only `AllBeta` sets it.
    pub value: Option<bool>,
    /// Why.
    pub why: Refusal,
}

/// What the gates of one component come to on the way to a version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cliffs {
    /// Those that are known, by minor and gate.
    pub known: Vec<Cliff>,
    /// Some of its gates are not known, and one of these may be a cliff.
    pub unknown: bool,
}

/// The cliffs of a component that runs `running`, up to `to`.
///
/// `declares` is as [`may_be_refused`] has it.
pub fn cliffs(
    running: Option<Minor>,
    set: Option<&FeatureGates>,
    to: Minor,
    declares: bool,
) -> Cliffs {
    // Of a component whose version is not known only the end of its way is.
    let from = running.unwrap_or(to);
    let to = to.max(from);
    let mut known: Vec<Cliff> = Vec::new();
    // Past the last that is known, the next minor stands for all that follow.
    let end = to.0.min(LAST.max(from).0.saturating_add(1));
    for at in (from.0..=end).map(Minor) {
        for (gate, why) in set.map(|set| refused(at, set)).unwrap_or_default() {
            // One that runs has turned off what depends on it, and has the gate still.
            let runs = matches!(why, Refusal::Needed | Refusal::Beyond) && running == Some(at);
            if !runs && !known.iter().any(|cliff| cliff.gate == gate) {
                let value = set.and_then(|set| set.get(gate.as_str()));
                known.push(Cliff { at, gate, value, why });
            }
        }
    }
    let unseen = set.is_none_or(|set| set.unreadable().is_some());
    let may = |from| may_be_refused(Minor(from), to, declares);
    let hidden = unseen
        && match running {
            Some(running) => may(running.0),
            None => (StreamGate::TranslateStreamClose.first().0..to.0).any(may),
        };
    let mut ahead = (from.0.saturating_add(1)..=end).map(Minor);
    let unknown = hidden || set.is_some_and(|set| ahead.any(|minor| needs_beta(minor, set)));
    Cliffs { known, unknown }
}

impl Cliff {
    /// What sets the gate, and to what: it is that which is to be taken out.
    pub fn set_by(&self) -> (&'static str, bool) {
        match self.value {
            Some(value) => (self.gate.as_str(), value),
            // What is not there stops nothing but by what it is turned off with.
            None => (ALL_BETA, false),
        }
    }

    /// What sets the gate, as `--feature-gates` has it.
    pub fn setting(&self) -> String {
        let (name, value) = self.set_by();
        format!("{name}={value}")
    }

    /// Why the component does not start, as a sentence without an end.
    pub fn says(&self) -> String {
        let Self { at, gate, why, .. } = self;
        let (gate, planned) = (gate.as_str(), *at >= PLANNED);
        match why {
            Refusal::NotThereYet => format!("{at} has no gate {gate} yet"),
            Refusal::Locked if planned => format!("{gate} is planned to be locked to on in {at}"),
            Refusal::Locked => format!("{gate} is locked to on in {at}"),
            Refusal::Needed => format!("other gates that are on in {at} depend on {gate}"),
            Refusal::Beyond => format!("whether {at} still has the gate {gate} is not known yet"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(running: Option<u16>, gates: Option<&str>, to: u16) -> (Vec<(u16, String)>, bool) {
        let set = gates
            .map(|gates| FeatureGates::from_args([format!("--feature-gates={gates}").as_str()]));
        let all = cliffs(running.map(Minor), set.as_ref(), Minor(to), false);
        (all.known.iter().map(|cliff| (cliff.at.0, cliff.setting())).collect(), all.unknown)
    }

    #[test]
    fn the_first_cliff_of_each_gate_on_the_way() {
        const EXTEND: &str = "ExtendWebSocketsToKubelet=false";
        const DECLARED: &str = "NodeDeclaredFeatures=false";
        for (running, gates, to, expected) in [
            (Some(36), Some(EXTEND), 37, &[] as &[(u16, &str)]),
            (Some(36), Some(EXTEND), 38, &[(38, EXTEND)]),
            // It runs without, and would not start again.
            (Some(35), Some(EXTEND), 36, &[(35, EXTEND)]),
            (Some(35), Some(DECLARED), 38, &[(36, DECLARED)]),
            (Some(39), Some("ExtendWebSocketsToKubelet=true"), 39, &[]),
            (
                Some(39),
                Some("ExtendWebSocketsToKubelet=true"),
                45,
                &[(40, "ExtendWebSocketsToKubelet=true")],
            ),
            (Some(36), Some(DECLARED), 36, &[]),
            (Some(36), Some(DECLARED), 37, &[(37, DECLARED)]),
            (Some(37), Some("ExtendWebSocketsToKubelet=true"), 38, &[]),
            (
                Some(37),
                Some("ExtendWebSocketsToKubelet=true"),
                50,
                &[(39, "ExtendWebSocketsToKubelet=true")],
            ),
            (Some(34), Some("TranslateStreamCloseWebsocketRequests=false"), 37, &[]),
            (None, Some(DECLARED), 37, &[(37, DECLARED)]),
            // It is off by no name of its own.
            (
                Some(35),
                Some("AllBeta=false,ExtendWebSocketsToKubelet=true"),
                36,
                &[(35, "ExtendWebSocketsToKubelet=true"), (36, "AllBeta=false")],
            ),
            (
                Some(38),
                Some("kube:PortForwardWebsockets=false"),
                35,
                &[(38, "PortForwardWebsockets=false")],
            ),
        ] {
            let expected: Vec<_> =
                expected.iter().map(|(at, set)| (*at, (*set).to_owned())).collect();
            assert_eq!(seen(running, gates, to), (expected, false), "{running:?} {gates:?} {to}");
        }
    }

    #[test]
    fn what_is_not_seen_may_be_a_cliff() {
        for (running, gates, to, expected) in [
            (Some(34), None, 35, false),
            (Some(35), None, 36, true),
            (Some(35), Some("x"), 36, true),
            (Some(35), Some(""), 36, false),
            (None, None, 35, false),
            (None, None, 37, true),
            (Some(37), None, 37, false),
            // Others that are on may need one of the beta ones, which nobody has turned on.
            (Some(35), Some("AllBeta=false,Other=true"), 36, true),
            (Some(35), Some("AllAlpha=true,AllBeta=false"), 36, true),
            (Some(36), Some("AllBeta=false,Other=true"), 36, false),
            (Some(34), Some("AllBeta=false,Other=true"), 35, false),
            (Some(35), Some("AllBeta=false,Other=false"), 36, false),
            (Some(35), Some("AllBeta=false,NodeDeclaredFeatures=true"), 36, false),
            (Some(35), Some("AllAlpha=true,Other=true"), 36, false),
        ] {
            assert_eq!(seen(running, gates, to), (vec![], expected), "{running:?} {gates:?} {to}");
        }
    }

    #[test]
    fn a_plan_is_said_as_a_plan() {
        let cliff = |minor, gate| Cliff {
            at: Minor(minor),
            gate,
            value: Some(false),
            why: Refusal::Locked,
        };
        let says = cliff(38, StreamGate::ExtendToKubelet).says();
        assert_eq!(says, "ExtendWebSocketsToKubelet is planned to be locked to on in 1.38");
        let says = cliff(37, StreamGate::NodeDeclaredFeatures).says();
        assert_eq!(says, "NodeDeclaredFeatures is locked to on in 1.37");
    }
}
