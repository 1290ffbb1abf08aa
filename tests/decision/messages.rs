//! What people read: who it is about, what to do, that doing it helps, and that it stays short.

use proptest::prelude::*;
use sluice::{
    api::condition,
    cluster::reasons,
    decision::redirects::{
        evidence::Source::{self, Agent, Annotation, EnvFiles, NodeArgs},
        node::NodeReason,
        policy::GateWish,
        upgrade::UpgradeReason,
    },
    kubernetes::arguments::kubelet::FlagValue::{self, Absent, Off, On, Unreadable},
};

use crate::{
    cluster::{Cluster, Instance, Node, Seen, any_cluster},
    oracle::{self, Redirects},
};

fn cp() -> Instance {
    Instance::new("cp-0", 20, Seen::Unset)
}

fn node(i: usize, kubelet: u16, claims: &[(Source, FlagValue)]) -> Node {
    Node::new(&format!("node-{i}"), kubelet, claims)
}

/// What an admin who reads the message does.
type Deed = fn(&mut Cluster);

/// Every reason to refuse: whom and what the message names, and that the advice helps.
#[test]
fn every_refusal_names_somebody_and_advises_what_helps() {
    let take_the_flag_off: Deed = |c| c.nodes[0].claims = vec![(Agent, Absent)];
    let upgrade_the_kubelet: Deed = |c| c.nodes[0].kubelet = Some(20);
    let annotate: Deed = |c| c.nodes[0].claims.push((Annotation, Absent));
    let correct_the_annotation: Deed = |c| {
        c.nodes[0].claims.retain(|claim| claim.0 != Annotation);
        c.nodes[0].claims.push((Annotation, Absent));
    };
    let take_it_out_of_the_files: Deed = |c| c.nodes[0].claims.retain(|claim| claim.0 != EnvFiles);
    let report_a_version: Deed = |c| {
        c.nodes[0].kubelet = Some(19);
        c.nodes[0].claims = vec![(Annotation, Absent)];
    };
    let add_an_override: Deed = |c| c.overrides.push(("node-0".to_owned(), 1));
    let show_the_apiserver: Deed = |c| c.instances[0] = cp();
    let end_the_rollout: Deed = |c| c.instances.truncate(1);
    let alone = |node| Cluster::of([cp()], [node]);
    let unversioned = || Node { kubelet: None, ..node(0, 0, &[(Annotation, Absent)]) };
    let apiservers = |all: Vec<Instance>| Cluster::of(all, [node(0, 20, &[])]);
    for (cluster, reason, words, deeds) in [
        (
            alone(node(0, 18, &[(Agent, On)])),
            "NodesRedirectWhileLagging",
            ["node-0", "Take --redirect-container-streaming off", "upgrade them to 1.20"],
            vec![take_the_flag_off, upgrade_the_kubelet, add_an_override],
        ),
        (
            alone(node(0, 19, &[(Agent, On)])),
            "NodesRedirect",
            ["node-0", "Take --redirect-container-streaming off", "upgrade them to 1.20"],
            vec![take_the_flag_off, upgrade_the_kubelet, add_an_override],
        ),
        (
            alone(node(0, 19, &[(Agent, Off), (Annotation, On)])),
            "EvidenceContradictory",
            ["node-0", "correct the annotation", "sluice.dev/redirect-container-streaming"],
            vec![correct_the_annotation, upgrade_the_kubelet, add_an_override],
        ),
        (
            alone(node(0, 19, &[(Agent, Absent), (EnvFiles, On)])),
            "EvidenceContradictory",
            ["node-0", "environment files", "make them say the same"],
            vec![take_it_out_of_the_files, upgrade_the_kubelet, add_an_override],
        ),
        (
            alone(node(0, 19, &[])),
            "NodesUnknown",
            ["node-0", "annotate the node with", "sluice.dev/redirect-container-streaming"],
            vec![annotate, upgrade_the_kubelet, add_an_override],
        ),
        (
            alone(node(0, 19, &[(Agent, Absent), (Annotation, Unreadable)])),
            "NodesUnknown",
            ["node-0", "cannot be understood", "correct them"],
            vec![correct_the_annotation, upgrade_the_kubelet, add_an_override],
        ),
        (
            alone(unversioned()),
            "NodesUnknown",
            ["node-0", "status.nodeInfo.kubeletVersion", "override"],
            vec![report_a_version, upgrade_the_kubelet, add_an_override],
        ),
        (
            apiservers(vec![Instance::new("cp-0", 20, Seen::Invisible)]),
            "ApiserversUnknown",
            ["cp-0", "HiddenCommand", "Look at its command line"],
            vec![show_the_apiserver],
        ),
        (
            apiservers(vec![cp(), Instance::new("cp-1", 21, Seen::Unset)]),
            "ApiserversMixed",
            ["1.20 Enabled on cp-0", "1.21 Enabled on cp-1", "Wait for the rollout"],
            vec![end_the_rollout],
        ),
        (
            apiservers(vec![cp(), Instance::new("cp-1", 20, Seen::False)]),
            "ApiserversMixed",
            ["1.20 Enabled on cp-0", "1.20 Disabled on cp-1", "bring them to one version"],
            vec![end_the_rollout],
        ),
    ] {
        assert_eq!(cluster.safe(), ("False", reason));
        let message = cluster.message();
        for word in words {
            assert!(message.contains(word), "{reason} does not say {word:?}: {message}");
        }
        for (i, deed) in deeds.into_iter().enumerate() {
            let mut after = cluster.clone();
            deed(&mut after);
            assert!(after.permits(), "advice {i} of {reason} does not help: {}", after.message());
        }
    }
}

/// To annotate must not be the advice where it does not help.
#[test]
fn no_advice_that_leads_back_to_the_same_message() {
    for (kubelet, claims) in
        [(None, vec![]), (Some(19), vec![(NodeArgs, Unreadable)]), (None, vec![(Agent, Off)])]
    {
        let mut cluster = Cluster::of([cp()], [Node { kubelet, ..node(0, 0, &claims) }]);
        assert!(!cluster.message().contains("annotate the node"), "{}", cluster.message());
        cluster.nodes[0].claims.push((Annotation, Absent));
        assert!(!cluster.permits(), "the advice would have helped: {cluster:?}");
    }
}

/// Worst first: the nodes of the worst reason are named, the others are counted.
#[test]
fn the_worst_reason_wins() {
    let lagging = node(8, 18, &[(Agent, On)]);
    let redirects = node(6, 19, &[(Agent, On)]);
    let contradictory = node(4, 19, &[(Agent, On), (NodeArgs, Off)]);
    let unversioned = Node { kubelet: None, ..node(3, 0, &[]) };
    let unreadable = node(2, 19, &[(NodeArgs, Unreadable)]);
    let unknown = node(1, 19, &[]);
    let mut cluster =
        Cluster::of([cp()], [unknown, unreadable, unversioned, contradictory, redirects, lagging]);
    for (reason, named, counted) in [
        ("NodesRedirectWhileLagging", "node-8 answers", "; 2 more redirect at a smaller skew"),
        ("NodesRedirect", "node-4 and node-6 answer", "3 more nodes may redirect."),
        ("EvidenceContradictory", "node-4 has evidence", "3 more nodes may redirect."),
        ("NodesUnknown", "node-3 may answer", "2 more nodes may redirect."),
        ("NodesUnknown", "node-2 may answer", "1 more node may redirect."),
        ("NodesUnknown", "node-1 may answer", ""),
    ] {
        assert_eq!(cluster.safe(), ("False", reason));
        let message = cluster.message();
        assert!(message.starts_with(named) && message.contains(counted), "{message}");
        cluster.nodes.pop();
    }
    assert!(cluster.permits());
}

/// Messages, names and lists are bounded, however many nodes and apiservers there are.
#[test]
fn a_status_does_not_grow_with_the_cluster() {
    // As long as a name may be, and each recognisable.
    let name = |kind: &str, i: usize| format!("{kind}-{i:05}-{:x>240}", "");
    type Kind = fn(usize) -> (Option<u16>, &'static [(Source, FlagValue)]);
    let kinds: [Kind; 6] = [
        |_| (Some(17), &[(Agent, On)]),
        |_| (Some(19), &[(Agent, On)]),
        |_| (Some(19), &[(Agent, On), (Annotation, Off)]),
        |_| (Some(19), &[]),
        |_| (None, &[(Annotation, Unreadable)]),
        |i| {
            [
                (Some(17), &[(Agent, On)][..]),
                (Some(19), &[]),
                (None, &[]),
                (Some(22), &[(Agent, Off)]),
            ][i % 4]
        },
    ];
    let control_planes: [fn(usize) -> Instance; 4] = [
        |_| cp(),
        |i| Instance::new("", 6 + (i % 30) as u16, Seen::Unset),
        |i| Instance::new("", 20, Seen::ALL[i % 3]),
        |i| Instance { minor: None, ..Instance::new("", 20, Seen::ALL[i % 5]) },
    ];
    for (kind, control_plane) in
        kinds.iter().flat_map(|k| control_planes.iter().map(move |c| (k, c)))
    {
        let cluster = |nodes: usize, instances: usize| {
            let nodes = (0..nodes).map(|i| {
                let (kubelet, claims) = kind(i);
                Node { kubelet, ..Node::new(&name("node", i), 0, claims) }
            });
            let instance = |i| Instance { name: name("cp", i), ..control_plane(i) };
            Cluster { target: Some(30), ..Cluster::of((0..instances).map(instance), nodes) }
        };
        let sizes = |cluster: &Cluster| {
            cluster.judged(|judgement| {
                let safe = &judgement.safe_to_disable.message;
                for kind in ["node-0", "cp-0"] {
                    assert!(safe.matches(kind).count() <= 3, "too many named: {safe}");
                }
                assert!(judgement.survey.worst.len() <= 10);
                let upgrades = judgement.upgrades.iter().flat_map(|p| &p.findings);
                upgrades.for_each(|f| assert!(f.message.matches("node-0").count() <= 3, "{f:?}"));
                [
                    &judgement.safe_to_disable,
                    &judgement.redirects_disabled,
                    &judgement.upgrade_safe,
                    &judgement.progressing,
                    &judgement.degraded,
                ]
                .map(|outcome| outcome.message.len())
            })
        };
        let (small, large) = (sizes(&cluster(200, 120)), sizes(&cluster(4_000, 900)));
        for (small, large) in small.into_iter().zip(large) {
            // Counts of one or two digits more, and no names more; 32768 is what a condition takes.
            assert!(large <= small + 60 && large < 16_384, "{small} grew to {large}");
        }
    }
}

/// What the policy wants and cannot have.
#[test]
fn nobody_is_told_to_set_a_gate_that_is_gone_or_unseen() {
    for (minor, seen, reason) in [
        (20, Seen::False, "WaitingForAdmin"),
        (22, Seen::Unset, "WaitingForAdmin"),
        (20, Seen::Unset, "AsWanted"),
        (20, Seen::Invisible, "GateUnknown"),
        (24, Seen::Unset, "GateRemoved"),
        (30, Seen::Invisible, "GateRemoved"),
    ] {
        let instance = Instance::new("cp-0", minor, seen);
        let wish = Some(GateWish::Enabled);
        let cluster = Cluster { wish, ..Cluster::of([instance], [node(0, 24, &[])]) };
        cluster.judged(|judgement| {
            let outcome = &judgement.progressing;
            assert_eq!((outcome.status.as_str(), outcome.reason), ("False", reason), "1.{minor}");
            let told = outcome.message.contains("--feature-gates");
            assert_eq!(told, reason == "WaitingForAdmin", "{}", outcome.message);
        });
    }
}

const DEEDS: [&str; 8] =
    ["Take --", "take ", "take it", "annotate", "correct", "Look at", "look at", "Wait for"];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn nothing_is_refused_without_a_name_and_a_deed(cluster in any_cluster()) {
        let names: Vec<&str> = cluster.nodes.iter().map(|n| n.name.as_str())
            .chain(cluster.instances.iter().map(|i| i.name.as_str()))
            .collect();
        let named = |message: &str| names.iter().any(|name| message.contains(name));
        cluster.judged(|judgement| {
            for outcome in [&judgement.safe_to_disable, &judgement.upgrade_safe] {
                if outcome.status.as_str() == "True" {
                    prop_assert!(!outcome.message.is_empty());
                    continue;
                }
                let message = &outcome.message;
                prop_assert!(cluster.instances.is_empty() || named(message), "nobody named: {}", message);
                prop_assert!(DEEDS.iter().any(|deed| message.contains(deed)), "no deed: {}", message);
            }
            for finding in judgement.upgrades.iter().flat_map(|preview| &preview.findings) {
                prop_assert!(named(&finding.message), "nobody named: {}", finding.message);
            }
            for outcome in [&judgement.redirects_disabled, &judgement.progressing, &judgement.degraded] {
                // Custom resources with an empty message are refused by apiservers of some builds.
                prop_assert!(!outcome.message.is_empty() && !outcome.reason.is_empty());
            }
            Ok(())
        })?;
    }

    #[test]
    fn refused_nodes_are_blocking_ones(cluster in any_cluster()) {
        cluster.judged(|judgement| {
            let message = &judgement.safe_to_disable.message;
            let blocks = |n: &&Node| !cluster.excepted(n)
                && oracle::redirects(n.kubelet, &n.claims) != Redirects::No;
            let innocent: Vec<&Node> = cluster.nodes.iter().filter(|n| !blocks(n)).collect();
            if judgement.safe_to_disable.status.as_str() == "False" {
                for node in innocent {
                    prop_assert!(!message.contains(&node.name), "{} is innocent: {}", node.name, message);
                }
            }
            Ok(())
        })?;
    }
}

proptest! {
    /// Every reason is one of those that docs/reasons.md is held against.
    #[test]
    fn every_reason_is_listed(cluster in any_cluster()) {
        cluster.judged(|judgement| {
            for (kind, outcome) in [
                (condition::SAFE_TO_DISABLE, &judgement.safe_to_disable),
                (condition::REDIRECTS_DISABLED, &judgement.redirects_disabled),
                (condition::UPGRADE_SAFE, &judgement.upgrade_safe),
                (condition::PROGRESSING, &judgement.progressing),
                (condition::DEGRADED, &judgement.degraded),
            ] {
                let reason = outcome.reason;
                prop_assert!(reasons::of(kind).contains(&reason), "{} of {}", reason, kind);
            }
            for finding in judgement.upgrades.iter().flat_map(|preview| &preview.findings) {
                prop_assert!(UpgradeReason::ALL.contains(&finding.reason), "{:?}", finding.reason);
            }
            for (reason, _) in &judgement.survey.worst {
                prop_assert!(NodeReason::ALL.contains(reason), "{:?}", reason);
            }
            Ok(())
        })?;
    }
}
