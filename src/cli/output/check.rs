//! What became of the canaries' streams, as a table and as items.

use serde::Serialize;

use super::{BAD, CARE, Cell, GOOD, Table};
use crate::{
    cli::check::choose::Untested,
    decision::canary::{Answer, Failure, Probe, failures},
};

/// What stands where nothing was tried.
const UNTESTED: &str = "Untested";

/// What stands where there is nothing to name.
const NONE: &str = "-";

/// So many nodes that could not be tried have their reason told.
const TOLD: usize = 10;

/// Everything that came of a check.
#[derive(Clone, Debug)]
pub struct CheckOutcome {
    probes: Vec<Probe>,
    untested: Vec<Untested>,
    left_out: usize,
}

/// A node and an apiserver, for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    node: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    apiserver: Option<String>,
    exec: &'static str,
    attach: &'static str,
    port_forward: &'static str,
    /// What was said instead of an answer, or why nothing was tried.
    #[serde(skip_serializing_if = "String::is_empty")]
    said: String,
}

impl CheckOutcome {
    /// What was tried, what could not be, and how many nodes could have been.
    pub fn new(probes: Vec<Probe>, untested: Vec<Untested>, left_out: usize) -> Self {
        Self { probes, untested, left_out }
    }

    /// Whether every stream was answered, and every node that counts was tried.
    pub fn passed(&self) -> bool {
        self.probes.iter().all(Probe::passed) && !self.untested.iter().any(|node| node.counts)
    }

    /// A row for each node and apiserver, by name.
    pub fn rows(&self) -> Vec<Row> {
        let probes = self.probes.iter().map(|probe| Row {
            node: probe.node.clone(),
            apiserver: Some(probe.instance.clone()),
            exec: probe.exec.as_str(),
            attach: probe.attach.as_str(),
            port_forward: probe.port_forward.as_str(),
            said: probe.said.clone(),
        });
        let untested = self.untested.iter().map(|untested| Row {
            node: untested.node.clone(),
            apiserver: None,
            exec: UNTESTED,
            attach: UNTESTED,
            port_forward: UNTESTED,
            said: untested.why.clone(),
        });
        let mut rows: Vec<Row> = probes.chain(untested).collect();
        rows.sort_by(|a, b| (&a.node, &a.apiserver).cmp(&(&b.node, &b.apiserver)));
        rows
    }
}

/// The outcome for people: a row for each node and apiserver, and below them what to do.
pub fn table(outcome: &CheckOutcome) -> String {
    let mut table = Table::new(["NODE", "APISERVER", "EXEC", "ATTACH", "PORT-FORWARD"]);
    for row in outcome.rows() {
        let apiserver = row.apiserver.unwrap_or_else(|| NONE.to_owned());
        let cells = [row.exec, row.attach, row.port_forward].map(cell);
        let [exec, attach, forward] = cells;
        table.add([row.node.into(), apiserver.into(), exec, attach, forward]);
    }
    let mut parts = vec![table.render()];
    parts.extend(failures(&outcome.probes).iter().map(failure));
    if !outcome.untested.is_empty() {
        parts.push(untested(&outcome.untested));
    }
    if outcome.left_out > 0 {
        parts.push(left_out(outcome.left_out));
    }
    parts.join("\n")
}

fn failure(failure: &Failure) -> String {
    let Failure { answer, said, advice, .. } = failure;
    let said = match said.as_str() {
        "" => String::new(),
        said => format!("\n  It says: {said}"),
    };
    format!("{BAD}{}{BAD:#}: {advice}{said}\n", answer.as_str())
}

fn untested(nodes: &[Untested]) -> String {
    let mut text = format!(
        "{CARE}{UNTESTED}{CARE:#}: Nothing is known of the streams to these nodes. Look at the \
         canaries' DaemonSet, and at whether the nodes are up.\n"
    );
    for Untested { node, why, .. } in nodes.iter().take(TOLD) {
        text.push_str(&format!("  {node}: {why}\n"));
    }
    if nodes.len() > TOLD {
        text.push_str(&format!("  and {} more\n", nodes.len() - TOLD));
    }
    text
}

fn left_out(count: usize) -> String {
    match count {
        1 => "1 more node was not tried; --max-nodes takes more.\n".to_owned(),
        n => format!("{n} more nodes were not tried; --max-nodes takes more.\n"),
    }
}

fn cell(text: &'static str) -> Cell {
    let style = match text {
        UNTESTED => CARE,
        answered if answered == Answer::Answered.as_str() => GOOD,
        _ => BAD,
    };
    Cell::styled(text, style)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(node: &str, instance: &str, exec: Answer, port_forward: Answer, said: &str) -> Probe {
        let (node, instance) = (node.to_owned(), instance.to_owned());
        Probe { instance, node, exec, attach: exec, port_forward, said: said.to_owned() }
    }

    fn untested(node: &str, counts: bool) -> Untested {
        Untested { node: node.to_owned(), why: "no canary's pod is there".to_owned(), counts }
    }

    #[test]
    fn a_table_of_answers() {
        use Answer::*;
        let redirect = "invalid upgrade response: status code 302";
        let outcome = CheckOutcome::new(
            vec![
                probe("old1", "cp2", RedirectRefused, RedirectRefused, redirect),
                probe("old1", "cp1", Answered, Answered, ""),
                probe("new1", "cp1", Answered, Answered, ""),
                probe("new1", "cp2", Answered, RuntimeUnreachable, "connection refused"),
            ],
            (0..12).map(|i| untested(&format!("down{i:02}"), true)).collect(),
            3,
        );
        let text = anstream::adapter::strip_str(&table(&outcome)).to_string();
        insta::assert_snapshot!(text);
    }

    #[test]
    fn everything_has_to_be_answered() {
        use Answer::*;
        let good = probe("a", "cp1", Answered, Answered, "");
        let half = probe("a", "cp1", Answered, NoAnswer, "nothing within 15 s");
        for (probes, nodes, passed) in [
            (vec![good.clone()], vec![], true),
            (vec![good.clone(), half], vec![], false),
            (vec![good.clone()], vec![untested("b", true)], false),
            (vec![good], vec![untested("w", false)], true),
        ] {
            assert_eq!(CheckOutcome::new(probes, nodes, 9).passed(), passed);
        }
    }
}
