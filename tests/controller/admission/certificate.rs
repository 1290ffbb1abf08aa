//! The webhook's certificate: made, published, mended, and left alone where it is somebody else's.

use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;
use sluice::webhook::certificate::{rotation::Step, stored};

use super::{authorities, bundle, configurations, ready, replica, secrets};
use crate::{
    apiserver::{chart, eventually, free_port, nodes},
    stage::Stage,
};

/// Waits until the apiserver trusts what is in the Secret, and that another than `before`.
async fn published(stage: &Stage, before: Option<&[u8]>) -> Vec<u8> {
    eventually("the configuration has the Secret's bundle", async || {
        let made = authorities(stage).await.filter(|made| Some(made.as_slice()) != before)?;
        (bundle(stage).await.as_ref() == Some(&made)).then_some(made)
    })
    .await
}

/// Whether a write that the webhook is asked about comes through.
async fn writes(stage: &Stage, what: &str) {
    eventually(what, async || {
        let patch = json!({"metadata": {"annotations": {"test": what}}});
        let params = PatchParams::default();
        let api = stage.streaming_nodes();
        // Without the client's own patience.
        let written = api.patch("cp1", &params, &Patch::Merge(patch)).await;
        written.inspect_err(|error| eprintln!("{what}: {error}")).ok()
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the apiserver that the test cluster builds: make controller-test"]
async fn replicas_share_a_certificate_and_mend_what_others_break() {
    let stage = Stage::set().await;
    chart::install_rights(&stage.client).await;
    let ports = [free_port(), free_port()];
    // The apiserver asks the standby.
    chart::install_webhook(&stage.client, ports[1]).await;
    let leader = replica(&stage, "a", ports[0], &[]).await;
    eventually("the first leads", async || leader.leads().await.then_some(())).await;
    let standby = replica(&stage, "b", ports[1], &[]).await;
    ready(&leader).await;
    ready(&standby).await;
    stage.judged(1).await;
    assert!(!standby.leads().await);
    let first = published(&stage, None).await;
    let version = secrets(&stage).get("sluice-webhook").await.unwrap().metadata.resource_version;
    let asked = standby.sum("sluice_webhook_requests_total{result=\"allowed\"}").await;
    assert!(asked > 0.0, "the standby has answered nothing");

    // As an upgrade of the chart may do, or a person.
    let wiped = json!([{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]);
    let wiped = Patch::Json::<()>(serde_json::from_value(wiped).unwrap());
    let params = PatchParams::default();
    configurations(&stage).patch("sluice-agents", &params, &wiped).await.unwrap();
    assert_eq!(published(&stage, None).await, first);
    // The other one's, too.
    let wiped = json!([{"op": "remove", "path": "/webhooks/1/clientConfig/caBundle"}]);
    let wiped = Patch::Json::<()>(serde_json::from_value(wiped).unwrap());
    configurations(&stage).patch("sluice-agents", &params, &wiped).await.unwrap();
    assert_eq!(published(&stage, None).await, first);
    let garbage = json!([{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle",
        "value": ByteString(first[..first.len() / 2].to_vec())}]);
    let garbage = Patch::Json::<()>(serde_json::from_value(garbage).unwrap());
    configurations(&stage).patch("sluice-agents", &params, &garbage).await.unwrap();
    assert_eq!(published(&stage, None).await, first);
    writes(&stage, "a write after the bundle was mended").await;
    let same = secrets(&stage).get("sluice-webhook").await.unwrap().metadata.resource_version;
    assert_eq!(same, version, "a bundle that was lost needs no new certificate");

    // The Secret is deleted: a new one, published, and served by both.
    secrets(&stage).delete("sluice-webhook", &DeleteParams::default()).await.unwrap();
    let second = published(&stage, Some(&first)).await;
    writes(&stage, "a write after the Secret was made again").await;

    // Half of it is taken away.
    let broken = json!({"data": {"tls.key": ByteString(b"none".to_vec())}});
    secrets(&stage).patch("sluice-webhook", &params, &Patch::Merge(broken)).await.unwrap();
    eventually("the key is made again", async || {
        let secret: Secret = secrets(&stage).get("sluice-webhook").await.unwrap();
        (secret.data?["tls.key"].0 != b"none").then_some(())
    })
    .await;
    // The authority was well, so it has signed the new one.
    assert_eq!(authorities(&stage).await, Some(second));
    writes(&stage, "a write after the key was made again").await;

    for of in [&leader, &standby] {
        assert!(of.probe("/readyz").await);
        let metrics = of.metrics().await;
        let name = "sluice_webhook_certificate_expiration_timestamp_seconds";
        let days = (metrics[name] - Timestamp::now().as_second() as f64) / 86_400.0;
        assert!((89.0..91.0).contains(&days), "{days} days");
        let refused = metrics.keys().filter(|key| key.contains("reason=\"CertificateRequest"));
        assert_eq!(refused.count(), 0, "{}", of.log());
        assert!(!of.log().contains("PRIVATE KEY"), "{}", of.log());
    }
}

#[tokio::test]
#[ignore = "needs the apiserver that the test cluster builds: make controller-test"]
async fn a_certificate_from_elsewhere_is_only_served() {
    let stage = Stage::set().await;
    chart::install_rights(&stage.client).await;
    let port = free_port();
    let replica = replica(&stage, "a", port, &["--webhook-certificate=external"]).await;
    eventually("the first leads", async || replica.leads().await.then_some(())).await;
    // Without the configuration nothing asks the webhook, so the controller works; it is not ready.
    stage.judged(1).await;
    assert!(replica.probe("/healthz").await && !replica.probe("/readyz").await);
    assert_eq!(authorities(&stage).await, None);

    let names = ["127.0.0.1".to_owned()].into();
    let data = stored::perform(Step::Begin, None, &names, Timestamp::now()).unwrap();
    let mut secret = Secret { data, ..Secret::default() };
    secret.metadata.name = Some("sluice-webhook".to_owned());
    let made = secrets(&stage).create(&PostParams::default(), &secret).await.unwrap();
    ready(&replica).await;
    chart::install_webhook(&stage.client, port).await;
    let trusted = made.data.clone().unwrap().remove("ca.crt").unwrap();
    let trusted = json!([{"op": "add", "path": "/webhooks/0/clientConfig/caBundle",
        "value": trusted}]);
    let trusted = Patch::Json::<()>(serde_json::from_value(trusted).unwrap());
    let params = PatchParams::default();
    configurations(&stage).patch("sluice-agents", &params, &trusted).await.unwrap();
    writes(&stage, "a write with the certificate from elsewhere").await;

    // It lacks the Service's names, which a managed one would get at once.
    stage.old_node("w1", "true").await;
    stage.judged(2).await;
    nodes::annotate(&stage.client, "w1", Some("false")).await;
    let now = secrets(&stage).get("sluice-webhook").await.unwrap();
    assert_eq!(now.metadata.resource_version, made.metadata.resource_version);
}
