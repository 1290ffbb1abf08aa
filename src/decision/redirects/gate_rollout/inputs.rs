//! Everything that a turn of the gate follows from, and what comes of it.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::super::{flags, policy::GateWish};
use crate::{
    decision::{
        apiserver::Apiserver,
        change::{Attempt, Attempts, ChangeRequest, PolicyRef, Target, Trial, Trials, Trouble},
        condition::{ConditionOutcome, ConditionStatus},
        gate::Gate,
        migration::{Migration, Track},
    },
    kubernetes::feature_gates::Setting,
};

/// An apiserver among others.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// What it runs with.
    pub apiserver: &'a Apiserver,
    /// Whether its pod is ready.
    pub ready: bool,
}

/// Whether the gate may be turned as wished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Permission {
    /// It may, and that is stored for a remediator to see.
    Granted,
    /// A node stands in the way. What is under way goes back.
    Refused(String),
    /// It cannot be told now, as while an apiserver restarts. Nothing new is begun.
    Unclear(String),
}

/// Everything that the next step follows from.
#[derive(Clone, Copy, Debug)]
pub struct GateScene<'a> {
    /// The migration.
    pub migration: &'a Migration,
    /// The release plan that the binaries follow.
    pub track: Track,
    /// The policy that turns the gate, and what it wants of it; `None` where none does.
    pub wish: Option<(PolicyRef<'a>, GateWish)>,
    /// Whether that may be done.
    pub permission: &'a Permission,
    /// The apiservers, by name.
    pub members: &'a [Member<'a>],
    /// The changes of all nodes.
    pub attempts: &'a Attempts,
    /// A node of which another change is about to be asked.
    pub asked: Option<&'a str>,
    /// What the canary found.
    pub trials: &'a Trials,
    /// What kubeadm's configuration says of the gate; `None` where there is none to keep.
    pub config: Option<Setting>,
    /// Since when the policy's stored status says that the gate is off.
    pub off_since: Option<Timestamp>,
    /// The clock.
    pub now: Timestamp,
}

/// What is to be done, and said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RolloutPlan {
    /// What is wanted of nodes: a change, or that the one they have is taken away. Of a node that is
    /// not in here nothing else is wanted than before.
    pub changes: BTreeMap<String, Option<ChangeRequest>>,
    /// What has to be tried now.
    pub trial: Option<Trial>,
    /// What kubeadm's configuration has to say of the gate, where it says something else.
    pub config: Option<Setting>,
    /// How it goes on, where this plan has a word in it.
    pub progress: Option<ConditionOutcome>,
    /// What went wrong.
    pub trouble: Option<Trouble>,
    /// What the canary found.
    pub canary: Option<ConditionOutcome>,
    /// When time alone changes the plan.
    pub next: Option<Timestamp>,
}

impl RolloutPlan {
    pub(super) fn says(
        mut self,
        status: ConditionStatus,
        reason: &'static str,
        message: String,
    ) -> Self {
        self.progress = Some(ConditionOutcome::new(status, reason, message));
        self
    }

    pub(super) fn waits(self, reason: &'static str, message: String) -> Self {
        self.says(ConditionStatus::True, reason, message)
    }

    pub(super) fn stops(self, reason: &'static str, message: String) -> Self {
        self.says(ConditionStatus::False, reason, message)
    }

    /// Looks again at this time, if not before.
    pub(in crate::decision) fn looks_at(&mut self, at: Timestamp) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }
}

impl<'a> GateScene<'a> {
    /// The changes of gates, by node.
    pub(super) fn gates(&self) -> impl Iterator<Item = (&'a String, &'a Attempt)> + use<'a> {
        self.attempts.iter().filter(|(_, a)| matches!(a.wanted.target, Target::Gate(_)))
    }

    pub(super) fn member(&self, node: &str) -> Option<&'a Member<'a>> {
        self.members.iter().find(|member| member.apiserver.name == node)
    }

    fn gate(&self, apiserver: &Apiserver) -> Gate {
        apiserver.gate(self.migration, self.track)
    }

    pub(super) fn is_as_wished(&self, apiserver: &Apiserver, wish: GateWish) -> bool {
        self.gate(apiserver).is_off() == Some(wish == GateWish::Disabled)
    }

    pub(super) fn setting(&self, apiserver: &Apiserver, wish: GateWish) -> Option<Setting> {
        flags::setting(self.migration, self.track, apiserver.minor?, wish)
    }

    /// Whether an apiserver can be changed now, whatever becomes of the others.
    pub(super) fn is_open(&self, member: &Member<'_>, wish: GateWish) -> bool {
        let apiserver = member.apiserver;
        let lost = self.attempts.get(&apiserver.name).is_some_and(|a| a.is_lost(self.now));
        member.ready
            && !lost
            && apiserver.unseen.is_none()
            && apiserver.gates.is_some()
            && self.setting(apiserver, wish).is_some()
    }

    pub(super) fn goes(&self, setting: Setting) -> String {
        let gate = self.migration.gate;
        match setting {
            Setting::Off => format!("{gate}=false"),
            Setting::On => format!("{gate}=true"),
            Setting::Default => format!("no word about {gate}"),
        }
    }
}
