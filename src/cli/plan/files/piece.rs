//! A piece of a text that is too large to be held as a whole.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::{Map, Value};

use super::{ObjectLocation, Unread, list, object};
use crate::{
    cli::plan::objects::Objects,
    cluster::NodeView,
    kubernetes::documents::large::{Piece, PieceLocation},
};

/// An object, of which a Node is read without what is not needed of it: there may be many.
pub(super) enum Item {
    /// A Node, and its name.
    Node(String, Box<NodeView>),
    /// Anything else.
    Other(Value),
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ItemVisitor;
        impl<'de> Visitor<'de> for ItemVisitor {
            type Value = Item;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Item, A::Error> {
                let mut fields = Map::new();
                while let Some((key, value)) = map.next_entry::<String, Value>()? {
                    fields.insert(key, value);
                    let text = |field: &str| fields.get(field).and_then(Value::as_str);
                    // kubectl prints these two first.
                    let known = (fields.len(), text("apiVersion"), text("kind"));
                    if known == (2, Some("v1"), Some("Node")) {
                        let node = NodeView::deserialize(MapAccessDeserializer::new(map))?;
                        let name = node.metadata.name.clone().filter(|name| !name.is_empty());
                        let name =
                            name.ok_or_else(|| de::Error::custom("a Node without a name"))?;
                        return Ok(Item::Node(name, Box::new(node)));
                    }
                }
                Ok(Item::Other(Value::Object(fields)))
            }
        }
        deserializer.deserialize_map(ItemVisitor)
    }
}

/// Adds what a piece holds.
pub(super) fn add(objects: &mut Objects, file: &str, at: PieceLocation, piece: Piece<Item>) {
    let item = at.item.map_or(String::new(), |item| format!(", items[{item}]"));
    let place = ObjectLocation { file: file.to_owned(), document: at.document, item };
    match piece {
        Piece::Known(Item::Node(name, node)) => {
            if let Err(unread) = object::add_node(objects, &place, name, *node) {
                objects.unread.push(unread);
            }
        }
        Piece::Known(Item::Other(value)) | Piece::Other(value) => {
            let list = at.list.as_ref().filter(|_| at.item.is_some());
            let typed =
                list.and_then(|(version, kind)| Some((&**version, kind.strip_suffix("List")?)));
            object::add(objects, &place, value, typed.filter(|(_, kind)| !kind.is_empty()));
        }
        Piece::List(rest) => {
            let text = |field: &str| rest.get(field).and_then(Value::as_str);
            let why = match (text("apiVersion"), text("kind")) {
                (Some(version), Some(kind)) if kind.ends_with("List") => {
                    return list::check(objects, &place, version, kind, &rest);
                }
                (Some(_), Some(_)) => "it has items, and its kind is no list",
                _ => "no kind and apiVersion",
            };
            objects.unread.push(Unread::NoObject { place, why });
        }
        Piece::Syntax(why) => objects.unread.push(Unread::Syntax { file: file.to_owned(), why }),
    }
}
