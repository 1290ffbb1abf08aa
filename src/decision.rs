//! The decision: from versions and evidence to verdicts.
//!
//! Plain functions over plain types. Nothing here does I/O, knows a Kubernetes type or reads a
//! clock; the controller, the command line and the tests call the same functions.
//!
//! The order of reading: [`migration`] holds the version table, [`gate`] and [`apiserver`] say what
//! the control plane is set to. Each migration has a folder of its own with its rules:
//! [`redirects`] is the first, [`websockets`] the second. [`steps`] is the form in which they say what to do before an upgrade.
//! [`proxy`] is about the streams of the nodes that a policy selects,
//! [`canary`] about what a real stream came to, and [`change`] about how far a change of a node has
//! come, and [`uninstall`] about whether one keeps Sluice from leaving.

pub mod apiserver;
pub mod canary;
pub mod change;
pub mod condition;
pub mod gate;
pub mod migration;
pub(crate) mod names;
pub mod proxy;
pub mod redirects;
pub mod steps;
pub mod uninstall;
pub mod websockets;
