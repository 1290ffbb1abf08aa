//! The chart's rights on a test's apiserver.

use std::process::Command;

use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams},
};

use serde_json::json;

use super::binaries;

/// Where the chart is installed.
pub const NAMESPACE: &str = "sluice-system";

/// Creates the chart's ServiceAccounts, roles and bindings, and nothing else of it.
pub async fn install_rights(client: &Client) {
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE},
    });
    apply(client, serde_json::from_value(namespace).unwrap()).await;
    let output = Command::new(binaries().join("helm"))
        .args(["template", "sluice", concat!(env!("CARGO_MANIFEST_DIR"), "/charts/sluice")])
        .args(["--namespace", NAMESPACE, "--kube-version", super::VERSION])
        .args(["--set", "crds.install=false"])
        .output()
        .expect("helm is missing: tests/cluster fetches it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let objects: Vec<DynamicObject> = serde_saphyr::from_multiple(&text).unwrap();
    let mut rights = 0;
    for object in objects {
        let types = object.types.as_ref().unwrap();
        if types.api_version.starts_with("rbac.") || types.kind == "ServiceAccount" {
            apply(client, object).await;
            rights += 1;
        }
    }
    assert!(rights > 0, "the chart has no rights:\n{text}");
}

async fn apply(client: &Client, object: DynamicObject) {
    let types = object.types.as_ref().unwrap();
    let kind = GroupVersionKind::try_from(types).unwrap();
    let resource = ApiResource::from_gvk(&kind);
    let api: Api<DynamicObject> = match &object.metadata.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let name = object.metadata.name.clone().unwrap();
    api.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(object)).await.unwrap();
}
