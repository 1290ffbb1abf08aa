//! What StreamingNodes say of changes, for whoever takes Sluice away.

use crate::{
    api::StreamingNode,
    decision::{
        change::Phase,
        uninstall::{StoredChange, obstacle},
    },
};

/// What a node's StreamingNode says, read as the decision takes it.
pub fn stored_change<'a>(node: &'a StreamingNode, name: &'a str) -> StoredChange<'a> {
    let reported = node.status.as_ref().and_then(|status| status.change.as_deref());
    StoredChange {
        node: name,
        wanted: node.spec.change.as_deref().map(|change| &*change.id),
        reported: reported.map(|report| (&*report.id, Phase::read(&report.phase), &*report.reason)),
    }
}

/// The nodes of which a change has to be taken back before Sluice may go: those that still ask for one.
pub fn to_take_back<'a>(
    nodes: impl IntoIterator<Item = (&'a str, &'a StreamingNode)>,
) -> Vec<String> {
    let asked = nodes.into_iter().filter(|(name, node)| {
        node.spec.change.is_some() && obstacle(&stored_change(node, name)).is_some()
    });
    asked.map(|(name, _)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(change: Value, report: Value) -> StreamingNode {
        serde_json::from_value(json!({
            "apiVersion": "sluice.dev/v1alpha1", "kind": "StreamingNode",
            "metadata": {"name": "old1"},
            "spec": {"change": change},
            "status": {"change": report},
        }))
        .unwrap()
    }

    fn change() -> Value {
        json!({
            "id": "1", "kind": "KubeletFlag", "policy": "p", "deadlineSeconds": 60,
            "verdict": {"resourceVersion": "1", "generation": 1, "at": "2026-01-01T00:00:00Z"},
        })
    }

    fn report(phase: &str) -> Value {
        json!({
            "id": "1", "phase": phase, "reason": "r", "message": "m",
            "since": "2026-01-01T00:00:00Z",
        })
    }

    #[test]
    fn only_what_is_asked_for_and_has_not_ended_is_taken_back() {
        for (change, report, expected) in [
            (Value::Null, Value::Null, false),
            (change(), Value::Null, true),
            (change(), report("Applied"), true),
            (change(), report("Confirmed"), false),
            (Value::Null, report("Applied"), false),
        ] {
            let node = node(change, report);
            assert_eq!(!to_take_back([("old1", &node)]).is_empty(), expected, "{node:?}");
        }
    }

    #[test]
    fn a_report_is_read_with_its_phase() {
        let node = node(change(), report("Applied"));
        let stored = stored_change(&node, "old1");
        assert_eq!(stored.wanted, Some("1"));
        assert_eq!(stored.reported, Some(("1", Phase::Applied, "r")));
    }
}
