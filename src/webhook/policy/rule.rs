//! The rule: an unsafe `Disabled` is let in with a warning, since nothing is turned off by it, and a
//! policy that has Sluice change something has to mean what its overrides say.
//!
//! A policy that is only written to otherwise, such as its metadata or a finalizer, is never in the
//! way of anybody.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::warning::{LENGTH, Warning, names};
use crate::{
    api::{Apply, GateWish, StreamingPolicySpec},
    cluster::Content,
    decision::{
        migration::STREAMING_REDIRECTS,
        redirects::{node::Verdict, policy::Overrides},
    },
};

/// So many nodes are named in a warning.
const SHOWN: usize = 5;

/// So many overrides of a kind are named in a refusal.
const NAMED: usize = 10;

/// What the StreamingNode of a node says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// The verdict.
    pub verdict: String,
    /// What stands behind the Node where that is no kubelet of Kubernetes.
    pub provider: Option<String>,
}

/// What the StreamingNodes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nodes {
    /// What is said of each node, by its name; empty where there is none yet.
    Seen(BTreeMap<String, Judged>),
    /// They could not be read, for this reason.
    Unseen(String),
}

impl Nodes {
    /// The nodes, or why nothing is known of them. No StreamingNode at all means that no controller
    /// has looked yet.
    fn judged(&self) -> Result<&BTreeMap<String, Judged>, &str> {
        match self {
            Self::Seen(nodes) if nodes.is_empty() => Err("there is no StreamingNode yet"),
            Self::Seen(nodes) => Ok(nodes),
            Self::Unseen(why) => Err(why),
        }
    }
}

/// Why a policy is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// With `apply: StaticPod`, overrides that do not count. Whoever wrote them believes that they
    /// do.
    #[error(
        "apply: StaticPod is refused with overrides that do not count: {}. Renew, correct or \
         remove them, or let apply be Observe",
        .0.told(usize::MAX)
    )]
    Overrides(Idle),
}

impl Denial {
    /// Every reason.
    pub const REASONS: [&str; 2] = ["OverrideExpired", "OverrideWithoutNode"];

    /// A short, stable name for metrics and logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Overrides(idle) if !idle.expired.is_empty() => "OverrideExpired",
            Self::Overrides(_) => "OverrideWithoutNode",
        }
    }
}

/// The nodes of overrides that do not count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Idle {
    /// The override has expired.
    pub expired: Vec<String>,
    /// There is no such node.
    pub nowhere: Vec<String>,
}

impl Idle {
    fn is_empty(&self) -> bool {
        self.expired.is_empty() && self.nowhere.is_empty()
    }

    /// Both kinds by name, within so many characters.
    fn told(&self, room: usize) -> String {
        let kind = |what: &str, of: &[String]| {
            let room = room / 2;
            let named =
                names(of.iter().map(String::as_str), NAMED, room.saturating_sub(what.len()));
            (!of.is_empty()).then(|| format!("{what}{named}"))
        };
        let kinds = [kind("expired: ", &self.expired), kind("no such node: ", &self.nowhere)];
        kinds.into_iter().flatten().collect::<Vec<_>>().join("; ")
    }
}

/// Whether [`judge`] needs to know the nodes.
pub fn needs_nodes(old: Option<&StreamingPolicySpec>, new: &StreamingPolicySpec) -> bool {
    old != Some(new) && (newly_off(old, new) || names_nodes(new))
}

/// What to say to a policy that would be stored in the place of another, or of none.
///
/// # Errors
/// Where it must not be stored.
pub fn judge(
    old: Option<&StreamingPolicySpec>,
    new: &StreamingPolicySpec,
    nodes: &Nodes,
    now: Timestamp,
) -> Result<Vec<Warning>, Denial> {
    if old == Some(new) {
        return Ok(Vec::new());
    }
    let mut warnings = Vec::new();
    let facts = Content::read(new).facts;
    let overrides = facts.overrides_at(now);
    if is_managed(new) {
        let idle = idle(new, nodes, &overrides);
        if !idle.is_empty() && !steps_back(old, new) {
            return Err(Denial::Overrides(idle));
        }
        if !idle.is_empty() {
            let told = "These overrides do not count: ";
            warnings.push(format!("{told}{}.", idle.told(LENGTH - told.len() - 3)));
        }
        if new.streaming_proxy_redirects.is_none() {
            warnings.push(
                "apply: StaticPod turns nothing while streamingProxyRedirects is not set: the \
                 policy leaves the gate to others."
                    .to_owned(),
            );
        }
    }
    match nodes.judged() {
        Ok(nodes) if newly_off(old, new) => warnings.extend(in_the_way(new, nodes, &overrides)),
        Ok(_) => {}
        Err(why) if needs_nodes(old, new) => warnings.extend(unjudged(old, new, why)),
        Err(_) => {}
    }
    Ok(warnings.iter().map(|text| Warning::new(text)).collect())
}

/// Whether Sluice itself is to turn the gate.
fn is_managed(spec: &StreamingPolicySpec) -> bool {
    spec.apply == Apply::StaticPod
}

/// Whether there are overrides that have to name nodes.
fn names_nodes(spec: &StreamingPolicySpec) -> bool {
    is_managed(spec) && !spec.overrides.is_empty()
}

/// Whether the gate is wanted off, and was not before, or not by Sluice.
fn newly_off(old: Option<&StreamingPolicySpec>, new: &StreamingPolicySpec) -> bool {
    let off =
        |spec: &StreamingPolicySpec| spec.streaming_proxy_redirects == Some(GateWish::Disabled);
    let before = |old| off(old) && (is_managed(old) || !is_managed(new));
    off(new) && !old.is_some_and(before)
}

/// Whether a stored policy is stopped or turned back. An override that has expired meanwhile must
/// not be in the way of that.
fn steps_back(old: Option<&StreamingPolicySpec>, new: &StreamingPolicySpec) -> bool {
    let on = Some(GateWish::Enabled);
    old.is_some_and(|old| {
        new.paused && !old.paused
            || new.streaming_proxy_redirects == on && old.streaming_proxy_redirects != on
    })
}

/// The overrides that do not count.
fn idle(spec: &StreamingPolicySpec, nodes: &Nodes, overrides: &Overrides<'_>) -> Idle {
    let owned = |name: &str| name.to_owned();
    let expired: Vec<_> = overrides.expired.iter().copied().map(owned).collect();
    let mut nowhere: Vec<_> = match nodes.judged() {
        Ok(nodes) => {
            let named = spec.overrides.iter().map(|entry| &entry.node);
            named.filter(|name| !nodes.contains_key(*name)).cloned().collect()
        }
        Err(_) => Vec::new(),
    };
    nowhere.sort_unstable();
    Idle { expired, nowhere }
}

/// What there is to say where nothing is known of the nodes.
fn unjudged(
    old: Option<&StreamingPolicySpec>,
    new: &StreamingPolicySpec,
    why: &str,
) -> [String; 2] {
    let what = match (newly_off(old, new), names_nodes(new)) {
        (true, true) => "Which nodes stand in the way, and whether each override names one,",
        (true, false) => "Which nodes stand in the way",
        (false, _) => "Whether each override names a node",
    };
    let then = "Nothing is turned off by Sluice while any node could redirect: the condition \
                SafeToDisable says whether one could.";
    [format!("{what} could not be judged: {why}"), then.to_owned()]
}

/// What there is to say of the nodes that stand in the way, as the new policy excepts them.
fn in_the_way(
    spec: &StreamingPolicySpec,
    nodes: &BTreeMap<String, Judged>,
    overrides: &Overrides<'_>,
) -> Vec<String> {
    let blocks = |(name, judged): &(&String, &Judged)| {
        // What a policy of before excepts counts only where this one excepts it, too.
        let Judged { verdict, provider } = judged;
        verdict != Verdict::Safe.as_str()
            && !overrides.hold_name(name)
            && !overrides.hold_provider(provider.as_deref())
    };
    let blocking: Vec<&str> = nodes.iter().filter(blocks).map(|(name, _)| name.as_str()).collect();
    let count = blocking.len();
    if count == 0 {
        return Vec::new();
    }
    let stand = if count == 1 { "stands" } else { "stand" };
    let who = format!("{count} of {} nodes {stand} in the way of Disabled: ", nodes.len());
    let named = names(blocking, SHOWN, LENGTH - who.len() - 1);
    let then = match spec.apply {
        Apply::StaticPod => "Sluice turns nothing off until they are out of the way",
        Apply::Observe => "Nothing may be turned off until they are out of the way",
    };
    let flag = STREAMING_REDIRECTS.flag;
    vec![
        format!("{who}{named}."),
        format!("{then}: exec, attach and port-forward would fail there."),
        format!(
            "Take --{flag} off their kubelets, upgrade these, or except the nodes in \
             spec.overrides; kubectl get streamingnodes -o wide tells why each blocks."
        ),
    ]
}

#[cfg(test)]
mod tests;
