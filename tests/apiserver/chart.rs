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

/// Creates the chart's namespaces, ServiceAccounts, roles and bindings, and nothing else of it.
pub async fn install_rights(client: &Client) {
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE},
    });
    apply(client, serde_json::from_value(namespace).unwrap()).await;
    let mut rights = 0;
    for object in render() {
        let types = object.types.as_ref().unwrap();
        let kinds = ["Namespace", "ServiceAccount"];
        if types.api_version.starts_with("rbac.") || kinds.contains(&types.kind.as_str()) {
            apply(client, object).await;
            rights += 1;
        }
    }
    assert!(rights > 0, "the chart has no rights");
}

/// Creates the chart's ValidatingWebhookConfiguration, all of which leads to this port of this
/// machine: there is no Service network.
pub async fn install_webhook(client: &Client, port: u16) {
    let of_kind = |object: &DynamicObject| {
        object.types.as_ref().unwrap().kind == "ValidatingWebhookConfiguration"
    };
    let mut configuration = render().into_iter().find(of_kind).expect("the chart has no webhook");
    for webhook in configuration.data["webhooks"].as_array_mut().unwrap() {
        let to = &mut webhook["clientConfig"];
        let path = to["service"]["path"].as_str().unwrap().to_owned();
        *to = json!({"url": format!("https://127.0.0.1:{port}{path}")});
    }
    apply(client, configuration).await;
}

/// All objects of the chart but the definitions.
fn render() -> Vec<DynamicObject> {
    let output = Command::new(binaries().join("helm"))
        .args(["template", "sluice", concat!(env!("CARGO_MANIFEST_DIR"), "/charts/sluice")])
        .args(["--namespace", NAMESPACE, "--kube-version", super::VERSION])
        // Nothing pulls it.
        .args(["--set", "crds.install=false,image.repository=localhost/sluice"])
        .output()
        .expect("helm is missing: tests/cluster fetches it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    serde_saphyr::from_multiple(&text).unwrap()
}

/// Applies an object of any kind.
pub async fn apply(client: &Client, object: DynamicObject) {
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
