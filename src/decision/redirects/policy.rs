//! What a policy asks for, who of several policies is heard, and what is wrong with one.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::node::NodeFacts;
use crate::{decision::migration::Track, kubernetes::version::Minor};

/// What a user wants of the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GateWish {
    /// The gate stays on.
    Enabled,
    /// The gate goes off.
    Disabled,
}

/// A named exception for one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Override {
    /// The node.
    pub node: String,
    /// When the exception ends.
    pub expires: Timestamp,
}

/// A policy, as far as decisions go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PolicyFacts {
    /// What it wants of the gate; `None` where it leaves the gate to others.
    pub gate: Option<GateWish>,
    /// Judge, but change nothing.
    pub paused: bool,
    /// The gate is turned by Sluice itself.
    pub managed: bool,
    /// How long one step of a change may take to prove itself, in seconds.
    pub deadline: u32,
    /// Kubelets lose the redirect flag, so many at once.
    pub remediation: Option<usize>,
    /// The apiserver version to judge an upgrade for.
    pub target: Option<Minor>,
    /// Which release plan the binaries follow.
    pub track: Track,
    /// Its exceptions of nodes.
    pub overrides: Vec<Override>,
    /// Its exceptions of all nodes of a provider.
    pub providers: Vec<String>,
    /// What of it could not be taken as it stands, as sentences.
    pub invalid: Vec<String>,
}

impl PolicyFacts {
    /// Whether Sluice itself changes something for this policy.
    pub fn changes_something(&self) -> bool {
        self.managed || self.remediation.is_some()
    }

    /// The overrides that hold at `now`, and the nodes whose override has expired.
    pub fn overrides_at(&self, now: Timestamp) -> Overrides<'_> {
        let providers = self.providers.iter().map(String::as_str).collect();
        let mut overrides = Overrides { providers, ..Overrides::default() };
        for entry in &self.overrides {
            let slot = overrides.until.entry(entry.node.as_str()).or_insert(entry.expires);
            *slot = (*slot).max(entry.expires);
        }
        overrides.expired = overrides
            .until
            .iter()
            .filter(|(_, until)| **until <= now)
            .map(|(node, _)| *node)
            .collect();
        overrides.until.retain(|_, until| *until > now);
        overrides
    }

    /// The next moment after `now` at which an override ends and the judgement may change.
    pub fn next_expiry(&self, now: Timestamp) -> Option<Timestamp> {
        self.overrides.iter().map(|o| o.expires).filter(|at| *at > now).min()
    }
}

/// Overrides at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides<'a> {
    until: BTreeMap<&'a str, Timestamp>,
    providers: BTreeSet<&'a str>,
    /// Nodes whose only overrides have expired, in order.
    pub expired: Vec<&'a str>,
}

impl Overrides<'_> {
    /// Whether this node is excepted.
    pub fn hold(&self, node: &str, facts: &NodeFacts) -> bool {
        self.hold_name(node) || self.hold_provider(facts.exceptable_provider())
    }

    /// Whether a node of this name is, whatever it is.
    pub fn hold_name(&self, node: &str) -> bool {
        self.until.contains_key(node)
    }

    /// Whether nodes of this provider are, as [`NodeFacts::exceptable_provider`] has it.
    pub fn hold_provider(&self, provider: Option<&str>) -> bool {
        provider.is_some_and(|provider| self.providers.contains(provider))
    }
}

/// A policy among others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimant<'a> {
    /// Its name.
    pub name: &'a str,
    /// When it was created; the older one is heard.
    pub created: Option<Timestamp>,
    /// Whether it speaks about the gate; `None` where it cannot be read.
    pub claims: Option<bool>,
}

/// Who decides about the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner<'a> {
    /// No policy speaks about it.
    Nobody,
    /// This one: the oldest that does.
    Policy(&'a str),
    /// A policy that cannot be read is older than all that can: it may be the owner, so nobody is.
    Unreadable(&'a str),
}

/// Finds the owner of the gate. Equal age is decided by name, as it must be by something.
pub fn owner<'a>(policies: impl IntoIterator<Item = Claimant<'a>>) -> Owner<'a> {
    let oldest = policies
        .into_iter()
        .filter(|policy| policy.claims != Some(false))
        // No creation time means that it is not stored anywhere yet: younger than all that are.
        .min_by_key(|policy| (policy.created.is_none(), policy.created, policy.name));
    match oldest {
        None => Owner::Nobody,
        Some(Claimant { name, claims: Some(_), .. }) => Owner::Policy(name),
        Some(Claimant { name, claims: None, .. }) => Owner::Unreadable(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        decision::redirects::evidence::{Claim, Source},
        kubernetes::arguments::kubelet::FlagValue,
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn claimant(name: &str, created: i64, claims: Option<bool>) -> Claimant<'_> {
        Claimant { name, created: Some(at(created)), claims }
    }

    #[test]
    fn the_oldest_that_speaks_about_the_gate_owns_it() {
        let (yes, no, unreadable) = (Some(true), Some(false), None);
        for (policies, expected) in [
            (vec![], Owner::Nobody),
            (vec![claimant("a", 1, no)], Owner::Nobody),
            (vec![claimant("a", 2, yes), claimant("b", 1, yes)], Owner::Policy("b")),
            (vec![claimant("b", 1, yes), claimant("a", 1, yes)], Owner::Policy("a")),
            (vec![claimant("a", 1, no), claimant("b", 2, yes)], Owner::Policy("b")),
            (vec![claimant("a", 1, unreadable), claimant("b", 2, yes)], Owner::Unreadable("a")),
            (vec![claimant("a", 2, unreadable), claimant("b", 1, yes)], Owner::Policy("b")),
        ] {
            assert_eq!(owner(policies.clone()), expected, "{policies:?}");
        }
    }

    #[test]
    fn overrides_end_at_their_moment() {
        let facts = PolicyFacts {
            overrides: vec![
                Override { node: "n1".into(), expires: at(10) },
                Override { node: "n2".into(), expires: at(20) },
                // A renewal beside the old entry: the later one counts.
                Override { node: "n1".into(), expires: at(15) },
            ],
            ..PolicyFacts::default()
        };
        for (now, held, expired, next) in [
            (9, vec!["n1", "n2"], vec![], Some(10)),
            (14, vec!["n1", "n2"], vec![], Some(15)),
            (15, vec!["n2"], vec!["n1"], Some(20)),
            (20, vec![], vec!["n1", "n2"], None),
        ] {
            let overrides = facts.overrides_at(at(now));
            let seen: Vec<_> =
                ["n1", "n2"].into_iter().filter(|n| overrides.hold_name(n)).collect();
            assert_eq!((seen, overrides.expired), (held, expired), "at {now}");
            assert_eq!(facts.next_expiry(at(now)), next.map(at), "at {now}");
        }
    }

    #[test]
    fn a_provider_is_excepted_where_no_kubelet_is() {
        let policy =
            PolicyFacts { providers: vec!["kwok".into(), "aws".into()], ..PolicyFacts::default() };
        let overrides = policy.overrides_at(at(0));
        let facts = |provider: Option<&str>, kubelet: Option<u16>, says: &[FlagValue]| NodeFacts {
            provider: provider.map(str::to_owned),
            kubelet: kubelet.map(Minor),
            claims: says
                .iter()
                .map(|says| Claim { source: Source::Annotation, says: *says })
                .collect(),
            ..NodeFacts::default()
        };
        for (facts, held) in [
            (facts(Some("kwok"), None, &[]), true),
            (facts(Some("kwok"), None, &[FlagValue::Absent]), true),
            (facts(Some("aws"), None, &[]), true),
            (facts(Some("azure"), None, &[]), false),
            (facts(None, None, &[]), false),
            // A kubelet of Kubernetes, whoever provides its machine.
            (facts(Some("aws"), Some(18), &[]), false),
            (facts(Some("aws"), Some(30), &[]), false),
            (facts(Some("kwok"), None, &[FlagValue::On]), false),
            (NodeFacts { crashes: true, ..facts(Some("aws"), None, &[FlagValue::Absent]) }, false),
            (facts(Some("kwok"), None, &[FlagValue::Absent, FlagValue::Unreadable]), false),
        ] {
            assert_eq!(overrides.hold("n1", &facts), held, "{facts:?}");
        }
    }
}
