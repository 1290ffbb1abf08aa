//! The version table of a migration: what a kubelet flag and an apiserver feature gate meant in
//! each release, and until when.
//!
//! This is the one place that holds version numbers. A second migration of the same kind (a
//! kubelet setting that an apiserver gate must not outlive) is another [`Migration`] value.

use super::version::Minor;

/// What a kubelet does about its flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagBehaviour {
    /// There is no flag yet: the kubelet always behaves the legacy way.
    AlwaysLegacy,
    /// The flag decides; unset means the modern way.
    Obeyed,
    /// The flag is accepted and ignored (an error is logged): always the modern way.
    Ignored,
    /// The flag is gone: always the modern way, and a kubelet started with it does not start.
    Removed,
}

/// What an apiserver does about its feature gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateBehaviour {
    /// The gate can be set; unset means `default`.
    Settable {
        /// Whether the gate is on where nobody set it.
        default: bool,
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

/// Which of the two release plans of KEP-1558 the binaries follow ("Rollout Plan").
///
/// Upstream took the extra-safe one; the other is for builds that followed the shorter plan.
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
    /// Gates that only qualify [`Self::gate`] and are removed with it.
    pub companion_gates: &'static [&'static str],
    /// The admin's word about one node, as an annotation on the Node.
    pub annotation: &'static str,
    /// So many minors behind the apiserver is the floor case that the proposal itself names.
    pub lag_floor: i32,
    /// The apiserver minor after which nothing changes any more.
    pub last: Minor,
    /// The kubelet's history, oldest first.
    pub kubelet: &'static [Since<FlagBehaviour>],
    /// The apiserver's history on the standard track, oldest first.
    pub apiserver_standard: &'static [Since<GateBehaviour>],
    /// The apiserver's history on the extra-safe track, oldest first.
    pub apiserver_extra_safe: &'static [Since<GateBehaviour>],
}

/// KEP-1558: exec, attach and port-forward without redirects.
///
/// Sources: KEP-1558 "Rollout Plan"; `pkg/kubelet/server/server.go` and
/// `staging/src/k8s.io/apiserver/pkg/features/kube_features.go` of the releases named.
pub static STREAMING_REDIRECTS: Migration = Migration {
    flag: "redirect-container-streaming",
    gate: "StreamingProxyRedirects",
    companion_gates: &["ValidateProxyRedirects"],
    annotation: "sluice.dev/redirect-container-streaming",
    lag_floor: 2,
    last: Minor(24),
    kubelet: &[
        Since { minor: Minor(0), behaviour: FlagBehaviour::AlwaysLegacy },
        Since { minor: Minor(11), behaviour: FlagBehaviour::Obeyed },
        Since { minor: Minor(20), behaviour: FlagBehaviour::Ignored },
        Since { minor: Minor(24), behaviour: FlagBehaviour::Removed },
    ],
    apiserver_standard: &[
        Since { minor: Minor(6), behaviour: GateBehaviour::Settable { default: true } },
        Since { minor: Minor(21), behaviour: GateBehaviour::Settable { default: false } },
        Since { minor: Minor(22), behaviour: GateBehaviour::Removed },
    ],
    apiserver_extra_safe: &[
        Since { minor: Minor(6), behaviour: GateBehaviour::Settable { default: true } },
        Since { minor: Minor(22), behaviour: GateBehaviour::Settable { default: false } },
        Since { minor: Minor(24), behaviour: GateBehaviour::Removed },
    ],
};

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

    /// Every gate that an apiserver refuses once [`Self::gate`] is removed.
    pub fn gates(&self) -> impl Iterator<Item = &'static str> + use<> {
        std::iter::once(self.gate).chain(self.companion_gates.iter().copied())
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

fn at<B: Copy>(table: &[Since<B>], minor: Minor) -> Option<B> {
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
                20..=23 => FlagBehaviour::Ignored,
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
                    _ => Some(GateBehaviour::Settable { default: minor < off }),
                };
                let seen = STREAMING_REDIRECTS.apiserver_at(Minor(minor), track);
                assert_eq!(seen, expected, "{track:?} 1.{minor}");
            }
        }
    }

    #[test]
    fn tables_are_sorted() {
        let m = &STREAMING_REDIRECTS;
        assert!(m.kubelet.is_sorted_by_key(|since| since.minor));
        assert!(m.apiserver_standard.is_sorted_by_key(|since| since.minor));
        assert!(m.apiserver_extra_safe.is_sorted_by_key(|since| since.minor));
    }
}
