//! One node: could its kubelet answer a stream with a redirect, and what follows from that.

use super::{
    crash,
    evidence::{self, Claim, Evidence, Flag, Source},
};
use crate::{
    decision::{
        apiserver::{ControlPlane, GateSummary},
        gate::Gate,
        migration::{FlagBehaviour, Migration},
    },
    kubernetes::{arguments::kubelet::FlagValue, version::Minor},
};

/// What is known of one node. Its name is kept by whoever holds the nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeFacts {
    /// The kubelet's version; `None` where it cannot be read.
    pub kubelet: Option<Minor>,
    /// What runs the Node if no kubelet of Kubernetes does, such as kwok.
    pub provider: Option<String>,
    /// What has been said about its flag.
    pub claims: Vec<Claim>,
    /// The files that name the flag, as the node's own agent saw them.
    pub files: Vec<String>,
    /// Its runtime streams over TLS, and whether a kubelet that proxies would trust the certificate
    /// is not known, or it would not: see [`super::trust`].
    pub distrusted: bool,
    /// Its kubelet keeps exiting right after it starts. What the Node says of it is then said of the
    /// last one that ran, which may have been of another version.
    pub crashes: bool,
}

impl NodeFacts {
    /// The provider by which a policy may except the node: only where no kubelet of Kubernetes runs or
    /// tries to, and nothing says that it redirects.
    pub fn exceptable_provider(&self) -> Option<&str> {
        let redirects = |claim: &Claim| matches!(claim.says, FlagValue::On | FlagValue::Unreadable);
        let may = self.kubelet.is_none() && !self.crashes && !self.claims.iter().any(redirects);
        self.provider.as_deref().filter(|_| may)
    }
}

/// Whether a kubelet answers with redirects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Redirects {
    /// It does, or has to be taken to.
    On,
    /// Nobody knows, and its version could.
    Unknown,
    /// Its version could, its flag says no.
    Off,
    /// Its version takes the flag and ignores it.
    Ignored,
    /// Its version has no such flag.
    Impossible,
}

impl Redirects {
    /// Every state, worst first.
    pub const ALL: [Self; 5] =
        [Self::On, Self::Unknown, Self::Off, Self::Ignored, Self::Impossible];

    /// The name that status fields and metrics use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::On => "On",
            Self::Unknown => "Unknown",
            Self::Off => "Off",
            Self::Ignored => "Ignored",
            Self::Impossible => "Impossible",
        }
    }

    /// Whether a redirect is possible. Unknown is not safe.
    pub fn possible(self) -> bool {
        matches!(self, Self::On | Self::Unknown)
    }
}

/// A cell of KEP-1558's table of the two settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cell {
    /// Gate on, no redirects: the kubelet proxies.
    Proxied,
    /// Gate on, redirects: the apiserver follows them.
    Followed,
    /// Gate off, no redirects: the kubelet proxies, and nothing else is possible. The goal.
    Final,
    /// Gate off, redirects: exec, attach and port-forward fail.
    Broken,
    /// One of the two settings is unknown.
    Unknown,
}

impl Cell {
    /// The name that status fields use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Proxied => "Proxied",
            Self::Followed => "Followed",
            Self::Final => "Final",
            Self::Broken => "Broken",
            Self::Unknown => "Unknown",
        }
    }
}

/// Why a node is judged as it is, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeReason {
    /// It redirects, and lags the apiserver by two minors or more: the proposal's own floor case.
    RedirectsWhileLagging,
    /// It redirects.
    Redirects,
    /// Its evidence contradicts itself, so it is taken to redirect.
    ContradictoryEvidence,
    /// Its kubelet keeps exiting, so nothing is known of the one that will run.
    KubeletCrashLoops,
    /// Its kubelet's version cannot be read.
    KubeletVersionUnknown,
    /// What was said about its flag cannot be understood.
    EvidenceUnreadable,
    /// Its version could redirect, and nothing tells whether it does.
    NoEvidence,
    /// Its flag is off or absent.
    FlagOff,
    /// Its version ignores the flag.
    FlagIgnored,
    /// Its version has no flag.
    FlagRemoved,
}

impl NodeReason {
    /// Every reason, worst first.
    pub const ALL: [Self; 10] = [
        Self::RedirectsWhileLagging,
        Self::Redirects,
        Self::ContradictoryEvidence,
        Self::KubeletCrashLoops,
        Self::KubeletVersionUnknown,
        Self::EvidenceUnreadable,
        Self::NoEvidence,
        Self::FlagOff,
        Self::FlagIgnored,
        Self::FlagRemoved,
    ];

    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RedirectsWhileLagging => "RedirectsWhileLagging",
            Self::Redirects => "Redirects",
            Self::ContradictoryEvidence => "ContradictoryEvidence",
            Self::KubeletCrashLoops => "KubeletCrashLoops",
            Self::KubeletVersionUnknown => "KubeletVersionUnknown",
            Self::EvidenceUnreadable => "EvidenceUnreadable",
            Self::NoEvidence => "NoEvidence",
            Self::FlagOff => "FlagOff",
            Self::FlagIgnored => "FlagIgnored",
            Self::FlagRemoved => "FlagRemoved",
        }
    }
}

/// What a node means for turning the gate off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It does not stand in the way.
    Safe,
    /// It does.
    Blocks,
    /// It would, but a valid override of the policy excepts it.
    Overridden,
}

impl Verdict {
    /// The name that status fields use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Safe => "Safe",
            Self::Blocks => "Blocks",
            Self::Overridden => "Overridden",
        }
    }
}

/// How many minors a kubelet is behind; negative where it is ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Skew {
    /// Against the oldest apiserver.
    pub oldest: i32,
    /// Against the newest apiserver.
    pub newest: i32,
}

/// A node, judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeJudgement {
    /// Whether it answers with redirects.
    pub redirects: Redirects,
    /// What is known of its flag.
    pub evidence: Evidence,
    /// Its skew; `None` where a version is unknown.
    pub skew: Option<Skew>,
    /// It lags the newest apiserver by the floor or more.
    pub lagging: bool,
    /// Its cell today.
    pub today: Cell,
    /// Its cell once the gate is off.
    pub gate_off: Cell,
    /// What it means for turning the gate off.
    pub verdict: Verdict,
    /// Why.
    pub reason: NodeReason,
    /// The kubelet's version alone decided about redirects, whatever was said about the flag.
    pub by_version: bool,
}

impl NodeJudgement {
    /// Whether the node itself shows the flag, on or off: on the kubelet's command line, or where the
    /// next start takes its arguments from.
    pub fn shows_flag(&self) -> bool {
        let Evidence { flag, source, .. } = self.evidence;
        matches!(flag, Flag::On | Flag::Off) && source != Some(Source::Annotation)
    }
}

/// Judges one node.
pub fn judge(
    migration: &Migration,
    node: &NodeFacts,
    plane: &ControlPlane,
    overridden: bool,
) -> NodeJudgement {
    let behaviour = node.kubelet.and_then(|minor| migration.kubelet_at(minor));
    let evidence = evidence::weigh(&node.claims);
    let redirects = match (behaviour, evidence.flag) {
        _ if node.crashes => Redirects::Unknown,
        (Some(FlagBehaviour::AlwaysLegacy), _) => Redirects::On,
        (Some(FlagBehaviour::Ignored), _) => Redirects::Ignored,
        (Some(FlagBehaviour::Removed), _) => Redirects::Impossible,
        (_, Flag::On) => Redirects::On,
        (Some(FlagBehaviour::Obeyed), Flag::Off | Flag::Absent) => Redirects::Off,
        (Some(FlagBehaviour::Obeyed), Flag::Unknown) | (None, _) => Redirects::Unknown,
    };
    let skew = skew(node.kubelet, plane);
    let lagging = skew.is_some_and(|skew| skew.newest >= migration.lag_floor);
    let by_version =
        !node.crashes && behaviour.is_some_and(|behaviour| behaviour != FlagBehaviour::Obeyed);
    let reason = match redirects {
        _ if node.crashes => NodeReason::KubeletCrashLoops,
        Redirects::On if lagging => NodeReason::RedirectsWhileLagging,
        Redirects::On if evidence.is_contradictory() && !by_version => {
            NodeReason::ContradictoryEvidence
        }
        Redirects::On => NodeReason::Redirects,
        Redirects::Unknown if behaviour.is_none() => NodeReason::KubeletVersionUnknown,
        Redirects::Unknown if evidence.source.is_some() => NodeReason::EvidenceUnreadable,
        Redirects::Unknown => NodeReason::NoEvidence,
        Redirects::Off => NodeReason::FlagOff,
        Redirects::Ignored => NodeReason::FlagIgnored,
        Redirects::Impossible => NodeReason::FlagRemoved,
    };
    let verdict = match (redirects.possible(), overridden) {
        (false, _) => Verdict::Safe,
        (true, true) => Verdict::Overridden,
        (true, false) => Verdict::Blocks,
    };
    NodeJudgement {
        redirects,
        evidence,
        skew,
        lagging,
        today: cell_today(redirects, plane),
        gate_off: cell_gate_off(redirects),
        verdict,
        reason,
        by_version,
    }
}

/// What a person should know of a judged node, and do about it.
pub fn explain(migration: &Migration, node: &NodeJudgement) -> String {
    let flag = migration.flag;
    let said = match node.evidence.source {
        Some(source) if !node.by_version => format!(", {}", source.says()),
        _ => String::new(),
    };
    let excepted = match node.verdict {
        Verdict::Overridden => " An override of the policy accepts that.",
        Verdict::Blocks | Verdict::Safe => "",
    };
    let text = match node.reason {
        NodeReason::RedirectsWhileLagging => {
            let behind = node.skew.map_or(migration.lag_floor, |skew| skew.newest);
            let contradicted = if node.evidence.is_contradictory() && !node.by_version {
                " (other evidence contradicts that)"
            } else {
                ""
            };
            format!(
                "The kubelet redirects streams{said}{contradicted}, and is {behind} minors behind \
                 the apiserver. Take --{flag} off it or upgrade it."
            )
        }
        NodeReason::Redirects => {
            format!("The kubelet redirects streams{said}. Take --{flag} off it or upgrade it.")
        }
        NodeReason::ContradictoryEvidence => format!(
            "There is evidence for and against redirects, so the kubelet counts as redirecting. {}",
            remedy(migration, &node.evidence)
        ),
        NodeReason::KubeletCrashLoops => {
            let shown = if node.shows_flag() { crash::shown(migration, "It was") } else { None };
            format!(
                "The kubelet keeps exiting right after it starts, so whether the one that will run \
                 redirects streams is unknown. {}{}",
                crash::LOG,
                shown.unwrap_or_default()
            )
        }
        NodeReason::KubeletVersionUnknown => {
            "The kubelet's version cannot be read, so it may redirect streams, whatever is said of \
             its flag. Only an override of the policy excepts the node: one of its name, until it \
             ends, or one of its status.provider, if it has any, for good."
                .to_owned()
        }
        NodeReason::EvidenceUnreadable => {
            let remedy = match node.evidence.source {
                Some(Source::Agent) => {
                    format!("Look at its command line: --{flag} takes true or false.")
                }
                Some(Source::EnvFiles) => {
                    format!("Look at its environment files: --{flag} takes true or false.")
                }
                Some(Source::NodeArgs | Source::Annotation) | None => {
                    format!("The annotation {} takes \"true\" or \"false\".", migration.annotation)
                }
            };
            format!(
                "The kubelet may redirect streams: what was said about its flag cannot be \
                 understood. {remedy}"
            )
        }
        NodeReason::NoEvidence => format!(
            "The kubelet may redirect streams: nothing tells. Look at its command line and \
             annotate the node with {}=\"true\" or \"false\".",
            migration.annotation
        ),
        NodeReason::FlagOff => format!("The kubelet proxies streams: --{flag} is off{said}."),
        NodeReason::FlagIgnored => {
            format!("The kubelet proxies streams: its version ignores --{flag}.")
        }
        NodeReason::FlagRemoved => {
            format!("The kubelet proxies streams: its version has no --{flag}.")
        }
    };
    text + excepted
}

/// What brings two sources together that exclude each other.
fn remedy(migration: &Migration, evidence: &Evidence) -> String {
    let flag = migration.flag;
    match (evidence.source, evidence.against) {
        (Some(Source::EnvFiles), Some(Source::Agent | Source::NodeArgs)) => format!(
            "It runs without --{flag}, but its environment files turn it on at the next start: \
             take it out of them."
        ),
        (Some(Source::Agent | Source::NodeArgs), Some(Source::EnvFiles)) => format!(
            "It runs with --{flag}, but its environment files turn it off at the next start: \
             restart the kubelet."
        ),
        _ => {
            format!("Look at its command line and correct the annotation {}.", migration.annotation)
        }
    }
}

fn skew(kubelet: Option<Minor>, plane: &ControlPlane) -> Option<Skew> {
    let kubelet = kubelet?;
    Some(Skew { oldest: kubelet.behind(plane.oldest?), newest: kubelet.behind(plane.newest?) })
}

/// The worst cell that some apiserver puts the node in.
fn cell_today(redirects: Redirects, plane: &ControlPlane) -> Cell {
    let off_everywhere =
        matches!(plane.gate, GateSummary::All(Gate::Disabled) | GateSummary::All(Gate::Removed));
    match redirects {
        Redirects::On if plane.off_somewhere => Cell::Broken,
        Redirects::On if plane.gate == GateSummary::All(Gate::Enabled) => Cell::Followed,
        Redirects::On | Redirects::Unknown => Cell::Unknown,
        Redirects::Off | Redirects::Ignored | Redirects::Impossible => {
            if off_everywhere {
                Cell::Final
            } else {
                Cell::Proxied
            }
        }
    }
}

fn cell_gate_off(redirects: Redirects) -> Cell {
    match redirects {
        Redirects::On => Cell::Broken,
        Redirects::Unknown => Cell::Unknown,
        Redirects::Off | Redirects::Ignored | Redirects::Impossible => Cell::Final,
    }
}
