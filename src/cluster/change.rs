//! What is to be changed, from what is known of the cluster.

mod stored;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{ApiserverPod, Cluster, Content, Front, Node, Policy, whole_seconds};
use crate::{
    api::condition,
    decision::{
        apiserver::{Apiserver, ControlPlane},
        change::{Attempt, ChangeRequest, PolicyRef, Trial, Trials, Trouble},
        condition::{ConditionOutcome, ConditionStatus},
        migration::{FlagBehaviour, STREAMING_REDIRECTS},
        names::NameSummary,
        redirects::{
            evidence::Source,
            gate_rollout::{self, GateScene, Member, Permission, RolloutPlan},
            node::{self, Redirects},
            policy::{GateWish, Owner, PolicyFacts},
            remediation::{self, Candidate, FlagScene, Surroundings},
        },
    },
    kubernetes::{arguments::kubelet::FlagValue, feature_gates::Setting},
};

pub use stored::{read, wish};

/// What is to be done, and said, in the whole cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plans {
    /// What is wanted of nodes; of a node that is not in here nothing else than before.
    pub changes: BTreeMap<String, Option<ChangeRequest>>,
    /// What has to be tried now, and the policy that bounds it.
    pub trial: Option<(Trial, String)>,
    /// What kubeadm's configuration has to say of the gate.
    pub config: Option<Setting>,
    /// What is told to policies.
    pub told: BTreeMap<String, Told>,
    /// When time alone changes all that.
    pub next: Option<Timestamp>,
}

/// What a policy is told of the changes that it wants.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    /// `Progressing`.
    pub progressing: Option<ConditionOutcome>,
    /// `NodesRemediated`.
    pub remediated: Option<ConditionOutcome>,
    /// `CanaryPassed`.
    pub canary: Option<ConditionOutcome>,
    /// What is wrong.
    pub troubles: Vec<Trouble>,
}

impl Plans {
    fn take(&mut self, plan: RolloutPlan, policy: &str) {
        self.changes.extend(plan.changes);
        if self.trial.is_none() {
            self.trial = plan.trial.map(|trial| (trial, policy.to_owned()));
        }
        self.config = self.config.or(plan.config);
        self.next = [self.next, plan.next].into_iter().flatten().min();
        let told = self.told.entry(policy.to_owned()).or_default();
        told.troubles.extend(plan.trouble);
        told.canary = told.canary.take().or(plan.canary);
    }
}

impl Cluster {
    /// What is to be changed now. `config` is what kubeadm's configuration says of the gate.
    pub fn plans(&self, trials: &Trials, config: Option<Setting>, now: Timestamp) -> Plans {
        let mut plans = Plans::default();
        // What cannot be seen must not be taken for gone: changes under way go back by themselves
        // if this lasts.
        if self.lost.is_some() {
            return plans;
        }
        // As it is stored, so that what is read back compares equal.
        let now = whole_seconds(now).0;
        let names: Vec<&str> = self.instances.iter().map(|i| i.name.as_str()).collect();
        let is_down = |name: &&str| {
            let mut pods = self.pods.values().filter(|pod| pod.node() == *name);
            pods.any(|pod| !pod.is_ready())
        };
        let down: Vec<&str> = names.iter().copied().filter(is_down).collect();
        let unready = self.nodes.iter().filter(|(_, node)| !node.ready);
        let unready: Vec<&str> = unready.map(|(name, _)| name.as_str()).collect();
        let around = Surroundings { down: &down, unready: &unready, nodes: self.nodes.len() };
        let mut remediating = false;
        for (name, content) in self.remediating() {
            let Some(at_once) = content.facts.remediation else { continue };
            let Some(policy_ref) = self.policy_ref(name) else { continue };
            remediating = true;
            let nodes = self.candidates(name);
            let mut plan = remediation::plan(&FlagScene {
                policy_ref: Some(policy_ref),
                at_once,
                nodes: &nodes,
                apiservers: &names,
                around,
                attempts: &self.attempts,
                trials,
                now,
            });
            // What another policy has asked for is its own.
            let others = |node: &String| {
                let attempt = self.attempts.get(node);
                let policy = attempt.map(|attempt| attempt.wanted.policy.as_str());
                policy.is_some_and(|policy| policy != name && self.remediates(policy))
            };
            plan.changes.retain(|node, wanted| wanted.is_some() || !others(node));
            let mut remediated = plan.progress.take();
            if let Some(owned) = self.remediated_by_others(name) {
                let outcome = remediated.take_if(|outcome| outcome.reason != "NoFlags");
                remediated = Some(outcome.unwrap_or(owned));
            }
            plans.take(plan, name);
            plans.told.entry(name.to_owned()).or_default().remediated = remediated;
        }
        if !remediating && !self.policies.values().any(|policy| policy.content.is_err()) {
            let plan = remediation::plan(&FlagScene {
                policy_ref: None,
                at_once: 0,
                nodes: &BTreeMap::new(),
                apiservers: &names,
                around,
                attempts: &self.attempts,
                trials,
                now,
            });
            plans.changes.extend(plan.changes);
        }
        let asked = plans.changes.iter().find(|(node, wanted)| {
            let under_way = self.attempts.get(*node).is_some_and(Attempt::is_under_way);
            wanted.is_some() && !under_way
        });
        let asked = asked.map(|(node, _)| node.clone());
        if let Owner::Unreadable(_) = self.owner() {
            return plans;
        }
        self.gate_plan(&mut plans, asked.as_deref(), trials, config, now);
        plans
    }

    fn gate_plan(
        &self,
        plans: &mut Plans,
        asked: Option<&str>,
        trials: &Trials,
        config: Option<Setting>,
        now: Timestamp,
    ) {
        let managing = match self.owner() {
            Owner::Policy(name) => self.readable(name).map(|content| (name, &content.facts)),
            Owner::Nobody | Owner::Unreadable(_) => None,
        };
        let managing = managing.filter(|(_, facts)| facts.managed);
        let wish = managing.and_then(|(name, facts)| Some((self.policy_ref(name)?, facts.gate?)));
        let permission = match managing {
            Some((name, facts)) => self.permission(name, facts, now),
            None => Permission::Unclear("No policy turns the gate.".to_owned()),
        };
        let pods: Vec<&ApiserverPod> = self.pods.values().collect();
        let members: Vec<Member<'_>> = self
            .instances
            .iter()
            .map(|apiserver| {
                let pod = pods.iter().find(|pod| pod.node() == apiserver.name);
                Member { apiserver, ready: pod.is_some_and(|pod| pod.is_ready()) }
            })
            .collect();
        let mut plan = gate_rollout::plan(&GateScene {
            migration: &STREAMING_REDIRECTS,
            track: managing.map(|(_, facts)| facts.track).unwrap_or_default(),
            wish,
            permission: &permission,
            members: &members,
            attempts: &self.attempts,
            asked,
            trials,
            config,
            off_since: managing.and_then(|(name, _)| off_since(self.policies.get(name)?)),
            now,
        });
        let Some((name, _)) = managing else {
            plans.changes.extend(plan.changes);
            return;
        };
        let progressing = plan.progress.take();
        plans.take(plan, name);
        plans.told.entry(name.to_owned()).or_default().progressing = progressing;
    }

    fn readable(&self, name: &str) -> Option<&Content> {
        self.policies.get(name)?.content.as_ref().ok()
    }

    fn remediates(&self, name: &str) -> bool {
        self.readable(name).is_some_and(|content| content.facts.remediation.is_some())
    }

    fn policy_ref<'a>(&'a self, name: &'a str) -> Option<PolicyRef<'a>> {
        let policy = self.policies.get(name)?;
        let facts = &policy.content.as_ref().ok()?.facts;
        let (deadline, paused) = (facts.deadline, facts.paused);
        Some(PolicyRef { name, generation: policy.generation?, deadline, paused })
    }

    /// Whether the gate may be turned as the policy wants it. A remediator looks at what is stored,
    /// so nothing is begun before that says the same.
    fn permission(&self, name: &str, facts: &PolicyFacts, now: Timestamp) -> Permission {
        let judgement = self.judge(name, facts, now);
        if facts.gate == Some(GateWish::Enabled) {
            // One that is not seen does not bar the way back of the others.
            let is_seen = |i: &Apiserver| i.minor.is_some() && i.gates.is_some();
            return match self.instances.iter().any(is_seen) {
                false => Permission::Unclear(judgement.redirects_disabled.message),
                true => Permission::Granted,
            };
        }
        let safe = judgement.safe_to_disable;
        if judgement.survey.counts.blocking > 0 {
            return Permission::Refused(safe.message);
        }
        let stored = self.policies.get(name).is_some_and(says_safe);
        match safe.status {
            // Nothing depends on it, and it is not turned blindly all the same.
            ConditionStatus::True if judgement.plane.is_unknown() => {
                Permission::Unclear(judgement.redirects_disabled.message)
            }
            ConditionStatus::True if stored => Permission::Granted,
            ConditionStatus::True => {
                Permission::Unclear("The verdict is being written.".to_owned())
            }
            ConditionStatus::False | ConditionStatus::Unknown => Permission::Unclear(safe.message),
        }
    }

    /// What is said where nodes that the policy selects are the concern of older policies.
    fn remediated_by_others(&self, policy: &str) -> Option<ConditionOutcome> {
        let mut older = self.remediating();
        let at = older.iter().position(|(name, _)| *name == policy)?;
        let (_, mine) = older[at];
        older.truncate(at);
        let selected = self.nodes.iter().filter(|(_, node)| mine.selects(&node.labels));
        let (mut nodes, mut owners) = (NameSummary::default(), BTreeSet::new());
        for (name, node) in selected {
            let owner = older.iter().find(|(_, content)| content.selects(&node.labels));
            if let Some((owner, _)) = owner {
                nodes.add(name);
                owners.insert(*owner);
            }
        }
        let owners: NameSummary<'_> = owners.into_iter().collect();
        (!nodes.is_empty()).then(|| ConditionOutcome {
            status: ConditionStatus::False,
            reason: "OlderPolicyFollowed",
            message: format!(
                "StreamingPolicy {owners} {} older and takes the flag off {nodes}: see there.",
                if owners.count() == 1 { "is" } else { "are" }
            ),
        })
    }

    /// The nodes whose flag is this policy's concern.
    fn candidates(&self, policy: &str) -> BTreeMap<&str, Candidate> {
        let remediating = self.remediating();
        let plane = ControlPlane::of(&self.instances, &STREAMING_REDIRECTS, Default::default());
        let follows = |labels| {
            let followed = remediating.iter().find(|(_, content)| content.selects(labels));
            followed.is_some_and(|(name, _)| *name == policy)
        };
        let nodes = self.nodes.iter().filter(|(_, node)| follows(&node.labels));
        nodes
            .map(|(name, node)| {
                let behaviour =
                    node.facts.kubelet.and_then(|minor| STREAMING_REDIRECTS.kubelet_at(minor));
                let takes =
                    matches!(behaviour, Some(FlagBehaviour::Obeyed | FlagBehaviour::Ignored));
                // Where the flag is gone, what names it keeps the next start from coming up.
                let matters = takes || behaviour == Some(FlagBehaviour::Removed);
                let named = node.facts.claims.iter().any(|claim| {
                    matches!(claim.source, Source::Agent | Source::EnvFiles)
                        && matches!(claim.says, FlagValue::On | FlagValue::Off)
                });
                let told = node.facts.claims.iter().any(|claim| claim.source == Source::Agent);
                let judged = node::judge(&STREAMING_REDIRECTS, &node.facts, &plane, false);
                let blocks = judged.redirects.possible();
                let (unknown, flagged) = (takes && !told, matters && named);
                let (ready, distrusted) = (node.ready, node.facts.distrusted && blocks);
                (name.as_str(), Candidate { unknown, flagged, blocks, distrusted, ready })
            })
            .collect()
    }

    /// The nodes that a trial may go to: those that have to be tried first, and the others. An
    /// override accepts that exec fails, so its node is not tried.
    pub fn trial_nodes(&self, policy: &str, now: Timestamp) -> (Vec<&str>, Vec<&str>, usize) {
        let content = self.readable(policy);
        let overrides = content.map(|content| content.facts.overrides_at(now)).unwrap_or_default();
        let (mut first, mut others) = (Vec::new(), Vec::new());
        for (name, node) in
            self.nodes.iter().filter(|(name, node)| !overrides.hold(name, &node.facts))
        {
            let minor = node.facts.kubelet;
            let never = matches!(
                minor.and_then(|minor| STREAMING_REDIRECTS.kubelet_at(minor)),
                Some(FlagBehaviour::Ignored | FlagBehaviour::Removed)
            );
            if never { &mut others } else { &mut first }.push(name.as_str());
        }
        (first, others, content.map_or(usize::MAX, |content| content.canary))
    }

    /// Where a policy says that users reach the apiservers.
    pub fn front(&self, policy: &str) -> &Front {
        self.readable(policy).map_or(&Front::Nothing, |content| &content.front)
    }

    /// How many nodes' streams fail now: they redirect, and some apiserver has the gate off.
    pub(super) fn failing_nodes(&self) -> usize {
        let plane = ControlPlane::of(
            &self.instances,
            &STREAMING_REDIRECTS,
            self.owner_facts().map(|facts| facts.track).unwrap_or_default(),
        );
        if !plane.off_somewhere {
            return 0;
        }
        let redirects = |node: &&Node| {
            let judged = node::judge(&STREAMING_REDIRECTS, &node.facts, &plane, false);
            judged.redirects == Redirects::On
        };
        self.nodes.values().filter(redirects).count()
    }
}

/// Whether the policy's stored status permits it, for the spec as it is.
fn says_safe(policy: &Policy) -> bool {
    let stored = holds(policy, condition::SAFE_TO_DISABLE);
    stored.is_some_and(|c| c.observed_generation == policy.generation)
}

/// Since when the policy's stored status says that the gate is off.
fn off_since(policy: &Policy) -> Option<Timestamp> {
    holds(policy, condition::REDIRECTS_DISABLED).map(|c| c.last_transition_time.0)
}

/// A condition of the policy's stored status, if it is true.
fn holds<'a>(policy: &'a Policy, kind: &str) -> Option<&'a Condition> {
    let mut conditions = policy.status.iter().flat_map(|status| &status.conditions);
    conditions.find(|c| c.type_ == kind && c.status == ConditionStatus::True.as_str())
}
