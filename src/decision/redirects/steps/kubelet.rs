//! What has to be done about kubelets.

use crate::{
    decision::{
        gate::Gate,
        migration::{FlagBehaviour, Migration},
        names::NameSummary,
        redirects::{
            crash,
            evidence::{ENVIRONMENT_FILES, Source},
            node::{NodeFacts, NodeJudgement, NodeReason, Redirects, Verdict},
            scene::Scene,
            survey, trust,
            upgrade::Preview,
        },
        steps::{Action, ArgumentChange, Step},
    },
    kubernetes::arguments::kubelet::FlagValue,
};

/// Where systemd has the kubelet's unit and its drop-ins.
const UNITS: [&str; 3] = [
    "/etc/systemd/system/kubelet.service.d/",
    "/usr/lib/systemd/system/kubelet.service.d/",
    "/usr/lib/systemd/system/kubelet.service",
];

/// Where k3s and RKE2 take their `kubelet-arg` from.
const RANCHER: [&str; 2] = ["/etc/rancher/k3s/config.yaml", "/etc/rancher/rke2/config.yaml"];

/// What there is to be done about a kubelet. The order is that of the steps.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kubelet {
    /// Its runtime's certificate is not one that it trusts.
    Trust,
    /// It keeps exiting; whether the node shows the flag.
    Mend(bool),
    Look,
    /// Its version cannot be read, so that nothing that is said about it counts.
    Except,
    RemoveFlag(FlagOrigin),
    Upgrade,
}

/// Where a kubelet's flag comes from, as far as is known.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FlagOrigin {
    /// The files of its next start name it: these, where the agent says which.
    Files(Vec<String>),
    /// It runs with it, and none of the files that its agent looks at names it.
    Elsewhere,
    /// k3s or RKE2 give it to it.
    NodeArgs,
    /// A person said so.
    Unknown,
}

impl FlagOrigin {
    fn of(facts: &NodeFacts) -> Self {
        let claimed = |source| {
            facts
                .claims
                .iter()
                .any(|c| c.source == source && matches!(c.says, FlagValue::On | FlagValue::Off))
        };
        if claimed(Source::EnvFiles) {
            Self::Files(facts.files.clone())
        } else if claimed(Source::NodeArgs) {
            Self::NodeArgs
        } else if claimed(Source::Agent) {
            Self::Elsewhere
        } else {
            Self::Unknown
        }
    }

    fn files(&self) -> Vec<String> {
        let usual: &[&str] = match self {
            Self::Files(known) if !known.is_empty() => return known.clone(),
            Self::Files(_) => &ENVIRONMENT_FILES,
            Self::Elsewhere => &UNITS,
            Self::NodeArgs => &RANCHER,
            Self::Unknown => &[],
        };
        usual.iter().map(|path| (*path).to_owned()).collect()
    }

    fn remedy(&self, migration: &Migration) -> String {
        let Migration { flag, annotation, .. } = migration;
        match self {
            Self::Files(known) if known.is_empty() => format!(
                "The kubelet's environment files name --{flag}, its agent says: take it out of \
                 them and restart the kubelet."
            ),
            Self::Files(known) => format!(
                "The kubelet's next start takes --{flag} from {}, its agent says: take it out \
                 there and restart the kubelet.",
                known.join(" and ")
            ),
            Self::Elsewhere => format!(
                "The kubelet runs with --{flag}, its agent says, and none of the files that the \
                 agent knows of names it: look at its unit and the drop-ins (systemctl cat \
                 kubelet), and at the files that their EnvironmentFile= lines name, take it out \
                 there and restart the kubelet."
            ),
            Self::NodeArgs => format!(
                "k3s or RKE2 start the kubelet with {flag}, the node-args annotation says: take it \
                 out of kubelet-arg and restart them."
            ),
            Self::Unknown => format!(
                "The annotation {annotation} says that the kubelet has --{flag}: look where it \
                 comes from, take it out there, restart the kubelet and annotate with \"false\"."
            ),
        }
    }
}

/// What there is to be done about a kubelet, and whether before the gate is touched.
pub(super) fn to_do(
    scene: &Scene<'_>,
    preview: &Preview,
    facts: &NodeFacts,
    judged: &NodeJudgement,
) -> Option<(bool, Kubelet)> {
    let migration = scene.migration;
    let behaviour = facts.kubelet.and_then(|minor| migration.kubelet_at(minor));
    if judged.reason == NodeReason::KubeletCrashLoops && judged.verdict == Verdict::Blocks {
        return Some((true, Kubelet::Mend(judged.shows_flag())));
    }
    if preview.gate.is_off() != Some(false) && judged.verdict == Verdict::Blocks {
        return Some((
            true,
            match judged.redirects {
                Redirects::On if behaviour == Some(FlagBehaviour::AlwaysLegacy) => Kubelet::Upgrade,
                Redirects::On => Kubelet::RemoveFlag(FlagOrigin::of(facts)),
                _ if behaviour.is_none() => Kubelet::Except,
                _ => Kubelet::Look,
            },
        ));
    }
    if migration.kubelet_at(preview.minor) != Some(FlagBehaviour::Removed) {
        return None;
    }
    match survey::next_start_has_flag(migration, facts, judged) {
        Some(true) => Some((false, Kubelet::RemoveFlag(FlagOrigin::of(facts)))),
        None => Some((false, Kubelet::Look)),
        Some(false) => None,
    }
}

/// Whether the kubelet has to trust its runtime's streaming server first: it redirects, and will not
/// any more.
pub(super) fn has_to_trust(
    scene: &Scene<'_>,
    preview: &Preview,
    facts: &NodeFacts,
    judged: &NodeJudgement,
) -> bool {
    let stops = matches!(
        scene.migration.kubelet_at(preview.minor),
        Some(FlagBehaviour::Ignored | FlagBehaviour::Removed)
    );
    facts.distrusted
        && judged.redirects.possible()
        && (stops || to_do(scene, preview, facts, judged).is_some())
}

/// The step for nodes of which the same is to be done.
pub(super) fn step(
    migration: &Migration,
    preview: &Preview,
    what: Kubelet,
    nodes: Vec<String>,
    before_gate: bool,
) -> Step {
    let Migration { flag, gate, annotation, .. } = migration;
    let target = preview.minor;
    let why = match (before_gate, preview.gate) {
        (true, Gate::Removed) => {
            format!("{gate} is gone at {target}, and exec fails where it redirects.")
        }
        (true, Gate::Disabled) => {
            format!("{gate} is off at {target}, and exec fails where it redirects.")
        }
        (true, _) => {
            format!("{gate} may be off at {target}, and exec fails then where it redirects.")
        }
        (false, _) => {
            let gone = migration.kubelet_since(FlagBehaviour::Removed).unwrap_or(target);
            format!(
                "From {gone} on a kubelet does not start with the flag: do it before that kubelet \
                 is upgraded, or restarted if it already has been."
            )
        }
    };
    let (action, files, changes, remedy) = match what {
        Kubelet::Trust => {
            let files = trust::FILES.map(str::to_owned).into();
            let named: NameSummary<'_> = nodes.iter().map(String::as_str).collect();
            let message = trust::says(&named);
            return Step {
                action: Action::TrustRuntime,
                needed: true,
                nodes,
                files,
                changes: Vec::new(),
                message,
            };
        }
        Kubelet::Mend(flagged) => {
            let named: NameSummary<'_> = nodes.iter().map(String::as_str).collect();
            let none = NameSummary::default();
            let says = crash::says(migration, &named, if flagged { &named } else { &none });
            return Step {
                action: Action::LookAtKubelet,
                needed: true,
                nodes,
                files: Vec::new(),
                changes: Vec::new(),
                message: format!("{says} Mend that first."),
            };
        }
        Kubelet::Look => {
            let remedy = format!(
                "Nothing certain tells whether the kubelet is started with --{flag}: look at its \
                 command line and annotate the node with {annotation}=\"true\" or \"false\"."
            );
            (Action::LookAtKubelet, Vec::new(), Vec::new(), remedy)
        }
        Kubelet::Except => {
            let remedy =
                "The kubelet's version cannot be read, so no annotation says enough: look at \
                 status.nodeInfo.kubeletVersion, and where that stays no version of Kubernetes, \
                 except it by an override of the policy: of its name, which ends when it says so, or \
                 of its provider (status.provider of its StreamingNode), for good."
                    .to_owned();
            (Action::LookAtKubelet, Vec::new(), Vec::new(), remedy)
        }
        Kubelet::RemoveFlag(place) => {
            let change = ArgumentChange::gone(format!("--{flag}"));
            (Action::RemoveKubeletFlag, place.files(), vec![change], place.remedy(migration))
        }
        Kubelet::Upgrade => {
            let since = migration.kubelet_since(FlagBehaviour::Obeyed);
            let since = since.map_or_else(String::new, |minor| format!(" to {minor} or later"));
            let remedy = format!("The kubelet always redirects: upgrade it{since}.");
            (Action::UpgradeKubelet, Vec::new(), Vec::new(), remedy)
        }
    };
    Step { action, needed: true, nodes, files, changes, message: format!("{remedy} {why}") }
}
