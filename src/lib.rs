//! Sluice carries a Kubernetes cluster from redirected to kubelet-proxied exec, attach and
//! port-forward (KEP-1558), and refuses the steps that would break it.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod agent;
pub mod api;
pub mod arguments;
pub mod canary;
pub mod cli;
pub mod cluster;
pub mod controller;
pub mod decision;
mod documents;
pub mod edit;
pub mod node;
mod pages;
pub mod relay;
pub mod remediator;
#[cfg(test)]
mod scripted;
mod status;
pub mod webhook;
