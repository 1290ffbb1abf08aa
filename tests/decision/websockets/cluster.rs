//! Clusters for the tests of WebSockets: plain data, and how the code under test judges it.

use proptest::{option::weighted, prelude::*, sample::select};
use sluice::{
    decision::{
        apiserver::{Apiserver, Unseen},
        steps::Step,
        websockets::{
            node::{Cell, NodeFacts, StreamingUrl, Teller, cell_at, cell_today},
            safety::{Judgement, judge},
            steps::steps,
            survey::Seen,
        },
    },
    kubernetes::{feature_gates::FeatureGates, version::Minor},
};

/// The gates that are set, by their short names; `None` where nobody sees them.
pub type Gates = Option<Vec<(char, bool)>>;

const NAMES: [(char, &str); 5] = [
    ('T', "TranslateStreamCloseWebsocketRequests"),
    ('P', "PortForwardWebsockets"),
    ('A', "AuthorizePodWebsocketUpgradeCreatePermission"),
    ('E', "ExtendWebSocketsToKubelet"),
    ('D', "NodeDeclaredFeatures"),
];

fn gates(set: &[(char, bool)]) -> FeatureGates {
    let name = |short: char| NAMES.into_iter().find(|(known, _)| *known == short).unwrap().1;
    let pairs: Vec<String> =
        set.iter().map(|(gate, value)| format!("{}={value}", name(*gate))).collect();
    FeatureGates::from_args([format!("--feature-gates={}", pairs.join(",")).as_str()])
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Url {
    Absolute,
    SchemeLess,
    Unknown,
}

#[derive(Clone, Debug)]
pub struct Instance {
    pub minor: u16,
    pub gates: Gates,
}

#[derive(Clone, Debug)]
pub struct Node {
    pub kubelet: u16,
    pub gates: Gates,
    pub declared: Option<Vec<&'static str>>,
    pub runtime: &'static str,
    pub seen: Option<Url>,
}

impl Node {
    pub fn declares(&self) -> bool {
        self.declared.iter().flatten().any(|feature| *feature == "ExtendWebSocketsToKubelet")
    }

    /// What is known of the URL, by the rule and not by the code.
    pub fn url(&self) -> Url {
        match (self.seen, self.runtime) {
            (Some(seen), _) => seen,
            (None, "containerd://2.1.0" | "cri-o://1.35.0") => Url::Absolute,
            (None, _) => Url::Unknown,
        }
    }

    pub fn facts(&self) -> NodeFacts {
        NodeFacts {
            kubelet: Some(Minor(self.kubelet)),
            gates: self.gates.as_deref().map(gates),
            declared: self
                .declared
                .as_ref()
                .map(|all| all.iter().map(|f| (*f).to_owned()).collect()),
            runtime: self.runtime.to_owned(),
            url: self.seen.map(|url| match url {
                Url::Absolute => StreamingUrl::Absolute,
                Url::SchemeLess => StreamingUrl::SchemeLess,
                Url::Unknown => StreamingUrl::Unknown,
            }),
            url_by: self.seen.map(|_| Teller::Agent),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Cluster {
    pub instances: Vec<Instance>,
    pub nodes: Vec<Node>,
    pub target: Option<u16>,
}

impl Cluster {
    pub fn apiservers(&self) -> Vec<Apiserver> {
        let build = |(number, instance): (usize, &Instance)| Apiserver {
            name: format!("cp{}", number + 1),
            minor: Some(Minor(instance.minor)),
            gates: instance.gates.as_deref().map(gates),
            unseen: instance.gates.is_none().then_some(Unseen::NoMirrorPod),
        };
        self.instances.iter().enumerate().map(build).collect()
    }

    fn with<R>(&self, look: impl FnOnce(&[Apiserver], &[Seen<'_>]) -> R) -> R {
        let facts: Vec<(String, NodeFacts)> = self
            .nodes
            .iter()
            .enumerate()
            .map(|(n, node)| (format!("n{}", n + 1), node.facts()))
            .collect();
        let seen: Vec<Seen<'_>> =
            facts.iter().map(|(name, facts)| Seen { name, facts, excepted: false }).collect();
        look(&self.apiservers(), &seen)
    }

    pub fn judged(&self) -> Option<Judgement> {
        self.with(|apiservers, seen| {
            judge(self.target.map(Minor), apiservers, seen.iter().copied())
        })
    }

    pub fn steps(&self, target: u16) -> Vec<Step> {
        self.with(|apiservers, seen| steps(Minor(target), apiservers, seen.iter().copied()))
    }

    /// The cells of a node, today and at a target.
    pub fn cells(&self, node: usize, target: u16) -> (Cell, Cell) {
        let (facts, apiservers) = (self.nodes[node].facts(), self.apiservers());
        (cell_today(&facts, &apiservers), cell_at(&facts, &apiservers, Minor(target)))
    }
}

fn any_gates(seen: f64) -> impl Strategy<Value = Gates> {
    let one = (select(&['T', 'P', 'A', 'E', 'D'][..]), any::<bool>());
    let set = prop_oneof![3 => Just(vec![]), 1 => prop::collection::vec(one, 0..3)];
    weighted(seen, set).prop_map(|gates| {
        gates.map(|mut gates| {
            gates.sort();
            gates.dedup_by_key(|(gate, _)| *gate);
            gates
        })
    })
}

prop_compose! {
    fn any_node()(
        kubelet in prop_oneof![1 => 26_u16..=33, 4 => 33_u16..=38],
        gates in any_gates(0.7),
        declared in prop_oneof![
            2 => Just(None),
            2 => Just(Some(vec!["ExtendWebSocketsToKubelet", "Other"])),
            1 => Just(Some(vec!["Other"])),
        ],
        runtime in select(&["containerd://2.1.0", "cri-o://1.35.0", "docker://28.0.0", ""][..]),
        seen in prop_oneof![
            3 => Just(None),
            1 => Just(Some(Url::Absolute)),
            1 => Just(Some(Url::SchemeLess)),
        ],
    ) -> Node {
        Node { kubelet, gates, declared, runtime, seen }
    }
}

prop_compose! {
    pub fn any_cluster()(
        instances in prop::collection::vec(
            (prop_oneof![1 => 26_u16..=33, 4 => 33_u16..=38], any_gates(0.85))
                .prop_map(|(minor, gates)| Instance { minor, gates }),
            1..4,
        ),
        nodes in prop::collection::vec(any_node(), 0..4),
        target in weighted(0.6, 33_u16..=38),
    ) -> Cluster {
        Cluster { instances, nodes, target }
    }
}
