//! What an upgrade of the apiserver would break, minor by minor.

use super::{crash, scene::Scene, trust};
use crate::{
    decision::{
        apiserver::Apiserver,
        condition::{ConditionOutcome, ConditionStatus},
        gate::{self, Gate},
        migration::{FlagBehaviour, GateBehaviour},
    },
    kubernetes::version::Minor,
};

/// Why an upgrade breaks something, worst first. KEP-1558 "Risks and Mitigations" names them: its
/// four points of breakage are [`Self::GateOffByDefault`], [`Self::GateGone`],
/// [`Self::ApiserverRefusesGate`] and [`Self::KubeletRefusesFlag`], its other risk is
/// [`Self::DependsOnRedirects`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UpgradeReason {
    /// The gate is gone there, and an apiserver still started with it does not start.
    ApiserverRefusesGate,
    /// The gate is gone there while nodes redirect.
    GateGone,
    /// The gate is off by default there while nodes redirect.
    GateOffByDefault,
    /// The gate has been turned off already while nodes redirect.
    GateOff,
    /// Kubelets keep exiting, so that nothing can be told of them.
    KubeletCrashLoops,
    /// Nodes may redirect, and the gate is off there.
    NodesUnknown,
    /// What the gate would be cannot be told while nodes redirect or may.
    GateUnknown,
    /// The command line of an apiserver cannot be seen: it may hold the gate that is gone there.
    ApiserverUnknown,
    /// The flag is gone there, and a kubelet still started with it does not start.
    KubeletRefusesFlag,
    /// The flag is gone there, and whether kubelets are started with it is unknown.
    KubeletFlagUnknown,
    /// Nodes stop redirecting when their kubelet is upgraded, and the kubelet does not trust the
    /// runtime's streaming server.
    RuntimeNotTrusted,
    /// Nodes stop redirecting when their kubelet is upgraded: it must then reach the runtime's
    /// streaming server itself. A warning: it breaks unusual setups only.
    DependsOnRedirects,
}

impl UpgradeReason {
    /// Every reason, worst first.
    pub const ALL: [Self; 12] = [
        Self::ApiserverRefusesGate,
        Self::GateGone,
        Self::GateOffByDefault,
        Self::GateOff,
        Self::KubeletCrashLoops,
        Self::NodesUnknown,
        Self::GateUnknown,
        Self::ApiserverUnknown,
        Self::KubeletRefusesFlag,
        Self::KubeletFlagUnknown,
        Self::RuntimeNotTrusted,
        Self::DependsOnRedirects,
    ];

    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ApiserverRefusesGate => "ApiserverRefusesGate",
            Self::GateGone => "GateGone",
            Self::GateOffByDefault => "GateOffByDefault",
            Self::GateOff => "GateOff",
            Self::KubeletCrashLoops => "KubeletCrashLoops",
            Self::NodesUnknown => "NodesUnknown",
            Self::GateUnknown => "GateUnknown",
            Self::ApiserverUnknown => "ApiserverUnknown",
            Self::KubeletRefusesFlag => "KubeletRefusesFlag",
            Self::KubeletFlagUnknown => "KubeletFlagUnknown",
            Self::RuntimeNotTrusted => "RuntimeNotTrusted",
            Self::DependsOnRedirects => "DependsOnRedirects",
        }
    }

    /// Whether the upgrade must not be made as things are; otherwise it is a warning.
    pub fn breaks(self) -> bool {
        self != Self::DependsOnRedirects
    }
}

/// One thing that an upgrade would meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub reason: UpgradeReason,
    /// Which nodes or apiservers, and what to do.
    pub message: String,
}

/// An apiserver minor ahead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    /// The minor.
    pub minor: Minor,
    /// What the gate is there where nobody sets it.
    pub default: Gate,
    /// Whether it can be set there.
    pub settable: bool,
    /// What it will be there with today's command lines; the worst of all instances.
    pub gate: Gate,
    /// How many nodes redirect, or may, and would fail there.
    pub breaking: usize,
    /// What it would meet, worst first.
    pub findings: Vec<Finding>,
}

impl Preview {
    /// Whether nothing breaks.
    pub fn is_safe(&self) -> bool {
        self.findings.iter().all(|finding| !finding.reason.breaks())
    }

    /// All findings as one text, each on a line of its own. Never empty.
    pub fn message(&self) -> String {
        if self.findings.is_empty() {
            return format!("Nothing that Sluice knows of breaks at {}.", self.minor);
        }
        let all: Vec<&str> = self.findings.iter().map(|f| f.message.as_str()).collect();
        format!("At {}: {}", self.minor, all.join("\n"))
    }

    /// The worst reason, if there is any.
    pub fn reason(&self) -> Option<UpgradeReason> {
        self.findings.first().map(|finding| finding.reason)
    }
}

/// Every minor from the next one to the last at which something changes, and `target`.
pub fn previews(scene: &Scene<'_>, target: Option<Minor>) -> Vec<Preview> {
    let Some(oldest) = scene.plane.oldest else { return Vec::new() };
    let ahead = (oldest.0.saturating_add(1)..=scene.migration.last.0).map(Minor);
    let beyond = target.filter(|target| *target > scene.migration.last && *target > oldest);
    ahead.chain(beyond).map(|minor| preview(scene, minor)).collect()
}

/// `UpgradeSafe`: an upgrade to `target`, or to the next minor, breaks nothing.
pub fn upgrade_safe(scene: &Scene<'_>, target: Option<Minor>) -> ConditionOutcome {
    let (Some(oldest), Some(newest)) = (scene.plane.oldest, scene.plane.newest) else {
        return ConditionOutcome::new(
            ConditionStatus::False,
            "ApiserverUnknown",
            format!(
                "{} be seen, so no upgrade can be judged. {}",
                match scene.instances_where(|_| true) {
                    all if all.is_empty() => "No apiserver can".to_owned(),
                    all => format!("The version of {all} cannot"),
                },
                scene.how_to_look("Look at their versions and command lines yourself."),
            ),
        );
    };
    if let Some(target) = target
        && target < newest
    {
        return ConditionOutcome::new(
            ConditionStatus::False,
            "TargetVersionBehind",
            format!(
                "The target {target} is behind the {newest} of {}: set spec.targetVersion to what \
                 you are going to, or take it out.",
                scene.instances_where(|i| i.minor == Some(newest))
            ),
        );
    }
    // Past the last change only the kubelets' own upgrades can still break something. And what
    // the newest runs already is where the others are going, however far behind one of them is.
    let next = if oldest < scene.migration.last { oldest.next().max(newest) } else { newest };
    let minor = target.unwrap_or(next);
    let preview = preview(scene, minor);
    let holds = if preview.is_safe() { ConditionStatus::True } else { ConditionStatus::False };
    let reason = preview.reason().map_or("NothingBreaks", UpgradeReason::as_str);
    ConditionOutcome::new(holds, reason, preview.message())
}

pub(super) fn preview(scene: &Scene<'_>, minor: Minor) -> Preview {
    let Scene { migration, track, instances, survey, .. } = *scene;
    let behaviour = migration.apiserver_at(minor, track);
    let (default, settable) = match behaviour {
        Some(GateBehaviour::Settable { default: true, .. }) => (Gate::Enabled, true),
        Some(GateBehaviour::Settable { default: false, .. }) => (Gate::Disabled, true),
        Some(GateBehaviour::Removed) => (Gate::Removed, false),
        None => (Gate::Unknown, false),
    };
    let there = |i: &Apiserver| gate::effective(migration, track, Some(minor), i.gates.as_ref());
    // Gone, then off, then unknown, then on: the worst of what the instances will be.
    let gate = instances.iter().map(there).max_by_key(|gate| match gate {
        Gate::Removed => 3,
        Gate::Disabled => 2,
        Gate::Unknown => 1,
        Gate::Enabled => 0,
    });
    let gate = gate.unwrap_or(Gate::Unknown);
    let mut findings = Vec::new();
    let mut add = |reason, message| findings.push(Finding { reason, message });

    if default == Gate::Removed {
        let named = scene.instances_where(|i| {
            i.gates.as_ref().is_some_and(|gates| !gates.named(migration.gates()).is_empty())
        });
        if !named.is_empty() {
            let all: Vec<&str> = migration
                .gates()
                .filter(|gate| {
                    let set = |i: &Apiserver| {
                        i.gates.as_ref().is_some_and(|gates| gates.get(gate).is_some())
                    };
                    instances.iter().any(set)
                })
                .collect();
            add(
                UpgradeReason::ApiserverRefusesGate,
                format!(
                    "{named} will not start: take {} out of --feature-gates first.",
                    all.join(" and ")
                ),
            );
        }
        // One that runs a version without the gate has started without it.
        let past = |i: &Apiserver| {
            let here = i.minor.and_then(|minor| migration.apiserver_at(minor, track));
            here == Some(GateBehaviour::Removed)
        };
        let unseen = scene.instances_where(|i| {
            !past(i) && i.gates.as_ref().is_none_or(|gates| gates.unreadable().is_some())
        });
        if !unseen.is_empty() || instances.is_empty() {
            let which =
                if instances.is_empty() { "any apiserver".to_owned() } else { unseen.to_string() };
            add(
                UpgradeReason::ApiserverUnknown,
                format!(
                    "The command line of {which} cannot be seen: if its --feature-gates names {}, \
                     it will not start. {}",
                    migration.gate,
                    scene.how_to_look("Look at it first, and take the gate out."),
                ),
            );
        }
    }
    let (on, unknown) = (&survey.blocking_on, &survey.blocking_unknown);
    let off = gate.is_off();
    if off == Some(true) && !on.is_empty() {
        let (reason, cause) = if gate == Gate::Removed {
            (UpgradeReason::GateGone, "is gone there")
        } else if default == Gate::Disabled {
            (UpgradeReason::GateOffByDefault, "is off there unless set")
        } else {
            (UpgradeReason::GateOff, "is off already")
        };
        let remedy = if settable && default == Gate::Disabled {
            format!(
                ", or start the apiservers with --feature-gates={}=true meanwhile",
                migration.gate
            )
        } else {
            String::new()
        };
        add(
            reason,
            format!(
                "{on} redirect{}, and {} {cause}: every exec there fails. Take --{} off these \
                 kubelets first{remedy}.",
                on.verb_s(),
                migration.gate,
                migration.flag
            ),
        );
    }
    let crashing = &survey.blocking_crashing;
    if !crashing.is_empty() {
        let message = crash::says(migration, crashing, &survey.crashing_flagged);
        add(UpgradeReason::KubeletCrashLoops, message);
    }
    if off == Some(true) && !unknown.is_empty() {
        let unversioned = &survey.blocking_unversioned;
        let annotate = format!("find out first, and annotate with {}", migration.annotation);
        let except = "look at status.nodeInfo.kubeletVersion of the Node: while that is no version \
                      of Kubernetes 1, only an override of the policy excepts it, of its name or \
                      its provider";
        let remedy = match (unversioned.count(), unknown.count()) {
            (0, _) => format!("{annotate}."),
            (few, all) if few == all => {
                format!("the kubelet's version cannot be read; {except}.")
            }
            (few, _) => {
                format!("{annotate}. The version of {few} of them cannot be read: there {except}.")
            }
        };
        add(
            UpgradeReason::NodesUnknown,
            format!("{unknown} may redirect, and {} is off there: {remedy}", migration.gate),
        );
    }
    if off.is_none() && !(on.is_empty() && unknown.is_empty()) {
        let (nodes, what) = if on.is_empty() {
            (unknown, "may redirect".to_owned())
        } else {
            (on, format!("redirect{}", on.verb_s()))
        };
        let hidden = scene.instances_where(|i| there(i) == Gate::Unknown);
        add(
            UpgradeReason::GateUnknown,
            format!(
                "{nodes} {what}, and whether {} will be on cannot be told of {hidden}: look at \
                 its command line first, or take --{} off the kubelets.",
                migration.gate, migration.flag
            ),
        );
    }
    if migration.kubelet_at(minor) == Some(FlagBehaviour::Removed) {
        let (flagged, flag_unknown) = (&survey.flagged, &survey.flag_unknown);
        if !flagged.is_empty() {
            add(
                UpgradeReason::KubeletRefusesFlag,
                format!(
                    "The kubelet of {flagged} will not start at {minor} with --{}: take it off \
                     before that kubelet is upgraded, or restarted if it already has been.",
                    migration.flag
                ),
            );
        }
        if !flag_unknown.is_empty() {
            add(
                UpgradeReason::KubeletFlagUnknown,
                format!(
                    "Whether the kubelet of {flag_unknown} is started with --{}, and so will not \
                     start at {minor}, is unknown: find out, and annotate with {}.",
                    migration.flag, migration.annotation
                ),
            );
        }
    }
    let stops = matches!(
        migration.kubelet_at(minor),
        Some(FlagBehaviour::Ignored | FlagBehaviour::Removed)
    );
    if stops && !survey.on.is_empty() {
        add(
            UpgradeReason::DependsOnRedirects,
            format!(
                "{} stop{} redirecting when upgraded to {minor}: the kubelet itself must reach \
                 the runtime's streaming server then.",
                survey.on,
                survey.on.verb_s()
            ),
        );
    }
    let distrusted = &survey.distrusted;
    if stops && !distrusted.is_empty() {
        add(UpgradeReason::RuntimeNotTrusted, trust::says(distrusted));
    }
    findings.sort_by_key(|finding| finding.reason);
    let breaking = match off {
        Some(false) if stops => distrusted.count(),
        Some(false) => 0,
        Some(true) | None => on.count() + unknown.count(),
    };
    let breaking = breaking + crashing.count();
    Preview { minor, default, settable, gate, breaking, findings }
}
