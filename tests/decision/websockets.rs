//! The second migration: WebSockets, against an oracle over random clusters, and what is said of them.

mod cluster;
mod oracle;

use proptest::prelude::*;
use sluice::decision::{
    steps::{Action, Step},
    websockets::{
        gates::{StreamGate, refused},
        node::Cell,
        safety::WebSocketReason,
    },
};

use self::{
    cluster::{Cluster, Gates, Instance, Node, Url, any_cluster},
    oracle::Exec,
};

fn instance(minor: u16, gates: &[(char, bool)]) -> Instance {
    Instance { minor, gates: Some(gates.to_vec()) }
}

fn node(kubelet: u16, gates: Gates, runtime: &'static str, seen: Option<Url>) -> Node {
    let on = gates.iter().flatten().all(|gate| *gate != ('E', false));
    let declared = (kubelet >= 36 && on).then(|| vec!["ExtendWebSocketsToKubelet"]);
    Node { kubelet, gates, declared, runtime, seen }
}

const CONTAINERD: &str = "containerd://2.1.0";
const DOCKER: &str = "docker://28.0.0";

fn of(instances: &[Instance], nodes: &[Node], target: Option<u16>) -> Cluster {
    Cluster { instances: instances.to_vec(), nodes: nodes.to_vec(), target }
}

fn said(cluster: &Cluster) -> Option<(&'static str, &'static str)> {
    cluster.judged().map(|judged| (judged.outcome.status.as_str(), judged.outcome.reason))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2048) })]

    #[test]
    fn the_verdict_is_the_oracles(cluster in any_cluster()) {
        let status = said(&cluster).map(|(status, _)| status);
        prop_assert_eq!(status, oracle::status(&cluster), "{:?}", cluster.judged());
    }

    #[test]
    fn cells_are_the_oracles(cluster in any_cluster(), target in 33..=38_u16) {
        for (index, node) in cluster.nodes.iter().enumerate() {
            let (today, then) = cluster.cells(index, target);
            let exec = |cell: Cell| match cell {
                Cell::Spdy | Cell::Translated | Cell::Through => Exec::Works,
                Cell::Unknown => Exec::MayFail,
                Cell::Broken => Exec::Fails,
            };
            prop_assert_eq!(exec(today), oracle::today(&cluster, node), "today: {:?}", node);
            prop_assert_eq!(exec(then), oracle::then(&cluster, node, target), "then: {:?}", node);
        }
    }

    /// A step is needed where something is not safe, and nowhere else.
    #[test]
    fn steps_are_what_the_upgrade_wants(cluster in any_cluster(), target in 33..=38_u16) {
        let cluster = Cluster { target: Some(target), ..cluster };
        let newest = cluster.instances.iter().map(|i| i.minor).max().unwrap();
        let steps = cluster.steps(target);
        let status = oracle::status(&cluster);
        if newest > target || status.is_none() {
            prop_assert!(steps.is_empty());
            return Ok(());
        }
        let needed = steps.iter().any(|step| step.needed);
        prop_assert_eq!(needed, status != Some("True"), "{:?}", steps);
        for step in &steps {
            prop_assert!(!step.message.is_empty() && step.action != Action::Upgrade);
            prop_assert!(!step.nodes.is_empty() && step.nodes.is_sorted(), "{:?}", step);
            // What is set is taken by the version for which it is set.
            if step.action == Action::SetKubeletGate {
                prop_assert!(target < 38);
            }
        }
    }

    /// Once its gates are what the steps leave, every apiserver starts on the whole way.
    #[test]
    fn no_gate_that_stops_an_apiserver_is_left(cluster in any_cluster(), target in 35..=38_u16) {
        let cluster = Cluster { target: Some(target), ..cluster };
        for step in cluster.steps(target).iter().filter(|step| step.action == Action::RemoveGate) {
            for left in step.changes.iter().filter_map(|change| change.becomes.as_deref()) {
                let gates = sluice::kubernetes::feature_gates::FeatureGates::from_args([left]);
                for apiserver in cluster.apiservers().iter().filter(|a| step.nodes.contains(&a.name)) {
                    let minor = apiserver.minor.unwrap();
                    for at in minor.0..=target {
                        prop_assert!(refused(sluice::kubernetes::version::Minor(at), &gates).is_empty());
                    }
                }
            }
        }
    }
}

/// A cluster in which nothing is wrong hears nothing but one True, from 1.34 on, and nothing before.
#[test]
fn no_noise_where_nothing_is_wrong() {
    for minor in 18..=38 {
        for lag in 0..=2 {
            let kubelet = minor - lag;
            let node = node(kubelet, Some(vec![]), CONTAINERD, None);
            let cluster = of(&[instance(minor, &[]), instance(minor, &[])], &[node], None);
            let expected = (minor >= 34).then_some(("True", "NothingBreaks"));
            assert_eq!(said(&cluster), expected, "1.{minor} and 1.{kubelet}");
            for target in minor..=38 {
                let steps = cluster.steps(target);
                assert_eq!(steps, Vec::<Step>::new(), "1.{minor} and 1.{kubelet} to 1.{target}");
            }
        }
    }
}

#[test]
fn what_is_found() {
    let off = Some(vec![('E', false)]);
    let none = Some(vec![]);
    for (instances, nodes, target, expected) in [
        // The upgrade to 1.36 breaks exec on a node of cri-dockerd.
        (
            &[instance(35, &[])][..],
            vec![node(35, none.clone(), DOCKER, Some(Url::SchemeLess))],
            None,
            ("False", "RuntimeUrlSchemeless"),
        ),
        (
            &[instance(34, &[])],
            vec![node(34, none.clone(), DOCKER, Some(Url::SchemeLess))],
            None,
            ("True", "NothingBreaks"),
        ),
        (
            &[instance(34, &[])],
            vec![node(34, none.clone(), DOCKER, Some(Url::SchemeLess))],
            Some(36),
            ("False", "RuntimeUrlSchemeless"),
        ),
        (
            &[instance(34, &[])],
            vec![node(34, none.clone(), DOCKER, None)],
            Some(36),
            ("Unknown", "RuntimeUrlUnknown"),
        ),
        (
            &[instance(34, &[])],
            vec![node(34, none.clone(), DOCKER, Some(Url::Absolute))],
            Some(36),
            ("True", "NothingBreaks"),
        ),
        // It has: the remedy works, and ends in 1.38.
        (
            &[instance(36, &[])],
            vec![node(36, none.clone(), DOCKER, Some(Url::SchemeLess))],
            None,
            ("False", "WebSocketsFail"),
        ),
        (
            &[instance(36, &[])],
            vec![node(36, off.clone(), DOCKER, Some(Url::SchemeLess))],
            Some(37),
            ("True", "GateBarsWayBack"),
        ),
        (
            &[instance(37, &[])],
            vec![node(37, off.clone(), DOCKER, Some(Url::SchemeLess))],
            Some(37),
            ("True", "NothingBreaks"),
        ),
        (
            &[instance(37, &[])],
            vec![node(37, off.clone(), DOCKER, Some(Url::SchemeLess))],
            None,
            ("False", "KubeletRefusesGate"),
        ),
        (
            &[instance(36, &[('E', false)])],
            vec![node(36, none.clone(), DOCKER, None)],
            Some(37),
            ("True", "GateBarsWayBack"),
        ),
        // Set too early, or on the way back.
        (
            &[instance(35, &[])],
            vec![node(35, off, CONTAINERD, None)],
            Some(36),
            ("False", "KubeletRefusesGate"),
        ),
        (&[instance(36, &[('D', false)])], vec![], Some(37), ("False", "ApiserverRefusesGate")),
        (&[instance(37, &[('A', false)])], vec![], None, ("False", "ApiserverRefusesGate")),
        (&[instance(37, &[('A', false)])], vec![], Some(37), ("True", "NothingBreaks")),
        // Nobody sees the gates.
        (&[Instance { minor: 35, gates: None }], vec![], Some(36), ("Unknown", "ApiserverUnknown")),
        (&[Instance { minor: 34, gates: None }], vec![], Some(35), ("True", "NothingBreaks")),
        (
            &[instance(34, &[])],
            vec![node(34, None, CONTAINERD, None)],
            Some(35),
            ("True", "NothingBreaks"),
        ),
        (
            &[instance(35, &[])],
            vec![node(35, None, CONTAINERD, None)],
            Some(36),
            ("Unknown", "KubeletGatesUnknown"),
        ),
        (
            &[instance(36, &[])],
            vec![node(36, None, CONTAINERD, None)],
            Some(37),
            ("True", "NothingBreaks"),
        ),
        (&[instance(37, &[])], vec![], Some(36), ("False", "TargetVersionBehind")),
        // A kubelet ahead of an apiserver that drops what it declares.
        (
            &[instance(36, &[]), instance(35, &[])],
            vec![Node { declared: None, ..node(36, none.clone(), DOCKER, Some(Url::SchemeLess)) }],
            Some(36),
            ("False", "RuntimeUrlSchemeless"),
        ),
        // What is said of its gates is not what it does.
        (
            &[instance(37, &[])],
            vec![Node { declared: None, ..node(37, none.clone(), CONTAINERD, None) }],
            Some(38),
            ("Unknown", "KubeletGatesUnknown"),
        ),
        (
            &[instance(37, &[])],
            vec![Node { declared: None, ..node(37, none.clone(), CONTAINERD, None) }],
            Some(37),
            ("True", "NothingBreaks"),
        ),
        // Nobody has seen an apiserver: that is all there is to say.
        (
            &[],
            vec![node(35, none.clone(), DOCKER, None)],
            Some(36),
            ("Unknown", "ApiserverUnknown"),
        ),
    ] {
        let cluster = of(instances, &nodes, target);
        assert_eq!(said(&cluster), Some(expected), "{cluster:?}: {:?}", cluster.judged());
    }
}

#[test]
fn messages_say_what_to_do() {
    let bad = node(35, Some(vec![]), DOCKER, Some(Url::SchemeLess));
    let message = |cluster: &Cluster| cluster.judged().unwrap().outcome.message;
    let to = |target| message(&of(&[instance(35, &[])], &[bad.clone(), bad.clone()], Some(target)));
    for (text, holds) in [
        (
            to(36),
            "On the way to 1.36: Exec and attach by WebSocket will fail on n1 and n2, whose runtime",
        ),
        (
            to(36),
            "or set ExtendWebSocketsToKubelet: false in their KubeletConfiguration while they are upgraded",
        ),
        (to(38), "upgrade cri-dockerd to a version that names one before the kubelets run 1.36."),
        (
            message(&of(&[instance(37, &[('E', false)])], &[], Some(38))),
            "cp1 will not start with --feature-gates=ExtendWebSocketsToKubelet=false: \
             ExtendWebSocketsToKubelet is planned to be locked to on in 1.38.",
        ),
        (
            message(&of(&[instance(35, &[('D', false)])], &[], Some(36))),
            "other gates that are on in 1.36",
        ),
        (
            message(&of(&[instance(36, &[('E', false)])], &[], Some(36))),
            "cp1 cannot go back to 1.35 while the gate ExtendWebSocketsToKubelet is set.",
        ),
        (message(&of(&[instance(34, &[])], &[], Some(35))), "needs the right to create"),
        (
            message(&of(&[instance(37, &[])], &[], Some(38))),
            "breaks WebSockets at 1.38, as far as it is planned.",
        ),
    ] {
        assert!(text.contains(holds), "{text}");
    }
    assert!(!to(38).contains("or set"), "{}", to(38));
    assert!(!message(&of(&[instance(35, &[])], &[], None)).contains("create"));
}

/// The steps of a cluster as short lines.
fn lines(cluster: &Cluster, target: u16) -> Vec<String> {
    let line = |step: &Step| {
        let may = if step.needed { "" } else { "?" };
        let change = |c: &sluice::decision::steps::ArgumentChange| {
            format!(
                " [{} -> {}]",
                c.argument.as_deref().unwrap_or("-"),
                c.becomes.as_deref().unwrap_or("-")
            )
        };
        let changes: String = step.changes.iter().map(change).collect();
        format!("{}{may} {}{changes}", step.action.as_str(), step.nodes.join(","))
    };
    cluster.steps(target).iter().map(line).collect()
}

#[test]
fn steps_in_order() {
    const SET: &str = "[- -> featureGates: {ExtendWebSocketsToKubelet: false}]";
    const TAKE: &str = "[ExtendWebSocketsToKubelet: false -> -]";
    let off = Some(vec![('E', false)]);
    let cluster = of(
        &[instance(35, &[('D', false)]), Instance { minor: 35, gates: None }],
        &[
            node(35, Some(vec![]), DOCKER, Some(Url::SchemeLess)),
            node(35, Some(vec![]), DOCKER, None),
            node(35, None, CONTAINERD, None),
            node(35, off.clone(), CONTAINERD, None),
            node(35, Some(vec![]), CONTAINERD, None),
        ],
        None,
    );
    let manifest = "[--feature-gates=NodeDeclaredFeatures=false -> -]";
    assert_eq!(
        lines(&cluster, 36),
        [
            "LookAtApiserver cp2".to_owned(),
            "LookAtRuntime n2".to_owned(),
            "LookAtKubelet n3".to_owned(),
            "UpgradeRuntime n1".to_owned(),
            format!("SetKubeletGate? n1 {SET}"),
            format!("RemoveGate cp1 {manifest}"),
            format!("RemoveKubeletGate n4 {TAKE}"),
        ]
    );
    // Where it is locked, only the upgrade of the runtime helps, and the gate goes.
    let remedied =
        |url| of(&[instance(37, &[])], &[node(37, off.clone(), DOCKER, Some(url))], None);
    assert_eq!(
        lines(&remedied(Url::SchemeLess), 38),
        ["UpgradeRuntime n1".to_owned(), format!("RemoveKubeletGate n1 {TAKE}")]
    );
    assert_eq!(lines(&remedied(Url::SchemeLess), 37), Vec::<String>::new());
    assert_eq!(lines(&remedied(Url::Absolute), 37), [format!("RemoveKubeletGate? n1 {TAKE}")]);
    assert_eq!(lines(&remedied(Url::Absolute), 38), [format!("RemoveKubeletGate n1 {TAKE}")]);
    // Set too early it has to go, and holds nothing off.
    for (instances, nodes, remove) in [
        (
            &[instance(35, &[])][..],
            &[node(35, off.clone(), DOCKER, Some(Url::SchemeLess))][..],
            format!("RemoveKubeletGate n1 {TAKE}"),
        ),
        (
            &[instance(35, &[('E', false)])],
            &[node(35, Some(vec![]), DOCKER, Some(Url::SchemeLess))],
            "RemoveGate cp1 [--feature-gates=ExtendWebSocketsToKubelet=false -> -]".to_owned(),
        ),
    ] {
        let early = of(instances, nodes, None);
        let expected =
            ["UpgradeRuntime n1".to_owned(), format!("SetKubeletGate? n1 {SET}"), remove];
        assert_eq!(lines(&early, 36), expected);
    }
    // It fails now: the gate may be set now.
    let failing = of(&[instance(36, &[])], &[node(36, None, DOCKER, Some(Url::SchemeLess))], None);
    assert_eq!(
        lines(&failing, 37),
        ["UpgradeRuntime n1".to_owned(), format!("SetKubeletGate? n1 {SET}")]
    );
    let steps = failing.steps(37);
    assert!(steps[1].message.contains("restart the kubelet"), "{}", steps[1].message);
    let ahead = cluster.steps(36);
    assert!(ahead[4].message.contains("and not before: one of 1.35 does not start with it"));
}

#[test]
fn every_reason_and_gate_has_a_name_of_its_own() {
    let reasons = WebSocketReason::ALL.map(WebSocketReason::as_str);
    let gates = StreamGate::ALL.map(StreamGate::as_str);
    for names in [&reasons[..], &gates[..]] {
        let all: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(all.len(), names.len());
    }
    assert!(WebSocketReason::ALL.is_sorted());
}
