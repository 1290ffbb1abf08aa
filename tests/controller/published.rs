//! What an apiserver publishes of Sluice's definitions: by this kubectl tells typos and `kubectl
//! explain` shows fields. Old ones publish less than they check.

use kube::Client;
use serde_json::{Value, json};

use crate::apiserver::{
    Apiserver, VERSION, binaries,
    definitions::{self, Schema},
    eventually,
};

#[tokio::test]
#[ignore = "needs the apiserver that the test cluster builds: make controller-test"]
async fn every_field_is_published_so_that_kubectl_finds_typos() {
    let mut versions = vec![VERSION.to_owned()];
    versions.extend(newest().filter(|newest| newest != VERSION));
    for version in versions {
        let server = Apiserver::start_of(&version, &[]).await;
        let client = server.client().await;
        definitions::install(&client, Schema::Shipped).await;
        let policy = published(&client, "StreamingPolicy").await;
        let wishes = &policy["properties"]["spec"]["properties"];
        for (field, typo) in [
            ("proxy.maxConnectionBytesPerSec", "proxy.maxConectionBytesPerSec"),
            ("nodes.remediation", "nodes.remediaton"),
        ] {
            let knows = |path: &str| {
                let (object, field) = path.split_once('.').unwrap();
                wishes[object]["properties"].get(field).is_some()
            };
            assert!(knows(field) && !knows(typo), "{version}: {field}: {wishes}");
        }
        for crd in sluice::api::crds() {
            let definition = json!(crd.definition);
            let kind = definition["spec"]["names"]["kind"].as_str().unwrap();
            let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            let missing = missing(kind, schema, &published(&client, kind).await);
            assert_eq!(missing, Vec::<String>::new(), "{version}");
        }
    }
}

/// The newest apiserver that has been built.
fn newest() -> Option<String> {
    let versions = std::fs::read_dir(binaries()).ok()?.filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        name.strip_prefix("kube-apiserver-")?.parse::<semver::Version>().ok()
    });
    versions.max().map(|version| version.to_string())
}

/// What kubectl is given of a kind, once it is: a while after the kind is served.
async fn published(client: &Client, kind: &str) -> Value {
    eventually("the kind is published", async || {
        let request = http::Request::get("/openapi/v2").body(Vec::new()).unwrap();
        let document: Value = client.request(request).await.ok()?;
        document["definitions"].get(format!("dev.sluice.v1alpha1.{kind}")).cloned()
    })
    .await
}

/// The fields of a schema that are not published.
fn missing(path: &str, schema: &Value, published: &Value) -> Vec<String> {
    let mut all = Vec::new();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        match published["properties"].get(name) {
            Some(known) => all.extend(missing(&path, property, known)),
            None => all.push(path),
        }
    }
    if schema["items"].is_object() {
        all.extend(missing(&format!("{path}[]"), &schema["items"], &published["items"]));
    }
    all
}
