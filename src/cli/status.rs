//! `sluice status`: the controller's verdict, waited for.

use std::{collections::BTreeMap, pin::pin, time::Duration};

use futures::StreamExt as _;
use jiff::SignedDuration;
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DynamicObject},
    runtime::{
        WatchStreamExt as _,
        watcher::{self, watcher},
    },
};

use super::{
    Exit, connect,
    output::{self, status::Row},
};
use crate::api::{StreamingPolicy, StreamingPolicyStatus, condition};

/// Show what the controller says to the policies, once it has judged them.
///
/// Exits with 0 once they are judged, whatever the verdict, and with 1 if that takes too long.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The policy [default: all].
    name: Option<String>,

    /// How long to wait for the controller's judgement, such as 60s or 5m.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    timeout: Duration,

    #[command(flatten)]
    cluster: connect::Args,
}

const EXAMPLES: &str = "\
Examples:
  # All policies
  sluice status

  # One policy, after a change to it
  kubectl apply -f policy.yaml
  sluice status default --timeout 2m";

/// Why there is no status to show.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no way to the cluster.
    #[error(transparent)]
    Connect(#[from] connect::Error),
    /// The policies cannot be read.
    #[error("cannot watch StreamingPolicies")]
    Watch(#[source] Box<watcher::Error>),
    /// The cluster does not know the kind.
    #[error(
        "the cluster has no StreamingPolicies: install the CustomResourceDefinitions (sluice crds)"
    )]
    NoCrd,
    /// The policy does not exist.
    #[error("there is no StreamingPolicy {0:?}")]
    NotFound(String),
    /// The controller has not judged in time.
    #[error(
        "after {0:?} no controller has judged {1}: is it running, and has one replica the lease?"
    )]
    NotJudged(Duration, String),
    /// Nothing could be watched in time.
    #[error("nothing could be read within {0:?}")]
    NothingRead(Duration, #[source] Option<Box<watcher::Error>>),
    /// The watch ended.
    #[error("the watch ended")]
    Ended,
    /// The result cannot be printed.
    #[error(transparent)]
    Output(#[from] output::Error),
}

impl Error {
    /// A short, stable name.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Connect(error) => error.reason(),
            Self::Watch(_) => "Watch",
            Self::NoCrd => "NoCrd",
            Self::NotFound(_) => "NotFound",
            Self::NotJudged(..) => "NotJudged",
            Self::NothingRead(..) => "NothingRead",
            Self::Ended => "Ended",
            Self::Output(error) => error.reason(),
        }
    }
}

/// Reads a time to wait, such as 60s or 5m.
///
/// # Errors
/// Where it is none.
pub fn duration(text: &str) -> Result<Duration, String> {
    let signed: SignedDuration = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    Duration::try_from(signed).map_err(|_| "a time to wait cannot be negative".to_owned())
}

/// Waits for the controller's judgement and prints it.
///
/// # Errors
/// Where there is none in time.
pub async fn run(args: Args) -> Result<Exit, Error> {
    let client = args.cluster.client().await?;
    let mut seen = Watched::default();
    let wait = wait(client, args.name.as_deref(), &mut seen);
    match tokio::time::timeout(args.timeout, wait).await {
        Ok(result) => result?,
        Err(_) => return Err(seen.late(args.timeout)),
    }
    if seen.policies.is_empty() {
        anstream::eprintln!("There is no StreamingPolicy.");
        return Ok(Exit::Ok);
    }
    let rows: Vec<Row> = seen.policies.values().map(row).collect();
    output::print(&output::status::table(&rows))?;
    Ok(Exit::Ok)
}

/// What the watch has shown so far.
#[derive(Default)]
struct Watched {
    policies: BTreeMap<String, DynamicObject>,
    /// Every policy that there is has been seen.
    complete: bool,
    error: Option<Box<watcher::Error>>,
}

impl Watched {
    fn late(self, timeout: Duration) -> Error {
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
}

/// Watches until every policy is judged. The objects are read without their types, so that one
/// that nobody can read is waited for and shown like the others.
async fn wait(client: Client, name: Option<&str>, seen: &mut Watched) -> Result<(), Error> {
    let api: Api<DynamicObject> =
        Api::all_with(client, &ApiResource::erase::<StreamingPolicy>(&()));
    let config = match name {
        Some(name) => watcher::Config::default().fields(&format!("metadata.name={name}")),
        None => watcher::Config::default(),
    };
    let mut events = pin!(watcher(api, config).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => {
                seen.policies.clear();
                seen.complete = false;
            }
            Ok(watcher::Event::InitDone) => {
                seen.complete = true;
                not_missing(name, seen)?;
            }
            Ok(watcher::Event::Apply(policy) | watcher::Event::InitApply(policy)) => {
                seen.policies.insert(policy.name_any(), policy);
            }
            Ok(watcher::Event::Delete(policy)) => {
                seen.policies.remove(&policy.name_any());
                not_missing(name, seen)?;
            }
            // An apiserver that is away may come back in time; a refusal stays one.
            Err(error) => match status(&error) {
                Some(404) => return Err(Error::NoCrd),
                Some(401 | 403) => return Err(Error::Watch(Box::new(error))),
                _ => seen.error = Some(Box::new(error)),
            },
        }
        if seen.is_done() {
            return Ok(());
        }
    }
    Err(Error::Ended)
}

fn not_missing(name: Option<&str>, seen: &Watched) -> Result<(), Error> {
    match name {
        Some(name) if seen.policies.is_empty() => Err(Error::NotFound(name.to_owned())),
        _ => Ok(()),
    }
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
    let safe = status.conditions.iter().find(|c| c.type_ == condition::SAFE_TO_DISABLE);
    let of_safe =
        |field: fn(&k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition) -> &String| {
            safe.map(field).cloned().unwrap_or_default()
        };
    let proxy = status.conditions.iter().find(|c| c.type_ == condition::PROXY_READY);
    let wants = policy.data.pointer("/spec/streamingProxyRedirects");
    Row {
        name: policy.name_any(),
        wants: wants.and_then(serde_json::Value::as_str).unwrap_or_default().to_owned(),
        gate: status.gate.clone(),
        safe: of_safe(|c| &c.status),
        reason: of_safe(|c| &c.reason),
        nodes: status.nodes.total,
        blocking: status.nodes.blocking,
        proxy: proxy.map(|c| c.status.clone()).unwrap_or_default(),
        message: of_safe(|c| &c.message),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

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
                output::status::table(&[row(&policy(1, conditions))]),
                format!(
                    "NAME      WANTS      GATE      SAFE    REASON          NODES   BLOCKING   PROXY\n\
                     default   Disabled   Enabled   False   NodesRedirect   3       1{proxy}\n\n\
                     default: Old1 redirects.\n"
                )
            );
        }
    }

    #[test]
    fn times_as_people_write_them() {
        for (text, seconds) in [("60s", Some(60)), ("2m", Some(120)), ("-1s", None), ("soon", None)]
        {
            assert_eq!(duration(text).ok().map(|d| d.as_secs()), seconds, "{text}");
        }
    }
}
