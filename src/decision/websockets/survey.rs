//! What stands in the way of WebSockets, node by node and apiserver by apiserver.

use super::{
    cliffs::{Cliff, Cliffs, cliffs},
    gates::may_be_refused,
    node::{Cell, NodeFacts, StreamingUrl, cell_at, cell_today},
};
use crate::{
    decision::apiserver::Apiserver,
    kubernetes::{feature_gates::FeatureGates, version::Minor},
};

/// A node of the cluster.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Its name.
    pub name: &'a str,
    /// What is known of it.
    pub facts: &'a NodeFacts,
    /// An override of the policy accepts that exec may fail there.
    pub excepted: bool,
}

/// What may become of exec and attach on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Concern {
    /// They fail today.
    FailsNow,
    /// They will, or may: its runtime answers with a URL without a scheme.
    SchemeLess,
    /// They may: nobody knows with which URL its runtime answers.
    UrlUnknown,
    /// They may: its Node declares what its kubelet does not do.
    Contradiction,
}

/// What there is about one node.
#[derive(Clone, Debug)]
pub struct Surveyed<'a> {
    /// The node.
    pub node: Seen<'a>,
    /// What may become of exec and attach; `None` where they work, or that is excepted.
    pub concern: Option<Concern>,
    /// The gates with which its kubelet would not start.
    pub cliffs: Cliffs,
}

/// Looks at a node on the way to a minor.
pub fn look<'a>(node: Seen<'a>, apiservers: &[Apiserver], minor: Minor) -> Surveyed<'a> {
    let Seen { facts, excepted, .. } = node;
    let declares = facts.declares_what_it_can();
    let mut cliffs = cliffs(facts.kubelet, facts.gates.as_ref(), minor, declares);
    // What is said of its gates is not what it does, so it may be set to any.
    cliffs.unknown |= facts.gates_contradicted(apiservers)
        && facts.kubelet.is_some_and(|running| may_be_refused(running, minor, declares));
    cliffs.unknown &= !excepted;
    let concern = concern(facts, &cliffs, apiservers, minor).filter(|_| !excepted);
    Surveyed { node, concern, cliffs }
}

/// The gates of a component without those that keep it from starting.
fn left(gates: Option<&FeatureGates>, cliffs: &Cliffs) -> Option<FeatureGates> {
    let without = |left: FeatureGates, cliff: &Cliff| left.without(cliff.set_by().0);
    gates.map(|gates| cliffs.known.iter().fold(gates.clone(), without))
}

/// Whether exec and attach work at a minor once the gates are gone that have to go before: what they
/// held off comes then.
fn lasts(node: &NodeFacts, cliffs: &Cliffs, apiservers: &[Apiserver], minor: Minor) -> bool {
    let of_each: Vec<Cliffs> = apiservers.iter().map(|each| of_apiserver(each, minor)).collect();
    if cliffs.known.is_empty() && of_each.iter().all(|cliffs| cliffs.known.is_empty()) {
        return true;
    }
    let node = NodeFacts { gates: left(node.gates.as_ref(), cliffs), ..node.clone() };
    let each = apiservers.iter().zip(&of_each);
    let apiservers: Vec<Apiserver> = each
        .map(|(each, cliffs)| Apiserver {
            gates: left(each.gates.as_ref(), cliffs),
            ..each.clone()
        })
        .collect();
    cell_at(&node, &apiservers, minor).is_safe()
}

fn concern(
    node: &NodeFacts,
    cliffs: &Cliffs,
    apiservers: &[Apiserver],
    minor: Minor,
) -> Option<Concern> {
    // That is said of the apiservers.
    if apiservers.is_empty() {
        return None;
    }
    let today = cell_today(node, apiservers);
    let works =
        cell_at(node, apiservers, minor).is_safe() && lasts(node, cliffs, apiservers, minor);
    let url = match (today, works) {
        (Cell::Broken, _) => return Some(Concern::FailsNow),
        (_, false) => node.url(node.kubelet.map(|running| running.max(minor))),
        (today, true) if !today.is_safe() => node.url(node.kubelet),
        _ => return None,
    };
    Some(match url {
        StreamingUrl::SchemeLess => Concern::SchemeLess,
        StreamingUrl::Unknown => Concern::UrlUnknown,
        StreamingUrl::Absolute => Concern::Contradiction,
    })
}

/// The gates with which an apiserver would not start on the way to a minor.
pub fn of_apiserver(apiserver: &Apiserver, minor: Minor) -> Cliffs {
    cliffs(apiserver.minor, apiserver.gates.as_ref(), minor, false)
}
