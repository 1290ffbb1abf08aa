//! The policies' statuses as a table.

use super::Table;

/// A policy as `sluice status` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// What it wants of the gate.
    pub wants: String,
    /// What the gate is.
    pub gate: String,
    /// Whether the gate may be turned off.
    pub safe: String,
    /// Why.
    pub reason: String,
    /// How many nodes there are.
    pub nodes: u32,
    /// How many stand in the way.
    pub blocking: u32,
    /// Whether the proxy does what is wanted; empty where none is.
    pub proxy: String,
    /// Why, and what to do.
    pub message: String,
}

/// The table that `kubectl get streamingpolicies` prints, with the messages below it.
pub fn table(rows: &[Row]) -> String {
    let mut table =
        Table::new(["NAME", "WANTS", "GATE", "SAFE", "REASON", "NODES", "BLOCKING", "PROXY"]);
    for row in rows {
        table.add([
            row.name.as_str().into(),
            row.wants.as_str().into(),
            row.gate.as_str().into(),
            row.safe.as_str().into(),
            row.reason.as_str().into(),
            row.nodes.to_string().into(),
            row.blocking.to_string().into(),
            row.proxy.as_str().into(),
        ]);
    }
    let mut text = table.render();
    text.push('\n');
    for row in rows {
        text.push_str(&format!("{}: {}\n", row.name, row.message));
    }
    text
}
