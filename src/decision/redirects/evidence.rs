//! What is known about a kubelet's flag, and how several sources become one answer.

use crate::kubernetes::arguments::kubelet::FlagValue;

/// Environment files of kubelet units, in the order in which they end up on the command line:
/// kubeadm's own, then the administrator's, which wins (kubeadm's drop-in `10-kubeadm.conf`).
pub const ENVIRONMENT_FILES: [&str; 3] =
    ["/var/lib/kubelet/kubeadm-flags.env", "/etc/default/kubelet", "/etc/sysconfig/kubelet"];

/// Where a claim came from. The order is the order of trust, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The node's own agent read the running kubelet's command line.
    Agent,
    /// k3s or RKE2 published their arguments as a Node annotation.
    NodeArgs,
    /// The node's own agent read the files from which the kubelet's next start takes its arguments.
    EnvFiles,
    /// The admin said so in a Node annotation.
    Annotation,
}

impl Source {
    /// The name that conditions and `StreamingNode` use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "Agent",
            Self::NodeArgs => "NodeArgs",
            Self::EnvFiles => "EnvFiles",
            Self::Annotation => "Annotation",
        }
    }

    /// Who says it, to follow a statement after a comma.
    pub(super) fn says(self) -> &'static str {
        match self {
            Self::Agent => "says the agent",
            Self::NodeArgs => "says the node-args annotation",
            Self::EnvFiles => "say the kubelet's environment files",
            Self::Annotation => "says the admin's annotation",
        }
    }
}

/// One source's statement about a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    /// Who says it.
    pub source: Source,
    /// What it says.
    pub says: FlagValue,
}

/// What all sources together come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Evidence {
    /// The flag, as it has to be assumed.
    pub flag: Flag,
    /// The best source that says so; `None` where nobody said anything.
    pub source: Option<Source>,
    /// The best source that says otherwise of a flag that counts as on.
    pub against: Option<Source>,
}

impl Evidence {
    /// Two sources exclude each other. Such a flag counts as on.
    pub fn is_contradictory(&self) -> bool {
        self.against.is_some()
    }
}

/// The state of the flag on a kubelet's command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flag {
    /// On, or contradicted: it must be assumed to be on.
    On,
    /// On the command line as false.
    Off,
    /// Not on the command line.
    Absent,
    /// Nobody knows.
    Unknown,
}

impl Flag {
    /// The name that `StreamingNode` uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::On => "On",
            Self::Off => "Off",
            Self::Absent => "Absent",
            Self::Unknown => "Unknown",
        }
    }
}

/// Makes one answer of all claims. Their order does not matter.
///
/// A contradiction counts as on, whoever is trusted more: one of the two statements is stale, and
/// nobody knows which. A statement that cannot be read takes away what the others say for off,
/// because it may have been meant as the opposite; it cannot take away an on. Off and absent do not
/// exclude each other: the most trusted word counts, unless the next start puts the flag back. A
/// kubelet whose version has no such flag would not come up then, even with `false`.
pub fn weigh(claims: &[Claim]) -> Evidence {
    const BACK: Claim = Claim { source: Source::EnvFiles, says: FlagValue::Off };
    let best =
        |wanted: fn(FlagValue) -> bool| claims.iter().filter(|c| wanted(c.says)).min().copied();
    let on = best(|says| says == FlagValue::On);
    let off = best(|says| matches!(says, FlagValue::Off | FlagValue::Absent));
    let unreadable = best(|says| says == FlagValue::Unreadable);
    let alone = |flag, claim: Option<Claim>| Evidence {
        flag,
        source: claim.map(|claim| claim.source),
        against: None,
    };
    match (on, off, unreadable) {
        (Some(on), off, _) => {
            let against = off.map(|off| off.source);
            Evidence { flag: Flag::On, source: Some(on.source), against }
        }
        (None, _, Some(unreadable)) => alone(Flag::Unknown, Some(unreadable)),
        (None, Some(Claim { says: FlagValue::Off, .. }), None) => alone(Flag::Off, off),
        (None, Some(_), None) if claims.contains(&BACK) => alone(Flag::Off, Some(BACK)),
        (None, Some(_), None) => alone(Flag::Absent, off),
        (None, None, None) => alone(Flag::Unknown, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{prelude::*, sample::select};

    const SOURCES: [Source; 4] =
        [Source::Agent, Source::NodeArgs, Source::EnvFiles, Source::Annotation];
    const SAYS: [FlagValue; 4] =
        [FlagValue::On, FlagValue::Off, FlagValue::Absent, FlagValue::Unreadable];

    fn claims() -> impl Strategy<Value = Vec<Claim>> {
        let claim = (select(&SOURCES[..]), select(&SAYS[..]))
            .prop_map(|(source, says)| Claim { source, says });
        prop::collection::vec(claim, 0..5)
    }

    #[test]
    fn single_claims() {
        assert_eq!(weigh(&[]).flag, Flag::Unknown);
        for source in SOURCES {
            for (says, flag) in [
                (FlagValue::On, Flag::On),
                (FlagValue::Off, Flag::Off),
                (FlagValue::Absent, Flag::Absent),
                (FlagValue::Unreadable, Flag::Unknown),
            ] {
                let expected = Evidence { flag, source: Some(source), against: None };
                assert_eq!(weigh(&[Claim { source, says }]), expected);
            }
        }
    }

    #[test]
    fn a_contradiction_counts_as_on_whoever_says_it() {
        for (a, b) in [
            (Source::Agent, Source::Annotation),
            (Source::Annotation, Source::Agent),
            (Source::Agent, Source::EnvFiles),
            (Source::EnvFiles, Source::Agent),
        ] {
            let both = weigh(&[
                Claim { source: a, says: FlagValue::Off },
                Claim { source: b, says: FlagValue::On },
            ]);
            assert_eq!(both, Evidence { flag: Flag::On, source: Some(b), against: Some(a) });
        }
    }

    #[test]
    fn an_unreadable_statement_takes_an_off_away_but_not_an_on() {
        let unreadable = Claim { source: Source::Annotation, says: FlagValue::Unreadable };
        let absent = Claim { source: Source::NodeArgs, says: FlagValue::Absent };
        let on = Claim { source: Source::NodeArgs, says: FlagValue::On };
        assert_eq!(weigh(&[absent, unreadable]).flag, Flag::Unknown);
        assert_eq!(weigh(&[on, unreadable]).flag, Flag::On);
    }

    #[test]
    fn a_flag_that_the_next_start_puts_back_is_there() {
        let absent = Claim { source: Source::Agent, says: FlagValue::Absent };
        let back = |says| weigh(&[absent, Claim { source: Source::EnvFiles, says }]);
        let by = |flag, source| Evidence { flag, source: Some(source), against: None };
        assert_eq!(back(FlagValue::Off), by(Flag::Off, Source::EnvFiles));
        assert_eq!(back(FlagValue::Absent), by(Flag::Absent, Source::Agent));
        assert_eq!(back(FlagValue::Unreadable).flag, Flag::Unknown);
        assert_eq!(back(FlagValue::On).flag, Flag::On);
    }

    proptest! {
        #[test]
        fn the_order_of_claims_does_not_matter(
            shuffled in claims().prop_flat_map(|c| (Just(c.clone()), Just(c).prop_shuffle()))
        ) {
            prop_assert_eq!(weigh(&shuffled.0).flag, weigh(&shuffled.1).flag);
        }

        #[test]
        fn off_is_said_only_where_somebody_said_so_and_nobody_said_otherwise(claims in claims()) {
            if matches!(weigh(&claims).flag, Flag::Off | Flag::Absent) {
                prop_assert!(!claims.is_empty());
                prop_assert!(claims.iter().all(|c| matches!(c.says, FlagValue::Off | FlagValue::Absent)));
            }
        }
    }
}
