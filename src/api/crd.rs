//! The CustomResourceDefinitions, made from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
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
    // An apiserver publishes what may be null without its fields, so that kubectl lets every typo in it
    // pass. Absent and null mean the same to us, and an apiserver drops the nulls of what may not be null.
    schema.nullable = None;
    for property in schema.properties.iter_mut().flat_map(|p| p.values_mut()) {
        tidy(property, in_status);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        tidy(items, in_status);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        tidy(values, in_status);
    }
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;

    /// Calls `see` with each schema below this one, and its path.
    fn walk(path: &str, schema: &Value, see: &mut impl FnMut(&str, &Value)) {
        see(path, schema);
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            walk(&format!("{path}.{name}"), property, see);
        }
        for inner in [&schema["items"], &schema["additionalProperties"]] {
            if inner.is_object() {
                walk(&format!("{path}[]"), inner, see);
            }
        }
    }

    fn schemas() -> Vec<(String, Value)> {
        let mut seen = Vec::new();
        for crd in all() {
            let definition = json!(crd.definition);
            for version in definition["spec"]["versions"].as_array().unwrap() {
                let root = &version["schema"]["openAPIV3Schema"];
                let kind = definition["spec"]["names"]["kind"].as_str().unwrap();
                walk(kind, root, &mut |path, schema| seen.push((path.to_owned(), schema.clone())));
            }
        }
        seen
    }

    #[test]
    fn nothing_may_be_null_and_every_object_shows_its_fields() {
        let schemas = schemas();
        assert!(schemas.iter().any(|(path, _)| path == "StreamingNode.status.agent.runtime.tls"));
        for (path, schema) in schemas {
            assert_eq!(schema.get("nullable"), None, "{path}");
            if schema["type"] == "object" {
                let fields = schema.get("properties").or(schema.get("additionalProperties"));
                assert!(fields.is_some(), "{path}");
            }
            let names = schema["enum"].as_array().into_iter().flatten();
            assert!(names.clone().all(Value::is_string), "{path}: {names:?}");
        }
    }

    /// An apiserver that had stored nulls gives them back.
    #[test]
    fn null_means_what_absent_means() {
        fn same<T: DeserializeOwned + PartialEq + std::fmt::Debug>(kind: &str) {
            let empty = json!({"metadata": {"name": "a"}, "spec": {}});
            let absent: T = serde_json::from_value(empty.clone()).unwrap();
            let prefix = format!("{kind}.spec.");
            let mut tried = 0;
            for (path, schema) in schemas() {
                let Some(field) = path.strip_prefix(&prefix) else { continue };
                // What has a default, and lists and maps, could never be null.
                let never = ["default", "additionalProperties", "items"];
                if field.contains(['.', '[']) || never.iter().any(|key| schema.get(key).is_some()) {
                    continue;
                }
                let mut object = empty.clone();
                object["spec"][field] = Value::Null;
                assert_eq!(serde_json::from_value::<T>(object).unwrap(), absent, "{path}");
                tried += 1;
            }
            assert!(tried > 2, "{prefix}");
        }
        same::<StreamingPolicy>("StreamingPolicy");
        same::<StreamingNode>("StreamingNode");
    }
}
