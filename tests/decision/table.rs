//! Every pair of an apiserver's and a kubelet's minor, every evidence, every state of the gate.

use std::ops::RangeInclusive;

use sluice::{
    decision::{
        apiserver::{Apiserver, ControlPlane},
        migration::{STREAMING_REDIRECTS, Track},
        redirects::{
            evidence::Source::{self, Agent, Annotation, EnvFiles, NodeArgs},
            node::{self, NodeFacts},
            safety::safe_to_disable,
            scene::Scene,
            survey::Survey,
        },
    },
    kubernetes::arguments::kubelet::FlagValue::{self, Absent, Off, On, Unreadable},
};

use crate::{
    cluster::{Cluster, Instance, Node, SAYS, SOURCES, Seen, TRACKS},
    oracle::{self, Gate, Redirects},
};

const MINORS: RangeInclusive<u16> = 10..=37;

/// Every way in which four sources can each be silent or say one of four things.
fn every_evidence() -> Vec<Vec<(Source, FlagValue)>> {
    let mut all = vec![Vec::new()];
    for source in SOURCES {
        let said =
            |claims: &Vec<_>| SAYS.map(|says| [claims.as_slice(), &[(source, says)]].concat());
        let more: Vec<_> = all.iter().flat_map(said).collect();
        all.extend(more);
    }
    all
}

/// The cell that a node must be in today. Only where the gate is known: where it is not, a node
/// that proxies proxies under either setting, and the cell is a matter of words.
fn cell_today(redirects: Redirects, gate: Gate) -> Option<&'static str> {
    match (redirects, gate) {
        (Redirects::Yes, Gate::On) => Some("Followed"),
        (Redirects::Yes, Gate::Off | Gate::Gone) => Some("Broken"),
        (Redirects::Yes | Redirects::Maybe, _) => Some("Unknown"),
        (Redirects::No, Gate::On) => Some("Proxied"),
        (Redirects::No, Gate::Off | Gate::Gone) => Some("Final"),
        (Redirects::No, Gate::Unknown) => None,
    }
}

fn state(redirects: Redirects, kubelet: Option<u16>) -> &'static str {
    match (redirects, kubelet) {
        (Redirects::Yes, _) => "On",
        (Redirects::Maybe, _) => "Unknown",
        (Redirects::No, Some(..=19) | None) => "Off",
        (Redirects::No, Some(20 | 21)) => "Ignored",
        (Redirects::No, Some(_)) => "Impossible",
    }
}

/// One node against one apiserver, everything crossed with everything.
fn full_cross_product(track: Track) {
    let migration = &STREAMING_REDIRECTS;
    // Each node alone in a vector, which is lent to the oracle: half a million clones take longer
    // than the judgements.
    let mut nodes: Vec<(Vec<Node>, NodeFacts)> = MINORS
        .flat_map(|kubelet| every_evidence().into_iter().map(move |c| Node::new("n", kubelet, &c)))
        .map(|node| (vec![node.clone()], node.facts()))
        .collect();
    assert_eq!(nodes.len(), 28 * 625, "four sources, silent or saying one of four things");
    let mut rows = 0;
    for (apiserver, seen) in MINORS.flat_map(|m| Seen::ALL.map(|seen| (m, seen))) {
        let instance = Instance::new("cp", apiserver, seen);
        let instances = [instance.build()];
        let plane = &ControlPlane::of(&instances, migration, track);
        let gate = oracle::gate(track, Some(apiserver), seen);
        let mut cluster = Cluster { track, ..Cluster::of([instance], []) };
        for (alone, facts) in &mut nodes {
            std::mem::swap(&mut cluster.nodes, alone);
            let node = &cluster.nodes[0];
            let row = || format!("{track:?} apiserver 1.{apiserver} {seen:?}, {node:?}");
            let redirects = oracle::redirects(node.kubelet, &node.claims);
            let judged = node::judge(migration, facts, plane, false);

            assert_eq!(judged.redirects.as_str(), state(redirects, node.kubelet), "{}", row());
            let blocks = if redirects == Redirects::No { "Safe" } else { "Blocks" };
            assert_eq!(judged.verdict.as_str(), blocks, "{}", row());
            let cell = match redirects {
                Redirects::Yes => "Broken",
                Redirects::Maybe => "Unknown",
                Redirects::No => "Final",
            };
            assert_eq!(judged.gate_off.as_str(), cell, "{}", row());
            let today = cell_today(redirects, gate);
            assert!(today.is_none_or(|cell| cell == judged.today.as_str()), "{}", row());

            let mut survey = Survey::default();
            survey.add(migration, "n", facts, &judged);
            let (managed, instances, survey) = (false, &instances[..], &survey);
            let scene = Scene { migration, track, instances, plane, survey, managed };
            let outcome = safe_to_disable(&scene);
            let expected = oracle::safe_to_disable(&cluster);
            assert_eq!((outcome.status.as_str(), outcome.reason), expected, "{}", row());
            std::mem::swap(&mut cluster.nodes, alone);
            rows += 1;
        }
    }
    assert_eq!(rows, 28 * 6 * 28 * 625);
}

#[test]
fn full_cross_product_on_the_extra_safe_track() {
    full_cross_product(Track::ExtraSafe);
}

#[test]
fn full_cross_product_on_the_standard_track() {
    full_cross_product(Track::Standard);
}

/// The rows that people ask about, by hand: the oracle may be wrong as well.
#[test]
fn rows_worth_reading() {
    const LAGGING: (&str, &str) = ("False", "NodesRedirectWhileLagging");
    const REDIRECT: (&str, &str) = ("False", "NodesRedirect");
    const CONTRADICTORY: (&str, &str) = ("False", "EvidenceContradictory");
    const UNKNOWN: (&str, &str) = ("False", "NodesUnknown");
    const BLIND: (&str, &str) = ("False", "ApiserversUnknown");
    const SAFE: (&str, &str) = ("True", "NoNodeRedirects");
    const GONE: (&str, &str) = ("True", "GateRemoved");
    for (apiserver, gate, kubelet, claims, expected) in [
        // The floor: two behind with redirects on; one behind, level and ahead break as well.
        (20, Seen::Unset, 17, &[(Agent, On)][..], LAGGING),
        (20, Seen::Unset, 18, &[(Agent, On)], LAGGING),
        (20, Seen::Unset, 19, &[(Agent, On)], REDIRECT),
        (19, Seen::Unset, 19, &[(Agent, On)], REDIRECT),
        (18, Seen::Unset, 19, &[(Agent, On)], REDIRECT),
        // From 1.20 the flag is ignored: safe at any skew, whatever anybody says.
        (20, Seen::Unset, 20, &[(Agent, On)], SAFE),
        (23, Seen::True, 20, &[(Agent, On), (Annotation, Off)], SAFE),
        (23, Seen::True, 21, &[], SAFE),
        // Up to 1.10 there is no flag: always redirecting, whatever anybody says.
        (11, Seen::Unset, 10, &[(Agent, Off), (NodeArgs, Absent), (Annotation, Off)], REDIRECT),
        (12, Seen::Unset, 10, &[(Agent, Off)], LAGGING),
        (12, Seen::Unset, 11, &[(Agent, Off)], SAFE),
        // Nobody said anything that can be understood.
        (20, Seen::Unset, 19, &[], UNKNOWN),
        (20, Seen::Unset, 17, &[], UNKNOWN),
        (20, Seen::Unset, 19, &[(Annotation, Unreadable)], UNKNOWN),
        (20, Seen::Unset, 19, &[(Agent, Off), (Annotation, Unreadable)], UNKNOWN),
        // A contradiction counts as redirecting, whoever is trusted more.
        (20, Seen::Unset, 19, &[(Agent, Off), (Annotation, On)], CONTRADICTORY),
        (20, Seen::Unset, 19, &[(Agent, On), (NodeArgs, Absent)], CONTRADICTORY),
        (20, Seen::Unset, 18, &[(Agent, Absent), (Annotation, On)], LAGGING),
        (20, Seen::Unset, 19, &[(Agent, Off), (NodeArgs, Absent)], SAFE),
        // What the next start will be counts as well as what runs.
        (20, Seen::Unset, 19, &[(Agent, Absent), (EnvFiles, On)], CONTRADICTORY),
        (20, Seen::Unset, 19, &[(Agent, On), (EnvFiles, Off)], CONTRADICTORY),
        (20, Seen::Unset, 19, &[(Agent, Absent), (EnvFiles, Off)], SAFE),
        (20, Seen::Unset, 19, &[(Agent, Absent), (EnvFiles, Unreadable)], UNKNOWN),
        (20, Seen::Unset, 19, &[(EnvFiles, On)], REDIRECT),
        // The node is safe; the apiserver is not seen, or has no gate any more.
        (20, Seen::Invisible, 20, &[], BLIND),
        (20, Seen::Unreadable, 20, &[], BLIND),
        (23, Seen::Invisible, 23, &[], BLIND),
        (24, Seen::Invisible, 23, &[], GONE),
        (24, Seen::Unset, 19, &[], UNKNOWN),
        // Off already: the question stays the same.
        (20, Seen::False, 19, &[(Agent, On)], REDIRECT),
        (22, Seen::Unset, 20, &[], SAFE),
    ] {
        let cluster =
            Cluster::of([Instance::new("cp", apiserver, gate)], [Node::new("n", kubelet, claims)]);
        let row = format!("apiserver 1.{apiserver} {gate:?}, kubelet 1.{kubelet} {claims:?}");
        assert_eq!(cluster.safe(), expected, "{row}");
        assert_eq!(oracle::safe_to_disable(&cluster), expected, "the oracle on {row}");
    }
}

/// Two apiservers beside a node that is safe anyway: every pair of versions and of gates.
#[test]
fn every_pair_of_apiservers() {
    let node = Node::new("n", 30, &[]);
    let one = || MINORS.flat_map(|minor| Seen::ALL.map(|seen| (minor, seen)));
    let build = |name, (minor, seen)| Instance::new(name, minor, seen);
    let facts = node.facts();
    for track in TRACKS {
        let mut cluster = Cluster { track, ..Cluster::of([], [node.clone()]) };
        for (a, b) in one().flat_map(|a| one().map(move |b| (a, b))) {
            cluster.instances = vec![build("a", a), build("b", b)];
            let instances: Vec<Apiserver> = cluster.instances.iter().map(|i| i.build()).collect();
            let plane = ControlPlane::of(&instances, &STREAMING_REDIRECTS, track);
            let judged = node::judge(&STREAMING_REDIRECTS, &facts, &plane, false);
            let mut survey = Survey::default();
            survey.add(&STREAMING_REDIRECTS, "n", &facts, &judged);
            let migration = &STREAMING_REDIRECTS;
            let scene = Scene {
                migration,
                track,
                instances: &instances,
                plane: &plane,
                survey: &survey,
                managed: false,
            };
            let outcome = safe_to_disable(&scene);
            let expected = oracle::safe_to_disable(&cluster);
            assert_eq!(
                (outcome.status.as_str(), outcome.reason),
                expected,
                "{track:?} {a:?} {b:?}"
            );
        }
    }
}

/// A kubelet whose version cannot be read is never safe, whatever is said about its flag.
#[test]
fn no_version_is_never_safe() {
    for claims in every_evidence() {
        let on = claims.iter().any(|(_, says)| *says == On);
        let against = claims.iter().any(|(_, says)| matches!(says, Off | Absent));
        let expected = match (on, against) {
            (true, true) => "EvidenceContradictory",
            (true, false) => "NodesRedirect",
            (false, _) => "NodesUnknown",
        };
        let node = Node { kubelet: None, ..Node::new("n", 0, &claims) };
        let cluster = Cluster::of([Instance::new("cp", 20, Seen::Unset)], [node]);
        assert_eq!(cluster.safe(), ("False", expected), "{claims:?}");
    }
}
