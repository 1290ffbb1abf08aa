//! Sluice carries a Kubernetes cluster from redirected to kubelet-proxied exec, attach and
//! port-forward (KEP-1558), and refuses the steps that would break it.

pub mod agent;
pub mod api;
pub mod canary;
pub mod cli;
pub mod cluster;
pub mod controller;
pub mod decision;
#[cfg(test)]
mod docs;
pub mod edit;
pub mod kubernetes;
pub mod node;
pub mod process;
pub mod relay;
pub mod remediator;
#[cfg(test)]
mod test_support;
pub mod webhook;
