//! What has to be done for those who lack `create`.

use std::collections::BTreeSet;

use super::{
    Report,
    change::{Remedy, RoleChange},
    role::Scope,
    rule::Names,
};
use crate::decision::{
    names::NameSummary,
    steps::{Action, ArgumentChange, Step},
};

/// One step for each role that lacks `create`.
pub fn steps(report: &Report) -> Vec<Step> {
    let changes = report.changes.iter();
    let step = |change: &RoleChange| Step {
        action: Action::AddCreateRight,
        needed: !report.question.gate_off,
        nodes: Vec::new(),
        files: Vec::new(),
        changes: match &change.remedy {
            Remedy::Add(_) => {
                change.rules.iter().map(|rule| ArgumentChange::added(rule.to_string())).collect()
            }
            Remedy::Bind { .. } => {
                vec![ArgumentChange::added(change.manifest.trim_end().to_owned())]
            }
        },
        message: message(change, report),
    };
    changes.map(step).collect()
}

fn message(change: &RoleChange, report: &Report) -> String {
    let subjects: BTreeSet<_> = change.bindings.values().flatten().collect();
    let named: Vec<String> = subjects.iter().map(ToString::to_string).collect();
    let who = summary(&named);
    let resources: Vec<&str> = change.lacks.keys().map(|sub| sub.resource()).collect();
    let what = super::and(&resources);
    let scopes: BTreeSet<String> =
        change.bindings.keys().map(|binding| binding.scope.to_string()).collect();
    let scopes: Vec<String> = if change.bindings.keys().any(|b| b.scope == Scope::Cluster) {
        vec![Scope::Cluster.to_string()]
    } else {
        scopes.into_iter().collect()
    };
    let place = summary(&scopes);
    let pods = match change.lacks.values().all(|names| matches!(names, Names::Only(_))) {
        true => " of the pods named below",
        false => "",
    };
    let bindings: Vec<String> = change.bindings.keys().map(ToString::to_string).collect();
    let by = summary(&bindings);
    let loses = if report.question.today {
        "the apiserver refuses their streams today".to_owned()
    } else {
        format!("an apiserver from {} on refuses their streams", super::create_asked())
    };
    let mut text = match &change.remedy {
        Remedy::Add(role) => {
            let aggregated: Vec<String> =
                change.aggregated.iter().map(ToString::to_string).collect();
            let given_on = match aggregated.is_empty() {
                true => String::new(),
                false => format!(
                    " It is aggregated into {}, where what is written by hand is overwritten.",
                    summary(&aggregated)
                ),
            };
            format!("Add the rule below to {role}, wherever it is kept.{given_on}")
        }
        Remedy::Bind { beside, .. } => format!(
            "Apply what stands below: {beside} gives get and not create, and what is written into it \
             does not stay."
        ),
    };
    text.push_str(&format!(
        " {who} may get and not create {what}{pods} in {place}, by {by}: {loses}."
    ));
    if subjects.iter().any(|subject| subject.may_be_in_others()) {
        text.push_str(
            " Whoever may create through a group that only the authenticator knows loses nothing.",
        );
    }
    text
}

fn summary(names: &[String]) -> String {
    names.iter().map(String::as_str).collect::<NameSummary<'_>>().to_string()
}
