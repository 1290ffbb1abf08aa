//! What a migration's feature gate comes to on an apiserver.

use super::migration::{GateBehaviour, Migration, Stage, Track};
use crate::kubernetes::{feature_gates::FeatureGates, version::Minor};

/// What a gate is on a running apiserver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Gate {
    /// On: redirects are followed.
    Enabled,
    /// Off: a redirect ends the request.
    Disabled,
    /// The version has no such gate any more, which is as good as off.
    Removed,
    /// It cannot be seen.
    Unknown,
}

impl Gate {
    /// The name that status fields use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "Enabled",
            Self::Disabled => "Disabled",
            Self::Removed => "Removed",
            Self::Unknown => "Unknown",
        }
    }

    /// Whether a redirect fails; `None` where that is unknown.
    pub fn is_off(self) -> Option<bool> {
        match self {
            Self::Enabled => Some(false),
            Self::Disabled | Self::Removed => Some(true),
            Self::Unknown => None,
        }
    }
}

/// The state of a migration's gate on an apiserver of this version with these arguments.
///
/// `gates` is `None` where the command line cannot be seen: then only a version without the gate
/// tells anything.
pub fn effective(
    migration: &Migration,
    track: Track,
    minor: Option<Minor>,
    gates: Option<&FeatureGates>,
) -> Gate {
    let behaviour = minor.and_then(|minor| migration.apiserver_at(minor, track));
    if behaviour == Some(GateBehaviour::Removed) {
        return Gate::Removed;
    }
    let Some(gates) = gates.filter(|gates| gates.unreadable().is_none()) else {
        return Gate::Unknown;
    };
    match (gates.get(migration.gate), behaviour) {
        (Some(true), Some(_)) => Gate::Enabled,
        (Some(false), Some(_)) => Gate::Disabled,
        // Whether the beta one of 1.17 and before followed AllBeta depends on the patch level.
        (None, Some(GateBehaviour::Settable { stage: Stage::Beta, .. }))
            if gates.get("AllBeta").is_some() =>
        {
            Gate::Unknown
        }
        (None, Some(GateBehaviour::Settable { default: true, .. })) => Gate::Enabled,
        (None, Some(GateBehaviour::Settable { default: false, .. })) => Gate::Disabled,
        _ => Gate::Unknown,
    }
}

/// Whether redirects that are followed are at least held to the same host; `None` where unknown, or
/// where none are followed any more.
pub fn validates_redirects(
    migration: &Migration,
    track: Track,
    minor: Option<Minor>,
    gates: Option<&FeatureGates>,
) -> Option<bool> {
    let gates = gates.filter(|gates| gates.unreadable().is_none())?;
    let (default, stage) = match migration.validation_at(minor?, track) {
        Some(GateBehaviour::Settable { default, stage }) => (default, stage),
        Some(GateBehaviour::Removed) => return None,
        None => return Some(false),
    };
    let all = match stage {
        Stage::Alpha => gates.get("AllAlpha"),
        Stage::Beta => gates.get("AllBeta"),
        Stage::Deprecated => None,
    };
    Some(gates.get(migration.validation_gate).or(all).unwrap_or(default))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::migration::STREAMING_REDIRECTS;

    fn gate(minor: u16, args: &[&str]) -> Gate {
        let gates = FeatureGates::from_args(args.iter().copied());
        effective(&STREAMING_REDIRECTS, Track::ExtraSafe, Some(Minor(minor)), Some(&gates))
    }

    fn validated(minor: u16, gates: Option<&FeatureGates>) -> Option<bool> {
        validates_redirects(&STREAMING_REDIRECTS, Track::ExtraSafe, Some(Minor(minor)), gates)
    }

    #[test]
    fn the_default_follows_the_version() {
        for minor in 10..=37 {
            let expected = match minor {
                10..=21 => Gate::Enabled,
                22..=23 => Gate::Disabled,
                _ => Gate::Removed,
            };
            assert_eq!(gate(minor, &["--v=2"]), expected, "1.{minor}");
        }
    }

    #[test]
    fn the_command_line_overrides_the_default_while_it_can() {
        for (minor, args, expected) in [
            (20, &["--feature-gates=StreamingProxyRedirects=false"][..], Gate::Disabled),
            (20, &["--feature-gates", "StreamingProxyRedirects=false"], Gate::Disabled),
            (20, &["--feature_gates=StreamingProxyRedirects=F"], Gate::Disabled),
            (20, &["--feature-gates=A=true, StreamingProxyRedirects = 0"], Gate::Disabled),
            (22, &["--feature-gates=StreamingProxyRedirects=true"], Gate::Enabled),
            (24, &["--feature-gates=StreamingProxyRedirects=true"], Gate::Removed),
            // The last word wins, and a later flag adds to an earlier one.
            (
                20,
                &["--feature-gates=StreamingProxyRedirects=false", "--feature-gates=B=true"],
                Gate::Disabled,
            ),
            (
                20,
                &[
                    "--feature-gates=StreamingProxyRedirects=false",
                    "--feature-gates=StreamingProxyRedirects=true",
                ],
                Gate::Enabled,
            ),
            // No flags are read after two dashes.
            (20, &["--", "--feature-gates=StreamingProxyRedirects=false"], Gate::Enabled),
            (
                20,
                &["--etcd-prefix", "/x", "--feature-gates=StreamingProxyRedirects=false"],
                Gate::Disabled,
            ),
            // Deprecated gates do not follow AllBeta; the beta one of 1.17 may have.
            (20, &["--feature-gates=AllBeta=false"], Gate::Enabled),
            (17, &["--feature-gates=AllBeta=false"], Gate::Unknown),
        ] {
            assert_eq!(gate(minor, args), expected, "1.{minor} {args:?}");
        }
    }

    #[test]
    fn arguments_are_told_as_they_stand() {
        let gates = FeatureGates::from_args([
            "--feature-gates=A=true,G=true,B=false",
            "--v=2",
            "--feature_gates",
            "G=1",
            "--feature-gates=C=true",
            "--feature-gates=G=true,H=true,",
        ]);
        let owned = |text: &str| text.to_owned();
        assert_eq!(
            gates.arguments_without(&["G", "H"]),
            [
                (
                    owned("--feature-gates=A=true,G=true,B=false"),
                    Some(owned("--feature-gates=A=true,B=false"))
                ),
                (owned("--feature_gates G=1"), None),
                (owned("--feature-gates=G=true,H=true,"), None),
            ]
        );
    }

    #[test]
    fn what_cannot_be_read_is_unknown() {
        for args in [
            &["--feature-gates=StreamingProxyRedirects"][..],
            &["--feature-gates=StreamingProxyRedirects=off"],
            &["--feature-gates=$(GATES)"],
            &["--feature-gates"],
            &["$(FLAGS)"],
            &["--$(FLAG)=StreamingProxyRedirects=false"],
            &["--anonymous-auth", "$(FLAGS)"],
            // Nobody knows whether what stands before takes a value.
            &["--x", "--feature-gates=StreamingProxyRedirects=false"],
            &["--x", "--", "--feature-gates=StreamingProxyRedirects=false"],
        ] {
            assert_eq!(gate(20, args), Gate::Unknown, "{args:?}");
            assert_eq!(gate(24, args), Gate::Removed, "{args:?}");
        }
        let migration = &STREAMING_REDIRECTS;
        assert_eq!(effective(migration, Track::ExtraSafe, Some(Minor(20)), None), Gate::Unknown);
        assert_eq!(effective(migration, Track::ExtraSafe, Some(Minor(24)), None), Gate::Removed);
        let none_set = FeatureGates::default();
        assert_eq!(effective(migration, Track::ExtraSafe, None, Some(&none_set)), Gate::Unknown);
    }

    #[test]
    fn redirects_are_validated_since_1_14_unless_the_gates_say_otherwise() {
        for (minor, args, expected) in [
            (12, "--v=2", false),
            (14, "--v=2", true),
            (20, "--v=2", true),
            (20, "--feature-gates=ValidateProxyRedirects=false", false),
            (20, "--feature-gates=AllBeta=false", false),
            (20, "--feature-gates=AllBeta=false,ValidateProxyRedirects=true", true),
            (12, "--feature-gates=AllAlpha=true", true),
            (8, "--v=2", false),
            // It is deprecated there, and no longer beta.
            (22, "--feature-gates=AllBeta=false", true),
            (23, "--feature-gates=ValidateProxyRedirects=false", false),
        ] {
            let gates = FeatureGates::from_args([args]);
            assert_eq!(validated(minor, Some(&gates)), Some(expected), "1.{minor} {args}");
        }
        assert_eq!(validated(20, None), None);
        assert_eq!(validated(24, Some(&FeatureGates::default())), None);
    }
}
