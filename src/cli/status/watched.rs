//! What the watches have shown so far. The objects are read without their types, so that one that nobody can
//! read is waited for and shown like the others.

use std::{collections::BTreeMap, pin::pin, time::Duration};

use futures::StreamExt as _;
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DynamicObject},
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};

use super::Error;
use crate::{
    api::{Change, ChangeReport, StreamingNode, StreamingPolicy, StreamingPolicyStatus, condition},
    cli::output::status::{ChangeRow, ConditionRow, Row},
    kubernetes::failure::Failure,
};

/// The policies, and what is changed on nodes.
#[derive(Default)]
pub struct Watched {
    name: Option<String>,
    policies: BTreeMap<String, DynamicObject>,
    changes: BTreeMap<String, ChangeRow>,
    /// Those of a list that is not complete yet.
    listed: BTreeMap<String, ChangeRow>,
    /// Every policy that there is has been seen.
    complete: bool,
    error: Option<Box<watcher::Error>>,
}

impl Watched {
    /// Nothing yet of this policy, or of all.
    pub fn new(name: Option<String>) -> Self {
        Self { name, ..Self::default() }
    }

    /// The policies as they are stored.
    pub fn policies(&self) -> &BTreeMap<String, DynamicObject> {
        &self.policies
    }

    /// The policies as they are shown.
    pub fn rows(&self) -> Vec<Row> {
        self.policies.values().map(row).collect()
    }

    /// The changes of nodes that these policies want, by node.
    pub fn changes(&self) -> impl Iterator<Item = &ChangeRow> {
        self.changes.values().filter(|change| self.policies.contains_key(&change.policy))
    }

    /// Whether every policy that there is has been seen.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Why it took too long.
    pub fn late(self, timeout: Duration) -> Error {
        if !self.complete {
            return Error::NothingRead(timeout, self.error);
        }
        let waiting: Vec<&str> = self
            .policies
            .iter()
            .filter(|(_, policy)| !is_judged(policy))
            .map(|(name, _)| name.as_str())
            .collect();
        Error::NotJudged(timeout, waiting.join(", "))
    }

    fn is_done(&self) -> bool {
        self.complete && self.policies.values().all(is_judged)
    }

    /// Takes what the watch of the policies shows.
    ///
    /// # Errors
    /// Where it will show nothing more, or the policy that was asked for is not there.
    pub fn take_policy(
        &mut self,
        event: watcher::Result<Event<DynamicObject>>,
    ) -> Result<(), Error> {
        match event {
            Ok(Event::Init) => {
                self.policies.clear();
                self.complete = false;
            }
            Ok(Event::InitDone) => {
                self.complete = true;
                self.not_missing()?;
            }
            Ok(Event::Apply(policy) | Event::InitApply(policy)) => {
                self.policies.insert(policy.name_any(), policy);
            }
            Ok(Event::Delete(policy)) => {
                self.policies.remove(&policy.name_any());
                self.not_missing()?;
            }
            // An apiserver that is away may come back in time; a refusal stays one, and who never says
            // anything is none.
            Err(error) => match status(&error) {
                Some(404) => return Err(Error::NoCrd),
                Some(401 | 403) => return Err(Error::Watch(Box::new(error))),
                _ if !self.complete && Failure::among(&error) == Some(Failure::Silent) => {
                    return Err(Error::Watch(Box::new(error)));
                }
                _ => self.error = Some(Box::new(error)),
            },
        }
        Ok(())
    }

    /// Takes a StreamingNode, of which only its change is kept.
    pub fn take_node(&mut self, node: &DynamicObject) {
        match change(node) {
            Some(change) => self.changes.insert(change.node.clone(), change),
            None => self.changes.remove(&node.name_any()),
        };
    }

    /// Takes what the watch of the StreamingNodes shows. While it fails, what was seen stays.
    pub fn take_node_event(&mut self, event: watcher::Result<Event<DynamicObject>>) {
        match event {
            Ok(Event::Init) => self.listed.clear(),
            Ok(Event::InitApply(node)) => {
                self.listed.extend(change(&node).map(|change| (change.node.clone(), change)));
            }
            Ok(Event::InitDone) => self.changes = std::mem::take(&mut self.listed),
            Ok(Event::Apply(node)) => self.take_node(&node),
            Ok(Event::Delete(node)) => {
                self.changes.remove(&node.name_any());
            }
            Err(_) => {}
        }
    }

    fn not_missing(&self) -> Result<(), Error> {
        match &self.name {
            Some(name) if self.policies.is_empty() => Err(Error::NotFound(name.clone())),
            _ => Ok(()),
        }
    }
}

/// The watch of one policy, or of all.
pub fn policies(
    client: Client,
    name: Option<&str>,
) -> impl futures::Stream<Item = watcher::Result<Event<DynamicObject>>> + use<> {
    let api: Api<DynamicObject> =
        Api::all_with(client, &ApiResource::erase::<StreamingPolicy>(&()));
    let config = match name {
        Some(name) => watcher::Config::default().fields(&format!("metadata.name={name}")),
        None => watcher::Config::default(),
    };
    watcher(api, config).default_backoff()
}

/// What a StreamingNode is to a client that does not know it.
pub fn node_resource() -> ApiResource {
    ApiResource::erase::<StreamingNode>(&())
}

/// Watches until every policy is judged.
///
/// # Errors
/// Where that cannot come.
pub async fn wait(client: Client, seen: &mut Watched) -> Result<(), Error> {
    let mut events = pin!(policies(client, seen.name.as_deref()));
    while let Some(event) = events.next().await {
        seen.take_policy(event)?;
        if seen.is_done() {
            return Ok(());
        }
    }
    Err(Error::Ended)
}

fn status(error: &watcher::Error) -> Option<u16> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => Some(status.code),
        _ => None,
    }
}

/// Every condition is about the spec as it is now.
fn is_judged(policy: &DynamicObject) -> bool {
    let generation = policy.metadata.generation;
    let conditions = policy_status(policy).conditions;
    conditions.iter().any(|c| c.type_ == condition::SAFE_TO_DISABLE)
        && conditions.iter().all(|c| c.observed_generation == generation)
}

fn policy_status(policy: &DynamicObject) -> StreamingPolicyStatus {
    let status = policy.data.get("status").cloned();
    status.and_then(|status| serde_json::from_value(status).ok()).unwrap_or_default()
}

fn row(policy: &DynamicObject) -> Row {
    let status = policy_status(policy);
    let wants = policy.data.pointer("/spec/streamingProxyRedirects");
    let conditions = status.conditions.into_iter().map(|condition| ConditionRow {
        kind: condition.type_,
        status: condition.status,
        reason: condition.reason,
        message: condition.message,
        since: condition.last_transition_time.0,
    });
    Row {
        name: policy.name_any(),
        wants: wants.and_then(serde_json::Value::as_str).unwrap_or_default().to_owned(),
        gate: status.gate,
        nodes: status.nodes.total,
        blocking: status.nodes.blocking,
        conditions: conditions.collect(),
        apiservers: status.apiservers.instances,
        worst: status.blocking.into_iter().map(|node| (node.name, node.reason)).collect(),
    }
}

/// What is changed on a node, or was last, as far as it is still wanted.
fn change(node: &DynamicObject) -> Option<ChangeRow> {
    let part = |path: &str| node.data.pointer(path).cloned();
    let wanted: Change = serde_json::from_value(part("/spec/change")?).ok()?;
    let report = part("/status/change").and_then(|report| serde_json::from_value(report).ok());
    // What became of another change says nothing of this one.
    let report = report.filter(|report: &ChangeReport| report.id == wanted.id);
    Some(ChangeRow {
        node: node.name_any(),
        policy: wanted.policy,
        kind: wanted.kind.as_str(),
        since: report.as_ref().map_or(wanted.verdict.at.0, |report| report.since.0),
        phase: report.as_ref().map_or("Wanted".to_owned(), |report| report.phase.clone()),
        reason: report.as_ref().map(|report| report.reason.clone()).unwrap_or_default(),
        message: report
            .map_or("The node's remediator has not answered yet.".to_owned(), |r| r.message),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cli::output;

    fn policy(generation: i64, conditions: Value) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "sluice.dev/v1alpha1", "kind": "StreamingPolicy",
            "metadata": {"name": "default", "generation": generation},
            "spec": {"streamingProxyRedirects": "Disabled"},
            "status": {"gate": "Enabled", "nodes": {"total": 3, "blocking": 1}, "conditions": conditions},
        }))
        .unwrap()
    }

    fn condition(kind: &str, generation: i64) -> Value {
        json!({"type": kind, "status": "False", "reason": "NodesRedirect", "message": "Old1 redirects.",
            "observedGeneration": generation, "lastTransitionTime": "2026-01-01T00:00:00Z"})
    }

    #[test]
    fn judged_means_every_condition_of_this_generation() {
        for (conditions, expected) in [
            (json!([]), false),
            (json!([condition("SafeToDisable", 2), condition("Degraded", 2)]), true),
            (json!([condition("SafeToDisable", 2), condition("Degraded", 1)]), false),
            (json!([condition("SafeToDisable", 1)]), false),
            (json!([condition("Degraded", 2)]), false),
        ] {
            assert_eq!(is_judged(&policy(2, conditions.clone())), expected, "{conditions}");
        }
    }

    #[test]
    fn a_row_says_what_kubectl_says() {
        for (conditions, proxy) in [
            (json!([condition("SafeToDisable", 1)]), ""),
            (json!([condition("SafeToDisable", 1), condition("ProxyReady", 1)]), "          False"),
        ] {
            assert_eq!(
                output::status::table(&[row(&policy(1, conditions))], None),
                format!(
                    "NAME      WANTS      GATE      SAFE    REASON          NODES   BLOCKING   PROXY   WEBSOCKETS\n\
                     default   Disabled   Enabled   False   NodesRedirect   3       1{proxy}\n\n\
                     default: Old1 redirects.\n"
                )
            );
        }
    }

    #[test]
    fn a_change_is_told_as_far_as_it_is_known() {
        let node = |id: &str| -> DynamicObject {
            serde_json::from_value(json!({
                "apiVersion": "sluice.dev/v1alpha1", "kind": "StreamingNode", "metadata": {"name": "old1"},
                "spec": {"change": {"id": "7", "kind": "KubeletFlag", "policy": "default", "deadlineSeconds": 300,
                    "verdict": {"resourceVersion": "1", "generation": 1, "at": "2026-01-01T00:00:00Z"}}},
                "status": {"change": {"id": id, "phase": "Applied", "reason": "Applied", "message": "Done.",
                    "since": "2026-01-01T00:01:00Z"}},
            }))
            .unwrap()
        };
        let mut seen = Watched::default();
        seen.take_policy(Ok(Event::Apply(policy(1, json!([]))))).unwrap();
        for (id, phase, since) in [("7", "Applied", 60), ("6", "Wanted", 0)] {
            seen.take_node(&node(id));
            let told: Vec<_> =
                seen.changes().map(|c| (&*c.phase, c.since.as_second() % 3600)).collect();
            assert_eq!(told, [(phase, since)], "{id}");
        }
        let mut nothing = node("7");
        nothing.data["spec"] = json!({});
        seen.take_node(&nothing);
        assert_eq!(seen.changes().count(), 0);
    }
}
