//! What stands in the way of WebSockets, node by node and apiserver by apiserver.

use super::{
    cliffs::{Cliffs, cliffs},
    node::{Cell, NodeFacts, StreamingUrl, cell_at, cell_today},
};
use crate::{decision::apiserver::Apiserver, kubernetes::version::Minor};

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
    let concern = concern(facts, apiservers, minor).filter(|_| !excepted);
    let mut cliffs =
        cliffs(facts.kubelet, facts.gates.as_ref(), minor, facts.declares() && facts.takes());
    cliffs.unknown &= !excepted;
    Surveyed { node, concern, cliffs }
}

fn concern(node: &NodeFacts, apiservers: &[Apiserver], minor: Minor) -> Option<Concern> {
    let (today, then) = (cell_today(node, apiservers), cell_at(node, apiservers, minor));
    let url = match (today, then.is_safe()) {
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
