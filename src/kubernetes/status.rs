//! Writes of a part of a status, so that the part is exactly what is wanted.
//!
//! Server-side apply cannot do this. It takes away what the same manager has applied before and no
//! longer does, as far as the apiserver remembers that, and an apiserver forgets on upgrades. Up to 1.20 it remembers a list
//! of a custom resource as a whole, and from 1.21 on by its items: of what was applied before, no item
//! goes. Up to 1.21 it remembers a status with the rest of its object, and from 1.22 on apart
//! (`managedFields[].subresource`): what was applied before stays a second owner, an item that goes
//! loses only the fields that have changed since, and without those every further apply is invalid. A
//! merge patch (RFC 7386) knows no owners. It takes nothing away that it does not name, so every field
//! that the schema knows and nobody wants is named in it: at no time is something new stored beside
//! something old. What a schema does not know, such as that of a newer release, the answer shows.

use std::fmt::Debug;

use kube::{
    Api, Client, CustomResourceExt, Resource,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// A kind of object with a status.
pub trait HasStatus: Resource<DynamicType = ()> {
    /// The schema of the status.
    fn schema() -> &'static Value;
}

/// The schema of the status in a definition.
pub fn schema_of<R: CustomResourceExt>() -> Value {
    // Without a schema only the answer tells what is left.
    let definition = serde_json::to_value(R::crd()).unwrap_or_default();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"].clone()
}

/// Makes those fields of a cluster-scoped object's status that are `ours`, by name, what is wanted: no
/// others of them are there after that. Returns what is stored.
///
/// # Errors
/// Where the apiserver refuses or cannot be reached, or answers what is no `K`.
pub async fn write<R, K>(
    client: &Client,
    name: &str,
    manager: &str,
    wanted: &Value,
    ours: impl Fn(&str) -> bool,
) -> kube::Result<K>
where
    R: HasStatus,
    K: DeserializeOwned + Clone + Debug,
{
    let kind = ApiResource::erase::<R>(&());
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
    let params = PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
    let merge = async |status: &Value| {
        api.patch_status(name, &params, &Patch::Merge(json!({"status": status}))).await
    };
    let mut patch = exactly(wanted, R::schema(), &ours);
    let mut stored = merge(&patch).await?;
    let of_ours = stored.data["status"].as_object().map(|status| {
        status
            .iter()
            .filter(|(field, _)| ours(field))
            .map(|(f, v)| (f.clone(), v.clone()))
            .collect()
    });
    if let Some(left) = of_ours.and_then(|of_ours| leftover(wanted, &Value::Object(of_ours))) {
        // The patch says again all that is wanted. Somebody else may have written in between, and what
        // is stored now is taken for the answer to what was wanted.
        name_also(&mut patch, left);
        stored = merge(&patch).await?;
    }
    serde_json::to_value(stored).and_then(serde_json::from_value).map_err(kube::Error::SerdeError)
}

/// The merge patch that makes of whatever is stored what is wanted, as far as the schema knows it.
fn exactly(wanted: &Value, schema: &Value, ours: &dyn Fn(&str) -> bool) -> Value {
    let Value::Object(wanted) = wanted else { return wanted.clone() };
    let known = schema["properties"].as_object();
    let mut patch: Map<String, Value> = known
        .into_iter()
        .flat_map(Map::keys)
        .filter(|field| ours(field))
        .map(|field| (field.clone(), Value::Null))
        .collect();
    for (field, value) in wanted {
        patch.insert(field.clone(), exactly(value, &schema["properties"][field], &|_| true));
    }
    Value::Object(patch)
}

/// Adds to a merge patch what another one names, where it says nothing itself.
fn name_also(patch: &mut Value, other: Value) {
    match (patch, other) {
        (Value::Object(patch), Value::Object(other)) => {
            for (field, other) in other {
                name_also(patch.entry(field).or_insert(Value::Null), other);
            }
        }
        (patch @ Value::Null, other) => *patch = other,
        _ => {}
    }
}

/// The merge patch that takes away what is stored beside what is wanted; `None` where there
/// is nothing of the kind. Lists are wanted whole.
fn leftover(wanted: &Value, stored: &Value) -> Option<Value> {
    match (wanted, stored) {
        (Value::Object(wanted), Value::Object(stored)) => {
            let left = stored.iter().filter_map(|(field, stored)| {
                let left = match wanted.get(field) {
                    Some(wanted) => leftover(wanted, stored)?,
                    None if stored.is_null() => return None,
                    None => Value::Null,
                };
                Some((field.clone(), left))
            });
            let left: Map<String, Value> = left.collect();
            (!left.is_empty()).then_some(Value::Object(left))
        }
        (Value::Array(items), Value::Array(stored)) => {
            let same = items.len() == stored.len()
                && items.iter().zip(stored).all(|(item, stored)| leftover(item, stored).is_none());
            (!same).then(|| wanted.clone())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use http::{Request, Response};
    use kube::client::Body;
    use tower_test::mock;

    use super::*;
    use crate::api::StreamingNode;

    /// What an apiserver makes of a merge patch.
    fn merged(stored: &Value, patch: &Value) -> Value {
        let Value::Object(patch) = patch else { return patch.clone() };
        let mut merged = stored.as_object().cloned().unwrap_or_default();
        for (field, value) in patch {
            if value.is_null() {
                merged.remove(field);
            } else {
                let before = merged.get(field).unwrap_or(&Value::Null);
                merged.insert(field.clone(), self::merged(before, value));
            }
        }
        Value::Object(merged)
    }

    #[test]
    fn what_is_left_goes_and_nothing_else() {
        let (a, b) = (json!({"name": "a", "says": "On"}), json!({"name": "b", "says": "Off"}));
        for (wanted, stored, left) in [
            (json!({}), json!({}), None),
            (json!({"x": 1}), json!({"x": 1}), None),
            (json!({"x": 1}), json!({"x": 1, "gone": null}), None),
            (json!({}), json!({"agent": {"streams": "Relayed"}}), Some(json!({"agent": null}))),
            (
                json!({"agent": {"streams": "Relayed"}}),
                json!({"agent": {"streams": "Relayed", "kubeletCrashLoops": {"message": "m"}}}),
                Some(json!({"agent": {"kubeletCrashLoops": null}})),
            ),
            (json!({"e": [a]}), json!({"e": [a]}), None),
            (json!({"e": [a]}), json!({"e": [b, a]}), Some(json!({"e": [a]}))),
            (json!({"e": []}), json!({"e": [b]}), Some(json!({"e": []}))),
            // An item that has kept a field.
            (
                json!({"e": [{"name": "a"}], "m": "kept"}),
                json!({"e": [a], "m": "kept"}),
                Some(json!({"e": [{"name": "a"}]})),
            ),
            (json!({"e": [a]}), Value::Null, None),
        ] {
            assert_eq!(leftover(&wanted, &stored), left, "{wanted} {stored}");
            let patch = left.unwrap_or_else(|| json!({}));
            let after = merged(&stored, &patch);
            assert_eq!(leftover(&wanted, &after), None, "{wanted} {stored}");
        }
    }

    /// An apiserver that gives these answers, and the patches of the status that it was asked for.
    async fn asked(answers: Vec<Value>, wanted: Value) -> Vec<Value> {
        let (service, handle) = mock::pair::<Request<Body>, Response<Body>>();
        let serving = tokio::spawn(async move {
            let (mut handle, mut asked) = (pin!(handle), Vec::new());
            for answer in answers {
                let (request, respond) = handle.next_request().await.unwrap();
                assert_eq!(request.headers()["content-type"], "application/merge-patch+json");
                let body = request.into_body().collect_bytes().await.unwrap();
                asked.push(serde_json::from_slice::<Value>(&body).unwrap()["status"].clone());
                let answer = json!({
                    "apiVersion": "sluice.dev/v1alpha1", "kind": "StreamingNode",
                    "metadata": {"name": "w1"}, "spec": {}, "status": answer,
                });
                respond.send_response(Response::new(serde_json::to_vec(&answer).unwrap().into()));
            }
            asked
        });
        let client = Client::new(service, "default");
        let ours = |field: &str| field == "agent";
        write::<StreamingNode, DynamicObject>(&client, "w1", "agent", &wanted, ours).await.unwrap();
        serving.await.unwrap()
    }

    #[test]
    fn nothing_old_is_stored_beside_something_new() {
        let ours = |field: &str| field == "agent";
        // A runtime whose certificate was seen, and now is not.
        let stored = json!({
            "verdict": "Safe",
            "agent": {"bootID": "a", "runtime": {"name": "containerd", "tls": true, "trusted": true},
                "kubeletCrashLoops": {"message": "m"}},
        });
        for wanted in [
            json!({"agent": {"bootID": "a", "runtime": {"name": "containerd", "tls": true}}}),
            json!({"agent": {"bootID": "b"}}),
            json!({}),
        ] {
            let after = merged(&stored, &exactly(&wanted, StreamingNode::schema(), &ours));
            let mut expected = wanted;
            expected["verdict"] = json!("Safe");
            assert_eq!(after, expected);
        }
    }

    #[tokio::test]
    async fn only_what_is_ours_is_taken_away() {
        let others = json!({"verdict": "Safe", "change": {"id": "c"}});
        let gone = json!({"agent": null});
        assert_eq!(asked(vec![others.clone()], json!({})).await, [gone]);
        // A field that this release does not know.
        let (told, mut left) = (json!({"agent": {"bootID": "b"}}), others.clone());
        left["agent"] = json!({"bootID": "b", "mood": "odd"});
        let patches = asked(vec![left, others], told).await;
        assert_eq!(patches[0]["agent"].get("mood"), None);
        assert_eq!(patches[1]["agent"]["mood"], Value::Null);
        assert!(patches[1]["agent"].as_object().unwrap().contains_key("mood"));
        for patch in patches {
            assert_eq!(patch["agent"]["bootID"], "b");
        }
    }
}
