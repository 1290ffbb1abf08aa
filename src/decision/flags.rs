//! What the flags of a component have to say, version by version.

use super::{
    gate::Setting,
    migration::{GateBehaviour, Migration, Track},
    policy::GateWish,
    version::Minor,
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
        (GateBehaviour::Settable { default: true }, GateWish::Enabled)
        | (GateBehaviour::Settable { default: false }, GateWish::Disabled)
        | (GateBehaviour::Removed, GateWish::Disabled) => Some(Setting::Default),
        (GateBehaviour::Settable { default: true }, GateWish::Disabled) => Some(Setting::Off),
        (GateBehaviour::Settable { default: false }, GateWish::Enabled) => Some(Setting::On),
        (GateBehaviour::Removed, GateWish::Enabled) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::select};

    use super::*;
    use crate::decision::{
        gate::{self, FeatureGates, Gate},
        migration::STREAMING_REDIRECTS,
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
