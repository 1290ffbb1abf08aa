//! Which nodes are tried, and which cannot be.

use std::collections::{BTreeMap, BTreeSet};

use super::Error;
use crate::{canary::CanaryPod, decision::canary::sample};

/// The label that tells a node's operating system.
pub const OS_LABEL: &str = "kubernetes.io/os";

/// The operating system that canaries run on.
const LINUX: &str = "linux";

/// What is known before anything is tried.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The nodes, and the operating system of each, where it is told.
    pub nodes: BTreeMap<String, Option<String>>,
    /// The canary of each node.
    pub canaries: BTreeMap<String, CanaryPod>,
    /// The nodes that stand in the way of turning the gate off.
    pub blocking: BTreeSet<String>,
}

/// A node that cannot be tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untested {
    /// Its name.
    pub node: String,
    /// Why.
    pub why: String,
    /// Whether a canary should be there: that nothing is known of its streams is no good news.
    pub counts: bool,
}

/// What is done about the nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The canaries that are asked, the nodes that block first.
    pub asked: Vec<CanaryPod>,
    /// The nodes that cannot be tried.
    pub untested: Vec<Untested>,
    /// How many could be tried and are not, since there are more than wanted.
    pub left_out: usize,
}

/// Chooses at most `max` nodes: of those that are `named`, or of all.
///
/// # Errors
/// Where a node that is named does not exist.
pub fn choose(known: &Known, named: &[String], max: usize) -> Result<Choice, Error> {
    if let Some(missing) = named.iter().find(|name| !known.nodes.contains_key(*name)) {
        return Err(Error::NoNode(missing.clone()));
    }
    let wanted = |node: &&String| named.is_empty() || named.contains(node);
    let mut choice = Choice::default();
    let mut testable = BTreeSet::new();
    for node in known.nodes.keys().filter(wanted) {
        match untested(known, node) {
            Some(untested) => choice.untested.push(untested),
            None => {
                testable.insert(node.as_str());
            }
        }
    }
    let blocking = known.blocking.iter().map(String::as_str);
    let candidates = blocking.filter(|node| testable.contains(node)).collect();
    let chosen = sample(&candidates, testable.iter().copied(), max);
    choice.left_out = testable.len() - chosen.len();
    choice.asked = chosen.iter().filter_map(|node| known.canaries.get(node).cloned()).collect();
    Ok(choice)
}

fn untested(known: &Known, node: &str) -> Option<Untested> {
    let os = known.nodes.get(node).and_then(Option::as_deref).unwrap_or(LINUX);
    let (why, counts) = match known.canaries.get(node) {
        _ if os != LINUX => (format!("canaries run on Linux, and this is {os}"), false),
        None => ("no canary's pod is there".to_owned(), true),
        Some(pod) if !pod.ready => (format!("its canary, pod {}, is not ready", pod.name), true),
        Some(_) => return None,
    };
    Some(Untested { node: node.to_owned(), why, counts })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        let pod = |node: &str, ready| CanaryPod {
            namespace: "c".to_owned(),
            name: format!("canary-{node}"),
            node: node.to_owned(),
            ready,
        };
        let nodes = [("a", "linux"), ("b", ""), ("c", "linux"), ("d", "linux"), ("w", "windows")];
        let os = |os: &str| (!os.is_empty()).then(|| os.to_owned());
        Known {
            nodes: nodes.map(|(name, system)| (name.to_owned(), os(system))).into(),
            canaries: [("a", true), ("b", true), ("c", false), ("gone", true)]
                .map(|(node, ready)| (node.to_owned(), pod(node, ready)))
                .into(),
            blocking: ["b".to_owned(), "c".to_owned()].into(),
        }
    }

    fn names(choice: &Choice) -> (Vec<&str>, Vec<&str>) {
        (
            choice.asked.iter().map(|pod| pod.node.as_str()).collect(),
            choice.untested.iter().map(|untested| untested.node.as_str()).collect(),
        )
    }

    #[test]
    fn those_that_block_come_first_and_the_rest_is_told() {
        for (named, max, asked, untested, left_out) in [
            (&[][..], 9, &["b", "a"][..], &["c", "d", "w"][..], 0),
            (&[], 1, &["b"], &["c", "d", "w"], 1),
            (&["a", "d"], 9, &["a"], &["d"], 0),
            (&["b"], 9, &["b"], &[], 0),
        ] {
            let named: Vec<String> = named.iter().map(|name| (*name).to_owned()).collect();
            let choice = choose(&known(), &named, max).unwrap();
            assert_eq!(names(&choice), (asked.to_vec(), untested.to_vec()));
            assert_eq!(choice.left_out, left_out);
        }
    }

    #[test]
    fn why_a_node_is_not_tried() {
        let untested = choose(&known(), &[], 9).unwrap().untested;
        let seen: Vec<_> = untested.iter().map(|u| (u.why.as_str(), u.counts)).collect();
        assert_eq!(
            seen,
            [
                ("its canary, pod canary-c, is not ready", true),
                ("no canary's pod is there", true),
                ("canaries run on Linux, and this is windows", false),
            ]
        );
    }

    #[test]
    fn a_node_that_does_not_exist_is_an_error() {
        let error = choose(&known(), &["a".to_owned(), "e".to_owned()], 9).unwrap_err();
        assert_eq!(
            (error.reason(), error.to_string().as_str()),
            ("NoNode", "there is no Node \"e\"")
        );
    }
}
