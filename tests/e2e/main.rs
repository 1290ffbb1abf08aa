//! What the operator and its claims look like on a real, skewed cluster: `tests/cluster` says how that comes about.
//!
//! Every test is ignored by default, since the first one starts four hosts:
//! `cargo test --test e2e -- --ignored --test-threads=1`.

mod agent;
mod bed;
mod cells;
mod evidence;
mod failures;
mod managed;
mod operations;
mod operator;
mod policy;
mod remediation;
mod rollout;
mod servers;
mod streams;
