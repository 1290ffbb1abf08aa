//! What has to be done before an upgrade, as it is printed for programs.

use kube::Resource as _;
use serde::Serialize;

use crate::{
    api::StreamingPolicy,
    decision::steps::{ArgumentChange, Step},
    kubernetes::version::Minor,
};

/// An upgrade with its steps.
#[derive(Clone, Debug)]
pub struct UpgradePlan {
    /// The version that it goes to.
    pub target: Minor,
    /// The steps, in order; the last is the upgrade itself.
    pub steps: Vec<Step>,
}

/// An upgrade in the output. It is an object for programs to read, not one to store.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UpgradeItem<'a> {
    api_version: String,
    kind: &'static str,
    target: String,
    steps: Vec<StepItem<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StepItem<'a> {
    action: &'static str,
    needed: bool,
    nodes: &'a [String],
    files: &'a [String],
    changes: Vec<ChangeItem<'a>>,
    message: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ChangeItem<'a> {
    /// Missing where nothing stands there yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    argument: Option<&'a str>,
    /// Missing where the argument goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    becomes: Option<&'a str>,
}

impl UpgradePlan {
    /// As it is printed.
    pub fn item(&self) -> UpgradeItem<'_> {
        UpgradeItem {
            api_version: StreamingPolicy::api_version(&()).into_owned(),
            kind: "UpgradePlan",
            target: self.target.to_string(),
            steps: self.steps.iter().map(StepItem::of).collect(),
        }
    }
}

impl<'a> StepItem<'a> {
    fn of(step: &'a Step) -> Self {
        Self {
            action: step.action.as_str(),
            needed: step.needed,
            nodes: &step.nodes,
            files: &step.files,
            changes: step.changes.iter().map(ChangeItem::of).collect(),
            message: &step.message,
        }
    }
}

impl<'a> ChangeItem<'a> {
    fn of(change: &'a ArgumentChange) -> Self {
        Self { argument: change.argument.as_deref(), becomes: change.becomes.as_deref() }
    }
}
