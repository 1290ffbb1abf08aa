//! Sluice's CustomResourceDefinitions on a test's apiserver.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};

use super::eventually;

/// How much a definition checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    /// As it is shipped.
    Shipped,
    /// Nothing: as if an earlier version had allowed more.
    Loose,
}

/// Installs the definitions and waits until their objects are served.
pub async fn install(client: &Client, schema: Schema) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in sluice::api::crds() {
        let mut definition = crd.definition;
        if schema == Schema::Loose {
            for version in &mut definition.spec.versions {
                version.schema.get_or_insert_default().open_api_v3_schema = Some(JSONSchemaProps {
                    type_: Some("object".to_owned()),
                    x_kubernetes_preserve_unknown_fields: Some(true),
                    ..JSONSchemaProps::default()
                });
            }
        }
        let name = definition.metadata.name.clone().unwrap();
        let params = PatchParams::apply("test").force();
        api.patch(&name, &params, &Patch::Apply(definition)).await.unwrap();
        eventually("the definition is established", async || {
            let conditions = api.get(&name).await.ok()?.status?.conditions?;
            conditions.iter().any(|c| c.type_ == "Established" && c.status == "True").then_some(())
        })
        .await;
    }
    // Established is said a moment before the first request is answered.
    eventually("policies are served", async || {
        let policies: Api<sluice::api::StreamingPolicy> = Api::all(client.clone());
        let nodes: Api<sluice::api::StreamingNode> = Api::all(client.clone());
        let params = Default::default();
        (policies.list_metadata(&params).await.is_ok()
            && nodes.list_metadata(&params).await.is_ok())
        .then_some(())
    })
    .await;
}
