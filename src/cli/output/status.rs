//! The policies' statuses as tables, and what changes as lines.

use anstyle::Style;
use jiff::{SignedDuration, Timestamp};

use super::{BAD, CARE, Cell, GOOD, Table, wrap};
use crate::api::{ApiserverStatus, condition};

/// What stands where there is nothing to name.
const NONE: &str = "-";

/// A policy as `sluice status` shows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// What it wants of the gate.
    pub wants: String,
    /// What the gate is.
    pub gate: String,
    /// How many nodes there are.
    pub nodes: u32,
    /// How many stand in the way.
    pub blocking: u32,
    /// Its conditions.
    pub conditions: Vec<ConditionRow>,
    /// The apiservers; at most ten.
    pub apiservers: Vec<ApiserverStatus>,
    /// The worst of the nodes that stand in the way, and why; at most ten.
    pub worst: Vec<(String, String)>,
}

/// A condition of a policy.
#[derive(Clone, Debug, PartialEq)]
pub struct ConditionRow {
    /// Its type.
    pub kind: String,
    /// True, False or Unknown.
    pub status: String,
    /// Why, in a word.
    pub reason: String,
    /// Why, and what to do.
    pub message: String,
    /// Since when it is so.
    pub since: Timestamp,
}

/// What is changed on a node.
#[derive(Clone, Debug, PartialEq)]
pub struct ChangeRow {
    /// The node.
    pub node: String,
    /// The policy that wants it.
    pub policy: String,
    /// What is changed.
    pub kind: &'static str,
    /// What became of it.
    pub phase: String,
    /// Why, in a word; empty where nothing has been said yet.
    pub reason: String,
    /// Why, and what to do.
    pub message: String,
    /// Since when it is so.
    pub since: Timestamp,
}

impl Row {
    fn condition(&self, kind: &str) -> Option<&ConditionRow> {
        self.conditions.iter().find(|condition| condition.kind == kind)
    }

    fn status(&self, kind: &str) -> &str {
        self.condition(kind).map_or("", |condition| &condition.status)
    }

    fn reason(&self, kind: &str) -> &str {
        self.condition(kind).map_or("", |condition| &condition.reason)
    }
}

/// The table that `kubectl get streamingpolicies` prints, with the messages below it.
pub fn table(rows: &[Row], width: Option<usize>) -> String {
    let mut text = summary(rows);
    text.push('\n');
    for row in rows {
        let message = row.condition(condition::SAFE_TO_DISABLE).map_or("", |c| &c.message);
        text.push_str(&wrap("", &format!("{}: {message}", row.name), width));
    }
    text
}

/// The same, and what is on its way.
pub fn live(rows: &[Row], changes: &[&ChangeRow], now: Timestamp, width: Option<usize>) -> String {
    let mut text = table(rows, width);
    for row in rows {
        let Some(progress) = row.condition(condition::PROGRESSING) else { continue };
        let (reason, message) = (&progress.reason, &progress.message);
        let said = format!("{} since {}: {message}", reason, age(now, progress.since));
        text.push_str(&wrap("  ", &said, width));
    }
    text + &changed(changes, now)
}

/// Everything: each condition, each apiserver, the worst nodes, and what is changed.
pub fn wide(rows: &[Row], changes: &[&ChangeRow], now: Timestamp, width: Option<usize>) -> String {
    let mut text = summary(rows);
    for row in rows {
        text.push_str(&format!("\nStreamingPolicy {}\n", row.name));
        let mut table = Table::new(["CONDITION", "STATUS", "REASON", "SINCE"]);
        for ConditionRow { kind, status, reason, since, .. } in &row.conditions {
            let status = Cell::styled(status.as_str(), style(kind, status));
            table.add([
                kind.as_str().into(),
                status,
                reason.as_str().into(),
                age(now, *since).into(),
            ]);
        }
        text.push_str(&table.render());
        for ConditionRow { kind, message, .. } in &row.conditions {
            for (number, finding) in message.lines().enumerate() {
                let finding =
                    if number == 0 { format!("{kind}: {finding}") } else { finding.to_owned() };
                text.push_str(&wrap("  - ", &finding, width));
            }
        }
        if !row.apiservers.is_empty() {
            let mut table = Table::new(["APISERVER", "VERSION", "GATE", "UNSEEN"]);
            for ApiserverStatus { name, version, gate, unseen, .. } in &row.apiservers {
                let version = version.as_deref().unwrap_or(NONE);
                let unseen = unseen.as_deref().unwrap_or(NONE);
                table.add([
                    name.as_str().into(),
                    version.into(),
                    gate.as_str().into(),
                    unseen.into(),
                ]);
            }
            text.push_str(&format!("\n{}", table.render()));
        }
        if !row.worst.is_empty() {
            let mut table = Table::new(["BLOCKING", "REASON"]);
            for (name, reason) in &row.worst {
                table.add([name.as_str().into(), reason.as_str().into()]);
            }
            text.push_str(&format!("\n{}", table.render()));
            let more = usize::try_from(row.blocking).unwrap_or(usize::MAX);
            match more.saturating_sub(row.worst.len()) {
                0 => {}
                more => text.push_str(&format!("and {more} more\n")),
            }
        }
    }
    text + &changed(changes, now)
}

fn summary(rows: &[Row]) -> String {
    let mut table = Table::new([
        "NAME",
        "WANTS",
        "GATE",
        "SAFE",
        "REASON",
        "NODES",
        "BLOCKING",
        "PROXY",
        "WEBSOCKETS",
    ]);
    for row in rows {
        table.add([
            row.name.as_str().into(),
            row.wants.as_str().into(),
            row.gate.as_str().into(),
            row.status(condition::SAFE_TO_DISABLE).into(),
            row.reason(condition::SAFE_TO_DISABLE).into(),
            row.nodes.to_string().into(),
            row.blocking.to_string().into(),
            row.status(condition::PROXY_READY).into(),
            row.status(condition::WEBSOCKETS_SAFE).into(),
        ]);
    }
    table.render()
}

fn changed(changes: &[&ChangeRow], now: Timestamp) -> String {
    if changes.is_empty() {
        return String::new();
    }
    let mut table = Table::new(["NODE", "CHANGE", "PHASE", "REASON", "SINCE", "MESSAGE"]);
    for change in changes {
        let reason = if change.reason.is_empty() { NONE } else { &change.reason };
        table.add([
            change.node.as_str().into(),
            change.kind.into(),
            change.phase.as_str().into(),
            reason.into(),
            age(now, change.since).into(),
            change.message.lines().next().unwrap_or_default().into(),
        ]);
    }
    format!("\n{}", table.render())
}

/// A policy on one line, for who follows it.
pub fn line(row: &Row) -> String {
    let mut text = format!(
        "policy {}: gate {}, {} of {} nodes block",
        row.name, row.gate, row.blocking, row.nodes
    );
    for condition in &row.conditions {
        text.push_str(&format!("; {} {} ({})", condition.kind, condition.status, condition.reason));
    }
    text
}

/// A change on one line.
pub fn change_line(change: &ChangeRow) -> String {
    let ChangeRow { node, kind, phase, reason, message, .. } = change;
    let reason = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
    let message = message.lines().collect::<Vec<_>>().join(" ");
    format!("node {node}: {kind} {phase}{reason}: {message}")
}

fn style(kind: &str, status: &str) -> Style {
    let good = match kind {
        condition::PROGRESSING => return Style::new(),
        condition::DEGRADED | condition::RUNTIME_EXPOSED => "False",
        _ => "True",
    };
    match status {
        "Unknown" => CARE,
        status if status == good => GOOD,
        _ => BAD,
    }
}

/// How long ago something was, as kubectl says it.
fn age(now: Timestamp, then: Timestamp) -> String {
    let seconds = now.duration_since(then).max(SignedDuration::ZERO).as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn row() -> Row {
        let condition = |kind: &str, status: &str, reason: &str, message: &str| ConditionRow {
            kind: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            since: at(0),
        };
        Row {
            name: "cluster".to_owned(),
            wants: "Disabled".to_owned(),
            gate: "Mixed".to_owned(),
            nodes: 4,
            blocking: 2,
            conditions: vec![
                condition("SafeToDisable", "False", "NodesRedirect", "old1 redirects."),
                condition("Progressing", "True", "NodesChanging", "old1 is changed.\nThen old2."),
            ],
            apiservers: vec![ApiserverStatus {
                name: "cp1".to_owned(),
                version: Some("1.20".to_owned()),
                gate: "Enabled".to_owned(),
                ..ApiserverStatus::default()
            }],
            worst: vec![("old1".to_owned(), "Redirects".to_owned())],
        }
    }

    fn change() -> ChangeRow {
        ChangeRow {
            node: "old1".to_owned(),
            policy: "cluster".to_owned(),
            kind: "KubeletFlag",
            phase: "Applied".to_owned(),
            reason: "Applied".to_owned(),
            message: "The kubelet was restarted.\nIt is ready.".to_owned(),
            since: at(60),
        }
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn everything_of_a_migration() {
        let text = plain(&wide(&[row()], &[&change()], at(150), Some(60)));
        insta::assert_snapshot!(text);
    }

    #[test]
    fn what_is_on_its_way() {
        let text = plain(&live(&[row()], &[&change()], at(150), None));
        let expected = "\ncluster: old1 redirects.\n  NodesChanging since 2m: old1 is changed.\n  Then old2.\n\n\
             NODE   CHANGE        PHASE     REASON    SINCE   MESSAGE\n\
             old1   KubeletFlag   Applied   Applied   90s     The kubelet was restarted.\n";
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn lines_hold_no_line_breaks() {
        assert_eq!(
            line(&row()),
            "policy cluster: gate Mixed, 2 of 4 nodes block; SafeToDisable False (NodesRedirect); \
             Progressing True (NodesChanging)"
        );
        assert_eq!(
            change_line(&change()),
            "node old1: KubeletFlag Applied (Applied): The kubelet was restarted. It is ready."
        );
    }

    #[test]
    fn ages_as_kubectl_says_them() {
        for (seconds, text) in
            [(-5, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (172_800, "2d")]
        {
            assert_eq!(age(at(seconds), at(0)), text, "{seconds}");
        }
    }
}
