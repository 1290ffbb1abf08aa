//! What must hold of any cluster, whatever is in it.
//!
//! The monotonicities, precisely. *Refused* means that `SafeToDisable` is not True. A refused
//! cluster stays refused when
//!
//! - a node is added, also one that an override excepts: the others still refuse;
//! - a node is forgotten about: all claims gone, or its version unreadable, where its version did
//!   not settle the matter;
//! - one claim for off (or absent) is taken away. A claim that cannot be read may go only with
//!   what it spoke against, so nothing is said about taking that one away;
//! - an override ends, or the policy stops being the owner;
//! - an instance is added to at least one other. Where there was none, nothing was known of the
//!   control plane, so the first instance may bring the permission;
//! - an instance becomes less known: its version or its command line.

use proptest::{
    prelude::*,
    sample::{Index, select},
};
use sluice::{
    cluster::ApiserverPod,
    decision::migration::STREAMING_REDIRECTS,
    kubernetes::arguments::kubelet::FlagValue::{Absent, Off},
};

use crate::{
    cluster::{
        Cluster, Instance, Node, Seen, TRACKS, any_cluster, any_instance, any_node, spelled,
    },
    oracle::{self, Redirects},
};

/// A refused cluster that is permitted after a change for the worse.
fn check_worse(before: &Cluster, after: &Cluster) -> Result<(), TestCaseError> {
    let (was, is) = (before.safe(), after.safe());
    prop_assert!(was.0 == "True" || is.0 != "True", "{was:?} became {is:?} with {after:?}");
    // Nor does an upgrade become harmless: minor by minor, as the next one may be another.
    let safe_minors = |cluster: &Cluster| {
        cluster.judged(|j| j.upgrades.iter().map(|p| (p.minor, p.is_safe())).collect::<Vec<_>>())
    };
    let was = safe_minors(before);
    for (minor, safe) in safe_minors(after) {
        let broke = was.contains(&(minor, false));
        prop_assert!(!(broke && safe), "an upgrade to {minor} no longer breaks with {after:?}");
    }
    Ok(())
}

fn worse(cluster: &Cluster, change: impl FnOnce(&mut Cluster)) -> Result<(), TestCaseError> {
    let mut after = cluster.clone();
    change(&mut after);
    check_worse(cluster, &after)
}

/// A node that is safe for sure, in a cluster that is otherwise permitted: the interesting start
/// for every change for the worse.
fn all_safe(mut cluster: Cluster) -> Cluster {
    cluster.nodes.retain(|n| oracle::redirects(n.kubelet, &n.claims) == Redirects::No);
    cluster.instances.truncate(1);
    for instance in &mut cluster.instances {
        instance.minor.get_or_insert(20);
        instance.seen = Seen::Unset;
    }
    cluster
}

/// What starts an apiserver.
const WRAPPERS: [&[&str]; 3] = [
    &["kube-apiserver"],
    &["/hyperkube", "apiserver"],
    &["/go-runner", "--log-file=/var/log/kube-apiserver", "/usr/bin/kube-apiserver"],
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn the_verdict_is_the_oracles(cluster in any_cluster()) {
        prop_assert_eq!(cluster.safe(), oracle::safe_to_disable(&cluster));
        let safe = all_safe(cluster);
        prop_assert_eq!(safe.safe(), oracle::safe_to_disable(&safe));
    }

    #[test]
    fn permission_means_that_no_node_that_counts_could_redirect(cluster in any_cluster()) {
        if cluster.permits() {
            for node in cluster.nodes.iter().filter(|node| !cluster.excepted(node)) {
                let redirects = oracle::redirects(node.kubelet, &node.claims);
                prop_assert_eq!(redirects, Redirects::No, "{:?}", node);
            }
        }
    }

    #[test]
    fn a_node_more_is_never_a_reason_to_permit(
        cluster in any_cluster(),
        node in any_node((0..9_u8).prop_map(|i| format!("node-{i}"))),
        at in any::<Index>(),
    ) {
        let at = at.index(cluster.nodes.len() + 1);
        // The name of one that exists would be another node of that name.
        if cluster.nodes.iter().all(|other| other.name != node.name) {
            worse(&cluster, |c| c.nodes.insert(at, node))?;
        }
    }

    #[test]
    fn less_said_for_off_is_never_safer(
        cluster in any_cluster(), node in any::<Index>(), claim in any::<Index>(),
    ) {
        let mut after = cluster.clone();
        if let Some(node) = pick(&mut after.nodes, node) {
            let off = |(_, claim): &(usize, &(_, _))| matches!(claim.1, Off | Absent);
            let offs: Vec<usize> = node.claims.iter().enumerate().filter(off).map(|(i, _)| i).collect();
            if !offs.is_empty() {
                node.claims.remove(offs[claim.index(offs.len())]);
            }
        }
        // Not of upgrades: a kubelet that had the flag for off no longer trips over it.
        prop_assert!(cluster.permits() || !after.permits(), "{after:?}");
    }

    #[test]
    fn a_forgotten_node_is_never_safer(cluster in any_cluster(), node in any::<Index>()) {
        for start in [cluster.clone(), all_safe(cluster)] {
            // A kubelet that has reported a version without the flag was started without it: only
            // what is shown of it can say that it will not come up again.
            let told = |n: &&mut Node| n.kubelet.is_none_or(|kubelet| kubelet < 22);
            worse(&start, |c| {
                pick(&mut c.nodes, node).filter(told).into_iter().for_each(|n| n.claims.clear());
            })?;
            let mut after = start.clone();
            if let Some(Node { kubelet, .. }) = pick(&mut after.nodes, node) {
                *kubelet = None;
            }
            prop_assert!(start.permits() || !after.permits(), "{after:?}");
        }
    }

    #[test]
    fn unknown_is_never_permitted(cluster in any_cluster(), node in any::<Index>(), kubelet in 11..=19_u16) {
        let mut after = all_safe(cluster);
        after.overrides.clear();
        if let Some(node) = pick(&mut after.nodes, node) {
            node.claims.clear();
            node.kubelet = Some(kubelet);
            prop_assert_eq!(after.safe(), ("False", "NodesUnknown"));
        }
    }

    #[test]
    fn an_override_that_ends_is_never_a_reason_to_permit(
        cluster in any_cluster(), entry in any::<Index>(), left in -2..=0_i64,
    ) {
        worse(&cluster, |c| { pick(&mut c.overrides, entry).into_iter().for_each(|o| o.1 = left) })?;
        worse(&cluster, |c| c.overrides.iter_mut().for_each(|o| o.1 -= 1))?;
        worse(&cluster, |c| c.owns = false)?;
    }

    #[test]
    fn overrides_of_others_are_not_heard(mut cluster in any_cluster()) {
        cluster.owns = false;
        let mut without = cluster.clone();
        without.overrides.clear();
        prop_assert_eq!(cluster.safe(), without.safe());
        prop_assert_eq!(cluster.message(), without.message());
    }

    #[test]
    fn an_apiserver_more_is_never_a_reason_to_permit(
        cluster in any_cluster(), instance in any_instance("cp-9".to_owned()), at in any::<Index>(),
    ) {
        for start in [cluster.clone(), all_safe(cluster)] {
            let at = at.index(start.instances.len() + 1);
            if !start.instances.is_empty() {
                worse(&start, |c| c.instances.insert(at, instance.clone()))?;
            }
        }
    }

    #[test]
    fn a_less_known_apiserver_is_never_safer(
        cluster in any_cluster(), instance in any::<Index>(), seen in 3..5_usize,
    ) {
        for start in [cluster.clone(), all_safe(cluster)] {
            for change in [
                |i: &mut Instance, _| i.minor = None,
                |i: &mut Instance, seen: usize| i.seen = Seen::ALL[seen],
            ] {
                let mut after = start.clone();
                if let Some(one) = pick(&mut after.instances, instance) {
                    change(one, seen);
                }
                prop_assert!(start.permits() || !after.permits(), "{after:?}");
            }
        }
    }

    /// What a mirror pod shows is what the instance is, whatever its labels are, whatever its container
    /// is called and whatever starts the program.
    #[test]
    fn an_apiserver_is_what_runs_one(
        instance in any_instance("cp-1".to_owned()),
        labels in select(&[r#"{"component":"kube-apiserver"}"#, r#"{"k8s-app":"kube-apiserver"}"#, "{}", r#"{"component":"etcd"}"#][..]),
        wrapper in 0..WRAPPERS.len(),
        name in select(&["kube-apiserver", "apiserver"][..]),
    ) {
        let minor = instance.minor.unwrap_or(20);
        let args: Vec<&str> = match instance.seen {
            Seen::Unset => vec!["--v=2"],
            Seen::True => vec!["--v", "2", "--feature-gates=StreamingProxyRedirects=true"],
            Seen::False => vec!["--feature-gates", "Other=true,StreamingProxyRedirects=false"],
            Seen::Unreadable => vec!["--v=2", "$(GATES)"],
            Seen::Invisible | Seen::Managed => vec![],
        };
        let hidden = matches!(instance.seen, Seen::Invisible | Seen::Managed);
        let command: Vec<&str> = match hidden {
            true => vec!["/bin/sh", "-c", "exec kube-apiserver --v=2", "kube-apiserver"],
            false => WRAPPERS[wrapper].iter().copied().chain(args).collect(),
        };
        let image = format!("registry.example/apiserver:{}", spelled(minor, &instance.name));
        let labels: serde_json::Value = serde_json::from_str(labels).unwrap();
        let pod = serde_json::from_value(serde_json::json!({
            "metadata": {
                "name": "static-1", "namespace": "kube-system", "labels": labels,
                "annotations": {"kubernetes.io/config.mirror": "hash"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "cp-1", "uid": "u"}],
            },
            "spec": {"nodeName": "cp-1", "containers": [{"name": name, "image": image, "command": command}]},
        }));
        let pod = ApiserverPod::read(&pod.unwrap()).unwrap();
        let seen = pod.apiserver();
        for track in TRACKS {
            let expected = oracle::gate(track, Some(minor), instance.seen);
            let expected = match expected {
                oracle::Gate::On => "Enabled",
                oracle::Gate::Off => "Disabled",
                // Where it is unclear which container it is, its image is not believed.
                oracle::Gate::Gone if seen.minor.is_none() => "Unknown",
                oracle::Gate::Gone => "Removed",
                oracle::Gate::Unknown => "Unknown",
            };
            // Whether AllBeta reached the gate of 1.17 is not asked here.
            prop_assert_eq!(seen.gate(&STREAMING_REDIRECTS, track).as_str(), expected);
        }
        prop_assert_eq!(seen.minor.is_none(), hidden && name != "kube-apiserver");
    }

    /// The whole judgement, down to the messages: statuses must not flap with the order in which
    /// a watch delivers.
    #[test]
    fn order_does_not_matter((cluster, shuffled) in any_cluster().prop_flat_map(shuffled)) {
        let all = |cluster: &Cluster| cluster.judged(|judgement| format!("{judgement:#?}"));
        prop_assert_eq!(all(&cluster), all(&shuffled));
    }

    #[test]
    fn nodes_are_counted_once_and_right(cluster in any_cluster()) {
        let of = |wanted| move |n: &&Node| oracle::redirects(n.kubelet, &n.claims) == wanted;
        let nodes = || cluster.nodes.iter();
        let could = |n: &&Node| !of(Redirects::No)(n);
        let newest = oracle::newest(&cluster.instances);
        cluster.judged(|judgement| {
            let counts = judgement.survey.counts;
            prop_assert_eq!(counts.nodes, nodes().count());
            prop_assert_eq!(counts.redirecting, nodes().filter(of(Redirects::Yes)).count());
            prop_assert_eq!(counts.unknown, nodes().filter(of(Redirects::Maybe)).count());
            prop_assert_eq!(counts.lagging, nodes().filter(|n| oracle::lagging(n.kubelet, newest)).count());
            let excepted = nodes().filter(could).filter(|n| cluster.excepted(n)).count();
            prop_assert_eq!(counts.overridden, excepted);
            prop_assert_eq!(counts.blocking, nodes().filter(could).count() - excepted);
            let states: usize = judgement.survey.by_redirects().map(|(_, count)| count).sum();
            prop_assert_eq!(states, counts.nodes);
            Ok(())
        })?;
    }
}

fn pick<T>(all: &mut [T], index: Index) -> Option<&mut T> {
    if all.is_empty() { None } else { Some(index.get_mut(all)) }
}

fn shuffled(cluster: Cluster) -> impl Strategy<Value = (Cluster, Cluster)> {
    // Claims are turned around: one order other than the first is enough for so few.
    let nodes = Just(cluster.nodes.clone()).prop_shuffle();
    let instances = Just(cluster.instances.clone()).prop_shuffle();
    let overrides = Just(cluster.overrides.clone()).prop_shuffle();
    (nodes, instances, overrides).prop_map(move |(mut nodes, instances, overrides)| {
        nodes.iter_mut().for_each(|node| node.claims.reverse());
        (cluster.clone(), Cluster { nodes, instances, overrides, ..cluster.clone() })
    })
}

/// Of the moment of expiry itself, in seconds around it.
#[test]
fn an_override_ends_at_its_moment_and_not_a_second_later() {
    for (left, expected) in [
        (1, ("True", "OnlyOverriddenNodes")),
        (0, ("False", "NodesUnknown")),
        (-1, ("False", "NodesUnknown")),
    ] {
        let mut cluster =
            Cluster::of([Instance::new("cp", 20, Seen::Unset)], [Node::new("n", 19, &[])]);
        cluster.overrides = vec![("n".to_owned(), left)];
        assert_eq!(cluster.safe(), expected, "{left} seconds left");
    }
}
