//! The short-lived DaemonSet that takes away what Sluice has left on the nodes.
//!
//! Its pods do the work in an init container and are ready once that is done, so the DaemonSet's own
//! numbers tell when every node is. It needs no right in the API, and no controller.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{ContainerStatus, Pod},
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{Error, wait};
use crate::{cli::sweep::Act, kubernetes::pages};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// What its pods are known by.
const LABEL: (&str, &str) = ("app.kubernetes.io/component", "sweep");

/// How the pods of the DaemonSet are made.
#[derive(Clone, Debug)]
pub struct Sweeper {
    /// The image of this program.
    pub image: String,
    /// Where they run.
    pub namespace: String,
    /// When the image is pulled.
    pub pull_policy: Option<String>,
    /// The Secrets with which it is pulled.
    pub pull_secrets: Vec<String>,
    /// Their ServiceAccount.
    pub service_account: String,
    /// Nodes on which there is none.
    pub skip: Vec<String>,
}

impl Sweeper {
    /// Has every node do it, and waits. What nodes have to say that cannot, one line for each.
    ///
    /// # Errors
    /// Where the apiserver refuses.
    pub async fn sweep(
        &self,
        client: &Client,
        act: Act,
        timeout: Duration,
    ) -> Result<Vec<String>, Error> {
        let sets: Api<DaemonSet> = Api::namespaced(client.clone(), &self.namespace);
        let name = name(act);
        // One that an earlier try has left may be of another image.
        wait::delete(&sets, &name, &DeleteParams::background()).await?;
        let gone = async || Ok(sets.get_metadata_opt(&name).await?.is_none());
        wait::until(timeout, &format!("the DaemonSet {name} is not gone"), gone).await?;
        let params = PatchParams::apply("sluice-uninstall").force();
        let made = sets.patch(&name, &params, &Patch::Apply(self.daemon_set(act, timeout))).await;
        made.map_err(Error::api(format!("make the DaemonSet {name}")))?;
        let left = self.wait(client, &sets, act, timeout).await;
        // Whatever came of it: the next try makes another one.
        wait::delete(&sets, &name, &DeleteParams::background()).await?;
        let left = left?;
        if left.is_empty() {
            let pods: Api<Pod> = Api::namespaced(client.clone(), &self.namespace);
            let params = ListParams::default().labels(&selector(act)).limit(1);
            let gone = async || Ok(pods.list(&params).await?.items.is_empty());
            wait::until(timeout, &format!("pods of {name} still run"), gone).await?;
        }
        Ok(left)
    }

    async fn wait(
        &self,
        client: &Client,
        sets: &Api<DaemonSet>,
        act: Act,
        timeout: Duration,
    ) -> Result<Vec<String>, Error> {
        // A node may take all of that before it says that it cannot.
        let until = Instant::now() + timeout + GRACE;
        let name = name(act);
        loop {
            let set = sets.get(&name).await.map_err(Error::api(format!("read {name}")))?;
            if is_done(&set) {
                return Ok(Vec::new());
            }
            let late = Instant::now() >= until;
            let pods: Api<Pod> = Api::namespaced(client.clone(), &self.namespace);
            let params = ListParams::default().labels(&selector(act));
            let pods = pages::list(&pods, params).await;
            let pods = pods.map_err(Error::api(format!("list the pods of {name}")))?;
            if late {
                return Ok(unready(&pods, &set));
            }
            // Every node has answered, and some of them with no.
            let said = refusals(&pods);
            let ready = set.status.as_ref().map_or(0, |status| status.number_ready);
            let wanted = set.status.as_ref().map_or(0, |status| status.desired_number_scheduled);
            if !said.is_empty() && usize::try_from(wanted - ready) == Ok(said.len()) {
                return Ok(said);
            }
            sleep(PAUSE).await;
        }
    }

    /// The DaemonSet.
    fn daemon_set(&self, act: Act, timeout: Duration) -> Value {
        let labels = json!({
            LABEL.0: LABEL.1, "app.kubernetes.io/name": "sluice",
            "app.kubernetes.io/part-of": "sluice", "app.kubernetes.io/instance": name(act),
        });
        let cleans = act == Act::Clean;
        let container = |name: &str, act: Act, args: Vec<String>, mounts: Value, add: Value| {
            let mut all = vec!["sweep".to_owned(), act.as_str().to_owned()];
            all.extend(args);
            let mut container = json!({
                "name": name, "image": self.image, "args": all,
                // What it says when it cannot goes on to whoever waits.
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "securityContext": {
                    "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"], "add": add},
                },
                "volumeMounts": mounts,
            });
            if let Some(policy) = &self.pull_policy {
                container["imagePullPolicy"] = json!(policy);
            }
            container
        };
        // The folders themselves go, so that what holds them has to be there.
        let folders: &[(&str, &str)] = match cleans {
            true => &[("lib", "/var/lib"), ("run", "/run")],
            false => &[("lib", "/var/lib")],
        };
        let mounts = folders.iter().map(|(name, path)| {
            json!({"name": name, "mountPath": format!("/host{path}"), "readOnly": !cleans})
        });
        let volumes = folders
            .iter()
            .map(|(name, path)| json!({"name": name, "hostPath": {"path": path, "type": ""}}));
        // The tables of nftables are the node's own.
        let add = if cleans { json!(["NET_ADMIN"]) } else { json!([]) };
        let patience = vec![format!("--patience={}s", timeout.as_secs())];
        let secrets = self.pull_secrets.iter().map(|name| json!({"name": name}));
        let mut pod = json!({
            "serviceAccountName": self.service_account,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "hostNetwork": cleans,
            "dnsPolicy": "Default",
            "terminationGracePeriodSeconds": 1,
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "tolerations": [{"operator": "Exists"}],
            "imagePullSecrets": secrets.collect::<Vec<_>>(),
            "securityContext": {"runAsUser": 0, "runAsGroup": 0},
            "initContainers": [
                container(act.as_str(), act, patience, mounts.collect(), add),
            ],
            "containers": [container("rest", Act::Rest, Vec::new(), json!([]), json!([]))],
            "volumes": volumes.collect::<Vec<_>>(),
        });
        if !self.skip.is_empty() {
            let others = self
                .skip
                .iter()
                .map(|node| json!({"key": "metadata.name", "operator": "NotIn", "values": [node]}));
            let others: Vec<Value> = others.collect();
            pod["affinity"] = json!({"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchFields": others}],
                },
            }});
        }
        json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"name": name(act), "namespace": self.namespace, "labels": labels},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        })
    }
}

/// How much longer the DaemonSet is waited for than a node may take.
const GRACE: Duration = Duration::from_secs(30);

fn name(act: Act) -> String {
    format!("sluice-sweep-{}", act.as_str())
}

fn selector(act: Act) -> String {
    format!("{}={},app.kubernetes.io/instance={}", LABEL.0, LABEL.1, name(act))
}

/// Whether every node is ready, by the numbers of this very DaemonSet.
fn is_done(set: &DaemonSet) -> bool {
    set.status.as_ref().is_some_and(|status| {
        status.observed_generation >= set.metadata.generation
            && status.number_ready >= status.desired_number_scheduled
    })
}

/// What nodes said that could not do it, by name.
fn refusals(pods: &[Pod]) -> Vec<String> {
    let said = pods.iter().filter_map(|pod| {
        let ended = init(pod)?;
        let ended = [ended.state.as_ref(), ended.last_state.as_ref()].into_iter().flatten();
        let ended = ended.filter_map(|state| state.terminated.as_ref());
        let failed = ended.filter(|ended| ended.exit_code != 0).find_map(|e| e.message.clone())?;
        let failed = failed.trim().trim_start_matches("error: ").to_owned();
        Some((node(pod), failed))
    });
    lines(said)
}

/// What is known of nodes that are not ready when the time is over.
fn unready(pods: &[Pod], set: &DaemonSet) -> Vec<String> {
    let mut said = refusals(pods);
    let refused = said.len();
    let waiting = pods.iter().filter(|pod| !is_ready(pod)).filter_map(|pod| {
        let status = init(pod);
        if status
            .is_some_and(|status| !refusals(std::slice::from_ref(pod)).is_empty() || status.ready)
        {
            return None;
        }
        let waiting = status.and_then(|status| status.state.as_ref()?.waiting.as_ref());
        let why = waiting.and_then(|waiting| {
            let message = waiting.message.as_deref().unwrap_or_default();
            Some(format!("{} {message}", waiting.reason.as_deref()?).trim().to_owned())
        });
        let why = why.unwrap_or_else(|| "the pod has not started".to_owned());
        Some((node(pod), format!("{why}. Is the node up? If it is gone for good, give --skip.")))
    });
    said.extend(lines(waiting));
    let status = set.status.as_ref();
    let wanted = status.map_or(0, |status| status.desired_number_scheduled);
    let there = pods.len();
    if said.len() == refused && (status.is_none() || usize::try_from(wanted) != Ok(there)) {
        said.push(format!(
            "{there} of {wanted} pods were made: kubectl describe daemonset {} says why. Pod Security may \
             forbid them in this namespace.",
            set.name_any()
        ));
    }
    said
}

fn lines(said: impl Iterator<Item = (String, String)>) -> Vec<String> {
    // A node may have a pod that ends and another one.
    let by_node: BTreeMap<String, String> = said.collect();
    by_node.into_iter().map(|(node, what)| format!("{node}: {what}")).collect()
}

fn node(pod: &Pod) -> String {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    node.unwrap_or_else(|| pod.name_any())
}

fn init(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.init_container_statuses.as_ref()?.first()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweeper() -> Sweeper {
        Sweeper {
            image: "mirror.example/sluice:1".to_owned(),
            namespace: "sluice-system".to_owned(),
            pull_policy: Some("Never".to_owned()),
            pull_secrets: vec!["mirror".to_owned()],
            service_account: "sluice-agent".to_owned(),
            skip: Vec::new(),
        }
    }

    fn pod(node: &str, init: Value, ready: bool) -> Pod {
        let status = if ready { "True" } else { "False" };
        serde_json::from_value(json!({
            "metadata": {"name": format!("p-{node}")},
            "spec": {"nodeName": node, "containers": []},
            "status": {
                "conditions": [{"type": "Ready", "status": status}],
                "initContainerStatuses": [init],
            },
        }))
        .unwrap()
    }

    fn init(state: Value, last: Value) -> Value {
        json!({
            "name": "clean", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": state, "lastState": last,
        })
    }

    fn set(generation: i64, observed: i64, wanted: i32, ready: i32) -> DaemonSet {
        serde_json::from_value(json!({
            "metadata": {"name": "sluice-sweep-clean", "generation": generation},
            "status": {
                "observedGeneration": observed, "desiredNumberScheduled": wanted,
                "numberReady": ready, "currentNumberScheduled": wanted, "numberMisscheduled": 0,
            },
        }))
        .unwrap()
    }

    #[test]
    fn only_the_numbers_of_this_very_daemon_set_count() {
        assert!(is_done(&set(1, 1, 3, 3)));
        assert!(is_done(&set(1, 1, 0, 0)), "a cluster without such nodes");
        assert!(!is_done(&set(1, 1, 3, 2)));
        assert!(!is_done(&set(2, 1, 3, 3)), "of the one before");
        assert!(!is_done(&DaemonSet::default()), "nobody has looked at it");
    }

    #[test]
    fn a_node_that_cannot_says_why_also_while_it_tries_again() {
        let ended = |message| json!({"terminated": {"exitCode": 1, "message": message}});
        let again = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        let pods = [
            pod("old2", init(again, ended("error: a change is under way\n")), false),
            pod("old1", init(ended("error: busy"), Value::Null), false),
            pod("new1", init(json!({"terminated": {"exitCode": 0}}), Value::Null), true),
        ];
        assert_eq!(refusals(&pods), ["old1: busy", "old2: a change is under way"]);
    }

    #[test]
    fn a_node_that_does_not_answer_is_named_with_a_way_on() {
        let waiting = json!({"waiting": {"reason": "ErrImagePull", "message": "no such image"}});
        let pods = [
            pod("down", init(json!({}), Value::Null), false),
            pod("old1", init(waiting, Value::Null), false),
        ];
        let said = unready(&pods, &set(1, 1, 2, 0));
        assert!(
            said[0].starts_with("down: the pod has not started.") && said[0].contains("--skip")
        );
        assert!(said[1].starts_with("old1: ErrImagePull no such image."), "{said:?}");
        let said = unready(&[], &set(1, 1, 2, 0));
        assert!(said[0].starts_with("0 of 2 pods were made"), "{said:?}");
    }

    #[test]
    fn looking_gets_no_more_than_it_needs() {
        let minute = Duration::from_secs(60);
        let check = sweeper().daemon_set(Act::Check, minute);
        let pod = &check["spec"]["template"]["spec"];
        assert_eq!(pod["hostNetwork"], json!(false));
        let first = &pod["initContainers"][0];
        assert_eq!(first["securityContext"]["capabilities"]["add"], json!([]));
        let mount = json!({"name": "lib", "mountPath": "/host/var/lib", "readOnly": true});
        assert_eq!(first["volumeMounts"], json!([mount]));
        assert_eq!(first["args"], json!(["sweep", "check", "--patience=60s"]));
        let clean = sweeper().daemon_set(Act::Clean, minute);
        let pod = &clean["spec"]["template"]["spec"];
        assert_eq!(pod["automountServiceAccountToken"], json!(false));
        assert_eq!(pod["containers"][0]["volumeMounts"], json!([]));
        assert_ne!(check["spec"]["selector"], clean["spec"]["selector"]);
    }

    #[test]
    fn nodes_that_are_skipped_get_no_pod() {
        let sweeper = Sweeper { skip: vec!["a".to_owned(), "b".to_owned()], ..sweeper() };
        let made = sweeper.daemon_set(Act::Clean, Duration::from_secs(1));
        let affinity = &made["spec"]["template"]["spec"]["affinity"]["nodeAffinity"];
        let terms =
            &affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
        // Only one value is allowed in each.
        assert_eq!(terms[0]["matchFields"][1]["values"], json!(["b"]));
        assert_eq!(terms.as_array().unwrap().len(), 1, "terms are alternatives");
    }
}
