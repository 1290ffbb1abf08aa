//! What the real binaries of Kubernetes say and do, held against the tables that Sluice decides by.
//!
//! Every kubelet and kube-apiserver that `tests/cluster` has built is asked: which flags and gates it
//! takes, what the gates are by default, and what becomes of a redirect. No cluster is needed; an
//! apiserver runs with an etcd of its own, and a kubelet that a test plays.
//!
//! `make facts`, or `cargo test --test facts -- --ignored --nocapture` to see the answers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../apiserver/mod.rs"]
mod apiserver;
mod apiservers;
mod binaries;
mod gates;
mod kubelets;
mod redirecting;
