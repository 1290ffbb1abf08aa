//! Taking the redirect flag off kubelets, a few nodes at a time: which nodes are asked next.
//!
//! As in [`super::gate_rollout`], nothing is remembered here.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::{
    gate_rollout::{RolloutPlan, asked_anew, failed, lost, passed},
    trust,
};
use crate::decision::{
    change::{
        self, ANSWERS, Attempt, Attempts, ChangeRequest, Phase, PolicyRef, Proof, TRY_AGAIN,
        Target, Trial, Trials, Trouble,
    },
    condition::{ConditionOutcome, ConditionStatus},
    names::NameSummary,
};

/// One node in so many may be unready for reasons of its own; where more are, something goes on in
/// the cluster, and no kubelet is restarted into that.
const UNREADY: usize = 10;

/// So soon a node's agent says that the flag is gone.
const SEEN: SignedDuration = SignedDuration::from_secs(60);

/// A node that the policy selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Whether its kubelet can have the flag, and the node's own agent does not say.
    pub unknown: bool,
    /// Its kubelet has the flag, on or off, and the node's own agent says so.
    pub flagged: bool,
    /// It stands in the way of turning the gate off.
    pub blocks: bool,
    /// It redirects, or may, and a kubelet that proxies would not trust its runtime.
    pub distrusted: bool,
    /// Its Node is ready. The kubelet of one that is not could not prove itself.
    pub ready: bool,
}

/// How the rest of the cluster is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Surroundings<'a> {
    /// The apiservers whose pods are not ready.
    pub down: &'a [&'a str],
    /// The Nodes that are not ready, whatever policy they follow.
    pub unready: &'a [&'a str],
    /// How many Nodes there are.
    pub nodes: usize,
}

/// Everything that the next step follows from.
#[derive(Clone, Copy, Debug)]
pub struct FlagScene<'a> {
    /// The policy that wants the flags away; `None` where none does.
    pub policy_ref: Option<PolicyRef<'a>>,
    /// How many nodes may be changed at once.
    pub at_once: usize,
    /// The nodes that follow it, by name.
    pub nodes: &'a BTreeMap<&'a str, Candidate>,
    /// The names of the apiservers.
    pub apiservers: &'a [&'a str],
    /// How they and the Nodes are.
    pub around: Surroundings<'a>,
    /// The changes of all nodes.
    pub attempts: &'a Attempts,
    /// What the canary found.
    pub trials: &'a Trials,
    /// The clock.
    pub now: Timestamp,
}

/// What is done next, and said. [`RolloutPlan::progress`] is the condition `NodesRemediated`.
pub fn plan(scene: &FlagScene<'_>) -> RolloutPlan {
    let mut plan = RolloutPlan::default();
    let flags = || scene.attempts.iter().filter(|(_, a)| a.wanted.target == Target::KubeletFlag);
    let Some(policy_ref) = &scene.policy_ref else {
        plan.changes.extend(flags().map(|(node, _)| (node.clone(), None)));
        return plan;
    };
    let mine = |node: &str, attempt: &Attempt| {
        attempt.wanted.policy == policy_ref.name && scene.nodes.contains_key(node)
    };
    // Nodes that follow another policy now, or none.
    let strangers = flags().filter(|(node, attempt)| !mine(node, attempt));
    plan.changes.extend(strangers.map(|(node, _)| (node.clone(), None)));

    let (mut busy, mut broken, mut missing) = (Vec::new(), Vec::new(), Vec::new());
    for (node, attempt) in flags().filter(|(node, attempt)| mine(node, attempt)) {
        if attempt.is_under_way() && attempt.is_withdrawn(policy_ref, scene.now) {
            plan.changes.insert(node.clone(), None);
        } else if attempt.is_under_way() {
            if attempt.is_lost(scene.now) {
                missing.push((node.as_str(), attempt));
            }
            busy.push(node.as_str());
            go_on(scene, &mut plan, node, attempt);
        } else if attempt.blocks(policy_ref) {
            // Whatever its agent says yet of the flag that has come back.
            broken.push((node.as_str(), attempt));
        }
    }
    let left: Vec<&str> = left(scene);
    if let Some((_, first)) = broken.first() {
        let nodes: NameSummary<'_> = broken.iter().map(|(node, _)| *node).collect();
        let message = format!(
            "{nodes} could not be changed: {} ({}) No other node is changed. When the cause is \
             mended, have it tried again by any change of the policy's spec, such as pausing it \
             and going on.",
            first.message, first.reason
        );
        let reason = "RemediationFailed";
        plan.trouble = Some(Trouble { reason, message: message.clone() });
        return says(plan, ConditionStatus::False, reason, message);
    }
    if let Some((node, attempt)) = missing.first() {
        let message = format!("{} No other node is changed.", lost(node, attempt));
        let reason = "ChangeOverdue";
        plan.trouble = Some(Trouble { reason, message: message.clone() });
        return says(plan, ConditionStatus::False, reason, message);
    }
    if left.is_empty() && busy.is_empty() {
        // What has ended is of no more use; the remediators' reports stay.
        plan.changes.extend(flags().map(|(node, _)| (node.clone(), None)));
        if let Some(message) = unknown(scene) {
            return says(plan, ConditionStatus::Unknown, "NodesUnknown", message);
        }
        let message = "No selected kubelet has the flag.".to_owned();
        return says(plan, ConditionStatus::True, "NoFlags", message);
    }
    let waiting: NameSummary<'_> = left.iter().copied().collect();
    if policy_ref.paused {
        let message = format!("The policy is paused; {waiting} have the flag.");
        return says(plan, ConditionStatus::False, "Paused", message);
    }
    let other = scene.attempts.iter().find(|(_, attempt)| {
        attempt.is_under_way() && attempt.wanted.target != Target::KubeletFlag
    });
    if let Some((node, _)) = other {
        let message = format!("Waiting for the change of the apiserver on {node} to end.");
        return says(plan, ConditionStatus::False, "ApiserverChanging", message);
    }
    let bar = bar(scene, &left, &busy);
    let room = match bar {
        Some(_) => 0,
        None => scene.at_once.saturating_sub(busy.len()),
    };
    let (mut asked, mut refused) = (Vec::new(), None);
    let can = |node: &&&str| {
        let Candidate { ready, distrusted, .. } = scene.nodes[**node];
        ready && !distrusted && !busy.contains(*node)
    };
    for node in left.iter().filter(can).take(room) {
        let ended = scene.attempts.get(*node);
        // What became of its apiserver must not be forgotten.
        if ended.is_some_and(|a| a.blocks(policy_ref) && a.wanted.target != Target::KubeletFlag) {
            continue;
        }
        let again = ended.and_then(|attempt| match attempt.phase {
            Phase::Refused => attempt.anew_at(),
            // Its agent may not have looked yet.
            Phase::Confirmed => Some(attempt.wanted.asked + SEEN),
            _ => None,
        });
        if let Some(at) = again.filter(|at| *at > scene.now) {
            plan.looks_at(at);
            refused = refused.or(ended.filter(|a| a.phase == Phase::Refused).map(|a| (node, a)));
            continue;
        }
        let wanted = ChangeRequest::new(policy_ref, Target::KubeletFlag, scene.now);
        plan.looks_at(scene.now + ANSWERS);
        plan.changes.insert((*node).to_owned(), Some(wanted));
        asked.push(*node);
    }
    let silent: NameSummary<'_> =
        busy.iter().copied().filter(|node| scene.attempts[*node].is_silent(scene.now)).collect();
    if !silent.is_empty() {
        let message = format!(
            "No remediator answers on {silent}. Look for its pod there: the chart brings it with \
             remediators.kubelet.enabled=true."
        );
        return says(plan, ConditionStatus::False, "RemediatorSilent", message);
    }
    if let Some((reason, message)) = bar {
        return says(plan, ConditionStatus::False, reason, message);
    }
    let changing: NameSummary<'_> = busy.into_iter().chain(asked).collect();
    let distrusted: Vec<&str> =
        left.iter().copied().filter(|node| scene.nodes[*node].distrusted).collect();
    let alone = distrusted.len() == left.len();
    let distrusted: NameSummary<'_> = distrusted.into_iter().collect();
    if alone && changing.is_empty() {
        let sentences = std::iter::once(trust::says(&distrusted)).chain(unknown(scene));
        let message = sentences.collect::<Vec<_>>().join(" ");
        return says(plan, ConditionStatus::False, "RuntimeNotTrusted", message);
    }
    let mut message = match (changing.is_empty(), refused) {
        (true, Some((node, attempt))) => asked_anew(node, attempt),
        (true, None) => format!("{waiting} have the flag."),
        (false, _) => format!("Taking the flag off {changing}; {} left in all.", left.len()),
    };
    if !distrusted.is_empty() {
        message = format!("{message} {}", trust::says(&distrusted));
    }
    says(plan, ConditionStatus::False, "Remediating", message)
}

/// What there is to say of kubelets that may have the flag, as far as anybody knows.
fn unknown(scene: &FlagScene<'_>) -> Option<String> {
    let unknown = scene.nodes.iter().filter(|(_, node)| node.unknown);
    let unknown: NameSummary<'_> = unknown.map(|(name, _)| *name).collect();
    (!unknown.is_empty()).then(|| {
        format!(
            "Whether the kubelet of {unknown} has the flag is not known: no agent that is ready says \
             so."
        )
    })
}

/// The nodes that still have the flag, those that block the gate first.
fn left<'a>(scene: &FlagScene<'a>) -> Vec<&'a str> {
    let flagged = scene.nodes.iter().filter(|(_, node)| node.flagged);
    let mut left: Vec<_> = flagged.map(|(name, node)| (!node.blocks, *name)).collect();
    left.sort_unstable();
    left.into_iter().map(|(_, name)| name).collect()
}

/// Why no other kubelet is restarted now.
fn bar(scene: &FlagScene<'_>, left: &[&str], busy: &[&str]) -> Option<(&'static str, String)> {
    let waiting: Vec<&str> = left.iter().copied().filter(|node| !busy.contains(node)).collect();
    if waiting.is_empty() {
        return None;
    }
    let Surroundings { down, unready, nodes } = scene.around;
    if !down.is_empty() {
        let down: NameSummary<'_> = down.iter().copied().collect();
        let message = format!("Waiting for the apiserver on {down} to be ready.");
        return Some(("ApiserversNotReady", message));
    }
    // A kubelet that is being restarted makes its Node unready, and is meant to.
    let unready: NameSummary<'_> =
        unready.iter().copied().filter(|node| !busy.contains(node)).collect();
    let bound = scene.at_once.max(nodes / UNREADY);
    if unready.count() > bound {
        let message = format!(
            "Waiting for Nodes to be ready: {unready} are not, and no kubelet is restarted while \
             that holds for more than {bound} of {nodes}."
        );
        return Some(("NodesNotReady", message));
    }
    let is_ready = |node: &&str| scene.nodes[*node].ready;
    if busy.is_empty() && !waiting.iter().any(is_ready) {
        let waiting: NameSummary<'_> = waiting.into_iter().collect();
        let message = format!(
            "The kubelet of {waiting} still has the flag. The Node is not ready, so a kubelet could \
             not prove itself there."
        );
        return Some(("NodesNotReady", message));
    }
    None
}

fn go_on(scene: &FlagScene<'_>, plan: &mut RolloutPlan, node: &str, attempt: &Attempt) {
    let wanted = attempt.asked_again(scene.now);
    for at in [attempt.next_ask(scene.now), attempt.lost_at()].into_iter().flatten() {
        plan.looks_at(at);
    }
    let mut confirmed = wanted.confirmed;
    if attempt.phase == Phase::Applied && !confirmed {
        match change::proof(scene.trials, &wanted.id, TRY_AGAIN, scene.now) {
            Proof::Passed => {
                plan.canary = Some(passed(&scene.trials[&wanted.id].message));
                confirmed = true;
            }
            Proof::Due(before) => {
                plan.canary = before.as_ref().map(failed);
                let through = scene.apiservers.iter().map(|name| (*name).to_owned()).collect();
                let nodes = Some(vec![node.to_owned()]);
                let trial = Trial { proves: wanted.id.clone(), through, nodes };
                plan.trial.get_or_insert(trial);
            }
            Proof::Failed(trouble, at) => {
                plan.looks_at(at);
                plan.canary = Some(failed(&trouble));
            }
        }
    }
    plan.changes.insert(node.to_owned(), Some(ChangeRequest { confirmed, ..wanted }));
}

fn says(
    mut plan: RolloutPlan,
    status: ConditionStatus,
    reason: &'static str,
    message: String,
) -> RolloutPlan {
    plan.progress = Some(ConditionOutcome::new(status, reason, message));
    plan
}
