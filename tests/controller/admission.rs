//! The admission webhook: what the tokens of agents and remediators may write, what is said to a
//! policy, and that the webhook keeps its own certificate.

mod agent;
mod certificate;
mod policy;
mod remediator;
mod scene;

use k8s_openapi::api::{
    admissionregistration::v1::ValidatingWebhookConfiguration, core::v1::Secret,
};
use kube::Api;

use crate::{
    apiserver::{User, chart, eventually},
    replica::{Lease, Replica},
    stage::Stage,
};

const LEASE: Lease<'static> = Lease { namespace: chart::NAMESPACE, name: "sluice-controller" };

/// Starts a replica with the chart's rights that serves the webhook on this port.
async fn replica(stage: &Stage, identity: &str, port: u16, more: &[&str]) -> Replica {
    let mut options = vec![
        format!("--webhook-listen=127.0.0.1:{port}"),
        // There is no Service network: the apiserver is on this machine.
        "--webhook-name=127.0.0.1".to_owned(),
    ];
    options.extend(more.iter().map(|&option| option.to_owned()));
    Replica::start_with(
        &stage.server,
        User::Controller,
        identity,
        LEASE,
        &options.iter().map(String::as_str).collect::<Vec<_>>(),
    )
    .await
}

/// Waits until the kubelet would send requests to a replica.
async fn ready(replica: &Replica) {
    eventually("the replica is ready", async || replica.probe("/readyz").await.then_some(())).await;
}

fn secrets(stage: &Stage) -> Api<Secret> {
    Api::namespaced(stage.client.clone(), chart::NAMESPACE)
}

fn configurations(stage: &Stage) -> Api<ValidatingWebhookConfiguration> {
    Api::all(stage.client.clone())
}

/// The bundle by which the apiserver knows both webhooks; none where they differ.
async fn bundle(stage: &Stage) -> Option<Vec<u8>> {
    let configuration = configurations(stage).get("sluice-agents").await.unwrap();
    let webhooks = configuration.webhooks.unwrap().into_iter();
    let bundles: Vec<_> = webhooks.map(|webhook| webhook.client_config.ca_bundle).collect();
    let [nodes, policies] = bundles.try_into().unwrap();
    nodes.filter(|bundle| policies.as_ref() == Some(bundle)).map(|bundle| bundle.0)
}

/// The bundle in the Secret.
async fn authorities(stage: &Stage) -> Option<Vec<u8>> {
    let secret = secrets(stage).get_opt("sluice-webhook").await.unwrap()?;
    Some(secret.data?.remove("ca.crt")?.0)
}
