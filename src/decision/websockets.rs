//! The second migration: streams over WebSockets, up to the kubelet (KEP-4006).
//!
//! [`gates`] is the history of its gates, [`node`] says what becomes of a WebSocket to one node,
//! [`cliffs`] which gates keep a component from starting, [`survey`] puts both together, [`safety`]
//! decides, [`rights`] says whose streams end when API servers ask for
//! `create` where `get` was enough, and [`steps`] says what has to be done before an upgrade.

pub mod cliffs;
pub mod gates;
pub mod node;
pub mod rights;
pub mod safety;
pub mod steps;
pub mod survey;
