//! The CustomResourceDefinitions, made from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::CustomResourceExt;

use super::{StreamingNode, StreamingPolicy};

/// A CustomResourceDefinition and the name of its file.
#[derive(Clone, Debug)]
pub struct Crd {
    /// The file's name in `crds/`.
    pub file: &'static str,
    /// The definition.
    pub definition: CustomResourceDefinition,
}

/// All definitions, in the order in which they are applied.
pub fn all() -> Vec<Crd> {
    vec![
        Crd { file: "streamingpolicies.yaml", definition: tidied(StreamingPolicy::crd()) },
        Crd { file: "streamingnodes.yaml", definition: tidied(StreamingNode::crd()) },
    ]
}

/// Takes out what the derived schema says beyond the API.
fn tidied(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut definition.spec.versions {
        let root = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut());
        let Some(properties) = root.and_then(|root| root.properties.as_mut()) else { continue };
        for (name, schema) in properties {
            tidy(schema, name == "status");
        }
    }
    definition
}

fn tidy(schema: &mut JSONSchemaProps, in_status: bool) {
    // Defaults that exist so that we can read an older status are not for the apiserver to write.
    if in_status {
        schema.default = None;
    }
    // The apiserver knows int32 and int64 only, and warns about others; the range says the same.
    if schema.format.as_deref() == Some("uint32") {
        schema.format = None;
    }
    // A rate is a number or a text; null is neither, and would be an unreadable policy.
    if schema.x_kubernetes_int_or_string == Some(true) {
        schema.nullable = None;
    }
    for property in schema.properties.iter_mut().flat_map(|p| p.values_mut()) {
        tidy(property, in_status);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        tidy(items, in_status);
    }
}
