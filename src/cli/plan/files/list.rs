//! Lists that hold a part of what there is.

use serde_json::Value;

use super::{ObjectLocation, Unread, object::group, rights};
use crate::{api::GROUP, cli::plan::objects::Objects};

/// Tells of a list that an apiserver has cut off, where its kind matters. What it holds is taken all the same.
pub(super) fn check(
    objects: &mut Objects,
    place: &ObjectLocation,
    version: &str,
    kind: &str,
    list: &Value,
) {
    let matters = kind.strip_suffix("List").is_some_and(|of| of.is_empty() || is_read(version, of));
    if let Some(field) = cut_off(list).filter(|_| matters) {
        let (place, kind) = (place.clone(), kind.to_owned());
        objects.unread.push(Unread::Part { place, kind, field });
    }
}

/// Whether objects of this kind are looked at.
fn is_read(version: &str, kind: &str) -> bool {
    match kind {
        "Node" | "Pod" | "Endpoints" => version == "v1",
        "StreamingPolicy" | "StreamingNode" => group(version) == GROUP,
        _ => rights::kind(version, kind).is_some(),
    }
}

/// What says of a list that there is more: an apiserver that was given a limit says both, or the first
/// alone.
fn cut_off(list: &Value) -> Option<&'static str> {
    let says = |field: &str| match list.pointer(&format!("/metadata/{field}")) {
        None | Some(Value::Null) => false,
        Some(Value::String(token)) => !token.is_empty(),
        Some(Value::Number(count)) => count.as_u64() != Some(0),
        Some(_) => true,
    };
    ["continue", "remainingItemCount"].into_iter().find(|field| says(field))
}
