//! The schemas of our statuses, by which exactly what is wanted is written.

use std::sync::LazyLock;

use serde_json::Value;

use super::{StreamingNode, StreamingPolicy};
use crate::kubernetes::status::{HasStatus, schema_of};

static OF_NODE: LazyLock<Value> = LazyLock::new(schema_of::<StreamingNode>);
static OF_POLICY: LazyLock<Value> = LazyLock::new(schema_of::<StreamingPolicy>);

impl HasStatus for StreamingNode {
    fn schema() -> &'static Value {
        &OF_NODE
    }
}

impl HasStatus for StreamingPolicy {
    fn schema() -> &'static Value {
        &OF_POLICY
    }
}
