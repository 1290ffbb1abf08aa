//! The controller as a process against a real apiserver, of Kubernetes 1.20.15 unless a test says otherwise.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod admission;
#[path = "../apiserver/mod.rs"]
mod apiserver;
mod outage;
mod published;
mod quiet;
mod releases;
#[path = "../replica/mod.rs"]
mod replica;
mod replicas;
mod rights;
mod rollout;
mod stage;
mod strangers;
mod uninstall;
mod verdicts;
