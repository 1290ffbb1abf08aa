//! Which transitions are told as Events, and in which words.

use super::agents;
use crate::{
    api::{StreamingPolicyStatus, condition},
    cluster::{Cluster, DesiredOnNodes, Node, NodeReport, Policy, Running},
    decision::redirects::node::Verdict,
    kubernetes::events::{EventRecord, Regarding, Severity},
};

/// The reasons of Events beside those of conditions and of StreamingNodes. `docs/reasons.md`
/// explains each, and a test holds it against this list.
pub const REASONS: [&str; 8] = [
    "AgentsRemoved",
    "AgentsRolledOut",
    "ChangeApplied",
    "ChangeAsked",
    "ChangeConfirmed",
    "ChangeFailed",
    "ChangeRefused",
    "ChangeRolledBack",
];

/// Conditions whose transitions are told, and the status that is good news.
const TOLD: [(&str, &str); 9] = [
    (condition::SAFE_TO_DISABLE, "True"),
    (condition::REDIRECTS_DISABLED, "True"),
    (condition::UPGRADE_SAFE, "True"),
    (condition::WEBSOCKETS_SAFE, "True"),
    (condition::DEGRADED, "False"),
    (condition::PROXY_READY, "True"),
    (condition::CANARY_PASSED, "True"),
    (condition::NODES_REMEDIATED, "True"),
    (condition::RUNTIME_EXPOSED, "False"),
];

/// The transitions between the status that a policy has and the one it gets. A first status is no
/// transition.
pub(super) fn of_policy(
    name: &str,
    policy: &Policy,
    next: &StreamingPolicyStatus,
) -> Vec<EventRecord> {
    let Some(before) = &policy.status else { return Vec::new() };
    let told = TOLD.iter().filter_map(|(kind, good)| {
        let old = before.conditions.iter().find(|c| c.type_ == *kind)?;
        let new = next.conditions.iter().find(|c| c.type_ == *kind)?;
        (old.status != new.status).then(|| EventRecord {
            regarding: regarding(name, policy),
            severity: if new.status == *good { Severity::Normal } else { Severity::Warning },
            reason: new.reason.clone(),
            message: format!("{kind} is {}: {}", new.status, new.message),
        })
    });
    told.collect()
}

/// Agents that come, or those of `gone` that go: told to each policy that wants them, or wanted.
pub(super) fn of_agents(
    cluster: &Cluster,
    settings: &agents::AgentsSettings,
    gone: Option<&Running>,
) -> Vec<EventRecord> {
    let agents::AgentsSettings { namespace, name, .. } = settings;
    let wants = |policy: &Policy| match (gone, &policy.content) {
        (Some(running), _) => running.owners.contains(&policy.uid),
        (None, Ok(content)) => matches!(content.wish, DesiredOnNodes::Proxy(_)),
        (None, Err(_)) => false,
    };
    let (reason, message) = match gone {
        None => (
            "AgentsRolledOut",
            format!("DaemonSet {namespace}/{name} brings an agent to every selected node."),
        ),
        Some(_) => (
            "AgentsRemoved",
            format!("No policy wants agents any more: DaemonSet {namespace}/{name} is deleted."),
        ),
    };
    debug_assert!(REASONS.contains(&reason), "{reason}");
    let told = cluster.policies().iter().filter(|(_, policy)| wants(policy));
    told.map(|(policy_name, policy)| EventRecord {
        regarding: regarding(policy_name, policy),
        severity: Severity::Normal,
        reason: reason.to_owned(),
        message: message.clone(),
    })
    .collect()
}

/// A stored policy that its own schema refuses, so that no status can be written to it.
pub(super) fn of_unwritable_policy(name: &str, policy: &Policy) -> EventRecord {
    let why = match &policy.content {
        Ok(_) => "its schema refuses the status".to_owned(),
        Err(why) => why.clone(),
    };
    EventRecord {
        regarding: regarding(name, policy),
        severity: Severity::Warning,
        reason: "PolicyUnreadable".to_owned(),
        message: format!(
            "Nothing is permitted by this policy, and its status cannot be written: {why}. Mend \
             or delete it."
        ),
    }
}

fn regarding(name: &str, policy: &Policy) -> Regarding {
    Regarding {
        api_version: "sluice.dev/v1alpha1".to_owned(),
        kind: "StreamingPolicy".to_owned(),
        name: name.to_owned(),
        uid: Some(policy.uid.clone()),
        resource_version: None,
    }
}

/// The transition of a node's verdict. A first verdict is no transition: installing Sluice on a
/// large cluster must not tell thousands of them.
pub(super) fn of_node(
    name: &str,
    node: &Node,
    before: &str,
    report: &NodeReport,
) -> Option<EventRecord> {
    let verdict = report.verdict;
    (!before.is_empty() && before != verdict.as_str()).then(|| EventRecord {
        regarding: Regarding {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: name.to_owned(),
            uid: Some(node.uid.clone()),
            resource_version: None,
        },
        severity: match verdict {
            Verdict::Safe => Severity::Normal,
            Verdict::Blocks | Verdict::Overridden => Severity::Warning,
        },
        reason: report.status.reason.clone(),
        message: report.status.message.clone(),
    })
}
