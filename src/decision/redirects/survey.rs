//! All nodes of a cluster in one pass: counts, the worst by name, and the groups that messages
//! speak of. Its size does not depend on the number of nodes.

use std::collections::BTreeSet;

use super::{
    evidence::{Flag, Source},
    node::{NodeFacts, NodeJudgement, NodeReason, Redirects, Verdict},
};
use crate::{
    decision::{
        migration::{FlagBehaviour, Migration},
        names::NameSummary,
    },
    kubernetes::arguments::kubelet::FlagValue,
};

/// So many blocking nodes are listed by name.
pub const BLOCKING_LISTED: usize = 10;

/// How many nodes are what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All nodes.
    pub nodes: usize,
    /// Nodes whose redirects are on, or taken to be.
    pub redirecting: usize,
    /// Nodes two or more minors behind the newest apiserver.
    pub lagging: usize,
    /// Nodes of which it is unknown whether they redirect.
    pub unknown: usize,
    /// Nodes that stand in the way of turning the gate off.
    pub blocking: usize,
    /// Nodes that would, but for an override.
    pub overridden: usize,
}

/// What all nodes come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey<'a> {
    /// How many nodes are what.
    pub counts: Counts,
    by_redirects: [usize; Redirects::ALL.len()],
    /// The worst blocking nodes, worst first, then by name; at most [`BLOCKING_LISTED`].
    pub worst: BTreeSet<(NodeReason, &'a str)>,
    /// Blocking nodes of the floor case.
    pub blocking_lagging: NameSummary<'a>,
    /// Blocking nodes that redirect (also the lagging ones).
    pub blocking_on: NameSummary<'a>,
    /// Blocking nodes whose evidence contradicts itself.
    pub blocking_contradictory: NameSummary<'a>,
    /// Blocking nodes whose kubelet keeps exiting.
    pub blocking_crashing: NameSummary<'a>,
    /// Those of them that show the flag.
    pub crashing_flagged: NameSummary<'a>,
    /// Other blocking nodes that may redirect.
    pub blocking_unknown: NameSummary<'a>,
    /// Those of them whose kubelet has no version that can be read.
    pub blocking_unversioned: NameSummary<'a>,
    /// Those of them about which something was said that cannot be understood.
    pub blocking_unreadable: NameSummary<'a>,
    /// Nodes that an override excepts.
    pub overridden: NameSummary<'a>,
    /// All nodes that redirect, overridden or not: what fails while the gate is off.
    pub on: NameSummary<'a>,
    /// All nodes that may redirect.
    pub unknown: NameSummary<'a>,
    /// Nodes that may redirect and whose runtime a kubelet that proxies would not trust.
    pub distrusted: NameSummary<'a>,
    /// All nodes whose kubelet is newer than an apiserver.
    pub newer: NameSummary<'a>,
    /// Nodes whose kubelet will not start in a version without the flag: its next start has
    /// the flag, with whatever value.
    pub flagged: NameSummary<'a>,
    /// Nodes of which nobody knows that.
    pub flag_unknown: NameSummary<'a>,
}

impl<'a> Survey<'a> {
    /// Adds one judged node. The order of nodes does not matter.
    pub fn add(
        &mut self,
        migration: &Migration,
        name: &'a str,
        facts: &NodeFacts,
        node: &NodeJudgement,
    ) {
        self.counts.nodes += 1;
        if let Some(slot) = Redirects::ALL.iter().position(|r| *r == node.redirects) {
            self.by_redirects[slot] += 1;
        }
        if node.lagging {
            self.counts.lagging += 1;
        }
        if node.skew.is_some_and(|skew| skew.oldest < 0) {
            self.newer.add(name);
        }
        if facts.distrusted && node.redirects.possible() {
            self.distrusted.add(name);
        }
        match node.redirects {
            Redirects::On => {
                self.counts.redirecting += 1;
                self.on.add(name);
            }
            Redirects::Unknown => {
                self.counts.unknown += 1;
                self.unknown.add(name);
            }
            Redirects::Off | Redirects::Ignored | Redirects::Impossible => {}
        }
        match node.verdict {
            Verdict::Safe => {}
            Verdict::Overridden => {
                self.counts.overridden += 1;
                self.overridden.add(name);
            }
            Verdict::Blocks => self.add_blocking(name, node),
        }
        match next_start_has_flag(migration, facts, node) {
            Some(true) => self.flagged.add(name),
            None => self.flag_unknown.add(name),
            Some(false) => {}
        }
    }

    fn add_blocking(&mut self, name: &'a str, node: &NodeJudgement) {
        self.counts.blocking += 1;
        self.worst.insert((node.reason, name));
        if self.worst.len() > BLOCKING_LISTED {
            self.worst.pop_last();
        }
        if node.reason == NodeReason::KubeletCrashLoops {
            self.blocking_crashing.add(name);
            if node.shows_flag() {
                self.crashing_flagged.add(name);
            }
            return;
        }
        if node.redirects == Redirects::Unknown {
            self.blocking_unknown.add(name);
            match node.reason {
                NodeReason::KubeletVersionUnknown => self.blocking_unversioned.add(name),
                NodeReason::EvidenceUnreadable => self.blocking_unreadable.add(name),
                _ => {}
            }
            return;
        }
        self.blocking_on.add(name);
        match node.reason {
            NodeReason::RedirectsWhileLagging => self.blocking_lagging.add(name),
            NodeReason::ContradictoryEvidence => self.blocking_contradictory.add(name),
            _ => {}
        }
    }

    /// The reason of the worst blocking node.
    pub fn worst_reason(&self) -> Option<NodeReason> {
        self.worst.first().map(|(reason, _)| *reason)
    }

    /// How many nodes are in each state of [`Redirects::ALL`].
    pub fn by_redirects(&self) -> impl Iterator<Item = (Redirects, usize)> + '_ {
        Redirects::ALL.into_iter().zip(self.by_redirects)
    }
}

/// Whether a kubelet's next start has the flag on its command line, with whatever value, so that a
/// version without the flag would not come up; `None` where that is unknown.
pub(super) fn next_start_has_flag(
    migration: &Migration,
    facts: &NodeFacts,
    node: &NodeJudgement,
) -> Option<bool> {
    let behaviour = facts.kubelet.and_then(|minor| migration.kubelet_at(minor));
    match (behaviour, node.evidence.flag) {
        (Some(FlagBehaviour::AlwaysLegacy), _) => Some(false),
        (Some(FlagBehaviour::Removed), _) => past_its_end(facts),
        (_, Flag::Absent) => Some(false),
        (_, Flag::On | Flag::Off) => Some(true),
        (_, Flag::Unknown) => None,
    }
}

/// The same for a kubelet that has reported a version without the flag, so it was started without.
/// A person's annotation is from before that start. What the node shows now is what the next start
/// gets, and a command line with the flag is that of a kubelet which starts again and again. An
/// agent's [`FlagValue::Unreadable`] is a kubelet that does not run at the moment, such as in a restart.
fn past_its_end(facts: &NodeFacts) -> Option<bool> {
    let said = |source, says: &[FlagValue]| {
        facts.claims.iter().any(|claim| claim.source == source && says.contains(&claim.says))
    };
    let files = [Source::EnvFiles, Source::NodeArgs];
    if [Source::Agent, Source::EnvFiles, Source::NodeArgs]
        .into_iter()
        .any(|source| said(source, &[FlagValue::On, FlagValue::Off]))
    {
        Some(true)
    } else if files.into_iter().any(|source| said(source, &[FlagValue::Unreadable])) {
        None
    } else {
        Some(false)
    }
}
