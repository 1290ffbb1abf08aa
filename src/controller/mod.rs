//! The process around the engine: who leads, when to stop, what is said to
//! Prometheus, to the kubelet's probes and to people reading Events.

pub mod events;
pub mod lease;
pub mod metrics;
pub mod serve;
pub mod shutdown;
