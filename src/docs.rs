//! Holds `docs/` against the code: nothing is missing there, and nothing is explained that is not.

use std::collections::BTreeSet;

use crate::{
    api::{AgentReport, ChangeReport, condition},
    cluster::reasons,
    controller::event_records,
    decision::{apiserver::Unseen, redirects::node::NodeReason, websockets::rights::RightsReason},
    relay::Refusal,
    webhook,
};

const REASONS: &str = include_str!("../docs/reasons.md");

/// The names in the first column of the tables of each section: the words in backticks. A section
/// begins with a line `## Title`.
fn sections(document: &str) -> Vec<(&str, Vec<&str>)> {
    let mut sections: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in document.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            sections.push((title, Vec::new()));
        } else if let (Some(row), Some((_, names))) = (line.strip_prefix("| "), sections.last_mut())
        {
            let cell = row.split(" |").next().unwrap_or_default();
            names.extend(cell.split('`').skip(1).step_by(2));
        }
    }
    sections.retain(|(_, names)| !names.is_empty());
    sections
}

/// The names of one section, each of which stands there once.
fn explained<'a>(sections: &[(&str, Vec<&'a str>)], title: &str) -> BTreeSet<&'a str> {
    let (_, names) = sections.iter().find(|(known, _)| *known == title).expect(title);
    let set: BTreeSet<&str> = names.iter().copied().collect();
    assert_eq!(set.len(), names.len(), "{title} explains something twice: {names:?}");
    set
}

#[test]
fn every_reason_is_explained_and_nothing_else() {
    let mut expected: Vec<(&str, Vec<&str>)> =
        condition::ALL.into_iter().map(|kind| (kind, reasons::of(kind))).collect();
    expected.extend([
        ("The verdict of a StreamingNode", NodeReason::ALL.map(NodeReason::as_str).to_vec()),
        ("Rights to stream", RightsReason::ALL.map(RightsReason::as_str).to_vec()),
        ("What the agent reports", AgentReport::REASONS.to_vec()),
        ("What became of a change", ChangeReport::REASONS.to_vec()),
        ("Events", event_records::REASONS.to_vec()),
        ("API servers that cannot be judged", Unseen::REASONS.to_vec()),
        ("Refused writes to a StreamingNode", webhook::rule::Denial::REASONS.to_vec()),
        ("Refused policies", webhook::policy::rule::Denial::REASONS.to_vec()),
    ]);
    let sections = sections(REASONS);
    for (title, reasons) in &expected {
        let reasons: BTreeSet<&str> = reasons.iter().copied().collect();
        assert_eq!(explained(&sections, title), reasons, "docs/reasons.md, {title}");
    }
    let titles: BTreeSet<&str> = sections.iter().map(|(title, _)| *title).collect();
    let known: BTreeSet<&str> = expected.iter().map(|(title, _)| *title).collect();
    assert_eq!(titles, known, "the sections of docs/reasons.md");
}

/// The metric families of an OpenMetrics text, by the names that Prometheus stores.
///
/// # Panics
/// Where docs/metrics.md explains others under this title.
pub(crate) fn assert_metrics(title: &str, text: &str) {
    const METRICS: &str = include_str!("../docs/metrics.md");
    let suffixed = |family: &str| {
        let mut words = family.split(' ');
        let (name, kind) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let suffix = match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        format!("{name}{suffix}")
    };
    let families: BTreeSet<String> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).map(suffixed).collect();
    let sections = sections(METRICS);
    let refusals = BTreeSet::from(Refusal::ALL.map(Refusal::reason));
    assert_eq!(explained(&sections, "Why a connection was not carried"), refusals);
    let explained: BTreeSet<String> =
        explained(&sections, title).into_iter().map(str::to_owned).collect();
    assert_eq!(families, explained, "docs/metrics.md, {title}");
}
