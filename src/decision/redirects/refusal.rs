//! Why nodes stand in the way of turning the gate off, and what to do about them.

use super::{crash, node::NodeReason, scene::Scene, trust};
use crate::decision::{
    condition::{ConditionOutcome, ConditionStatus},
    migration::FlagBehaviour,
};

/// The refusal that the worst of the blocking nodes causes; `None` where no node blocks.
pub(super) fn of_nodes(scene: &Scene<'_>) -> Option<ConditionOutcome> {
    let Scene { migration, survey, .. } = *scene;
    let no = |reason, message| ConditionOutcome::new(ConditionStatus::False, reason, message);
    let flag = migration.flag;
    let modern = migration
        .kubelet_since(FlagBehaviour::Ignored)
        .map_or(String::new(), |minor| format!(" or upgrade them to {minor} or later"));
    let unknown = survey.blocking_unknown.count() + survey.blocking_crashing.count();
    Some(match survey.worst_reason()? {
        NodeReason::RedirectsWhileLagging => {
            let (on, lagging) = (&survey.blocking_on, &survey.blocking_lagging);
            let others = on.count() - lagging.count();
            let others = match others {
                0 => String::new(),
                n => format!(
                    "; {n} more redirect{} at a smaller skew",
                    if n == 1 { "s" } else { "" }
                ),
            };
            no(
                "NodesRedirectWhileLagging",
                format!(
                    "{lagging} answer{} streams with a redirect, {} or more minors behind the \
                     apiserver{others}: without the gate every exec there fails. Take --{flag} off \
                     these kubelets{modern}.{}{}",
                    lagging.verb_s(),
                    migration.lag_floor,
                    also_unknown(unknown),
                    also_distrusted(scene),
                ),
            )
        }
        NodeReason::Redirects => {
            let on = &survey.blocking_on;
            no(
                "NodesRedirect",
                format!(
                    "{on} answer{} streams with a redirect: without the gate every exec there \
                     fails. Take --{flag} off these kubelets{modern}.{}{}",
                    on.verb_s(),
                    also_unknown(unknown),
                    also_distrusted(scene),
                ),
            )
        }
        NodeReason::ContradictoryEvidence => {
            let nodes = &survey.blocking_contradictory;
            no(
                "EvidenceContradictory",
                format!(
                    "{nodes} {} evidence for and against redirects, and count{} as redirecting. \
                     Look at the kubelet's command line and environment files there, make them \
                     say the same, and correct the annotation {}.{}",
                    if nodes.count() == 1 { "has" } else { "have" },
                    nodes.verb_s(),
                    migration.annotation,
                    also_unknown(unknown),
                ),
            )
        }
        NodeReason::KubeletCrashLoops => {
            let nodes = &survey.blocking_crashing;
            no(
                "KubeletCrashLoops",
                format!(
                    "{}{}",
                    crash::says(migration, nodes, &survey.crashing_flagged),
                    also_unknown(unknown - nodes.count()),
                ),
            )
        }
        NodeReason::KubeletVersionUnknown => {
            let nodes = &survey.blocking_unversioned;
            no(
                "NodesUnknown",
                format!(
                    "{nodes} may answer streams with a redirect: the kubelet's version cannot be \
                     read. Look at status.nodeInfo.kubeletVersion of the Node: while that is no \
                     version of Kubernetes 1, no annotation counts, and only an override of the \
                     policy excepts the node: one of its name, until it ends, or one of its \
                     provider, if it has any, for good.{}",
                    also_unknown(unknown - nodes.count()),
                ),
            )
        }
        NodeReason::EvidenceUnreadable => {
            let nodes = &survey.blocking_unreadable;
            no(
                "NodesUnknown",
                format!(
                    "{nodes} may answer streams with a redirect: what is said about --{flag} \
                     cannot be understood. Look at the Node's annotations and at the kubelet's \
                     environment files, and correct them: {} and the flag take \"true\" or \
                     \"false\", and a node-args annotation holds what k3s or RKE2 was started \
                     with.{}",
                    migration.annotation,
                    also_unknown(unknown - nodes.count()),
                ),
            )
        }
        _ => {
            let nodes = &survey.blocking_unknown;
            no(
                "NodesUnknown",
                format!(
                    "{nodes} may answer streams with a redirect: nothing tells. Look at the \
                     kubelet's command line there and annotate the node with {}=\"true\" or \
                     \"false\".",
                    migration.annotation,
                ),
            )
        }
    })
}

/// Where the advice alone would break exec.
fn also_distrusted(scene: &Scene<'_>) -> String {
    let nodes = &scene.survey.distrusted;
    if nodes.is_empty() { String::new() } else { format!(" {}", trust::says(nodes)) }
}

/// Nodes that may redirect, beside those that are named: only counted, as the worst are named.
fn also_unknown(more: usize) -> String {
    match more {
        0 => String::new(),
        1 => " 1 more node may redirect.".to_owned(),
        n => format!(" {n} more nodes may redirect."),
    }
}
