//! A cluster at one moment: every policy judged at most once, whatever is made from that.

use std::cell::OnceCell;

use jiff::Timestamp;

use super::super::Cluster;
use crate::decision::{
    condition::ConditionStatus,
    redirects::{
        Judgement,
        node::Redirects,
        policy::{Owner, PolicyFacts},
    },
};

/// The cluster in a few numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// How many nodes are in each state.
    pub redirects: Vec<(Redirects, usize)>,
    /// How many nodes stand in the way of turning the gate off.
    pub blocking: usize,
    /// How many nodes' streams fail now.
    pub failing: usize,
    /// Whether it may be turned off.
    pub safe: bool,
    /// Why.
    pub reason: &'static str,
}

/// What is known of a cluster, judged at one moment. A judgement looks at every node; the one for the
/// policy that owns the gate is behind its status, the flags that are published and the metrics, and
/// is made once for all of them.
#[derive(Debug)]
pub struct Moment<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) now: Timestamp,
    owner: OnceCell<Judgement<'a>>,
}

impl Cluster {
    /// The cluster as it is judged at this time.
    pub fn at(&self, now: Timestamp) -> Moment<'_> {
        Moment { cluster: self, now, owner: OnceCell::new() }
    }
}

impl<'a> Moment<'a> {
    /// As the policy that owns the gate sees it, or as one without wishes would.
    pub(super) fn owner(&self) -> &Judgement<'a> {
        self.owner.get_or_init(|| {
            let default = PolicyFacts::default();
            let name = match self.cluster.owner() {
                Owner::Policy(name) => name,
                Owner::Nobody | Owner::Unreadable(_) => "",
            };
            self.cluster.judge(name, self.cluster.owner_facts().unwrap_or(&default), self.now)
        })
    }

    /// As a policy sees it.
    pub(super) fn judgement(&self, name: &str, facts: &PolicyFacts) -> Judgement<'a> {
        match self.cluster.owner() {
            Owner::Policy(owner) if owner == name => self.owner().clone(),
            _ => self.cluster.judge(name, facts, self.now),
        }
    }

    /// The cluster in a few numbers, as the policy that owns the gate sees it, or as one without
    /// wishes would.
    pub fn summary(&self) -> Summary {
        let judgement = self.owner();
        let safe = &judgement.safe_to_disable;
        let lost = self.cluster.lost.is_some();
        Summary {
            redirects: judgement.survey.by_redirects().collect(),
            blocking: judgement.survey.counts.blocking,
            failing: self.cluster.failing_nodes(),
            safe: safe.status == ConditionStatus::True && !lost,
            reason: if lost { "WatchLost" } else { safe.reason },
        }
    }
}
