//! What is left in the API after `sluice uninstall`: nothing. No kubelet runs here, so the DaemonSets
//! that clean the nodes are played to be ready; what they do there is tried in `src` and on real nodes.

use std::{collections::BTreeSet, process::Command, time::Duration};

use k8s_openapi::api::apps::v1::DaemonSet;
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams},
    discovery::{Discovery, verbs},
};
use serde_json::json;

use crate::{
    apiserver::{Apiserver, User, binaries, chart, eventually, nodes, within},
    replica::{Lease, Replica},
    rollout::{self, AGENTS},
    stage::{POLICY, Stage},
};

const LEASE: Lease<'static> = Lease { namespace: chart::NAMESPACE, name: "sluice-controller" };

fn helm(server: &Apiserver, args: &[&str]) {
    let output = Command::new(binaries().join("helm"))
        .args(args)
        .arg("--kubeconfig")
        .arg(server.kubeconfig(User::Admin))
        .env("HELM_CACHE_HOME", server.folder().join("helm"))
        .output()
        .expect("helm is missing: tests/cluster fetches it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Installs or upgrades the chart as people do. The canaries' namespace would stay for ever: nobody here
/// ends namespaces.
fn release(server: &Apiserver, command: &str, webhook: bool) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/sluice");
    let values = format!(
        "canary.enabled=false,image.repository=mirror.example/sluice,webhook.enabled={webhook}"
    );
    let namespace = ["--namespace", chart::NAMESPACE];
    let mut args = vec![command, "sluice", folder, "--set", &values];
    args.extend(namespace);
    if command == "install" {
        args.push("--create-namespace");
    }
    helm(server, &args);
}

async fn uninstall(server: &Apiserver, args: &[&str]) -> (i32, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.arg("uninstall").args(args).arg("--timeout=20s");
    command.arg("--helm").arg(binaries().join("helm"));
    command.arg("--kubeconfig").arg(server.kubeconfig(User::Admin));
    let output =
        command.env("HELM_CACHE_HOME", server.folder().join("helm")).output().await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    eprintln!("{text}");
    (output.status.code().unwrap(), text)
}

/// Every object of every kind that is called after Sluice, or is in its namespace, but Events.
async fn everything(client: &Client) -> BTreeSet<String> {
    let discovery = Discovery::new(client.clone()).run().await.unwrap();
    let mut all = BTreeSet::new();
    for group in discovery.groups() {
        for (resource, capabilities) in group.recommended_resources() {
            if !capabilities.supports_operation(verbs::LIST) || resource.kind == "Event" {
                continue;
            }
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
            for object in api.list(&ListParams::default()).await.unwrap() {
                let object = describe(&resource, &object);
                if object.contains("sluice") {
                    all.insert(object);
                }
            }
        }
    }
    all
}

fn describe(resource: &ApiResource, object: &DynamicObject) -> String {
    let namespace = object.namespace().unwrap_or_default();
    format!("{}.{} {namespace}/{}", resource.plural, resource.group, object.name_any())
}

/// Plays the DaemonSets' controller and the kubelets: whatever is to clean the nodes is ready. Tells
/// which there were.
async fn sweep(client: Client, seen: tokio::sync::watch::Sender<Vec<String>>) {
    let sets: Api<DaemonSet> = Api::namespaced(client, chart::NAMESPACE);
    loop {
        let labels = ListParams::default().labels("app.kubernetes.io/component=sweep");
        for set in sets.list(&labels).await.map(|list| list.items).unwrap_or_default() {
            let name = set.name_any();
            if seen.borrow().contains(&name) {
                continue;
            }
            let status = json!({"status": {
                "currentNumberScheduled": 2, "desiredNumberScheduled": 2, "numberMisscheduled": 0,
                "numberReady": 2, "observedGeneration": set.metadata.generation,
            }});
            let patch = Patch::Merge(status);
            if sets.patch_status(&name, &PatchParams::default(), &patch).await.is_ok() {
                seen.send_modify(|seen| seen.push(name));
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
#[ignore = "needs the apiserver that the test cluster builds: make controller-test"]
async fn nothing_is_left() {
    let server = Apiserver::start().await;
    let client = server.client().await;
    nodes::control_plane(&client, "cp1").await;
    assert!(everything(&client).await.is_empty());

    // Nobody reaches the controller by its Service here, so the webhook comes later.
    release(&server, "install", false);
    let stage = Stage { server, client: client.clone() };
    let mut options = AGENTS.to_vec();
    options.extend(["--flags-configmap=sluice-flags", "--webhook-listen=127.0.0.1:0"]);
    let replica = Replica::start_with(&stage.server, User::Admin, "a", LEASE, &options).await;
    stage.create_policy(POLICY, json!({"proxy": {}})).await;
    rollout::daemon_set(&stage, |_| true).await;
    stage.judged(1).await;
    for object in [
        "configmaps. sluice-system/sluice-flags",
        "secrets. sluice-system/sluice-webhook",
        "leases.coordination.k8s.io sluice-system/sluice-controller",
        "deployments.apps sluice-system/sluice-controller",
        "daemonsets.apps sluice-system/sluice-agent",
        "streamingnodes.sluice.dev /cp1",
    ] {
        eventually(object, async || everything(&client).await.contains(object).then_some(())).await;
    }
    // It is dead, and nobody makes again what is taken away, nor takes anything away.
    drop(replica);

    // A change that was asked for keeps all of it.
    let change = json!({"spec": {"change": {
        "id": "1", "kind": "KubeletFlag", "policy": POLICY, "deadlineSeconds": 60,
        "verdict": {"resourceVersion": "1", "generation": 1, "at": "2026-01-01T00:00:00Z"},
    }}});
    let params = PatchParams::default();
    stage.streaming_nodes().patch("cp1", &params, &Patch::Merge(change)).await.unwrap();
    // Whoever writes StreamingNodes from now on asks somebody who does not answer.
    release(&stage.server, "upgrade", true);
    let standing = everything(&client).await;
    let (code, said) = uninstall(&stage.server, &["--purge"]).await;
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("cp1") && said.contains("--take-back"), "{said}");
    assert_eq!(everything(&client).await, standing);

    let (sender, seen) = tokio::sync::watch::channel(Vec::new());
    let playing = tokio::spawn(sweep(client.clone(), sender));
    let (code, said) = uninstall(&stage.server, &["--purge", "--take-back"]).await;
    playing.abort();
    assert_eq!(code, 0, "{said}");
    assert_eq!(*seen.borrow(), ["sluice-sweep-clean"], "no remediator was there");
    within(Duration::from_secs(20), "nothing is left", async || {
        let mut left = everything(&client).await;
        // Helm made it, and does not take it away.
        left.remove("namespaces. /sluice-system");
        if !left.is_empty() {
            eprintln!("left: {left:#?}");
        }
        left.is_empty().then_some(())
    })
    .await;
    let (code, said) = uninstall(&stage.server, &["--purge"]).await;
    assert_eq!(code, 0, "there is nothing more to do: {said}");
}
