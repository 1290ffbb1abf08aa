//! Changes as they are stored, and as nodes are asked for them.

use super::super::{Cluster, Policy, origin::Origin, whole_seconds};
use crate::{
    api::{self, ChangeKind, GateSetting, Permit, StreamingNode, condition},
    decision::{
        change::{Attempt, ChangeRequest, Phase, Target, Tried},
        condition::ConditionStatus,
        redirects::gate_rollout::baseline,
    },
    kubernetes::feature_gates::Setting,
};

impl Cluster {
    /// The trials before anything is changed that policies may still speak of.
    pub fn baselines(&self) -> impl Iterator<Item = String> + '_ {
        self.policies.iter().filter_map(|(name, policy)| Some(baseline(name, policy.generation?)))
    }

    /// What has been proven before anything is changed, as the policies' stored statuses say: another
    /// controller has tried it. How old it is counts from when the condition became true.
    pub fn proven(&self) -> impl Iterator<Item = (String, Tried)> + '_ {
        self.policies.iter().filter_map(|(name, policy)| {
            // What the condition says could be about a kubelet: that is another trial.
            if policy.content.as_ref().ok()?.facts.remediation.is_some() {
                return None;
            }
            let found = passed(policy)?;
            let tried = Tried {
                trouble: None,
                message: found.message.clone(),
                at: found.last_transition_time.0,
            };
            Some((baseline(name, policy.generation?), tried))
        })
    }
}

fn passed(policy: &Policy) -> Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition> {
    let mut conditions = policy.status.iter().flat_map(|status| &status.conditions);
    conditions.find(|found| {
        found.type_ == condition::CANARY_PASSED
            && found.status == ConditionStatus::True.as_str()
            && found.observed_generation == policy.generation
    })
}

/// A node's change, as it is stored, and where the report of it comes from; `None` where there is none.
pub fn read(object: &StreamingNode) -> Option<(Attempt, Origin)> {
    let change = object.spec.change.as_ref()?;
    let report = object.status.as_ref().and_then(|status| status.change.as_ref());
    let report = report.filter(|report| report.id == change.id);
    let target = match (change.kind, change.gate) {
        (ChangeKind::KubeletFlag, _) => Target::KubeletFlag,
        (ChangeKind::ApiserverGate, Some(GateSetting::Disabled)) => Target::Gate(Setting::Off),
        (ChangeKind::ApiserverGate, Some(GateSetting::Enabled)) => Target::Gate(Setting::On),
        (ChangeKind::ApiserverGate, Some(GateSetting::Default) | None) => {
            Target::Gate(Setting::Default)
        }
    };
    let origin = report.map(|report| Origin::of_change(report)).unwrap_or_default();
    let attempt = Attempt {
        wanted: ChangeRequest {
            id: change.id.clone(),
            target,
            policy: change.policy.clone(),
            generation: change.verdict.generation,
            asked: change.verdict.at.0,
            deadline: change.deadline_seconds,
            confirmed: change.confirmed,
        },
        phase: report.map_or(Phase::Asked, |report| Phase::read(&report.phase)),
        reason: report.map(|report| report.reason.clone()).unwrap_or_default(),
        message: report.map(|report| report.message.clone()).unwrap_or_default(),
    };
    Some((attempt, origin))
}

/// A change as a node is asked for it. `resource_version` is that of the policy that permits it.
pub fn wish(wanted: &ChangeRequest, resource_version: &str) -> api::Change {
    let (kind, gate) = match wanted.target {
        Target::KubeletFlag => (ChangeKind::KubeletFlag, None),
        Target::Gate(setting) => (
            ChangeKind::ApiserverGate,
            Some(match setting {
                Setting::Default => GateSetting::Default,
                Setting::Off => GateSetting::Disabled,
                Setting::On => GateSetting::Enabled,
            }),
        ),
    };
    api::Change {
        id: wanted.id.clone(),
        kind,
        gate,
        policy: wanted.policy.clone(),
        verdict: Permit {
            resource_version: resource_version.to_owned(),
            generation: wanted.generation,
            at: whole_seconds(wanted.asked),
        },
        deadline_seconds: wanted.deadline,
        confirmed: wanted.confirmed,
    }
}
