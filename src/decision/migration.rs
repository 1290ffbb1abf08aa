//! The version table of a migration: what a kubelet flag and an apiserver feature gate meant in
//! each release, and until when.
//!
//! This is the one place that holds version numbers. A second migration of the same kind (a
//! kubelet setting that an apiserver gate must not outlive) is another [`Migration`] value.

use crate::kubernetes::version::{self, Minor};

/// The newest minor of which anything is known: its changes are planned and published. What comes after it
/// nobody can judge.
pub const NEWEST_KNOWN: Minor = Minor(38);

/// Why no upgrade to a version can be judged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// It is no version.
    #[error(transparent)]
    Version(#[from] version::Error),
    /// It is newer than all that is known.
    #[error(
        "nothing is known of {0}: the newest version that this release of Sluice can judge is \
         {NEWEST_KNOWN}"
    )]
    Unknown(Minor),
}

impl TargetError {
    /// A short, stable name.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Version(error) => error.reason(),
            Self::Unknown(_) => "VersionUnknown",
        }
    }
}

/// Reads the version that an upgrade goes to.
///
/// # Errors
/// Where it is none, or nothing is known of it.
pub fn target(text: &str) -> Result<Minor, TargetError> {
    let minor: Minor = text.parse()?;
    if minor > NEWEST_KNOWN { Err(TargetError::Unknown(minor)) } else { Ok(minor) }
}

/// What a kubelet does about its flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagBehaviour {
    /// There is no flag yet: the kubelet always behaves the legacy way.
    AlwaysLegacy,
    /// The flag decides; unset means the modern way.
    Obeyed,
    /// The flag is accepted and ignored: always the modern way. Only the deprecation line that the
    /// kubelet prints at its start says so.
    Ignored,
    /// The flag is gone: always the modern way, and a kubelet started with it does not start.
    Removed,
}

/// The stage of a feature gate, which decides what sets it beside its own name
/// (`staging/src/k8s.io/component-base/featuregate/feature_gate.go`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// It follows `AllAlpha`.
    Alpha,
    /// It follows `AllBeta`.
    Beta,
    /// It follows neither, and `--help` does not list it.
    Deprecated,
}

/// What an apiserver does about a feature gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateBehaviour {
    /// The gate can be set; unset means `default`.
    Settable {
        /// Whether the gate is on where nobody set it.
        default: bool,
        /// What sets it beside its own name.
        stage: Stage,
    },
    /// The gate is gone: the feature is off, and an apiserver started with the gate does not start.
    Removed,
}

/// From this minor on, until the next entry of the same table.
#[derive(Clone, Copy, Debug)]
pub struct Since<B> {
    /// The first minor that behaves so.
    pub minor: Minor,
    /// What it does.
    pub behaviour: B,
}

/// Which of the two release plans of KEP-1558 the apiservers follow ("Rollout Plan").
///
/// Upstream took the extra-safe one for the apiserver's gate, and the standard one for the kubelet's
/// flag: the real 1.22.17 and 1.23.17 refuse the flag, which the extra-safe plan would have kept until
/// 1.24. So the track is about the gate only, and the flag has one history. A build that kept the
/// flag longer would ignore it, and is judged no safer than it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Track {
    /// Gate off by default in 1.21, removed in 1.22.
    Standard,
    /// Gate off by default in 1.22, removed in 1.24.
    #[default]
    ExtraSafe,
}

/// A kubelet flag and an apiserver gate that have to be retired together.
#[derive(Debug)]
pub struct Migration {
    /// The kubelet's flag, without dashes.
    pub flag: &'static str,
    /// The apiserver's feature gate.
    pub gate: &'static str,
    /// The gate that has redirects held to the host of the node. It is removed with [`Self::gate`].
    pub validation_gate: &'static str,
    /// The admin's word about one node, as an annotation on the Node.
    pub annotation: &'static str,
    /// So many minors behind the apiserver is the floor case that the proposal itself names.
    pub lag_floor: i32,
    /// The apiserver minor after which nothing changes any more.
    pub last: Minor,
    /// The history of the kubelet's flag, oldest first.
    pub kubelet: &'static [Since<FlagBehaviour>],
    /// The history of the apiserver's gate on the standard track, oldest first.
    pub apiserver_standard: &'static [Since<GateBehaviour>],
    /// The history of the apiserver's gate on the extra-safe track, oldest first.
    pub apiserver_extra_safe: &'static [Since<GateBehaviour>],
    /// The history of [`Self::validation_gate`] until it is removed, oldest first.
    pub validation: &'static [Since<GateBehaviour>],
}

/// KEP-1558: exec, attach and port-forward without redirects.
///
/// Sources: KEP-1558 "Rollout Plan"; `cmd/kubelet/app/options/options.go`,
/// `pkg/kubelet/server/server.go` and `staging/src/k8s.io/apiserver/pkg/features/kube_features.go` of
/// the releases named. `make facts` asks the real binaries of 1.18 and later.
pub static STREAMING_REDIRECTS: Migration = Migration {
    flag: "redirect-container-streaming",
    gate: "StreamingProxyRedirects",
    validation_gate: "ValidateProxyRedirects",
    annotation: "sluice.dev/redirect-container-streaming",
    lag_floor: 2,
    last: Minor(24),
    kubelet: &[
        Since { minor: Minor(0), behaviour: FlagBehaviour::AlwaysLegacy },
        Since { minor: Minor(11), behaviour: FlagBehaviour::Obeyed },
        Since { minor: Minor(20), behaviour: FlagBehaviour::Ignored },
        // The standard track. On the extra-safe one it would have been 1.24.
        Since { minor: Minor(22), behaviour: FlagBehaviour::Removed },
    ],
    apiserver_standard: &[
        settable(6, true, Stage::Beta),
        settable(18, true, Stage::Deprecated),
        settable(21, false, Stage::Deprecated),
        Since { minor: Minor(22), behaviour: GateBehaviour::Removed },
    ],
    // What upstream did.
    apiserver_extra_safe: &[
        settable(6, true, Stage::Beta),
        settable(18, true, Stage::Deprecated),
        settable(22, false, Stage::Deprecated),
        Since { minor: Minor(24), behaviour: GateBehaviour::Removed },
    ],
    validation: &[
        settable(10, false, Stage::Alpha),
        settable(14, true, Stage::Beta),
        settable(22, true, Stage::Deprecated),
    ],
};

const fn settable(minor: u16, default: bool, stage: Stage) -> Since<GateBehaviour> {
    Since { minor: Minor(minor), behaviour: GateBehaviour::Settable { default, stage } }
}

impl Migration {
    /// What a kubelet of this minor does about the flag; `None` before the table begins.
    pub fn kubelet_at(&self, minor: Minor) -> Option<FlagBehaviour> {
        at(self.kubelet, minor)
    }

    /// What an apiserver of this minor does about the gate; `None` before the table begins.
    pub fn apiserver_at(&self, minor: Minor, track: Track) -> Option<GateBehaviour> {
        let table = match track {
            Track::Standard => self.apiserver_standard,
            Track::ExtraSafe => self.apiserver_extra_safe,
        };
        at(table, minor)
    }

    /// What an apiserver of this minor does about [`Self::validation_gate`]; `None` before the table
    /// begins.
    pub fn validation_at(&self, minor: Minor, track: Track) -> Option<GateBehaviour> {
        match self.apiserver_at(minor, track) {
            Some(GateBehaviour::Removed) => Some(GateBehaviour::Removed),
            _ => at(self.validation, minor),
        }
    }

    /// Every gate that an apiserver refuses once [`Self::gate`] is removed.
    pub fn gates(&self) -> impl Iterator<Item = &'static str> + use<> {
        [self.gate, self.validation_gate].into_iter()
    }

    /// The first apiserver minor without the gate.
    pub fn apiserver_removed(&self, track: Track) -> Option<Minor> {
        let table = match track {
            Track::Standard => self.apiserver_standard,
            Track::ExtraSafe => self.apiserver_extra_safe,
        };
        let removed = table.iter().find(|since| since.behaviour == GateBehaviour::Removed);
        removed.map(|since| since.minor)
    }

    /// The first kubelet minor with this behaviour.
    pub fn kubelet_since(&self, behaviour: FlagBehaviour) -> Option<Minor> {
        self.kubelet.iter().find(|since| since.behaviour == behaviour).map(|since| since.minor)
    }
}

/// The entry of a history, oldest first, that holds at this minor.
pub(super) fn at<B: Copy>(table: &[Since<B>], minor: Minor) -> Option<B> {
    table.iter().rev().find(|since| since.minor <= minor).map(|since| since.behaviour)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubelet_history_is_the_published_one() {
        for minor in 0..=40 {
            let expected = match minor {
                0..=10 => FlagBehaviour::AlwaysLegacy,
                11..=19 => FlagBehaviour::Obeyed,
                20..=21 => FlagBehaviour::Ignored,
                _ => FlagBehaviour::Removed,
            };
            assert_eq!(STREAMING_REDIRECTS.kubelet_at(Minor(minor)), Some(expected), "1.{minor}");
        }
    }

    #[test]
    fn apiserver_history_is_the_published_one_on_both_tracks() {
        for (track, off, removed) in [(Track::Standard, 21, 22), (Track::ExtraSafe, 22, 24)] {
            for minor in 0..=40 {
                let expected = match minor {
                    0..=5 => None,
                    _ if minor >= removed => Some(GateBehaviour::Removed),
                    6..=17 => Some(GateBehaviour::Settable { default: true, stage: Stage::Beta }),
                    _ => Some(GateBehaviour::Settable {
                        default: minor < off,
                        stage: Stage::Deprecated,
                    }),
                };
                let seen = STREAMING_REDIRECTS.apiserver_at(Minor(minor), track);
                assert_eq!(seen, expected, "{track:?} 1.{minor}");
            }
        }
    }

    #[test]
    fn validation_goes_with_the_gate() {
        for (track, removed) in [(Track::Standard, 22), (Track::ExtraSafe, 24)] {
            for minor in 0..=40 {
                let settable = |default, stage| Some(GateBehaviour::Settable { default, stage });
                let expected = match minor {
                    0..=9 => None,
                    10..=13 => settable(false, Stage::Alpha),
                    14..=21 => settable(true, Stage::Beta),
                    _ if minor >= removed => Some(GateBehaviour::Removed),
                    _ => settable(true, Stage::Deprecated),
                };
                let seen = STREAMING_REDIRECTS.validation_at(Minor(minor), track);
                assert_eq!(seen, expected, "{track:?} 1.{minor}");
            }
        }
    }

    #[test]
    fn only_of_what_is_known_an_upgrade_is_judged() {
        for (text, expected) in [
            ("1.24", Ok(24)),
            ("v1.38.0", Ok(38)),
            ("1.39", Err("VersionUnknown")),
            ("1.99", Err("VersionUnknown")),
            ("latest", Err("VersionMalformed")),
        ] {
            let seen = target(text).map(|minor| minor.0).map_err(|error| error.reason());
            assert_eq!(seen, expected, "{text}");
        }
        assert!(target("1.99").unwrap_err().to_string().ends_with("can judge is 1.38"));
    }

    #[test]
    fn tables_are_sorted() {
        let m = &STREAMING_REDIRECTS;
        assert!(m.kubelet.is_sorted_by_key(|since| since.minor));
        assert!(m.apiserver_standard.is_sorted_by_key(|since| since.minor));
        assert!(m.apiserver_extra_safe.is_sorted_by_key(|since| since.minor));
        assert!(m.validation.is_sorted_by_key(|since| since.minor));
    }
}
