//! What the flags of a component have to say, version by version.

use super::policy::GateWish;
use crate::{
    decision::migration::{FlagBehaviour, GateBehaviour, Migration, Track},
    kubernetes::{feature_gates::Setting, version::Minor},
};

/// What the command line of an apiserver of this minor has to say of the gate, so that the gate is
/// as wished and the next upgrade is not broken by it; `None` where that version cannot do it.
///
/// Where the version's default is as wished, nothing is said: a gate that is not named can neither
/// be forgotten nor keep a later version from starting.
pub fn setting(
    migration: &Migration,
    track: Track,
    minor: Minor,
    wish: GateWish,
) -> Option<Setting> {
    match (migration.apiserver_at(minor, track)?, wish) {
        (GateBehaviour::Settable { default: true, .. }, GateWish::Enabled)
        | (GateBehaviour::Settable { default: false, .. }, GateWish::Disabled)
        | (GateBehaviour::Removed, GateWish::Disabled) => Some(Setting::Default),
        (GateBehaviour::Settable { default: true, .. }, GateWish::Disabled) => Some(Setting::Off),
        (GateBehaviour::Settable { default: false, .. }, GateWish::Enabled) => Some(Setting::On),
        (GateBehaviour::Removed, GateWish::Enabled) => None,
    }
}

/// The oldest version that there is advice for: the oldest that Sluice runs with.
pub const OLDEST: Minor = Minor(18);

/// What the flags of a component have to say from one version to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// `kube-apiserver` or `kubelet`.
    pub component: &'static str,
    /// The first minor that this is for.
    pub from: Minor,
    /// The last one; `None` where it is for all that follow.
    pub to: Option<Minor>,
    /// Flags to set, with the part of the value that matters: other feature gates stay.
    pub set: Vec<String>,
    /// Flags to remove, whatever their value; of `--feature-gates`, what is named of it.
    pub remove: Vec<String>,
    /// Why. Never empty.
    pub note: String,
}

/// What the flags of apiservers and kubelets have to say, by version, oldest first.
pub fn advice(migration: &Migration, track: Track, wish: GateWish) -> Vec<Advice> {
    let minors = || (OLDEST.0..=migration.last.0).map(Minor);
    let mut all: Vec<Advice> = Vec::new();
    let apiservers = minors().map(|minor| of_apiserver(migration, track, wish, minor));
    for next in apiservers.chain(minors().map(|minor| of_kubelet(migration, wish, minor))) {
        match all.last_mut() {
            Some(last) if last.says_the_same(&next) => last.to = next.to,
            _ => all.push(next),
        }
    }
    // Nothing changes any more after the last.
    for last in all.iter_mut().filter(|advice| advice.to == Some(migration.last)) {
        last.to = None;
    }
    all
}

impl Advice {
    fn says_the_same(&self, other: &Self) -> bool {
        (self.component, &self.set, &self.remove, &self.note)
            == (other.component, &other.set, &other.remove, &other.note)
    }
}

fn of_apiserver(migration: &Migration, track: Track, wish: GateWish, minor: Minor) -> Advice {
    let gate = migration.gate;
    let entry = |value: bool| format!("--feature-gates={gate}={value}");
    let name = |gate: &str| format!("--feature-gates={gate}");
    let named = || vec![name(gate)];
    let all = || migration.gates().map(name).collect();
    let gone = migration.apiserver_removed(track);
    let before_gone = gone.map_or_else(String::new, |gone| format!(" before {gone}"));
    let off_by_default = matches!(
        migration.apiserver_at(minor, track),
        Some(GateBehaviour::Settable { default: false, .. })
    );
    let (set, remove, note) = match (setting(migration, track, minor, wish), wish) {
        (None, _) => {
            (vec![], all(), "The gate is gone and off: it cannot be turned on.".to_owned())
        }
        (Some(Setting::Off), _) => (
            vec![entry(false)],
            vec![],
            "On by default. Only while the policy's condition SafeToDisable is True.".to_owned(),
        ),
        (Some(Setting::On), _) => {
            (vec![entry(true)], vec![], format!("Off by default. It has to go{before_gone}."))
        }
        (Some(Setting::Default), GateWish::Enabled) => {
            (vec![], named(), "On by default.".to_owned())
        }
        (Some(Setting::Default), GateWish::Disabled) if off_by_default => {
            (vec![], all(), format!("Off by default. What names the gate has to go{before_gone}."))
        }
        (Some(Setting::Default), GateWish::Disabled) => (
            vec![],
            all(),
            "The gate is gone: an apiserver that is started with it does not start.".to_owned(),
        ),
    };
    Advice { component: "kube-apiserver", from: minor, to: Some(minor), set, remove, note }
}

fn of_kubelet(migration: &Migration, wish: GateWish, minor: Minor) -> Advice {
    let flag = || vec![format!("--{}", migration.flag)];
    let gone = migration.kubelet_since(FlagBehaviour::Removed);
    let before_gone = gone.map_or_else(String::new, |gone| format!(" before {gone}"));
    let (remove, note) = match (migration.kubelet_at(minor), wish) {
        (Some(FlagBehaviour::Obeyed), GateWish::Disabled) => (
            flag(),
            "With the flag the kubelet redirects, and exec fails once the gate is off.".to_owned(),
        ),
        (Some(FlagBehaviour::Obeyed), GateWish::Enabled) => {
            (vec![], format!("The flag may stay while the gate is on. It has to go{before_gone}."))
        }
        (Some(FlagBehaviour::Ignored), _) => {
            (flag(), format!("The flag is ignored. It has to go{before_gone}."))
        }
        (Some(FlagBehaviour::Removed), _) => {
            (flag(), "A kubelet that is started with the flag does not start.".to_owned())
        }
        (Some(FlagBehaviour::AlwaysLegacy) | None, _) => {
            (vec![], "The kubelet redirects without a flag: upgrade it.".to_owned())
        }
    };
    Advice { component: "kubelet", from: minor, to: Some(minor), set: vec![], remove, note }
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::select};

    use super::*;
    use crate::{
        decision::{
            gate::{self, Gate},
            migration::STREAMING_REDIRECTS,
        },
        kubernetes::feature_gates::FeatureGates,
    };

    #[test]
    fn settings_by_version() {
        use Setting::{Default, Off, On};
        for (minor, disabled, enabled) in [
            (5, None, None),
            (6, Some(Off), Some(Default)),
            (18, Some(Off), Some(Default)),
            (20, Some(Off), Some(Default)),
            (21, Some(Off), Some(Default)),
            (22, Some(Default), Some(On)),
            (23, Some(Default), Some(On)),
            (24, Some(Default), None),
            (37, Some(Default), None),
        ] {
            let seen = |wish| setting(&STREAMING_REDIRECTS, Track::ExtraSafe, Minor(minor), wish);
            assert_eq!(
                (seen(GateWish::Disabled), seen(GateWish::Enabled)),
                (disabled, enabled),
                "1.{minor}"
            );
        }
        for (minor, disabled, enabled) in [
            (20, Some(Off), Some(Default)),
            (21, Some(Default), Some(On)),
            (22, Some(Default), None),
        ] {
            let seen = |wish| setting(&STREAMING_REDIRECTS, Track::Standard, Minor(minor), wish);
            assert_eq!(
                (seen(GateWish::Disabled), seen(GateWish::Enabled)),
                (disabled, enabled),
                "standard track, 1.{minor}"
            );
        }
    }

    #[test]
    fn advice_for_every_version() {
        let lines = |wish, track| -> Vec<String> {
            let line = |a: &Advice| {
                let to = a.to.map_or_else(String::new, |to| to.to_string());
                let (set, remove) = (a.set.join(" "), a.remove.join(" "));
                format!("{} {}-{to} +[{set}] -[{remove}]", a.component, a.from)
            };
            advice(&STREAMING_REDIRECTS, track, wish).iter().map(line).collect()
        };
        let gate = "--feature-gates=StreamingProxyRedirects";
        let both = format!("{gate} --feature-gates=ValidateProxyRedirects");
        let flag = "--redirect-container-streaming";
        assert_eq!(
            lines(GateWish::Disabled, Track::ExtraSafe),
            [
                format!("kube-apiserver 1.18-1.21 +[{gate}=false] -[]"),
                format!("kube-apiserver 1.22-1.23 +[] -[{both}]"),
                format!("kube-apiserver 1.24- +[] -[{both}]"),
                format!("kubelet 1.18-1.19 +[] -[{flag}]"),
                format!("kubelet 1.20-1.21 +[] -[{flag}]"),
                format!("kubelet 1.22- +[] -[{flag}]"),
            ]
        );
        assert_eq!(
            lines(GateWish::Enabled, Track::ExtraSafe),
            [
                format!("kube-apiserver 1.18-1.21 +[] -[{gate}]"),
                format!("kube-apiserver 1.22-1.23 +[{gate}=true] -[]"),
                format!("kube-apiserver 1.24- +[] -[{both}]"),
                "kubelet 1.18-1.19 +[] -[]".to_owned(),
                format!("kubelet 1.20-1.21 +[] -[{flag}]"),
                format!("kubelet 1.22- +[] -[{flag}]"),
            ]
        );
        assert_eq!(
            lines(GateWish::Disabled, Track::Standard)[..3],
            [
                format!("kube-apiserver 1.18-1.20 +[{gate}=false] -[]"),
                format!("kube-apiserver 1.21-1.21 +[] -[{both}]"),
                format!("kube-apiserver 1.22- +[] -[{both}]"),
            ]
        );
    }

    #[test]
    fn advice_leaves_no_version_out() {
        for track in [Track::Standard, Track::ExtraSafe] {
            for wish in [GateWish::Disabled, GateWish::Enabled] {
                let all = advice(&STREAMING_REDIRECTS, track, wish);
                for component in ["kube-apiserver", "kubelet"] {
                    for minor in (18..40).map(Minor) {
                        let is_for = |a: &&Advice| {
                            a.component == component
                                && a.from <= minor
                                && a.to.is_none_or(|to| minor <= to)
                        };
                        assert_eq!(all.iter().filter(is_for).count(), 1, "{component} {minor}");
                    }
                }
            }
        }
    }

    /// What the gate comes to with this setting; `None` where the apiserver does not start.
    fn comes_to(minor: Minor, track: Track, setting: Setting) -> Option<Gate> {
        let migration = &STREAMING_REDIRECTS;
        let arg = match setting {
            Setting::Default => "--v=2".to_owned(),
            Setting::Off => format!("--feature-gates={}=false", migration.gate),
            Setting::On => format!("--feature-gates={}=true", migration.gate),
        };
        let gates = FeatureGates::from_args([arg.as_str()]);
        let gate = gate::effective(migration, track, Some(minor), Some(&gates));
        (gate != Gate::Removed || setting == Setting::Default).then_some(gate)
    }

    fn is_as_wished(gate: Gate, wish: GateWish) -> bool {
        gate.is_off() == Some(wish == GateWish::Disabled)
    }

    proptest! {
        #[test]
        fn the_gate_is_as_wished_and_nothing_else_would_do(
            minor in 6..45_u16,
            track in select(&[Track::Standard, Track::ExtraSafe][..]),
            wish in select(&[GateWish::Disabled, GateWish::Enabled][..]),
        ) {
            let minor = Minor(minor);
            let does = |setting| {
                comes_to(minor, track, setting).is_some_and(|gate| is_as_wished(gate, wish))
            };
            match setting(&STREAMING_REDIRECTS, track, minor, wish) {
                Some(setting) => {
                    prop_assert!(does(setting));
                    // No word where none is needed.
                    prop_assert!(setting == Setting::Default || !does(Setting::Default));
                    // What turns it off here lets the next version start, too.
                    let next = comes_to(minor.next(), track, setting);
                    prop_assert!(wish == GateWish::Enabled || next.is_some());
                }
                None => {
                    let all = [Setting::Default, Setting::Off, Setting::On];
                    prop_assert!(!all.into_iter().any(does));
                }
            }
        }
    }
}
