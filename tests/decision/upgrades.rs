//! What an upgrade would break: every minor ahead, both tracks, and the two cliffs.

use std::collections::BTreeSet;

use proptest::prelude::*;
use sluice::{
    decision::{
        migration::Track::{self, ExtraSafe, Standard},
        redirects::{
            evidence::Source::{self, Agent, Annotation, EnvFiles, NodeArgs},
            upgrade::Preview,
        },
    },
    kubernetes::arguments::kubelet::FlagValue::{self, Absent, Off, On, Unreadable},
};

use crate::{
    cluster::{Cluster, Instance, Node, Seen, TRACKS, any_cluster},
    oracle::{self, Gate},
};

fn reasons(preview: &Preview) -> BTreeSet<&'static str> {
    preview.findings.iter().map(|finding| finding.reason.as_str()).collect()
}

/// Every preview of a cluster against the oracle, and which minors there are.
fn check(cluster: &Cluster) -> Result<(), TestCaseError> {
    let oldest = cluster.instances.iter().filter_map(|i| i.minor).min();
    let mut ahead: Vec<u16> = oldest.map_or(vec![], |oldest| (oldest + 1..=24).collect());
    ahead.extend(cluster.target.filter(|t| *t > 24 && oldest.is_some_and(|oldest| *t > oldest)));
    cluster.judged(|judgement| {
        let minors: Vec<u16> = judgement.upgrades.iter().map(|p| p.minor.0).collect();
        prop_assert_eq!(minors, ahead);
        for preview in &judgement.upgrades {
            let minor = preview.minor.0;
            let default = oracle::default_gate(cluster.track, minor);
            let shown = default.map_or("Removed", |on| if on { "Enabled" } else { "Disabled" });
            prop_assert_eq!(
                (preview.default.as_str(), preview.settable),
                (shown, default.is_some())
            );
            let gates =
                cluster.instances.iter().map(|i| oracle::gate(cluster.track, Some(minor), i.seen));
            let shown = match gates.max() {
                Some(Gate::On) => "Enabled",
                Some(Gate::Off) => "Disabled",
                Some(Gate::Gone) => "Removed",
                Some(Gate::Unknown) | None => "Unknown",
            };
            prop_assert_eq!(preview.gate.as_str(), shown, "at 1.{}", minor);
            let expected = oracle::upgrade(cluster, minor);
            prop_assert_eq!(reasons(preview), expected.clone(), "at 1.{} of {:?}", minor, cluster);
            let warnings = BTreeSet::from(["DependsOnRedirects"]);
            prop_assert_eq!(preview.is_safe(), expected.is_subset(&warnings));
            let blocking = if shown == "Enabled" { 0 } else { judgement.survey.counts.blocking };
            prop_assert_eq!(preview.breaking, blocking, "at 1.{}", minor);
            prop_assert!(preview.findings.is_sorted_by_key(|finding| finding.reason));
        }
        Ok(())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn previews_are_the_oracles(cluster in any_cluster()) {
        check(&cluster)?;
    }

    /// `UpgradeSafe` is the preview of the target or of the next minor, and nothing newer than it
    /// may run already.
    #[test]
    fn upgrade_safe_is_the_preview_that_is_meant(cluster in any_cluster()) {
        let minors = || cluster.instances.iter().filter_map(|i| i.minor);
        let (Some(oldest), Some(newest)) = (minors().min(), minors().max()) else {
            let outcome = cluster.judged(|j| (j.upgrade_safe.status.as_str(), j.upgrade_safe.reason));
            prop_assert_eq!(outcome, ("False", "ApiserverUnknown"));
            return Ok(());
        };
        let next = if oldest < 24 { (oldest + 1).max(newest) } else { newest };
        let minor = cluster.target.unwrap_or(next);
        let found = oracle::upgrade(&cluster, minor);
        let harmless = found.iter().all(|reason| *reason == "DependsOnRedirects");
        cluster.judged(|judgement| {
            let outcome = (judgement.upgrade_safe.status.as_str(), judgement.upgrade_safe.reason);
            if minor < newest {
                prop_assert_eq!(outcome, ("False", "TargetVersionBehind"));
            } else if found.is_empty() {
                prop_assert_eq!(outcome, ("True", "NothingBreaks"));
            } else {
                prop_assert_eq!(outcome.0, if harmless { "True" } else { "False" });
                prop_assert!(found.contains(outcome.1), "{:?} of {:?}", outcome, found);
            }
            Ok(())
        })?;
    }
}

/// Every pair of versions, every state of the gate and of the flag.
fn every_pair(track: Track) {
    const CLAIMS: [&[(Source, FlagValue)]; 8] = [
        &[],
        &[(Agent, On)],
        &[(Agent, Off)],
        &[(Agent, Absent)],
        &[(Annotation, Unreadable)],
        &[(Agent, Off), (Annotation, On)],
        &[(Agent, Absent), (NodeArgs, Off)],
        &[(Agent, Absent), (EnvFiles, Off)],
    ];
    let mut rows = 0;
    for (apiserver, seen) in (10..=37).flat_map(|m| Seen::ALL.map(|seen| (m, seen))) {
        for (kubelet, claims) in (10..=37).flat_map(|m| CLAIMS.map(|claims| (m, claims))) {
            // One of two targets beyond the table for each row keeps this to a second.
            let target = Some(if kubelet % 2 == 0 { 30 } else { 37 });
            let instance = Instance::new("cp", apiserver, seen);
            let node = Node::new("n", kubelet, claims);
            let cluster = Cluster { track, target, ..Cluster::of([instance], [node]) };
            if let Err(why) = check(&cluster) {
                panic!(
                    "{track:?} apiserver 1.{apiserver} {seen:?}, kubelet 1.{kubelet} {claims:?}: {why}"
                );
            }
            rows += 1;
        }
    }
    assert_eq!(rows, 28 * 6 * 28 * 8);
}

#[test]
fn every_pair_on_the_extra_safe_track() {
    every_pair(ExtraSafe);
}

#[test]
fn every_pair_on_the_standard_track() {
    every_pair(Standard);
}

/// The four breakage points of KEP-1558, its other risk, and what is unknown about each. By hand:
/// the oracle may be wrong as well.
#[test]
fn rows_worth_reading() {
    const ON: &[(Source, FlagValue)] = &[(Agent, On)];
    const OFF: &[(Source, FlagValue)] = &[(Agent, Off)];
    const ABSENT: &[(Source, FlagValue)] = &[(Agent, Absent)];
    const SAID: &[(Source, FlagValue)] = &[(Annotation, On)];
    const BACK: &[(Source, FlagValue)] = &[(Agent, Absent), (EnvFiles, Off)];
    for (track, gate, kubelet, claims, minor, expected) in [
        // Off by default while nodes redirect.
        (ExtraSafe, Seen::Unset, 19, ON, 21, &["DependsOnRedirects"][..]),
        (
            ExtraSafe,
            Seen::Unset,
            19,
            ON,
            22,
            &["DependsOnRedirects", "GateOffByDefault", "KubeletRefusesFlag"],
        ),
        (Standard, Seen::Unset, 19, ON, 21, &["DependsOnRedirects", "GateOffByDefault"]),
        (ExtraSafe, Seen::True, 19, ON, 21, &["DependsOnRedirects"]),
        (ExtraSafe, Seen::True, 19, ON, 23, &["DependsOnRedirects", "KubeletRefusesFlag"]),
        (ExtraSafe, Seen::False, 19, ON, 21, &["DependsOnRedirects", "GateOff"]),
        // The gate is gone while nodes redirect.
        (
            Standard,
            Seen::Unset,
            19,
            ON,
            22,
            &["DependsOnRedirects", "GateGone", "KubeletRefusesFlag"],
        ),
        (
            ExtraSafe,
            Seen::Unset,
            19,
            ON,
            24,
            &["DependsOnRedirects", "GateGone", "KubeletRefusesFlag"],
        ),
        // An apiserver that is still started with the gate, whatever its value.
        (ExtraSafe, Seen::True, 20, ABSENT, 23, &[]),
        (ExtraSafe, Seen::True, 20, ABSENT, 24, &["ApiserverRefusesGate"]),
        (ExtraSafe, Seen::False, 20, ABSENT, 24, &["ApiserverRefusesGate"]),
        (Standard, Seen::True, 20, ABSENT, 22, &["ApiserverRefusesGate"]),
        (ExtraSafe, Seen::Invisible, 20, ABSENT, 24, &["ApiserverUnknown"]),
        // A kubelet that is still started with the flag, whatever its value.
        (ExtraSafe, Seen::Unset, 20, ON, 21, &[]),
        (ExtraSafe, Seen::Unset, 21, ON, 22, &["KubeletRefusesFlag"]),
        (ExtraSafe, Seen::Unset, 20, ON, 24, &["KubeletRefusesFlag"]),
        (ExtraSafe, Seen::Unset, 19, OFF, 22, &["KubeletRefusesFlag"]),
        (ExtraSafe, Seen::Unset, 19, ABSENT, 24, &[]),
        // It runs without the flag, and the next start brings it back.
        (ExtraSafe, Seen::Unset, 19, BACK, 22, &["KubeletRefusesFlag"]),
        (ExtraSafe, Seen::Unset, 21, &[], 21, &[]),
        (ExtraSafe, Seen::Unset, 21, &[], 22, &["KubeletFlagUnknown"]),
        // Upstream's kubelets took the standard track, whichever the apiservers took.
        (Standard, Seen::Unset, 21, ON, 21, &[]),
        (Standard, Seen::Unset, 21, ON, 22, &["KubeletRefusesFlag"]),
        // It runs 1.22, so it was started without, whatever a person said once.
        (ExtraSafe, Seen::Unset, 22, &[], 23, &[]),
        (ExtraSafe, Seen::Unset, 22, SAID, 23, &[]),
        // But it has been given the flag since: it will not come up again.
        (ExtraSafe, Seen::Unset, 22, ON, 23, &["KubeletRefusesFlag"]),
        (ExtraSafe, Seen::Unset, 23, BACK, 23, &["KubeletRefusesFlag"]),
        // Nobody knows of the node, or of the gate.
        (ExtraSafe, Seen::Unset, 19, &[], 21, &[]),
        (ExtraSafe, Seen::Unset, 19, &[], 22, &["KubeletFlagUnknown", "NodesUnknown"]),
        (ExtraSafe, Seen::Invisible, 19, ON, 21, &["DependsOnRedirects", "GateUnknown"]),
        // Up to 1.10 there is no flag to trip over, but there are redirects.
        (ExtraSafe, Seen::Unset, 10, OFF, 24, &["DependsOnRedirects", "GateGone"]),
    ] {
        let row = format!("{track:?} {gate:?} 1.{kubelet} {claims:?} at 1.{minor}");
        let cluster = Cluster {
            track,
            ..Cluster::of([Instance::new("cp", 20, gate)], [Node::new("n", kubelet, claims)])
        };
        let expected: BTreeSet<&str> = expected.iter().copied().collect();
        assert_eq!(oracle::upgrade(&cluster, minor), expected, "the oracle on {row}");
        cluster.judged(|judgement| {
            let preview = judgement.upgrades.iter().find(|p| p.minor.0 == minor);
            assert_eq!(reasons(preview.expect("a minor ahead")), expected, "{row}");
        });
    }
}

/// An apiserver that runs a version without the gate has started without it, seen or not: a
/// cluster of today with a managed control plane has nothing left to lose.
#[test]
fn past_the_last_change_nothing_breaks() {
    for track in TRACKS {
        for (apiserver, seen) in [(24, Seen::Invisible), (30, Seen::Invisible), (37, Seen::Unset)] {
            let node = Node::new("n", apiserver, &[]);
            let mut cluster =
                Cluster { track, ..Cluster::of([Instance::new("cp", apiserver, seen)], [node]) };
            for target in [None, Some(apiserver), Some(apiserver + 1)] {
                cluster.target = target;
                let outcome =
                    cluster.judged(|j| (j.upgrade_safe.status.as_str(), j.upgrade_safe.reason));
                assert_eq!(outcome, ("True", "NothingBreaks"), "1.{apiserver} {seen:?} {target:?}");
            }
        }
    }
}

/// The reason is the worst of all that is found.
#[test]
fn the_worst_reason_is_named_first() {
    let cluster = Cluster {
        target: Some(24),
        ..Cluster::of(
            [Instance::new("cp-1", 23, Seen::True), Instance::new("cp-2", 23, Seen::Invisible)],
            [Node::new("on", 19, &[(Agent, On)]), Node::new("unknown", 19, &[])],
        )
    };
    cluster.judged(|judgement| {
        let order: Vec<_> =
            judgement.upgrades[0].findings.iter().map(|f| f.reason.as_str()).collect();
        assert_eq!(
            order,
            [
                "ApiserverRefusesGate",
                "GateGone",
                "NodesUnknown",
                "ApiserverUnknown",
                "KubeletRefusesFlag",
                "KubeletFlagUnknown",
                "DependsOnRedirects",
            ]
        );
        assert_eq!(judgement.upgrade_safe.reason, "ApiserverRefusesGate");
    });
}
