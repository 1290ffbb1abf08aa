//! What has to be done before an upgrade, and in which order.

use std::collections::BTreeSet;

use proptest::prelude::*;
use sluice::{
    decision::{
        migration::Track,
        redirects::evidence::Source::{Agent, Annotation, EnvFiles, NodeArgs},
        steps::{Action, ArgumentChange, Step},
    },
    kubernetes::arguments::kubelet::FlagValue::{Absent, Off, On},
};

use crate::{
    cluster::{Cluster, Instance, Node, Seen, any_cluster},
    oracle,
};

/// The steps of a cluster on the way to a target, as short lines.
fn lines(cluster: &Cluster, target: u16) -> Vec<String> {
    let line = |step: &Step| {
        let may = if step.needed { "" } else { "?" };
        let files: Vec<&str> = step.files.iter().take(1).map(String::as_str).collect();
        let change = |c: &ArgumentChange| {
            format!(
                " {} -> {}",
                c.argument.as_deref().unwrap_or_default(),
                c.becomes.as_deref().unwrap_or("nothing")
            )
        };
        let changes: String = step.changes.iter().map(change).collect();
        format!(
            "{}{may} {} [{}]{changes}",
            step.action.as_str(),
            step.nodes.join(","),
            files.join(",")
        )
    };
    Cluster { target: Some(target), ..cluster.clone() }.steps().iter().map(line).collect()
}

#[test]
fn flags_then_the_gate_then_the_upgrade() {
    let cluster = Cluster::of(
        [Instance::new("cp1", 20, Seen::True), Instance::new("cp2", 20, Seen::True)],
        [
            Node::new("cp1", 20, &[(Agent, Absent)]),
            Node::new("env", 18, &[(Agent, On), (EnvFiles, On)]),
            Node::new("unit", 18, &[(Agent, On)]),
            Node::new("k3s", 19, &[(NodeArgs, On)]),
            Node::new("said", 18, &[(Annotation, On)]),
            Node::new("dark", 19, &[]),
            Node::new("ancient", 10, &[]),
            Node::new("off", 18, &[(Agent, Off), (EnvFiles, Off)]),
            Node::new("ignored", 20, &[(Agent, On)]),
            Node::new("unheard", 21, &[]),
        ],
    );
    let flag = "--redirect-container-streaming -> nothing";
    let manifest = "/etc/kubernetes/manifests/kube-apiserver.yaml";
    let units = "/etc/systemd/system/kubelet.service.d/";
    let gate = "--feature-gates=StreamingProxyRedirects=true -> nothing";
    assert_eq!(
        lines(&cluster, 24),
        [
            "LookAtKubelet dark []".to_owned(),
            format!("RemoveKubeletFlag env [/var/lib/kubelet/kubeadm-flags.env] {flag}"),
            format!("RemoveKubeletFlag unit [{units}] {flag}"),
            format!("RemoveKubeletFlag k3s [/etc/rancher/k3s/config.yaml] {flag}"),
            format!("RemoveKubeletFlag said [] {flag}"),
            "UpgradeKubelet ancient []".to_owned(),
            format!("RemoveGate cp1,cp2 [{manifest}] {gate}"),
            "LookAtKubelet unheard []".to_owned(),
            format!("RemoveKubeletFlag off [/var/lib/kubelet/kubeadm-flags.env] {flag}"),
            format!("RemoveKubeletFlag ignored [{units}] {flag}"),
            "Upgrade cp1,cp2 []".to_owned(),
        ]
    );
    // The gate stays on, and the flag of kubelets ends.
    assert_eq!(
        lines(&cluster, 22),
        [
            "LookAtKubelet dark,unheard []".to_owned(),
            format!("RemoveKubeletFlag env,off [/var/lib/kubelet/kubeadm-flags.env] {flag}"),
            format!("RemoveKubeletFlag unit,ignored [{units}] {flag}"),
            format!("RemoveKubeletFlag k3s [/etc/rancher/k3s/config.yaml] {flag}"),
            format!("RemoveKubeletFlag said [] {flag}"),
            "Upgrade cp1,cp2 []".to_owned(),
        ]
    );
    // With the gate turned on, nothing breaks before.
    assert_eq!(lines(&cluster, 21), ["Upgrade cp1,cp2 []"]);
    assert_eq!(lines(&cluster, 19), Vec::<String>::new(), "a target that is behind");
}

#[test]
fn a_gate_that_is_off_goes_where_off_is_the_default() {
    let manifest = "/etc/kubernetes/manifests/kube-apiserver.yaml";
    let gate =
        "--feature-gates Other=true,StreamingProxyRedirects=false -> --feature-gates Other=true";
    for (minor, target, expected, says) in [
        (20, 21, None, ""),
        (20, 22, Some("?"), "It goes once the apiserver runs 1.22"),
        (22, 23, Some("?"), "It may go now."),
        (20, 24, Some(""), "It goes once the apiserver runs 1.22"),
        (23, 24, Some(""), "It may go now."),
    ] {
        let cluster = Cluster::of([Instance::new("cp", minor, Seen::False)], []);
        let mut lines = lines(&cluster, target);
        assert_eq!(lines.pop().as_deref(), Some("Upgrade cp []"));
        let line = expected.map(|may| format!("RemoveGate{may} cp [{manifest}] {gate}"));
        assert_eq!(lines, Vec::from_iter(line), "1.{minor} to 1.{target}");
        let steps = Cluster { target: Some(target), ..cluster }.steps();
        assert!(steps[0].message.contains(says), "{}", steps[0].message);
    }
    for (minor, says) in [
        (20, "It may go as soon as nothing redirects."),
        (22, "Taking it out turns the gate off: it may go as soon as nothing redirects"),
    ] {
        let instance = Instance::new("cp", minor, Seen::True);
        let steps = Cluster { target: Some(24), ..Cluster::of([instance], []) }.steps();
        assert!(steps[0].message.contains(says), "{}", steps[0].message);
    }
}

#[test]
fn what_is_hidden_is_looked_at() {
    let manifest = "/etc/kubernetes/manifests/kube-apiserver.yaml";
    let hidden = Cluster::of([Instance::new("cp", 23, Seen::Invisible)], []);
    assert_eq!(
        lines(&hidden, 24),
        [format!("LookAtApiserver cp [{manifest}]"), "Upgrade cp []".to_owned()]
    );
    let unreadable = Cluster::of([Instance::new("cp", 23, Seen::Unreadable)], []);
    assert_eq!(lines(&unreadable, 24), lines(&hidden, 24));
    let nobody = Cluster::default();
    assert_eq!(lines(&nobody, 24)[0], format!("LookAtApiserver  [{manifest}]"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    /// Steps are needed where the upgrade breaks something, and nowhere else.
    #[test]
    fn steps_are_what_the_upgrade_wants(cluster in any_cluster(), target in 18..=30_u16) {
        let cluster = Cluster { target: Some(target), ..cluster };
        let steps = cluster.steps();
        let newest = cluster.instances.iter().filter_map(|i| i.minor).max();
        let Some(newest) = newest else { return Ok(()) };
        if target < newest {
            prop_assert!(steps.is_empty());
            return Ok(());
        }
        let (last, before) = steps.split_last().unwrap();
        prop_assert_eq!(last.action, Action::Upgrade);
        let needed = before.iter().any(|step| step.needed);
        let breaks: BTreeSet<&str> = oracle::upgrade(&cluster, target)
            .into_iter()
            .filter(|reason| *reason != "DependsOnRedirects")
            .collect();
        prop_assert_eq!(needed, !breaks.is_empty(), "{:?} for {:?}", steps, breaks);
        // What could redirect comes before the gate.
        let gate = steps.iter().position(|step| step.action == Action::RemoveGate);
        for (index, step) in steps.iter().enumerate().filter(|(i, _)| gate.is_some_and(|g| *i > g)) {
            for name in &step.nodes {
                let node = cluster.nodes.iter().find(|node| &node.name == name);
                let redirects = node.is_some_and(|node| {
                    !cluster.excepted(node)
                        && oracle::redirects(node.kubelet, &node.claims) != oracle::Redirects::No
                });
                prop_assert!(!redirects, "step {} of {:?}", index, steps);
            }
        }
        for step in &steps {
            prop_assert!(!step.message.is_empty());
            prop_assert!(step.nodes.is_sorted());
        }
    }

    /// A gate that the target does not have is in no argument after the steps.
    #[test]
    fn no_gate_is_left(cluster in any_cluster(), target in 24..=30_u16) {
        let cluster = Cluster { target: Some(target), track: Track::ExtraSafe, ..cluster };
        let changes = cluster.steps().into_iter().flat_map(|step| step.changes);
        for left in changes.filter_map(|change| change.becomes) {
            prop_assert!(!left.contains("Redirects"), "{}", left);
        }
    }
}
