//! The controller as a process against a real apiserver of Kubernetes 1.20.15.

mod admission;
#[path = "../apiserver/mod.rs"]
mod apiserver;
mod outage;
mod quiet;
#[path = "../replica/mod.rs"]
mod replica;
mod replicas;
mod rights;
mod rollout;
mod stage;
mod strangers;
mod verdicts;
