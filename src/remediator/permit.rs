//! The second refusal: what the controller has decided is held against what is stored now. Pure.

use jiff::{SignedDuration, Timestamp};

use super::journal::Termination;
use crate::{
    api::{
        Apply, Change, ChangeKind, GateSetting, GateWish, Remediation, RolloutTrack,
        StreamingPolicy, condition,
    },
    decision::{
        change::PassingRefusal,
        migration::{GateBehaviour, STREAMING_REDIRECTS, Track},
        names::NameSummary,
        redirects::trust,
    },
    kubernetes::version::Minor,
};

/// A decision is good for so long, on either side: the clocks of two nodes differ.
pub const FRESH: SignedDuration = SignedDuration::from_secs(60);

/// What the apiserver says of the policy that a change names.
#[derive(Clone, Debug, PartialEq)]
pub enum Policy {
    /// There is none.
    Missing,
    /// It cannot be read, for this reason.
    Unreadable(String),
    /// This one.
    Is(Box<StreamingPolicy>),
}

/// What the apiserver says now.
#[derive(Clone, Debug, PartialEq)]
pub struct PermitInputs {
    /// The policy.
    pub policy: Policy,
    /// The nodes that stand in the way; asked for only where [`turns_off`] holds.
    pub blocking: Vec<String>,
    /// The nodes of which nothing is said, or nothing that is understood, or of another Node of the
    /// name than there is now; likewise.
    pub unjudged: Vec<String>,
    /// Whether this node's runtime can do without redirects; asked for only of a kubelet's flag.
    pub trust: Trust,
}

/// Whether a kubelet that proxies trusts its runtime's streaming server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It does, or nothing redirects there anyway.
    Given,
    /// It does not, or whether it does is not known.
    Missing,
    /// No agent has told of the runtime since the node's last start.
    Untold,
}

/// Whether a change takes the gate away from nodes that may need it. Unknown counts as if.
pub fn turns_off(change: &Change, policy: &Policy, node: &str) -> bool {
    change.kind == ChangeKind::ApiserverGate
        && match policy {
            Policy::Is(policy) => comes_to(change, policy, node) != Some(true),
            Policy::Missing | Policy::Unreadable(_) => true,
        }
}

/// Whether the decision is of now.
///
/// # Errors
/// Where it is not.
pub fn fresh(change: &Change, now: Timestamp) -> Result<(), Termination> {
    let apart = now.duration_since(change.verdict.at.0).abs();
    if apart <= FRESH {
        return Ok(());
    }
    Err(Termination::refused_for_now(
        PassingRefusal::VerdictStale,
        format!(
            "The decision is {} s away from this node's time, and good for {} s. Where that repeats \
             itself, the clocks of this node and of the controller's differ.",
            apart.as_secs(),
            FRESH.as_secs()
        ),
    ))
}

/// Holds a change against what is stored.
///
/// # Errors
/// Why it may not be made.
pub fn check(change: &Change, scene: &PermitInputs, node: &str) -> Result<(), Termination> {
    let policy = match &scene.policy {
        Policy::Is(policy) => policy,
        Policy::Missing => {
            let message = format!("There is no policy {} any more.", change.policy);
            return Err(Termination::refused("NotWanted", message));
        }
        Policy::Unreadable(error) => {
            let message = format!("The policy {} cannot be read: {error}.", change.policy);
            return Err(Termination::refused("PolicyUnreadable", message));
        }
    };
    same(change, policy)?;
    if policy.spec.paused {
        let message = format!("The policy {} is paused.", change.policy);
        return Err(Termination::refused("PolicyPaused", message));
    }
    match change.kind {
        ChangeKind::ApiserverGate => gate(change, policy, scene, node),
        ChangeKind::KubeletFlag => flag(change, policy, scene, node),
    }
}

/// The policy is the one that was judged, or a later state of it with the same spec.
fn same(change: &Change, policy: &StreamingPolicy) -> Result<(), Termination> {
    let changed = |what: String| {
        let message = format!("The policy {} {what}: it has to be judged anew.", change.policy);
        Err(Termination::refused_for_now(PassingRefusal::VerdictChanged, message))
    };
    let (judged, is) = (change.verdict.generation, policy.metadata.generation);
    if is != Some(judged) {
        let is = is.map_or_else(|| "none".to_owned(), |is| is.to_string());
        return changed(format!("was judged at generation {judged} and has {is}"));
    }
    let (judged, is) = (&change.verdict.resource_version, &policy.metadata.resource_version);
    let older = match (judged.parse::<u64>(), is.as_deref().map(str::parse::<u64>)) {
        (Ok(judged), Some(Ok(is))) => is < judged,
        // Versions that are no numbers tell only whether they are the same.
        _ => is.as_ref() != Some(judged),
    };
    if older {
        return changed(format!("was judged at version {judged}, and this is an earlier one"));
    }
    Ok(())
}

fn gate(
    change: &Change,
    policy: &StreamingPolicy,
    scene: &PermitInputs,
    node: &str,
) -> Result<(), Termination> {
    let not_wanted = |what: &str| {
        let message = format!("The policy {} {what}.", change.policy);
        Err(Termination::refused("NotWanted", message))
    };
    if policy.spec.apply != Apply::StaticPod {
        return not_wanted("does not say apply: StaticPod");
    }
    if change.gate.is_none() {
        return not_wanted("is not spoken for: the change does not say what the gate is to be");
    }
    match (policy.spec.streaming_proxy_redirects, comes_to(change, policy, node)) {
        (None, _) => return not_wanted("says nothing about the gate"),
        (Some(GateWish::Enabled), Some(true)) => return Ok(()),
        (Some(GateWish::Disabled), Some(false)) => {}
        (Some(_), Some(_)) => return not_wanted("wants the gate the other way round"),
        (Some(_), None) => {
            return not_wanted(
                "does not show this apiserver's version, so what the gate is where nobody sets it \
                 cannot be told",
            );
        }
    }
    if let Some(refusal) = unsafe_verdict(policy) {
        let message = format!("The policy {} {refusal}", change.policy);
        return Err(Termination::refused_for_now(PassingRefusal::VerdictChanged, message));
    }
    let named = |nodes: &[String]| {
        nodes.iter().map(String::as_str).collect::<NameSummary<'_>>().to_string()
    };
    if !scene.blocking.is_empty() {
        let message = format!(
            "In the way of turning the gate off: {}. See kubectl get streamingnodes.",
            named(&scene.blocking)
        );
        return Err(Termination::refused("NodesBlock", message));
    }
    if !scene.unjudged.is_empty() {
        let message = format!("No verdict is stored of {}.", named(&scene.unjudged));
        return Err(Termination::refused_for_now(PassingRefusal::VerdictUnseen, message));
    }
    Ok(())
}

/// Why the stored verdict does not permit to turn the gate off; `None` where it does.
fn unsafe_verdict(policy: &StreamingPolicy) -> Option<String> {
    let conditions = policy.status.iter().flat_map(|status| &status.conditions);
    let mut conditions = conditions.filter(|known| known.type_ == condition::SAFE_TO_DISABLE);
    match conditions.next() {
        None => Some(format!("has no condition {}.", condition::SAFE_TO_DISABLE)),
        Some(verdict) if verdict.observed_generation != policy.metadata.generation => {
            Some("has a verdict about another generation of it.".to_owned())
        }
        Some(verdict) if verdict.status == "True" => None,
        Some(verdict) => Some(format!(
            "has {}={} ({}): {}",
            condition::SAFE_TO_DISABLE,
            verdict.status,
            verdict.reason,
            verdict.message
        )),
    }
}

fn flag(
    change: &Change,
    policy: &StreamingPolicy,
    scene: &PermitInputs,
    node: &str,
) -> Result<(), Termination> {
    let nodes = policy.spec.nodes.as_ref();
    if nodes.is_none_or(|nodes| nodes.remediation != Remediation::KubeletFlag) {
        let message = format!(
            "The policy {} does not say nodes.remediation: KubeletFlag (any more).",
            change.policy
        );
        return Err(Termination::refused("NotWanted", message));
    }
    match scene.trust {
        Trust::Given => Ok(()),
        Trust::Missing => {
            let message = trust::says(&std::iter::once(node).collect());
            Err(Termination::refused_for_now(PassingRefusal::RuntimeNotTrusted, message))
        }
        Trust::Untold => {
            let message = format!(
                "The agent on {node} has not told of the runtime since the node's last start, so \
                 whether a kubelet that proxies trusts the runtime's streaming server is not known. \
                 See status.agent of kubectl get streamingnode {node} -o yaml."
            );
            Err(Termination::refused_for_now(PassingRefusal::RuntimeUntold, message))
        }
    }
}

/// Whether the gate is on after the change; `None` where that cannot be told.
fn comes_to(change: &Change, policy: &StreamingPolicy, node: &str) -> Option<bool> {
    match change.gate? {
        GateSetting::Disabled => Some(false),
        GateSetting::Enabled => Some(true),
        GateSetting::Default => default(policy, node),
    }
}

/// What the gate is on this node's apiserver where nobody sets it.
fn default(policy: &StreamingPolicy, node: &str) -> Option<bool> {
    let track = match policy.spec.rollout_track {
        RolloutTrack::Standard => Track::Standard,
        RolloutTrack::ExtraSafe => Track::ExtraSafe,
    };
    let at = |version: &str| {
        let minor: Minor = version.parse().ok()?;
        Some(match STREAMING_REDIRECTS.apiserver_at(minor, track)? {
            GateBehaviour::Settable { default, .. } => default,
            GateBehaviour::Removed => false,
        })
    };
    let apiservers = &policy.status.as_ref()?.apiservers;
    let own = apiservers.instances.iter().find(|instance| instance.name == node);
    match own.and_then(|own| own.version.as_deref()) {
        Some(version) => at(version),
        None => {
            let oldest = at(apiservers.oldest.as_deref()?)?;
            (at(apiservers.newest.as_deref()?)? == oldest).then_some(oldest)
        }
    }
}

#[cfg(test)]
mod tests;
