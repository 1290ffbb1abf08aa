//! What the controller changes beside its own objects, and what it tells of changes.

use super::event_records::REASONS;
use crate::{
    cluster::{Cluster, Node},
    decision::change::{Attempt, Phase},
    kubernetes::events::{EventRecord, Regarding, Severity},
};

/// What may be changed, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangesSettings {
    /// Where the flags that ought to be set are published, if they are.
    pub flags: Option<Published>,
    /// kubeadm's configuration follows the gate.
    pub kubeadm: bool,
}

/// A ConfigMap of ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Published {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// kubeadm's ConfigMap, in kube-system (`cmd/kubeadm/app/constants`).
pub const KUBEADM_CONFIG: &str = "kubeadm-config";
/// Its key with what the apiservers are started with.
pub const CLUSTER_CONFIGURATION: &str = "ClusterConfiguration";

/// What a step of a change is told as, to the policy and to the Node.
pub(super) fn of_step(
    cluster: &Cluster,
    node: &str,
    before: Option<&Attempt>,
    after: &Attempt,
) -> Vec<EventRecord> {
    let same =
        |before: &Attempt| before.wanted.id == after.wanted.id && before.phase == after.phase;
    let (reason, severity) = match after.phase {
        _ if before.is_some_and(same) => return Vec::new(),
        Phase::Asked => ("ChangeAsked", Severity::Normal),
        Phase::Preparing => return Vec::new(),
        Phase::Applied => ("ChangeApplied", Severity::Normal),
        Phase::Confirmed => ("ChangeConfirmed", Severity::Normal),
        Phase::RolledBack => ("ChangeRolledBack", Severity::Warning),
        Phase::Refused => ("ChangeRefused", Severity::Warning),
        Phase::Failed => ("ChangeFailed", Severity::Warning),
    };
    debug_assert!(REASONS.contains(&reason), "{reason}");
    let what = after.wanted.target.as_str();
    let message = match after.message.as_str() {
        "" => format!("{node}: {what} is asked for."),
        said => format!("{node}: {what}: {said}"),
    };
    let policy = cluster.policies().get(&after.wanted.policy);
    let policy = policy.map(|policy| Regarding {
        api_version: "sluice.dev/v1alpha1".to_owned(),
        kind: "StreamingPolicy".to_owned(),
        name: after.wanted.policy.clone(),
        uid: Some(policy.uid.clone()),
        resource_version: None,
    });
    let of_node = |known: &Node| Regarding {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.to_owned(),
        uid: Some(known.uid.clone()),
        resource_version: None,
    };
    let node = cluster.nodes().get(node).map(of_node);
    let told = policy.into_iter().chain(node).map(|regarding| EventRecord {
        regarding,
        severity,
        reason: reason.to_owned(),
        message: message.clone(),
    });
    told.collect()
}
