//! What is said to whoever writes a `StreamingPolicy`, and which ones are refused.
//!
//! [`rule`] decides, [`warning`] bounds what a client is shown, and `nodes` asks the apiserver. None
//! of this keeps a gate on: that the controller does when it decides, and the remediator again
//! before it writes. Here a person learns at once what would otherwise be a condition a second
//! later.

pub(super) mod nodes;
pub mod rule;
pub mod warning;
