//! The first migration: kubelets no longer answer a stream with a redirect (KEP-1558).
//!
//! [`evidence`] says what a kubelet's flag is, [`node`] judges one node, [`survey`] sums up all of
//! them, [`safety`] and [`upgrade`] decide, and [`judge`] is all of it in one call. [`flags`] says
//! what has to be set at which version, and [`steps`] what has to be done before an upgrade. What
//! Sluice itself changes, and when, is in [`gate_rollout`] and [`remediation`].

pub mod crash;
pub mod evidence;
pub mod exposed;
pub mod flags;
pub mod gate_rollout;
pub mod node;
pub mod policy;
mod refusal;
pub mod remediation;
pub mod safety;
pub mod scene;
pub mod steps;
pub mod survey;
pub mod trust;
pub mod upgrade;

use jiff::Timestamp;

use super::{
    apiserver::{Apiserver, ControlPlane},
    condition::ConditionOutcome,
    migration::Migration,
};
use node::NodeFacts;
use policy::{Owner, PolicyFacts};
use scene::Scene;
use survey::Survey;
use upgrade::Preview;

/// A policy's judgement: the conditions and numbers of its status.
#[derive(Clone, Debug)]
pub struct Judgement<'a> {
    /// The control plane in one.
    pub plane: ControlPlane,
    /// The nodes in one.
    pub survey: Survey<'a>,
    /// The gate may be turned off.
    pub safe_to_disable: ConditionOutcome,
    /// The gate is off.
    pub redirects_disabled: ConditionOutcome,
    /// The next upgrade, or the one to the policy's target, breaks nothing.
    pub upgrade_safe: ConditionOutcome,
    /// The gate is on its way.
    pub progressing: ConditionOutcome,
    /// Something is wrong.
    pub degraded: ConditionOutcome,
    /// Every apiserver minor ahead.
    pub upgrades: Vec<Preview>,
}

/// Judges a cluster for one policy.
///
/// Every node counts, whatever the policy selects: there is one gate for all of them. Overrides
/// are heard only from the policy that owns the gate.
pub fn judge<'a>(
    migration: &Migration,
    policy: &PolicyFacts,
    name: &str,
    owner: Owner<'_>,
    instances: &[Apiserver],
    nodes: impl IntoIterator<Item = (&'a str, &'a NodeFacts)>,
    now: Timestamp,
) -> Judgement<'a> {
    let plane = ControlPlane::of(instances, migration, policy.track);
    let overrides = policy.overrides_at(now);
    let owns = owner == Owner::Policy(name);
    let mut survey = Survey::default();
    for (node, facts) in nodes {
        let judged = node::judge(migration, facts, &plane, owns && overrides.hold(node, facts));
        survey.add(migration, node, facts, &judged);
    }
    let scene = Scene {
        migration,
        track: policy.track,
        instances,
        plane: &plane,
        survey: &survey,
        managed: owns && policy.managed,
    };
    let safe_to_disable = safety::safe_to_disable(&scene);
    let redirects_disabled = safety::redirects_disabled(&scene);
    let progressing = safety::progressing(&scene, policy, owns, &safe_to_disable);
    let degraded = safety::degraded(&scene, policy, name, owner, &overrides.expired);
    let upgrades = upgrade::previews(&scene, policy.target);
    let upgrade_safe = upgrade::upgrade_safe(&scene, policy.target);
    Judgement {
        safe_to_disable,
        redirects_disabled,
        upgrade_safe,
        progressing,
        degraded,
        upgrades,
        survey,
        plane,
    }
}
