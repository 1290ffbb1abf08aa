//! Clusters for tests: plain data, how the code under test judges it, and random ones.

use jiff::Timestamp;
use proptest::{option::weighted, prelude::*, sample::select};
use sluice::{
    decision::{
        apiserver::{Apiserver, Unseen},
        migration::{STREAMING_REDIRECTS, Track},
        redirects::{
            Judgement,
            evidence::{Claim, Source},
            judge,
            node::NodeFacts,
            policy::{GateWish, Override, Owner, PolicyFacts},
            steps::steps,
        },
        steps::Step,
    },
    kubernetes::{arguments::kubelet::FlagValue, feature_gates::FeatureGates, version::Minor},
};

pub const SOURCES: [Source; 4] =
    [Source::Agent, Source::NodeArgs, Source::EnvFiles, Source::Annotation];
pub const SAYS: [FlagValue; 4] =
    [FlagValue::On, FlagValue::Off, FlagValue::Absent, FlagValue::Unreadable];
pub const TRACKS: [Track; 2] = [Track::Standard, Track::ExtraSafe];

/// What an apiserver's command line shows about the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seen {
    Unset,
    True,
    False,
    Unreadable,
    Invisible,
    /// There is no pod at all, as in a managed control plane.
    Managed,
}

impl Seen {
    pub const ALL: [Self; 6] =
        [Self::Unset, Self::True, Self::False, Self::Unreadable, Self::Invisible, Self::Managed];

    pub fn gates(self) -> Option<FeatureGates> {
        let args: &[&str] = match self {
            Self::Unset => &["--v=2"],
            Self::True => &["--feature-gates=StreamingProxyRedirects=true"],
            Self::False => &["--feature-gates", "Other=true,StreamingProxyRedirects=false"],
            Self::Unreadable => &["--feature-gates=StreamingProxyRedirects=perhaps"],
            Self::Invisible | Self::Managed => return None,
        };
        Some(FeatureGates::from_args(args.iter().copied()))
    }
}

/// What a program counts as that counts as this minor, through one of the spellings that it may have.
fn running(minor: u16, name: &str) -> Option<Minor> {
    Minor::running(&spelled(minor, name)).ok()
}

/// A version that counts as this minor; which one of several, the name decides.
pub fn spelled(minor: u16, name: &str) -> String {
    let kind = name.bytes().map(u16::from).sum::<u16>() + minor;
    match kind % 6 {
        0 => format!("v1.{minor}.15"),
        1 => format!("v1.{minor}.0-acme.1"),
        2 => format!("v1.{minor}.2_acme.1"),
        3 => format!("v1.{minor}.1-rc.0"),
        // What this one lacks of the next minor, nobody knows.
        4 => format!("v1.{}.0-beta.1.204", minor + 1),
        _ => format!("v1.{}.0-rc1", minor + 1),
    }
}

#[derive(Clone, Debug)]
pub struct Node {
    pub name: String,
    pub kubelet: Option<u16>,
    pub claims: Vec<(Source, FlagValue)>,
}

impl Node {
    pub fn new(name: &str, kubelet: u16, claims: &[(Source, FlagValue)]) -> Self {
        Self { name: name.to_owned(), kubelet: Some(kubelet), claims: claims.to_vec() }
    }

    pub fn facts(&self) -> NodeFacts {
        let claims = self.claims.iter().map(|&(source, says)| Claim { source, says }).collect();
        let kubelet = self.kubelet.and_then(|minor| running(minor, &self.name));
        NodeFacts { kubelet, claims, ..NodeFacts::default() }
    }
}

#[derive(Clone, Debug)]
pub struct Instance {
    pub name: String,
    pub minor: Option<u16>,
    pub seen: Seen,
}

impl Instance {
    pub fn new(name: &str, minor: u16, seen: Seen) -> Self {
        Self { name: name.to_owned(), minor: Some(minor), seen }
    }

    pub fn build(&self) -> Apiserver {
        let unseen = match self.seen {
            Seen::Managed => Some(Unseen::NoMirrorPod),
            Seen::Invisible => Some(Unseen::HiddenCommand),
            Seen::Unreadable => Some(Unseen::Gates("perhaps".to_owned())),
            _ if self.minor.is_none() => Some(Unseen::Version("latest".to_owned())),
            _ => None,
        };
        let minor = self.minor.and_then(|minor| running(minor, &self.name));
        Apiserver { name: self.name.clone(), minor, gates: self.seen.gates(), unseen }
    }
}

/// Everything that a judgement is made from. The time is always [`NOW`].
#[derive(Clone, Debug)]
pub struct Cluster {
    pub track: Track,
    pub nodes: Vec<Node>,
    pub instances: Vec<Instance>,
    /// Node names, and how many seconds from now the exception ends.
    pub overrides: Vec<(String, i64)>,
    pub owns: bool,
    pub wish: Option<GateWish>,
    pub paused: bool,
    pub target: Option<u16>,
}

pub const NOW: i64 = 1_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a valid time")
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            track: Track::ExtraSafe,
            nodes: Vec::new(),
            instances: Vec::new(),
            overrides: Vec::new(),
            owns: true,
            wish: Some(GateWish::Disabled),
            paused: false,
            target: None,
        }
    }
}

impl Cluster {
    pub fn of(
        instances: impl IntoIterator<Item = Instance>,
        nodes: impl IntoIterator<Item = Node>,
    ) -> Self {
        Self {
            instances: instances.into_iter().collect(),
            nodes: nodes.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Whether an override excepts the node, by the rule and not by the code: the policy owns the
    /// gate, and the last of the node's overrides has not ended yet.
    pub fn excepted(&self, node: &Node) -> bool {
        self.owns && self.overrides.iter().any(|(name, left)| *name == node.name && *left > 0)
    }

    fn policy(&self) -> PolicyFacts {
        let entry =
            |(node, left): &(String, i64)| Override { node: node.clone(), expires: at(NOW + left) };
        PolicyFacts {
            gate: self.wish,
            paused: self.paused,
            target: self.target.map(Minor),
            track: self.track,
            overrides: self.overrides.iter().map(entry).collect(),
            invalid: Vec::new(),
            ..PolicyFacts::default()
        }
    }

    fn owner(&self) -> Owner<'_> {
        Owner::Policy(if self.owns { "mine" } else { "other" })
    }

    pub fn judged<R>(&self, look: impl FnOnce(&Judgement<'_>) -> R) -> R {
        let (policy, owner) = (self.policy(), self.owner());
        let instances: Vec<Apiserver> = self.instances.iter().map(Instance::build).collect();
        let facts: Vec<(&str, NodeFacts)> =
            self.nodes.iter().map(|node| (node.name.as_str(), node.facts())).collect();
        let nodes = facts.iter().map(|(name, facts)| (*name, facts));
        look(&judge(&STREAMING_REDIRECTS, &policy, "mine", owner, &instances, nodes, at(NOW)))
    }

    /// What has to be done before the upgrade to the target.
    pub fn steps(&self) -> Vec<Step> {
        let (policy, owner) = (self.policy(), self.owner());
        let instances: Vec<Apiserver> = self.instances.iter().map(Instance::build).collect();
        let facts: Vec<(&str, NodeFacts)> =
            self.nodes.iter().map(|node| (node.name.as_str(), node.facts())).collect();
        let nodes = facts.iter().map(|(name, facts)| (*name, facts));
        steps(&STREAMING_REDIRECTS, &policy, "mine", owner, &instances, nodes, at(NOW))
    }

    /// The status and the reason of `SafeToDisable`.
    pub fn safe(&self) -> (&'static str, &'static str) {
        self.judged(|j| (j.safe_to_disable.status.as_str(), j.safe_to_disable.reason))
    }

    pub fn permits(&self) -> bool {
        self.safe().0 == "True"
    }

    pub fn message(&self) -> String {
        self.judged(|j| j.safe_to_disable.message.clone())
    }
}

pub fn any_claims() -> impl Strategy<Value = Vec<(Source, FlagValue)>> {
    // Off more often than not: a cluster in which everything is refused proves little.
    let says =
        prop_oneof![4 => select(&[FlagValue::Off, FlagValue::Absent][..]), 1 => select(&SAYS[..])];
    prop::collection::vec((select(&SOURCES[..]), says), 0..5)
}

fn any_kubelet() -> impl Strategy<Value = Option<u16>> {
    weighted(0.95, prop_oneof![1 => 8_u16..=12, 3 => 11_u16..=19, 6 => 19_u16..=37])
}

pub fn any_node(name: impl Strategy<Value = String>) -> impl Strategy<Value = Node> {
    (name, any_kubelet(), any_claims()).prop_map(|(name, kubelet, claims)| Node {
        name,
        kubelet,
        claims,
    })
}

pub fn any_instance(name: String) -> impl Strategy<Value = Instance> {
    let minor = weighted(0.95, prop_oneof![4 => Just(20_u16), 2 => 20_u16..=25, 1 => 6_u16..=37]);
    let seen = prop_oneof![4 => Just(Seen::Unset), 1 => select(&Seen::ALL[..])];
    (minor, seen).prop_map(move |(minor, seen)| Instance { name: name.clone(), minor, seen })
}

prop_compose! {
    /// Any cluster. Nodes and instances have distinct names; overrides name nodes that exist and
    /// nodes that do not, and end before, at and after the moment of the judgement.
    pub fn any_cluster()(
        track in select(&TRACKS[..]),
        nodes in (0..7_usize).prop_flat_map(|n| {
            (0..n).map(|i| any_node(Just(format!("node-{i}")))).collect::<Vec<_>>()
        }),
        instances in (0..5_usize).prop_flat_map(|n| {
            (0..n).map(|i| any_instance(format!("cp-{i}"))).collect::<Vec<_>>()
        }),
        overrides in prop::collection::vec(((0..9_u8).prop_map(|i| format!("node-{i}")), -1..=1_i64), 0..7),
        owns in prop::bool::weighted(0.8),
        wish in select(&[None, Some(GateWish::Enabled), Some(GateWish::Disabled)][..]),
        paused in prop::bool::weighted(0.2),
        target in weighted(0.3, 15_u16..=30),
    ) -> Cluster {
        Cluster { track, nodes, instances, overrides, owns, wish, paused, target }
    }
}
