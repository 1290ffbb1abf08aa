//! What the operator and its claims look like on a real, skewed cluster: `tests/cluster` says how that comes about.
//!
//! Every test is ignored by default, since it starts a cluster if there is none. `make e2e` shares the tests out over
//! several clusters; `cargo test --test e2e -- --ignored --test-threads=1` takes them one by one to the default one.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod agent;
mod api;
mod bed;
mod cells;
mod evidence;
mod failures;
mod kills;
mod managed;
mod operations;
mod operator;
mod policy;
mod process;
mod remediation;
mod rollout;
mod servers;
mod streams;
mod today;
mod uninstall;
mod walk;
