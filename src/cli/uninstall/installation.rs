//! What there is of Sluice in its namespace, found by its labels.

use std::{collections::BTreeMap, fmt::Debug, time::Duration};

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        admissionregistration::v1::ValidatingWebhookConfiguration,
        apps::v1::{DaemonSet, Deployment},
        coordination::v1::Lease,
        core::v1::{ConfigMap, Pod, PodSpec, Secret, ServiceAccount},
    },
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{Error, say, wait};
use crate::{cli::controller::LEASE, kubernetes::pages};

/// The label and the annotation of the chart, of what it makes itself.
const COMPONENT: &str = "app.kubernetes.io/component";
const RELEASE: &str = "meta.helm.sh/release-name";

/// What the chart makes, by its component.
const PART_OF: &str = "app.kubernetes.io/part-of=sluice";

/// What the controller and its webhook make.
const OWN: &str = "app.kubernetes.io/managed-by in (sluice-controller, sluice-webhook)";

/// How many replicas there were, for the case that the controller has to go on.
const REPLICAS: &str = "sluice.dev/replicas-before-uninstall";

/// What was found.
#[derive(Debug)]
pub struct Installation {
    namespace: String,
    controllers: Vec<Deployment>,
    /// Namespaces of other controllers.
    elsewhere: Vec<String>,
    /// Agents and remediators.
    on_nodes: Vec<DaemonSet>,
    accounts: Vec<ServiceAccount>,
    /// How the API server asks the webhook.
    webhooks: Vec<ValidatingWebhookConfiguration>,
}

impl Installation {
    /// Looks for it.
    ///
    /// # Errors
    /// Where the apiserver does not tell.
    pub async fn look(client: &Client, namespace: &str) -> Result<Self, Error> {
        let all = format!("{PART_OF},{COMPONENT} in (controller, agent, remediator)");
        let controllers = async {
            let api: Api<Deployment> = Api::all(client.clone());
            let labels = format!("{PART_OF},{COMPONENT}=controller");
            let listed = pages::list(&api, ListParams::default().labels(&labels)).await;
            listed.map_err(Error::api("list Deployments"))
        };
        let webhooks = async {
            let api: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
            let listed = pages::list(&api, ListParams::default().labels(PART_OF)).await;
            listed.map_err(Error::api("list ValidatingWebhookConfigurations"))
        };
        let (controllers, on_nodes, accounts, webhooks) = tokio::try_join!(
            controllers,
            list::<DaemonSet>(client, namespace, &all),
            list::<ServiceAccount>(client, namespace, &all),
            webhooks,
        )?;
        let (controllers, others): (Vec<_>, Vec<_>) = controllers
            .into_iter()
            .partition(|found| found.metadata.namespace.as_deref() == Some(namespace));
        let elsewhere = others.into_iter().filter_map(|found| found.metadata.namespace).collect();
        let namespace = namespace.to_owned();
        Ok(Self { namespace, controllers, elsewhere, on_nodes, accounts, webhooks })
    }

    /// The namespace in which Sluice is instead, if it is not in this one.
    pub fn is_in(&self) -> Option<&str> {
        self.is_empty().then(|| self.elsewhere.first()).flatten().map(String::as_str)
    }

    /// Whether nothing of the chart was found in the namespace.
    pub fn is_empty(&self) -> bool {
        self.controllers.is_empty() && self.on_nodes.is_empty() && self.accounts.is_empty()
    }

    /// The pods of the controller, or of what runs on nodes.
    fn pods(&self) -> impl Iterator<Item = &PodSpec> {
        let controllers = self.controllers.iter().filter_map(|found| found.spec.as_ref());
        let on_nodes = self.on_nodes.iter().filter_map(|found| found.spec.as_ref());
        let pods = controllers.filter_map(|spec| spec.template.spec.as_ref());
        pods.chain(on_nodes.filter_map(|spec| spec.template.spec.as_ref()))
    }

    /// The image of this program.
    pub fn image(&self) -> Option<&str> {
        self.pods().flat_map(|pod| &pod.containers).find_map(|container| container.image.as_deref())
    }

    /// When it is pulled.
    pub fn pull_policy(&self) -> Option<&str> {
        let mut containers = self.pods().flat_map(|pod| &pod.containers);
        containers.find_map(|container| container.image_pull_policy.as_deref())
    }

    /// The Secrets with which it is pulled.
    pub fn pull_secrets(&self) -> Vec<String> {
        let secrets = self.pods().find_map(|pod| pod.image_pull_secrets.clone());
        secrets.into_iter().flatten().map(|secret| secret.name).collect()
    }

    /// An account whose pods may be root on a node, where the cluster makes that depend on the account.
    pub fn service_account(&self) -> &str {
        let of = |component: &str| {
            let mut accounts = self.accounts.iter();
            accounts.find(|account| component_of(&account.metadata.labels) == component)
        };
        let account = of("agent").or_else(|| of("remediator"));
        account.and_then(|account| account.metadata.name.as_deref()).unwrap_or("default")
    }

    /// Whether somebody may have changed a node.
    pub fn has_remediators(&self) -> bool {
        self.on_nodes.iter().any(is_remediator)
    }

    /// Helm's release.
    pub fn release(&self) -> Option<&str> {
        let controllers = self.controllers.iter().map(|found| &found.metadata.annotations);
        let accounts = self.accounts.iter().map(|found| &found.metadata.annotations);
        controllers.chain(accounts).flatten().find_map(|all| all.get(RELEASE)).map(String::as_str)
    }

    /// Ends the controller, which would make again what is taken away.
    ///
    /// # Errors
    /// Where it goes on.
    pub async fn stop_controller(
        &self,
        client: &Client,
        skip: &[String],
        timeout: Duration,
    ) -> Result<(), Error> {
        let deployments: Api<Deployment> = self.api(client);
        for found in &self.controllers {
            let name = found.name_any();
            let replicas = found.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
            let mut patch = json!({"spec": {"replicas": 0}});
            if replicas > 0 {
                patch["metadata"]["annotations"][REPLICAS] = json!(replicas.to_string());
            }
            let stopped =
                deployments.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
            stopped.map_err(Error::api(format!("stop the controller {name}")))?;
            let selector = found.spec.as_ref().and_then(|spec| spec.selector.match_labels.clone());
            self.no_pods(client, selector, skip, timeout, &format!("pods of {name} still run"))
                .await?;
            say(&format!("the controller {name} has stopped"))?;
        }
        Ok(())
    }

    /// Lets the controller go on.
    ///
    /// # Errors
    /// Where that cannot be asked for.
    pub async fn start_controller(&self, client: &Client) -> Result<(), Error> {
        let deployments: Api<Deployment> = self.api(client);
        for found in &self.controllers {
            let name = found.name_any();
            let before = found.annotations().get(REPLICAS).and_then(|text| text.parse().ok());
            let replicas = found.spec.as_ref().and_then(|spec| spec.replicas).filter(|n| *n > 0);
            let replicas: i32 = replicas.or(before).unwrap_or(1);
            let patch = json!({
                "metadata": {"annotations": {REPLICAS: null}}, "spec": {"replicas": replicas},
            });
            let started =
                deployments.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
            started.map_err(Error::api(format!("start the controller {name} again")))?;
            say(&format!("the controller {name} goes on"))?;
        }
        Ok(())
    }

    /// Lets StreamingNodes be written while nobody answers the webhook: a change could not be withdrawn,
    /// nor be reported to have gone back. Nobody acts on what is written meanwhile.
    ///
    /// # Errors
    /// Where the configuration stays.
    pub async fn open_webhook(&self, client: &Client) -> Result<(), Error> {
        self.set_policies(client, |_| Some("Ignore".to_owned())).await
    }

    /// Asks the webhook as before.
    ///
    /// # Errors
    /// Where the configuration stays.
    pub async fn close_webhook(&self, client: &Client) -> Result<(), Error> {
        self.set_policies(client, |before| before).await
    }

    /// Gives every webhook the failure policy that comes from the one that was found.
    async fn set_policies(
        &self,
        client: &Client,
        policy: impl Fn(Option<String>) -> Option<String>,
    ) -> Result<(), Error> {
        let api: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
        for found in &self.webhooks {
            let name = found.name_any();
            let webhooks = found.webhooks.iter().flatten().map(|webhook| {
                let failure_policy = policy(webhook.failure_policy.clone());
                json!({"name": webhook.name, "failurePolicy": failure_policy})
            });
            // Merged by their names, so that nothing else of them is touched.
            let patch = json!({"webhooks": webhooks.collect::<Vec<_>>()});
            let patched = api.patch(&name, &PatchParams::default(), &Patch::Strategic(patch)).await;
            patched.map_err(Error::api(format!("change the failure policies of {name}")))?;
        }
        Ok(())
    }

    /// Deletes agents and remediators. Agents may go on with the streams that they carry; a remediator
    /// that is still there would make its folder again.
    ///
    /// # Errors
    /// Where they stay.
    pub async fn remove_from_nodes(
        &self,
        client: &Client,
        skip: &[String],
        timeout: Duration,
    ) -> Result<(), Error> {
        let sets: Api<DaemonSet> = self.api(client);
        for found in &self.on_nodes {
            let name = found.name_any();
            wait::delete(&sets, &name, &DeleteParams::background()).await?;
            // An agent that ends keeps its rules as they were until then, and would put back what is
            // taken away under it.
            let selector = found.spec.as_ref().map(|spec| spec.selector.match_labels.clone());
            let carry = if is_remediator(found) { "" } else { ", and may still carry streams" };
            let what = format!("pods of {name} still run{carry}");
            self.no_pods(client, selector.flatten(), skip, timeout, &what).await?;
            say(&format!("the DaemonSet {name} is deleted"))?;
        }
        Ok(())
    }

    /// Deletes what the controller and its webhook have made, and what `helm test` has left: Helm knows of
    /// none of it any more.
    ///
    /// # Errors
    /// Where something stays.
    pub async fn delete_own(&self, client: &Client) -> Result<(), Error> {
        self.delete_all::<ConfigMap>(client, OWN).await?;
        self.delete_all::<Secret>(client, OWN).await?;
        self.delete_all::<Pod>(client, &format!("{PART_OF},{COMPONENT}=test")).await?;
        let leases: Api<Lease> = self.api(client);
        wait::delete(&leases, LEASE, &DeleteParams::default()).await?;
        say("what the controller has made is deleted")
    }

    async fn delete_all<K>(&self, client: &Client, labels: &str) -> Result<(), Error>
    where
        K: Kind + 'static,
    {
        let api: Api<K> = self.api(client);
        for found in list::<K>(client, &self.namespace, labels).await? {
            wait::delete(&api, &found.name_any(), &DeleteParams::default()).await?;
        }
        Ok(())
    }

    fn api<K: Kind>(&self, client: &Client) -> Api<K> {
        Api::namespaced(client.clone(), &self.namespace)
    }

    async fn no_pods(
        &self,
        client: &Client,
        selector: Option<BTreeMap<String, String>>,
        skip: &[String],
        timeout: Duration,
        what: &str,
    ) -> Result<(), Error> {
        let pairs = selector.into_iter().flatten().map(|(key, value)| format!("{key}={value}"));
        let selector = pairs.collect::<Vec<_>>().join(",");
        let api: Api<Pod> = self.api(client);
        let params = ListParams::default().labels(&selector);
        let counts = |pod: &Pod| {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
            node.is_none_or(|node| !skip.contains(node))
        };
        wait::until(timeout, what, async || {
            Ok(!pages::list(&api, params.clone()).await?.iter().any(counts))
        })
        .await
    }
}

/// A kind of object that is in a namespace.
pub trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug
{
}

impl<K> Kind for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
{
}

async fn list<K: Kind>(client: &Client, namespace: &str, labels: &str) -> Result<Vec<K>, Error> {
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let listed = pages::list(&api, ListParams::default().labels(labels)).await;
    listed.map_err(Error::api(format!("list {} in {namespace}", K::plural(&()))))
}

fn component_of(labels: &Option<BTreeMap<String, String>>) -> &str {
    let component = labels.as_ref().and_then(|labels| labels.get(COMPONENT));
    component.map(String::as_str).unwrap_or_default()
}

fn is_remediator(set: &DaemonSet) -> bool {
    component_of(&set.metadata.labels) == "remediator"
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn found(deployment: Value, sets: Value, accounts: Value) -> Installation {
        Installation {
            namespace: "sluice-system".to_owned(),
            elsewhere: Vec::new(),
            controllers: serde_json::from_value(deployment).unwrap(),
            on_nodes: serde_json::from_value(sets).unwrap(),
            accounts: serde_json::from_value(accounts).unwrap(),
            webhooks: Vec::new(),
        }
    }

    fn set(component: &str) -> Value {
        json!({"metadata": {"name": component, "labels": {COMPONENT: component}}, "spec": {
            "selector": {}, "template": {"spec": {"containers": [{"name": "c", "image": "old:1"}]}},
        }})
    }

    fn account(component: &str) -> Value {
        json!({"metadata": {"name": format!("{component}s"), "labels": {COMPONENT: component}}})
    }

    #[test]
    fn the_controller_tells_image_and_release() {
        let deployment = json!([{
            "metadata": {"name": "c", "annotations": {RELEASE: "mine"}},
            "spec": {"selector": {}, "template": {"spec": {
                "containers": [{"name": "c", "image": "new:2", "imagePullPolicy": "Never"}],
                "imagePullSecrets": [{"name": "mirror"}],
            }}},
        }]);
        let all = found(deployment, json!([set("agent")]), json!([account("agent")]));
        assert_eq!((all.image(), all.release()), (Some("new:2"), Some("mine")));
        assert_eq!(all.pull_policy(), Some("Never"));
        assert_eq!(all.pull_secrets(), ["mirror"]);
        assert_eq!(all.service_account(), "agents");
        assert!(!all.has_remediators());
    }

    #[test]
    fn without_a_controller_the_daemon_sets_tell_the_image() {
        let all = found(json!([]), json!([set("remediator")]), json!([account("remediator")]));
        assert_eq!((all.image(), all.release()), (Some("old:1"), None));
        assert_eq!(all.service_account(), "remediators");
        assert!(all.has_remediators());
    }

    #[test]
    fn nothing_tells_nothing() {
        let all = found(json!([]), json!([]), json!([]));
        assert_eq!((all.image(), all.service_account()), (None, "default"));
        assert_eq!((all.is_empty(), all.is_in()), (true, None));
    }

    #[test]
    fn one_in_another_namespace_is_not_taken_for_gone() {
        let elsewhere = || vec!["other".to_owned()];
        let all = Installation { elsewhere: elsewhere(), ..found(json!([]), json!([]), json!([])) };
        assert_eq!(all.is_in(), Some("other"));
        // What was left here by a try before is taken away.
        let here = found(json!([]), json!([]), json!([account("agent")]));
        assert_eq!(Installation { elsewhere: elsewhere(), ..here }.is_in(), None);
    }
}
