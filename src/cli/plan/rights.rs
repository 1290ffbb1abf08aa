//! Who loses streams for want of `create`, as it is printed for programs.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource as _;
use serde::Serialize;

use super::objects::Objects;
use crate::{
    api::{StreamingPolicy, StreamingPolicyStatus, condition},
    decision::{
        apiserver::Apiserver,
        websockets::rights::{
            Question, Report, UNSAFE,
            change::{Remedy, RoleChange},
            create_asked,
            finding::Finding,
            role::{BindingName, RoleName},
            rule::{Names, Rule},
            subject::Subject,
        },
    },
    kubernetes::version::Minor,
};

/// Judges the rights for an upgrade to `target`, or as they are; `None` where nothing asks for
/// `create`, or nobody asked and nothing was given.
pub fn judge(objects: &Objects, target: Option<Minor>, instances: &[Apiserver]) -> Option<Report> {
    let question = Question::of(target, instances)?;
    let unasked = target.is_none() && objects.rights.is_untouched();
    (!unasked).then(|| Report::of(&objects.rights, question, objects.unread.is_empty()))
}

/// Takes back that an upgrade is safe after which somebody's streams are refused, or may be. The
/// controller, which does not look at roles, would not say so.
pub fn doubt(status: &mut StreamingPolicyStatus, report: &Report) {
    if !report.reason.refuses() {
        return;
    }
    let message = format!(
        "At {} streams are refused for want of the right to create, or may be: see what is said of \
         rights ({}).",
        report.question.minor,
        report.reason.as_str()
    );
    let upgrade = |condition: &&mut Condition| {
        condition.type_ == condition::UPGRADE_SAFE && condition.status == "True"
    };
    for condition in status.conditions.iter_mut().filter(upgrade) {
        "False".clone_into(&mut condition.status);
        UNSAFE.clone_into(&mut condition.reason);
        message.clone_into(&mut condition.message);
    }
    for upgrade in &mut status.upgrades {
        if upgrade.version.parse::<Minor>().is_ok_and(|minor| minor >= create_asked()) {
            upgrade.safe = false;
            upgrade.reasons.push(UNSAFE.to_owned());
            message.clone_into(&mut upgrade.message);
        }
    }
}

/// The rights in the output. It is an object for programs to read, not one to store.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RightsItem<'a> {
    api_version: String,
    kind: &'static str,
    version: String,
    today: bool,
    safe: bool,
    reason: &'static str,
    message: String,
    findings: Vec<FindingItem<'a>>,
    changes: Vec<ChangeItem<'a>>,
    missing_roles: Vec<NameItem<'a>>,
    unread: Vec<&'static str>,
}

/// The name of an object of RBAC, or of a subject.
#[derive(Debug, Serialize)]
struct NameItem<'a> {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    name: &'a str,
}

#[derive(Debug, Serialize)]
struct FindingItem<'a> {
    subject: NameItem<'a>,
    /// What it gives holds in its namespace, or in all where it has none.
    binding: NameItem<'a>,
    role: NameItem<'a>,
    verdict: &'static str,
    lacks: Vec<LackItem<'a>>,
}

#[derive(Debug, Serialize)]
struct LackItem<'a> {
    resource: &'static str,
    /// The pods; none stands for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    names: Vec<&'a str>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ChangeItem<'a> {
    /// The role to add to; missing where one has to be made.
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<NameItem<'a>>,
    rules: Vec<RuleItem<'a>>,
    bindings: Vec<NameItem<'a>>,
    /// What to apply where a role has to be made.
    #[serde(skip_serializing_if = "str::is_empty")]
    manifest: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RuleItem<'a> {
    api_groups: &'a [String],
    resources: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    resource_names: &'a [String],
    verbs: &'a [String],
}

impl<'a> RightsItem<'a> {
    /// A report as it is printed.
    pub fn of(report: &'a Report) -> Self {
        Self {
            api_version: StreamingPolicy::api_version(&()).into_owned(),
            kind: "StreamRights",
            version: report.question.minor.to_string(),
            today: report.question.today,
            safe: !report.reason.refuses(),
            reason: report.reason.as_str(),
            message: report.message(),
            findings: report.findings.iter().map(FindingItem::of).collect(),
            changes: report.changes.iter().map(ChangeItem::of).collect(),
            missing_roles: report.missing.keys().map(NameItem::of_role).collect(),
            unread: report.unread.keys().chain(&report.parts).map(|kind| kind.as_str()).collect(),
        }
    }
}

impl<'a> NameItem<'a> {
    fn of_subject(subject: &'a Subject) -> Self {
        Self { kind: subject.kind(), namespace: subject.namespace(), name: subject.name() }
    }

    fn of_role(role: &'a RoleName) -> Self {
        Self { kind: role.kind().as_str(), namespace: role.scope.namespace(), name: &role.name }
    }

    fn of_binding(binding: &'a BindingName) -> Self {
        let BindingName { scope, name } = binding;
        Self { kind: binding.kind().as_str(), namespace: scope.namespace(), name }
    }
}

impl<'a> FindingItem<'a> {
    fn of(finding: &'a Finding) -> Self {
        let lacks = finding.lacks.iter().map(|(subresource, names)| LackItem {
            resource: subresource.resource(),
            names: match names {
                Names::All => Vec::new(),
                Names::Only(names) => names.iter().map(String::as_str).collect(),
            },
        });
        Self {
            subject: NameItem::of_subject(&finding.subject),
            binding: NameItem::of_binding(&finding.binding),
            role: NameItem::of_role(&finding.role),
            verdict: finding.concern.as_str(),
            lacks: lacks.collect(),
        }
    }
}

impl<'a> ChangeItem<'a> {
    fn of(change: &'a RoleChange) -> Self {
        let role = match &change.remedy {
            Remedy::Add(role) => Some(NameItem::of_role(role)),
            Remedy::Bind { .. } => None,
        };
        Self {
            role,
            rules: change.rules.iter().map(RuleItem::of).collect(),
            bindings: change.bindings.keys().map(NameItem::of_binding).collect(),
            manifest: &change.manifest,
        }
    }
}

impl<'a> RuleItem<'a> {
    fn of(rule: &'a Rule) -> Self {
        Self {
            api_groups: &rule.api_groups,
            resources: &rule.resources,
            resource_names: &rule.resource_names,
            verbs: &rule.verbs,
        }
    }
}
