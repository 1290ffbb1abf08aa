//! Writes of a part of a status, so that the part is exactly what is wanted.
//!
//! It is no server-side apply, which takes away what the same manager has applied before and no longer
//! does, as far as the apiserver remembers that: it forgets on upgrades. Up to 1.20 it remembers a list
//! of a custom resource as a whole, and from 1.21 on by its items: of what was applied before, no item
//! goes. Up to 1.21 it remembers a status with the rest of its object, and from 1.22 on apart
//! (`managedFields[].subresource`): what was applied before stays a second owner, an item that goes
//! loses only the fields that have changed since, and without those every further apply is invalid. A
//! merge patch (RFC 7386) knows no owners. It takes nothing away that it does not name, so the answer
//! is looked at, and what is left over is named.

use std::fmt::Debug;

use kube::{
    Api, Client, Resource,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

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
    R: Resource<DynamicType = ()>,
    K: DeserializeOwned + Clone + Debug,
{
    let kind = ApiResource::erase::<R>(&());
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
    let params = PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
    let merge = async |status: &Value| {
        api.patch_status(name, &params, &Patch::Merge(json!({"status": status}))).await
    };
    let mut stored = merge(wanted).await?;
    let of_ours = stored.data["status"].as_object().map(|status| {
        status
            .iter()
            .filter(|(field, _)| ours(field))
            .map(|(f, v)| (f.clone(), v.clone()))
            .collect()
    });
    if let Some(left) = of_ours.and_then(|of_ours| leftover(wanted, &Value::Object(of_ours))) {
        stored = merge(&left).await?;
    }
    serde_json::to_value(stored).and_then(serde_json::from_value).map_err(kube::Error::SerdeError)
}

/// The merge patch (RFC 7386) that takes away what is stored beside what is wanted; `None` where there
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

    #[tokio::test]
    async fn only_what_is_ours_is_taken_away() {
        let others = json!({"verdict": "Safe", "change": {"id": "c"}});
        assert_eq!(asked(vec![others.clone()], json!({})).await, [json!({})]);
        let mut left = others.clone();
        left["agent"] = json!({"streams": "Relayed"});
        assert_eq!(asked(vec![left, others], json!({})).await, [json!({}), json!({"agent": null})]);
    }
}
