//! The apiserver instances of a cluster, and what they are as a whole.

use super::{
    gate::{self, Gate},
    migration::{Migration, Track},
};
use crate::kubernetes::{feature_gates::FeatureGates, version::Minor};

/// Why an instance cannot be judged from what is seen of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Unseen {
    /// It answers for the `kubernetes` Service, but has no mirror pod: a managed control plane,
    /// an apiserver inside another process (k3s), or one whose pod is not visible.
    NoMirrorPod,
    /// Its pod starts it in a way that hides the arguments (a shell, a wrapper).
    HiddenCommand,
    /// Its `--feature-gates` cannot be understood.
    Gates(String),
    /// Its version cannot be read.
    Version(String),
}

impl Unseen {
    /// Every reason.
    pub const REASONS: [&str; 4] =
        ["NoMirrorPod", "HiddenCommand", "FeatureGatesUnreadable", "VersionUnreadable"];

    /// A short, stable name.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoMirrorPod => "NoMirrorPod",
            Self::HiddenCommand => "HiddenCommand",
            Self::Gates(_) => "FeatureGatesUnreadable",
            Self::Version(_) => "VersionUnreadable",
        }
    }
}

/// What is known of one apiserver.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Apiserver {
    /// The node it runs on, or its address where that is all there is.
    pub name: String,
    /// Its version.
    pub minor: Option<Minor>,
    /// The gates on its command line; `None` where that is not visible.
    pub gates: Option<FeatureGates>,
    /// What could not be seen, and why.
    pub unseen: Option<Unseen>,
}

impl Apiserver {
    /// The state of the migration's gate here.
    pub fn gate(&self, migration: &Migration, track: Track) -> Gate {
        gate::effective(migration, track, self.minor, self.gates.as_ref())
    }

    /// The image whose tag tells no version, where that is all that is not known.
    pub fn unversioned(&self) -> Option<&str> {
        match &self.unseen {
            Some(Unseen::Version(image)) if self.minor.is_none() => Some(image),
            _ => None,
        }
    }

    /// Whether the redirects that it follows are held to the same host; `None` where unknown, or
    /// where the gate is gone.
    pub fn validates_redirects(&self, migration: &Migration, track: Track) -> Option<bool> {
        gate::validates_redirects(migration, track, self.minor, self.gates.as_ref())
    }
}

/// How to make up for what nobody sees of these, where a provider may run them; else nothing. Begins with
/// a space.
pub fn how_to_tell(instances: &[Apiserver]) -> &'static str {
    let managed = |i: &Apiserver| i.unseen == Some(Unseen::NoMirrorPod);
    if instances.is_empty() || instances.iter().any(managed) {
        " Where a provider runs them, ask what it starts them with, and tell that to sluice plan by \
         --apiserver-version and --apiserver-feature-gates."
    } else {
        ""
    }
}

/// The gate over all instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GateSummary {
    /// The same everywhere.
    All(Gate),
    /// On here and off there.
    Mixed,
}

impl GateSummary {
    /// The name that status fields use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All(gate) => gate.as_str(),
            Self::Mixed => "Mixed",
        }
    }
}

/// The control plane as one decision sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ControlPlane {
    /// The oldest version among the instances whose version is known.
    pub oldest: Option<Minor>,
    /// The newest one.
    pub newest: Option<Minor>,
    /// Instances of which the version is unknown.
    pub versions_unknown: usize,
    /// The gate over all instances. Unknown wins over mixed, and no instance at all is unknown.
    pub gate: GateSummary,
    /// Some instance has the gate off, for certain.
    pub off_somewhere: bool,
    /// Some instance has the gate on, for certain.
    pub on_somewhere: bool,
}

impl ControlPlane {
    /// Sums up the instances. Their order does not matter.
    pub fn of(instances: &[Apiserver], migration: &Migration, track: Track) -> Self {
        let gates: Vec<Gate> = instances.iter().map(|i| i.gate(migration, track)).collect();
        let on_somewhere = gates.contains(&Gate::Enabled);
        let off_somewhere = gates.iter().any(|gate| gate.is_off() == Some(true));
        let gate = if gates.is_empty() || gates.contains(&Gate::Unknown) {
            GateSummary::All(Gate::Unknown)
        } else if on_somewhere && off_somewhere {
            GateSummary::Mixed
        } else if on_somewhere {
            GateSummary::All(Gate::Enabled)
        } else if gates.contains(&Gate::Disabled) {
            // Off where it still exists, gone where it does not: off.
            GateSummary::All(Gate::Disabled)
        } else {
            GateSummary::All(Gate::Removed)
        };
        let minors = || instances.iter().filter_map(|i| i.minor);
        Self {
            oldest: minors().min(),
            newest: minors().max(),
            versions_unknown: instances.iter().filter(|i| i.minor.is_none()).count(),
            gate,
            off_somewhere,
            on_somewhere,
        }
    }

    /// The instances do not agree: versions differ, or the gate is on here and off there.
    pub fn is_mixed(&self) -> bool {
        self.oldest != self.newest || self.gate == GateSummary::Mixed
    }

    /// Something about the instances is not known.
    pub fn is_unknown(&self) -> bool {
        self.newest.is_none()
            || self.versions_unknown > 0
            || self.gate == GateSummary::All(Gate::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::migration::STREAMING_REDIRECTS;

    fn instance(minor: u16, args: &str) -> Apiserver {
        Apiserver {
            name: format!("cp-{minor}"),
            minor: Some(Minor(minor)),
            gates: Some(FeatureGates::from_args([args])),
            unseen: None,
        }
    }

    fn blind() -> Apiserver {
        let unseen = Some(Unseen::NoMirrorPod);
        Apiserver { name: "10.0.0.9".to_owned(), minor: None, gates: None, unseen }
    }

    fn plane(instances: &[Apiserver]) -> ControlPlane {
        ControlPlane::of(instances, &STREAMING_REDIRECTS, Track::ExtraSafe)
    }

    #[test]
    fn only_what_a_provider_may_run_has_to_be_told() {
        assert_eq!(how_to_tell(&[instance(20, "")]), "");
        for instances in [vec![], vec![blind()], vec![instance(20, ""), blind()]] {
            assert!(how_to_tell(&instances).contains("--apiserver-version and"), "{instances:?}");
        }
    }

    #[test]
    fn sums_up() {
        const OFF: &str = "--feature-gates=StreamingProxyRedirects=false";
        for (instances, gate, mixed, unknown) in [
            (vec![], "Unknown", false, true),
            (vec![blind()], "Unknown", false, true),
            (vec![instance(20, "")], "Enabled", false, false),
            (vec![instance(20, ""), instance(20, "")], "Enabled", false, false),
            (vec![instance(20, ""), instance(21, "")], "Enabled", true, false),
            (vec![instance(20, ""), instance(20, OFF)], "Mixed", true, false),
            (vec![instance(21, ""), instance(22, "")], "Mixed", true, false),
            (vec![instance(23, ""), instance(24, "")], "Disabled", true, false),
            (vec![instance(24, "")], "Removed", false, false),
            (vec![instance(20, ""), blind()], "Unknown", false, true),
        ] {
            let plane = plane(&instances);
            let seen = (plane.gate.as_str(), plane.is_mixed(), plane.is_unknown());
            assert_eq!(seen, (gate, mixed, unknown), "{instances:?}");
        }
    }
}
