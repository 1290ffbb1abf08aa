//! A plan as a table. The same words as in the objects, so that a person and a script who compare
//! notes speak of the same things.

mod rights;

use std::collections::BTreeMap;

use anstyle::Style;

use super::{BAD, CARE, Cell, GOOD, Table, wrap};
use crate::{
    api::{StreamingNodeStatus, StreamingPolicyStatus, condition},
    cli::plan::{
        judge::{PlannedPolicy, PlannedStatuses},
        upgrade::UpgradePlan,
    },
    decision::{
        migration::STREAMING_REDIRECTS,
        names::NameSummary,
        redirects::node::{Redirects, Verdict},
        steps::{Action, ArgumentChange, Step},
        websockets::rights::steps::steps as rights_steps,
    },
};

/// Up to so many nodes are all shown.
const NODES_SHOWN: usize = 50;

/// Of more nodes than that, so many are shown, and of their kinds.
const FIRST: usize = 10;

/// What stands where nothing is known.
const NONE: &str = "-";

/// The plan for people; `all` shows every node, however many there are. Sentences are broken at `width`.
pub fn table(plan: &PlannedStatuses, all: bool, width: Option<usize>) -> String {
    let Some(policy) = plan.judged() else { return String::new() };
    let mut parts = vec![heading(plan, policy, width), nodes(plan, all)];
    if !policy.status.upgrades.is_empty() {
        parts.push(upgrades(&policy.status));
    }
    let findings = plan.rights.as_ref().map(rights::findings);
    parts.extend(findings.filter(|findings| !findings.is_empty()));
    let mut todo = todo(policy, width);
    todo.extend(plan.rights.iter().map(|report| rights::todo(report, has_target(policy), width)));
    if !todo.is_empty() {
        parts.push(format!("What to do:\n{todo}"));
    }
    match (&plan.upgrade, &plan.rights) {
        (Some(UpgradePlan { target, steps: todo }), _) if !todo.is_empty() => {
            parts.push(steps(&format!("On the way to {target}, in this order:"), todo, width));
        }
        (_, Some(report)) if !report.changes.is_empty() => {
            parts.push(steps(
                "So that these streams are not refused:",
                &rights_steps(report),
                width,
            ));
        }
        _ => {}
    }
    parts.join("\n")
}

/// Whether an upgrade is judged, be it the policy's, and not what is today.
fn has_target(policy: &PlannedPolicy) -> bool {
    policy.spec.as_ref().is_some_and(|spec| spec.target_version.is_some())
}

/// What is there, what may be done, and how many nodes are in the way.
fn heading(plan: &PlannedStatuses, policy: &PlannedPolicy, width: Option<usize>) -> String {
    let status = &policy.status;
    let name = policy.metadata.name.as_deref().unwrap_or_default();
    let wants = match &policy.spec {
        Some(spec) => match spec.streaming_proxy_redirects {
            Some(wish) => format!("wants {wish:?}"),
            None => "asks for nothing".to_owned(),
        },
        None => "cannot be read".to_owned(),
    };
    let gate = STREAMING_REDIRECTS.gate;
    let mut text = format!(
        "{}; {gate} is {}; StreamingPolicy {name} {wants}\n{}",
        apiservers(status),
        status.gate,
        verdict(policy, condition::SAFE_TO_DISABLE, "", width)
    );
    if plan.upgrade.is_some() {
        let target = policy.spec.as_ref().and_then(|spec| spec.target_version.as_deref());
        let what = format!("Upgrade to {}: ", target.unwrap_or_default());
        text.push_str(&verdict(policy, condition::UPGRADE_SAFE, &what, width));
    }
    if policy.condition(condition::WEBSOCKETS_SAFE).is_some() {
        text.push_str(&verdict(policy, condition::WEBSOCKETS_SAFE, "WebSockets: ", width));
    }
    let rights = plan.rights.iter();
    text.extend(rights.map(|report| rights::verdict(report, has_target(policy), width)));
    text + &counts(plan)
}

fn counts(plan: &PlannedStatuses) -> String {
    let of = |verdict: Verdict| {
        let statuses = plan.nodes.iter().filter_map(|node| node.status.as_ref());
        statuses.filter(|status| status.verdict == verdict.as_str()).count()
    };
    let (total, blocking, overridden) =
        (plan.nodes.len(), of(Verdict::Blocks), of(Verdict::Overridden));
    let nodes = if total == 1 { "1 node".to_owned() } else { format!("{total} nodes") };
    let block = match blocking {
        0 => "none blocks".to_owned(),
        1 => format!("{BAD}1 blocks{BAD:#}"),
        n => format!("{BAD}{n} block{BAD:#}"),
    };
    let excepted = match overridden {
        0 => String::new(),
        n => format!(", {CARE}{n} overridden{CARE:#}"),
    };
    format!("{nodes}: {block}{excepted}\n")
}

fn apiservers(status: &StreamingPolicyStatus) -> String {
    let all = &status.apiservers;
    let version = match (&all.oldest, &all.newest) {
        (Some(oldest), Some(newest)) if oldest != newest => format!("{oldest} to {newest}"),
        (Some(version), _) => version.clone(),
        _ => "of unknown version".to_owned(),
    };
    match all.count {
        0 => "No apiserver seen".to_owned(),
        1 => format!("Apiserver {version}"),
        count => format!("{count} apiservers {version}"),
    }
}

fn verdict(policy: &PlannedPolicy, kind: &str, what: &str, width: Option<usize>) -> String {
    let Some(condition) = policy.condition(kind) else { return String::new() };
    if condition.status == "True" {
        let text = format!("{}. {}", condition.reason, condition.message);
        // The colours take no room.
        let label = wrap(&format!("{what}Safe: "), &text, width);
        label.replacen("Safe", &format!("{GOOD}Safe{GOOD:#}"), 1)
    } else {
        // Its message says what to do, and stands there.
        format!("{what}{BAD}Refused{BAD:#}: {}\n", condition.reason)
    }
}

fn nodes(plan: &PlannedStatuses, all: bool) -> String {
    let mut rows: Vec<(&str, &StreamingNodeStatus)> = plan
        .nodes
        .iter()
        .filter_map(|node| Some((node.metadata.name.as_deref()?, node.status.as_ref()?)))
        .collect();
    rows.sort_by_key(|(name, status)| (badness(status), *name));
    let total = rows.len();
    let few = all || total <= NODES_SHOWN;
    if !few {
        rows.retain(|(_, status)| status.verdict == Verdict::Blocks.as_str());
    }
    let blocking = rows.len();
    let mut text = String::new();
    if !few && blocking > NODES_SHOWN {
        text.push_str(&kinds(&rows, &plan.pools));
        text.push('\n');
        rows.truncate(FIRST);
    }
    let mut table = Table::new([
        "NAME",
        "KUBELET",
        "SKEW",
        "REDIRECTS",
        "EVIDENCE",
        "TODAY",
        "GATE-OFF",
        "VERDICT",
    ]);
    for (name, status) in &rows {
        table.add([
            (*name).into(),
            known(&status.kubelet_version).into(),
            status.skew.map_or(NONE.to_owned(), |skew| skew.newest.to_string()).into(),
            status.redirects.as_str().into(),
            status.decided_by.as_str().into(),
            cell(&status.cell_today),
            cell(&status.cell_gate_off),
            cell(&status.verdict),
        ]);
    }
    if !rows.is_empty() {
        text.push_str(&table.render());
    }
    if rows.len() < blocking {
        let more = blocking - rows.len();
        text.push_str(&format!(
            "{more} more nodes block; --all shows them, and -o json has all.\n"
        ));
    }
    let hidden = total - blocking;
    if hidden > 0 {
        text.push_str(&format!("{hidden} of {total} nodes do not block; --all shows them.\n"));
    }
    text
}

/// How many nodes block, by version and pool; the most numerous first.
fn kinds(rows: &[(&str, &StreamingNodeStatus)], pools: &BTreeMap<String, String>) -> String {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (name, status) in rows {
        let pool = pools.get(*name).map_or(NONE, String::as_str);
        *counts.entry((known(&status.kubelet_version), pool)).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(kind, count)| (std::cmp::Reverse(*count), *kind));
    let mut table = Table::new(["BLOCKING", "KUBELET", "POOL"]);
    for ((version, pool), count) in counts.iter().take(FIRST) {
        table.add([count.to_string().into(), (*version).into(), (*pool).into()]);
    }
    let rest: usize = counts.iter().skip(FIRST).map(|(_, count)| count).sum();
    if rest > 0 {
        let others = format!("{} more kinds", counts.len() - FIRST);
        table.add([rest.to_string().into(), others.into(), "".into()]);
    }
    table.render()
}

/// Sorts the worst first: by verdict, whether it redirects for certain, and how far it lags.
fn badness(status: &StreamingNodeStatus) -> (usize, usize, i32) {
    let verdicts = [Verdict::Blocks, Verdict::Overridden, Verdict::Safe];
    let verdict = verdicts.iter().position(|verdict| verdict.as_str() == status.verdict);
    let redirects = Redirects::ALL.iter().position(|r| r.as_str() == status.redirects);
    let last = |found: Option<usize>| found.unwrap_or(usize::MAX);
    (last(verdict), last(redirects), -status.skew.map_or(0, |skew| skew.newest))
}

fn upgrades(status: &StreamingPolicyStatus) -> String {
    let mut table =
        Table::new(["VERSION", "DEFAULT", "SETTABLE", "GATE", "BREAKS", "SAFE", "REASONS"]);
    for upgrade in &status.upgrades {
        let reasons = match upgrade.reasons.as_slice() {
            [] => NONE.to_owned(),
            reasons => reasons.join(","),
        };
        table.add([
            upgrade.version.as_str().into(),
            upgrade.gate_default.as_str().into(),
            yes_no(upgrade.gate_settable).into(),
            upgrade.gate.as_str().into(),
            upgrade.breaking_nodes.to_string().into(),
            Cell::styled(yes_no(upgrade.safe), if upgrade.safe { GOOD } else { BAD }),
            reasons.into(),
        ]);
    }
    table.render()
}

/// One finding a line: what, where, and what to do.
fn todo(policy: &PlannedPolicy, width: Option<usize>) -> String {
    let wanted = [
        (condition::SAFE_TO_DISABLE, true),
        (condition::UPGRADE_SAFE, true),
        (condition::WEBSOCKETS_SAFE, true),
        (condition::DEGRADED, false),
    ];
    let mut text = String::new();
    for (kind, wanted) in wanted {
        let Some(condition) = policy.condition(kind) else { continue };
        if (condition.status == "True") != wanted {
            text.push_str(&format!("  {kind}: {}\n", condition.reason));
            for finding in condition.message.lines() {
                text.push_str(&wrap("  - ", finding, width));
            }
        }
    }
    text
}

fn steps(title: &str, steps: &[Step], width: Option<usize>) -> String {
    let mut text = format!("{title}\n");
    // Each of them is long, and there may be one for every team.
    let of_roles = |step: &Step| step.action == Action::AddCreateRight;
    let hidden = steps.iter().filter(|step| of_roles(step)).skip(rights::SHOWN).count();
    let mut roles = 0;
    let shown = steps.iter().filter(|step| {
        roles += usize::from(of_roles(step));
        !of_roles(step) || roles <= rights::SHOWN
    });
    for (number, step) in (1..).zip(shown) {
        let names = step.nodes.iter().map(String::as_str).collect::<NameSummary<'_>>();
        let on = if names.is_empty() { String::new() } else { format!(" on {names}") };
        let may = if step.needed { "" } else { " (if you like)" };
        let what = format!("{}{on}{may}: {}", step.action.as_str(), step.message);
        text.push_str(&wrap(&format!("  {number}. "), &what, width));
        for file in &step.files {
            text.push_str(&format!("       {file}\n"));
        }
        for ArgumentChange { argument, becomes } in &step.changes {
            for line in argument.iter().flat_map(|argument| argument.lines()) {
                text.push_str(&format!("       {BAD}- {line}{BAD:#}\n"));
            }
            for line in becomes.iter().flat_map(|becomes| becomes.lines()) {
                text.push_str(&format!("       {GOOD}+ {line}{GOOD:#}\n"));
            }
        }
    }
    if hidden > 0 {
        text.push_str(&format!("{hidden} more roles lack create; -o json shows them.\n"));
    }
    text
}

fn cell(text: &str) -> Cell {
    let style = match text {
        "Blocks" | "Broken" => BAD,
        "Overridden" | "Unknown" => CARE,
        "Safe" | "Final" => GOOD,
        _ => Style::new(),
    };
    Cell::styled(text, style)
}

fn known(text: &str) -> &str {
    if text.is_empty() { NONE } else { text }
}

fn yes_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}
